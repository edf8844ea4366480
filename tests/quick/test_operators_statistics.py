"""Operators mode's statistics: break-even where curves cross, intervals that hold the truth, sums over a step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_bench.analysis.inside.curves import Curve, Estimate, break_even, ranges, seconds, speedup, summed
from rollout_bench.analysis.inside.predictions import amdahl

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LOGS = np.log(np.array(TOKENS, dtype=float))


def exact(values: np.ndarray) -> Estimate:
    """Speed-ups without interval."""
    none = np.full_like(values, np.nan)
    return Estimate(values, none, none, "nothing")


def banded(values: np.ndarray, share: float) -> Estimate:
    return Estimate(values, values / (1 + share), values * (1 + share), "launches")


@given(st.floats(1.1, 1000), st.floats(0.05, 2))
def test_break_even_of_power_laws_is_found_exactly(crossing: float, slope: float) -> None:
    found = break_even(TOKENS, exact((np.array(TOKENS) / crossing) ** slope))
    assert found.kind == "from"
    assert found.at == pytest.approx(crossing, rel=1e-9)
    assert (found.low, found.high) == (None, None)
    down = break_even(TOKENS, exact((np.array(TOKENS) / crossing) ** -slope))
    assert (down.kind, down.at) == ("until", pytest.approx(crossing, rel=1e-9))


@given(st.floats(1, 200), st.floats(0.01, 20), st.floats(1.1, 900))
def test_break_even_of_a_faster_kernel_that_starts_slower_lies_between_the_right_neighbours(
    call: float, token: float, crossing: float
) -> None:
    saved = token / 2
    tokens = np.array(TOKENS)
    baseline, own = call + token * tokens, call + saved * crossing + (token - saved) * tokens
    found = break_even(TOKENS, exact(baseline / own))
    assert found.kind == "from"
    place = int(np.searchsorted(tokens, crossing))
    assert tokens[place - 1] * (1 - 1e-9) <= (found.at or 0) <= tokens[place] * (1 + 1e-9)


@given(
    st.lists(st.floats(0.2, 5).filter(lambda value: abs(value - 1) > 1e-3), min_size=len(TOKENS), max_size=len(TOKENS)),
    st.floats(0.001, 0.5),
    st.integers(2, 7),
)
def test_break_even_scales_with_the_tokens_and_its_interval_holds_it(
    values: list[float], share: float, factor: int
) -> None:
    ratio = banded(np.array(values), share)
    first, scaled = break_even(TOKENS, ratio), break_even([factor * each for each in TOKENS], ratio)
    assert first.kind == scaled.kind
    for name in ("at", "low", "high", "until"):
        own, other = getattr(first, name), getattr(scaled, name)
        assert (own is None) == (other is None)
        assert own is None or other == pytest.approx(factor * own)
    if first.low is not None:
        assert first.high is not None
        assert first.low <= (first.at or 0) <= first.high
    assert set(first.faster).isdisjoint(first.slower)


def test_where_nothing_crosses_it_is_said() -> None:
    ones = np.ones(len(TOKENS))
    assert break_even(TOKENS, banded(1.5 * ones, 0.01)).kind == "always"
    assert break_even(TOKENS, banded(0.8 * ones, 0.01)).kind == "never"
    assert break_even(TOKENS, banded(1.001 * ones, 0.01)).kind == "unclear"
    partly = break_even(TOKENS, banded(np.where(np.array(TOKENS) > 60, 1.5, 1.001), 0.01))
    assert (partly.kind, partly.faster, partly.slower) == ("always", (64, 128, 256, 512, 1024), ())
    hill = break_even(TOKENS, exact(np.where((np.array(TOKENS) > 5) & (np.array(TOKENS) < 100), 2.0, 0.5)))
    assert (hill.kind, hill.at, hill.until) == ("between", pytest.approx(math.sqrt(32)), pytest.approx(math.sqrt(8192)))
    bump = break_even(TOKENS, banded(np.where(np.array(TOKENS) == 4, 1.01, 0.8), 0.05))
    assert (bump.kind, bump.slower) == ("never", (1, 2, 8, 16, 32, 64, 128, 256, 512, 1024))


def test_an_interval_that_leaves_the_measured_tokens_has_an_open_end() -> None:
    found = break_even(TOKENS, banded(np.exp(0.01 * (LOGS - LOGS[5])), 0.5))
    assert found.kind == "unclear"
    steep = break_even(TOKENS, banded(np.exp(0.3 * (LOGS - LOGS[9])), 0.3))
    assert steep.kind == "from"
    assert steep.at == pytest.approx(512)
    assert 1 < (steep.low or 0) < 512
    assert steep.high == math.inf


@pytest.mark.parametrize("values", [[1.0] * 10, [0.0] + [1.0] * 10, [math.nan] + [1.0] * 10])
def test_what_is_no_curve_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="speed-up"):
        break_even(TOKENS, exact(np.array(values)))
    with pytest.raises(ValueError, match="rising"):
        break_even([2, 1], exact(np.ones(2)))


def test_ranges_join_neighbours_of_the_sweep_only() -> None:
    assert ranges(TOKENS, [1, 2, 4, 64, 512, 1024]) == [(1, 4), (64, 64), (512, 1024)]
    assert ranges(TOKENS, []) == []


def launches(seed: int, count: int, factor: float = 1.0, noise: float = 0.03, rounds: int = 20) -> Curve:
    random = np.random.default_rng(seed)
    base = factor * 1e-4 * (1 + np.array(TOKENS) / 50)
    return Curve(
        TOKENS,
        {
            launch: base * (1 + noise * random.standard_normal()) * (1 + noise * random.standard_normal((rounds, 11)))
            for launch in range(count)
        },
    )


@settings(max_examples=settings.default.max_examples // 5)
@given(st.floats(1e-6, 1e6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 50))
def test_speedups_do_not_know_the_unit_of_time(scale: float, own: int, theirs: int, seed: int) -> None:
    sides = [launches(seed, own, 0.8), launches(seed + 1000, theirs)]
    scaled = [Curve(TOKENS, {i: scale * rounds for i, rounds in side.rounds.items()}) for side in sides]
    first, second = speedup(*sides, 0.95), speedup(*scaled, 0.95)
    assert first.over == second.over == ("launches" if min(own, theirs) > 1 else "rounds")
    for part in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(first, part), getattr(second, part), rtol=1e-9)
    assert (first.low <= first.value).all()
    assert (first.value <= first.high).all()


def test_intervals_over_launches_hold_the_true_speedup_as_often_as_they_say() -> None:
    hits = []
    for seed in range(400):
        found = speedup(launches(seed, 3, 0.8), launches(seed + 10_000, 3), 0.9)
        hits += [(found.low[0] < 1.25) & (found.high[0] > 1.25)]
    assert 0.85 < np.mean(hits) < 0.95


def test_intervals_over_the_rounds_of_one_launch_hold_its_own_median_as_often_as_they_say() -> None:
    random = np.random.default_rng(7)
    hits = []
    for _ in range(300):
        sides = [Curve((1, 2), {0: np.exp(0.1 * random.standard_normal((20, 2)))}) for _ in range(2)]
        found = speedup(sides[0], sides[1], 0.95)
        assert found.over == "rounds"
        hits += [(found.low[0] < 1) & (found.high[0] > 1)]
    assert 0.9 < np.mean(hits) <= 1


def test_one_disturbed_round_hardly_moves_a_time() -> None:
    curve = launches(1, 1, noise=0.001)
    disturbed = Curve(TOKENS, {0: np.vstack([100 * curve.rounds[0][:1], curve.rounds[0][1:]])})
    np.testing.assert_allclose(seconds(disturbed, 0.95).value, seconds(curve, 0.95).value, rtol=0.002)


def test_copies_of_one_launch_have_no_interval() -> None:
    own, theirs = launches(1, 1, 0.5), launches(2, 1)
    found = speedup(*(Curve(TOKENS, {0: side.rounds[0], 1: side.rounds[0]}) for side in (own, theirs)), 0.95)
    assert found.over == "nothing"
    assert np.isnan(found.low).all()


def test_a_step_is_the_sum_of_its_layers() -> None:
    flat = {
        name: Curve((4,), {0: np.full((rounds, 1), value)}) for name, rounds, value in [("a", 5, 2.0), ("b", 4, 3.0)]
    }
    total = summed(flat, {"a": 10, "b": 1})
    assert total.rounds[0].tolist() == [[23.0]] * 4


@given(st.floats(0, 1), st.floats(0.01, 100))
def test_amdahl_lies_between_nothing_and_the_whole(share: float, gain: float) -> None:
    found = amdahl(share, gain)
    assert min(1, gain) * (1 - 1e-9) <= found <= max(1, gain) * (1 + 1e-9)
    assert amdahl(1, gain) == pytest.approx(gain)
    assert amdahl(0, gain) == 1


def test_amdahl_refuses_what_is_no_share() -> None:
    with pytest.raises(ValueError, match="share"):
        amdahl(1.1, 2)
