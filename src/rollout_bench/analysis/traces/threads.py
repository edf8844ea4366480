"""Events of each host thread as a tree: enclosing spans, self times and paths."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout_bench.analysis.traces.events import BETWEEN, DEVICE_ANNOTATION, KERNEL, RawEvents

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ROUNDING_US = 0.01
"""Microseconds by which a child may end after its parent: profilers round begin and duration separately."""


def nest(start: Floats, duration: Floats, tie: Indices | None = None) -> tuple[Floats, Indices]:
    """Return self time and parent of every span of one thread, in any order.

    Each moment counts for one span: the last one to begin among the running spans; of several, the shortest. So self
    times are never negative and add up to the union of all spans, whether they nest or overlap. A span's parent is the
    innermost span that was running when it began and that did not end before it.

    Args:
        start: begin of each span, in microseconds.
        duration: duration of each span, in microseconds, not negative.
        tie: order of equal spans: the span with the smaller value encloses the other.

    Returns:
        Self times in microseconds, and parents as indices into the spans, -1 without one.
    """
    count = len(start)
    end = start + duration
    order = np.lexsort((np.arange(count) if tie is None else tie, -end, start))
    own = [0.0] * count
    parent = [-1] * count
    begins, ends = start.tolist(), end.tolist()
    under_way: list[int] = []
    now = 0.0
    for i in order.tolist():
        begin = begins[i]
        now = _spend(under_way, ends, own, now, begin)
        reach = ends[i] - ROUNDING_US
        for candidate in reversed(under_way):
            if ends[candidate] >= reach:
                parent[i] = candidate
                break
        under_way.append(i)
    _spend(under_way, ends, own, now, float("inf"))
    return np.array(own, dtype=np.float64), np.array(parent, dtype=np.int64)


def _spend(under_way: list[int], ends: list[float], own: list[float], now: float, until: float) -> float:
    """Add the time from `now` to `until` to the running spans, removing those that end; return the new now."""
    while under_way:
        top = under_way[-1]
        end = ends[top]
        if end > until:
            if until > now:
                own[top] += until - now
            break
        if end > now:
            own[top] += end - now
            now = end
        under_way.pop()
    return until


def union(start: Floats, duration: Floats) -> float:
    """Return the microseconds in which at least one span is running."""
    if len(start) == 0:
        return 0.0
    order = np.argsort(start, kind="stable")
    begin, end = start[order], (start + duration)[order]
    before = np.concatenate(([begin[0]], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(end - np.maximum(begin, before), 0.0).sum())


def clip(start: Floats, duration: Floats, first: float, last: float) -> tuple[Floats, Floats]:
    """Return begin and duration of each span's part between `first` and `last`, in microseconds; 0 long if outside."""
    begin = np.minimum(np.maximum(start, first), last)
    return begin, np.maximum(np.minimum(start + duration, last) - begin, 0.0)


class Paths:
    """Paths of names by number, each made of a shorter path and one more name. Number 0 is the empty path."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._parts: list[tuple[int, int]] = [(0, 0)]
        self._numbers: dict[tuple[int, int], int] = {}

    def below(self, path: int, name: int) -> int:
        """Return the number of `path` extended by the name with that number."""
        known = self._numbers.get((path, name))
        if known is None:
            known = self._numbers[(path, name)] = len(self._parts)
            self._parts.append((path, name))
        return known

    def texts(self) -> list[str]:
        """Return every path as text."""
        texts = [""]
        for before, name in self._parts[1:]:
            texts.append(f"{texts[before]}{BETWEEN}{self._names[name]}" if before else self._names[name])
        return texts


@dataclass(frozen=True)
class Nested:
    """Surroundings of each event.

    Attributes:
        self_us: microseconds without the time of enclosed events; for the device's events the whole duration.
        parent: the innermost enclosing event, -1 without one.
        path: number of the path of its enclosing events.
    """

    self_us: npt.NDArray[np.float64]
    parent: npt.NDArray[np.int64]
    path: npt.NDArray[np.int64]
    paths: Paths


def nested(raw: RawEvents, unnamed: Collection[int]) -> Nested:
    """Nest the events of each thread of the host.

    Args:
        unnamed: numbers of names that are left out of paths: the names of steps.
    """
    start, duration, name, thread = (raw.array(c) for c in ("start", "duration", "name", "thread"))
    own, parent = duration.astype(np.float64), np.full(len(raw), -1, dtype=np.int64)
    path = np.zeros(len(raw), dtype=np.int64)
    paths = Paths(raw.names.texts)
    tie = _ties(raw)
    kind = raw.array("kind")
    host = (kind != KERNEL) & (kind != DEVICE_ANNOTATION)
    for number in np.unique(thread[host]):
        events = np.flatnonzero(host & (thread == number))
        self_us, above = nest(start[events], duration[events], tie[events])
        own[events] = self_us
        parent[events] = np.where(above >= 0, events[above], -1)
        order = np.lexsort((tie[events], -(start + duration)[events], start[events]))
        _lead(paths, path, parent, name, events[order], unnamed)
    return Nested(own, parent, path, paths)


def _lead(
    paths: Paths,
    path: npt.NDArray[np.int64],
    parent: npt.NDArray[np.int64],
    name: npt.NDArray[np.int32],
    events: npt.NDArray[np.int64],
    unnamed: Collection[int],
) -> None:
    """Fill in the paths of one thread's events, parents first."""
    inside: dict[int, int] = {}
    for event, above, word in zip(events.tolist(), parent[events].tolist(), name[events].tolist(), strict=True):
        before = inside[above] if above >= 0 else 0
        path[event] = before
        inside[event] = before if word in unnamed else paths.below(before, word)


def _ties(raw: RawEvents) -> npt.NDArray[np.int64]:
    """Return the order of events that begin and end together.

    They are ordered by the profiler's numbering, then name, then kind.
    """
    ranks = np.argsort(np.argsort(np.array(raw.names.texts, dtype=object), kind="stable"), kind="stable")
    # Events without a number, such as calls of the runtime, are enclosed by numbered ones.
    external = raw.array("external")
    numbered = np.where(external >= 0, external, np.iinfo(np.int64).max)
    place = np.empty(len(raw), dtype=np.int64)
    place[np.lexsort((raw.array("kind"), ranks[raw.array("name")], numbered))] = np.arange(len(raw))
    return place
