"""The anatomy of a step by closed forms: equal lengths, two lengths, waves, groups; and what holds of any pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.analysis.stats.anatomy import anatomy_of, group_ends_s, running

TIMES = st.floats(0.001, 1e4)
SPANS = st.lists(st.builds(lambda at, lasts: (at, at + lasts), st.floats(0, 1e4), TIMES), min_size=1, max_size=60)
"""When each sequence begins and ends."""


def step(
    begins_s: list[float],
    ends_s: list[float],
    tokens: list[int] | None = None,
    each: int = 1,
) -> dict[str, float]:
    """Return the anatomy of these sequences, `each` of them of one prompt."""
    n = len(ends_s)
    sides = (np.array(times, dtype=float) for times in (begins_s, ends_s))
    return anatomy_of(*sides, np.array(tokens or [8] * n), np.arange(n) // each, max(ends_s), max(tokens or [8]))


@given(st.integers(1, 200), TIMES)
def test_equal_lengths_have_neither_tail_nor_drain_nor_unused_slots(n: int, length_s: float) -> None:
    found = step([0.0] * n, [length_s] * n)
    one = {"t50_s": length_s, "t90_s": length_s, "t99_s": length_s, "makespan_s": length_s, "occupancy": 1}
    nothing = {"tail_s": 0, "tail_share": 0, "fill_s": 0, "drain_s": 0, "most_running": n}
    assert {name: found[name] for name in one | nothing} == pytest.approx(one | nothing)
    assert found.keys().isdisjoint({"group_p50_s", "group_p90_s", "straggler_gap_s"})


@given(st.integers(1, 99), st.integers(1, 50), TIMES, TIMES)
def test_the_share_of_short_sequences_decides_every_completion_time(
    short: int, times: int, short_s: float, more_s: float
) -> None:
    n, long_s = 100 * times, short_s + more_s
    found = step([0.0] * n, [short_s] * (short * times) + [long_s] * (n - short * times))
    for percent in (50, 90, 99):
        assert found[f"t{percent}_s"] == (short_s if short >= percent else long_s)
    assert (found["makespan_s"], found["tail_s"], found["drain_s"]) == (
        long_s,
        long_s - short_s if short >= 90 else 0,
        pytest.approx(more_s),
    )
    assert found["occupancy"] == pytest.approx((short * short_s + (100 - short) * long_s) / (100 * long_s))


@given(SPANS)
def test_running_sequences_integrate_and_all_parts_fit_the_step(found: list[tuple[float, float]]) -> None:
    begins, ends = map(list, zip(*found, strict=True))
    at_s, sequences = running(begins, ends)
    assert (np.diff(at_s) > 0).all()
    integral = float(sequences[:-1] @ np.diff(at_s))
    assert integral == pytest.approx(sum(ends) - sum(begins), abs=1e-6)
    one = step(begins, ends)
    assert (sequences[-1], one["most_running"]) == (0, sequences.max())
    assert integral == pytest.approx(one["occupancy"] * max(ends) * sequences.max())
    assert 0 < one["occupancy"] <= 1 + 1e-9
    assert min(ends) <= one["t50_s"] <= one["t90_s"] <= one["t99_s"] <= one["makespan_s"] == max(ends)
    assert 10 * sum(end <= one["t90_s"] for end in ends) >= 9 * len(ends) > 10 * sum(end < one["t90_s"] for end in ends)
    assert one["tail_s"] == one["makespan_s"] - one["t90_s"]
    assert 0 <= one["fill_s"] <= one["makespan_s"]
    assert 0 <= one["drain_s"] <= one["makespan_s"] - min(ends)


def test_the_drain_begins_after_the_last_peak_of_running_sequences() -> None:
    # two slots and three sequences: from 4 on, when nothing is left to begin, one of the slots is idle
    begins, ends = [0.0, 0.0, 3.0], [3.0, 4.0, 9.0]
    at_s, sequences = running(begins, ends)
    assert (at_s.tolist(), sequences.tolist()) == ([0, 3, 4, 9], [2, 2, 1, 0])
    found = step(begins, ends)
    assert (found["drain_s"], found["occupancy"]) == (5, pytest.approx(13 / 18))


def test_a_group_waits_from_its_median_to_its_last_sample() -> None:
    ends, prompt = np.array([1.0, 9.0, 2.0, 4.0, 4.0, 4.0, 3.0, 8.0]), np.array([0, 0, 0, 7, 7, 7, 2, 2])
    whole, half = group_ends_s(ends, prompt)
    assert (whole.tolist(), half.tolist()) == ([9, 8, 4], [2, 3, 4])
    assert anatomy_of(0 * ends, ends, prompt, prompt, 9.0, None)["straggler_gap_s"] == 4


def test_the_longest_sequence_has_a_speed_relative_to_the_median() -> None:
    found = step([0.0, 0.0, 0.0, 1.0], [2.0, 4.0, 4.0, 6.0], [10, 20, 40, 40])
    assert (found["longest_tokens"], found["longest_tokens_per_s"]) == (40, 8)  # of the two the one that ends last
    assert found["longest_speed"] == pytest.approx(8 / 6.5)  # of 5, 5, 10 and 8
    assert (
        found["response_length_mean_tokens"],
        found["response_length_max_tokens"],
        found["response_length_min_tokens"],
        found["response_length_clip_ratio"],
    ) == (27.5, 40, 10, 0.5)
    assert found["timing_per_token_ms"] == pytest.approx(6000 / 110)
