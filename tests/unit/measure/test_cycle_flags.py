"""Flags of transitions: the same weights must be the same, others must be others, and memory asleep must not grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rollout_bench.contracts.cycles import MemoryLook, Transition, TransitionPart, WeightProof, Weights, WeightUpdate
from rollout_bench.measure.launch.flags import (
    output_changed,
    update_without_effect,
)

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
