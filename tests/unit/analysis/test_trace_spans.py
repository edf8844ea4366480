"""Self times and parents of spans: the arithmetic that every share rests on."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.modes.profile.traces.trace_steps import nest

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=40)
"""Whole numbers, so that sums are exact; so few that spans nest, overlap, touch, coincide and are empty."""


def arrays(spans: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in spans], dtype=float), np.array([d for _, d in spans], dtype=float)


def covered(spans: list[tuple[int, int]]) -> int:
    """Whole microseconds in which a span is under way, counted one by one."""
    return len({moment for start, duration in spans for moment in range(start, start + duration)})


@given(SPANS)
def test_self_times_sum_to_the_union_without_negative_ones(spans: list[tuple[int, int]]):
    start, duration = arrays(spans)
    own, _ = nest(start, duration)
    assert (own >= 0).all()
    assert (own <= duration).all()
    assert own.sum() == covered(spans)


@given(SPANS, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(spans: list[tuple[int, int]], chance: random.Random):
    start, duration = arrays(spans)
    own, parent = nest(start, duration)
    mixed = list(range(len(spans)))
    chance.shuffle(mixed)
    other_own, other_parent = nest(start[mixed], duration[mixed])

    def seen(times: np.ndarray, parents: np.ndarray, of: list[int]) -> list[tuple[object, ...]]:
        spans_of = [spans[i] for i in of]
        rows = zip(spans_of, times.tolist(), [spans_of[p] if p >= 0 else None for p in parents.tolist()], strict=True)
        return sorted(rows, key=repr)

    assert seen(own, parent, list(range(len(spans)))) == seen(other_own, other_parent, mixed)


@given(SPANS)
def test_a_parent_encloses_its_children(spans: list[tuple[int, int]]):
    start, duration = arrays(spans)
    _, parent = nest(start, duration)
    for child, above in enumerate(parent.tolist()):
        if above >= 0:
            assert start[above] <= start[child]
            assert start[above] + duration[above] >= start[child] + duration[child]
            assert above != child


def test_a_span_loses_what_its_children_cover():
    # 0..10 with 2..5 in it, in which lies 3..4; and 12..15 on its own
    own, parent = nest(*arrays([(0, 10), (2, 3), (3, 1), (12, 3)]))
    assert own.tolist() == [7, 2, 1, 3]
    assert parent.tolist() == [-1, 0, 1, -1]
