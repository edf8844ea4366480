"""Self times and parents of spans: the arithmetic that every share rests on."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.analysis.traces.threads import clip, nest, union

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=40)
"""Whole numbers, so that sums are exact; so few that spans nest, overlap, touch, coincide and are empty."""

HUGE = st.lists(
    st.tuples(st.floats(-1e13, 1e13), st.one_of(st.floats(0, 1e13), st.just(0.0), st.floats(0, 1e-3))), max_size=30
)


def arrays(spans: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in spans], dtype=float), np.array([d for _, d in spans], dtype=float)


def covered(spans: list[tuple[int, int]]) -> int:
    """Whole microseconds in which a span is under way, counted one by one."""
    return len({moment for start, duration in spans for moment in range(start, start + duration)})


@given(SPANS)
def test_self_times_add_up_to_the_union_and_none_is_negative(spans: list[tuple[int, int]]):
    start, duration = arrays(spans)
    own, _ = nest(start, duration)
    assert (own >= 0).all()
    assert (own <= duration).all()
    assert own.sum() == union(start, duration) == covered(spans)


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


@given(HUGE)
def test_huge_and_tiny_times_stay_sums(spans: list[tuple[float, float]]):
    start, duration = arrays(spans)
    own, parent = nest(start, duration)
    assert (own >= 0).all()
    assert np.isclose(own.sum(), union(start, duration), rtol=1e-9, atol=1.0)
    assert (parent < len(spans)).all()


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


def test_where_spans_overlap_the_one_that_began_last_counts():
    own, parent = nest(*arrays([(0, 10), (5, 10)]))
    assert own.tolist() == [5, 10]
    assert parent.tolist() == [-1, -1]


def test_a_child_that_outlasts_its_parent_by_rounding_is_still_its_child():
    _, parent = nest(np.array([0.0, 1.0]), np.array([10.0, 9.0004]))
    assert parent.tolist() == [-1, 0]


@given(SPANS, st.integers(0, 60), st.integers(0, 60))
def test_clipped_spans_lie_inside(spans: list[tuple[int, int]], one: int, other: int):
    first, last = sorted((one, other))
    start, duration = clip(*arrays(spans), first, last)
    moments = {m for s, d in spans for m in range(s, s + d)} & set(range(first, last))
    assert union(start, duration) == len(moments)
