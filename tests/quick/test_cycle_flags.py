"""Flags of transitions: the same weights must be the same, others must be others, and memory asleep must not grow."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.contracts.cycles import MemoryLook, Transition, TransitionPart, WeightProof, Weights, WeightUpdate
from rollout_bench.contracts.record import Iteration
from rollout_bench.measure.launch.flags import (
    growth,
    memory_grows,
    output_changed,
    update_without_effect,
    with_logged,
)
from rollout_bench.measure.launch.steadiness import quantile, two_sided_p

FIRST, SECOND = "1" * 16, "2" * 16


def proof(weights: Weights = "first", **changes: Any) -> WeightProof:
    digest = FIRST if weights == "first" else SECOND
    known = {"tensors": 50, "trained": 17, "changed": 18, "changed_trained": 17, "not_finite": 0}
    return WeightProof(**{"weights": weights, **known, "checksum": digest, "tokens": digest, **changes})


def transition(
    after: WeightProof | None = None,
    loaded: WeightProof | None = None,
    host: float = 1e9,
    free: float | None = None,
    parts: Sequence[str] = ("update",),
) -> Transition:
    look = MemoryLook(when="asleep", host_bytes=int(host), device_free_bytes=None if free is None else int(free))
    return Transition(
        elapsed_s=len(parts),
        parts=[TransitionPart(name=name, began_s=0, elapsed_s=1) for name in parts],  # type: ignore[arg-type]
        update=WeightUpdate(weights="second", load_s=1),
        memory=[look],
        proof=after,
        loaded=loaded,
    )


STARTED = proof("first", changed=0, changed_trained=0)
"""Of an engine that was loaded with the first weights."""


def series(*after: WeightProof) -> list[Transition]:
    """Return transitions whose updates have these proofs, each taken in the next pass."""
    ends = [None] * (len(after) - 1) + [after[-1]]
    return [transition(end, loaded) for end, loaded in zip(ends, (STARTED, *after[:-1]), strict=True)]


def earlier_series(*after: WeightProof) -> list[Transition]:
    """Return the same as earlier versions recorded it: each update has its proof, and the first what was before it."""
    return [transition(one, None if number else STARTED) for number, one in enumerate(after)]


Recorded = Callable[..., list[Transition]]
either_order = pytest.mark.parametrize("recorded", [series, earlier_series])


def sentences(flags: Sequence[Any]) -> list[tuple[str, str, str]]:
    return [(flag.code, flag.severity, flag.sentence) for flag in flags]


@either_order
def test_weights_that_change_and_come_back_raise_nothing(recorded: Recorded):
    seen = recorded(proof("second"), proof("first"), proof("second"), proof("first"))
    assert output_changed(seen) == update_without_effect(seen) == []


def test_updates_to_the_same_weights_need_change_nothing():
    seen = series(*[proof("first", changed=0, changed_trained=0)] * 3)
    assert output_changed(seen) == update_without_effect(seen) == []


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"tokens": "3" * 16}, "other greedy tokens"),
        ({"checksum": "3" * 16}, "other checksum"),
        ({"tokens": "3" * 16, "checksum": "3" * 16}, "other greedy tokens and another checksum"),
    ],
)
def test_the_first_weights_are_held_against_what_was_loaded(changes: dict[str, str], differs: str):
    flags = output_changed(series(proof("second"), proof("first", **changes), proof("second")))
    assert sentences(flags) == [
        (
            "output_changed",
            "invalid",
            f"After update 2 of 3, the first weights had {differs} than as loaded, where they should be the same.",
        )
    ]


@either_order
def test_the_second_weights_are_held_against_their_first_update(recorded: Recorded):
    seen = recorded(proof("second"), proof("first"), proof("second", tokens="3" * 16))
    (flag,) = output_changed(seen)
    assert flag.sentence == (
        "After update 3 of 3, the second weights had other greedy tokens than after update 1 of 3, where they should "
        "be the same."
    )


def test_values_that_are_no_numbers_are_another_output_at_once():
    (flag,) = output_changed(series(proof("second", not_finite=2)))
    assert flag.sentence == "After update 1 of 1, 2 of 50 tensors had values that are no finite numbers."


@either_order
def test_a_linear_weight_that_stays_is_an_update_without_effect(recorded: Recorded):
    (flag,) = update_without_effect(recorded(proof("second", changed_trained=16)))
    assert flag.severity == "invalid"
    assert (
        flag.sentence
        == "After update 1 of 1 (second weights), 1 of 17 weights that had to change were what they had been before."
    )


def test_tokens_that_stay_are_an_update_without_effect_though_all_weights_changed():
    (flag,) = update_without_effect(series(proof("second", tokens=FIRST)))
    assert "the same greedy tokens as with the first weights" in flag.sentence


@given(st.lists(st.integers(0, 10**12), min_size=3, max_size=40))
def test_the_growth_is_the_least_squares_slope_with_its_interval(values: list[int]):
    assume(len(set(values)) > 1)  # scipy has no slope of what is constant
    slope, low, high = growth(values)
    theirs = stats.linregress(range(len(values)), values)
    scale = max(map(abs, values)) or 1.0
    assert slope == pytest.approx(theirs.slope, abs=1e-9 * scale, rel=1e-6)
    reach = stats.t.ppf(0.975, len(values) - 2) * theirs.stderr
    assert (high - low) / 2 == pytest.approx(reach, abs=1e-6 * scale, rel=1e-4)


@given(st.floats(1e-4, 0.9), st.integers(1, 60))
def test_the_quantile_is_the_inverse_of_the_p_value(p: float, freedom: int):
    assert two_sided_p(quantile(p, freedom), freedom) == pytest.approx(p, rel=1e-6, abs=1e-12)
    assert quantile(p, freedom) == pytest.approx(stats.t.isf(p / 2, freedom), rel=1e-6)


def test_two_values_have_a_slope_and_no_interval():
    assert growth([1.0, 3.0]) == (2.0, -math.inf, math.inf)


def looks(host: Sequence[float], free: Sequence[float] | None = None) -> list[Transition]:
    free_of = [None] * len(host) if free is None else free
    return [transition(proof(), host=one, free=other) for one, other in zip(host, free_of, strict=True)]


@pytest.mark.parametrize("repeats", [4, 5, 10, 11])
def test_a_leak_is_named_with_its_size_wherever_it_is(repeats: int):
    grows = [1e9 + 8e6 * i for i in range(repeats)]
    (flag,) = memory_grows(looks(grows))
    assert flag.severity == "warning"
    assert flag.sentence == (
        "Memory of the host grew by 8.0 MB a repeat while the engine was paused or asleep "
        f"(95 % interval 8.0 to 8.0 MB, {repeats} repeats)."
    )
    (flag,) = memory_grows(looks([1e9] * repeats, [80e9 - value for value in grows]))
    assert flag.sentence.startswith("Memory of the device grew by 8.0 MB")


@pytest.mark.parametrize(
    "host",
    [
        pytest.param([1e9] * 10, id="constant"),
        pytest.param([1e9 + 5e5 * i for i in range(10)], id="less than a megabyte a repeat"),
        pytest.param([1e9 - 8e6 * i for i in range(10)], id="shrinks"),
        pytest.param([1e9] + [1.1e9] * 9, id="allocated once, at the beginning"),
        pytest.param([1e9 + 2e7 * min(i, 4) for i in range(10)], id="grows in the first half"),
        pytest.param([1e9, 1.008e9, 1.016e9], id="three repeats, whose halves share one"),
    ],
)
def test_what_does_not_go_on_growing_is_no_leak(host: list[float]):
    assert memory_grows(looks(host)) == []


def test_noise_is_called_a_leak_in_less_than_one_launch_of_twenty():
    draw = random.Random(1)
    found = sum(bool(memory_grows(looks([1e9 + draw.gauss(0, 2e7) for _ in range(10)]))) for _ in range(400))
    assert found < 0.05 * 400


def iteration(parts: Sequence[str]) -> Iteration:
    counts = {"requests": 1, "sequences": 1, "prompt_tokens": 1, "cached_prompt_tokens": None, "output_tokens": 1}
    done = transition(proof(), parts=parts)
    return Iteration(index=0, warmup=False, elapsed_s=1, transition=done, **counts)  # type: ignore[arg-type]


LOG = """
INFO 11-22 10:00:00 [abstract.py:391] It took 0.500000 seconds to fall asleep.
INFO 11-22 10:00:01 [abstract.py:409] It took 0.250000 seconds to wake up tags ['weights'].
INFO 11-22 10:00:02 [abstract.py:409] It took 0.125000 seconds to wake up tags ['kv_cache'].
"""


def test_parts_have_what_the_engine_logged_of_them_in_order():
    (one, two) = with_logged([iteration(["sleep", "wake_weights", "update", "wake_kv_cache"])] * 2, 2 * LOG)
    for each in (one, two):
        assert each.transition is not None
        assert [part.logged_s for part in each.transition.parts] == [0.5, 0.25, None, 0.125]


def test_a_log_with_lines_missing_says_nothing_of_any_part_of_that_kind():
    (one, two) = with_logged([iteration(["sleep", "wake", "update"])] * 2, LOG)
    for each in (one, two):
        assert each.transition is not None
        assert [part.logged_s for part in each.transition.parts] == [None, 0.25 if each is one else 0.125, None]
