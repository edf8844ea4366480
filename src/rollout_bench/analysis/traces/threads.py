"""Events of each host thread as a tree: which span encloses which, self times and paths."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout_bench.analysis.traces.events import BETWEEN, DEVICE_ANNOTATION, KERNEL, RawEvents

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

ROUNDING_US = 0.01
"""By how much a child may outlast its parent: profilers round begin and duration, each on its own."""


def nest(start: Floats, duration: Floats, tie: Indices | None = None) -> tuple[Floats, Indices]:
    """Self time and parent of every span of one thread, in any order.

    Each moment counts for one span: of those under way, the one that began last; of those that began together, the
    shortest. So self times are never negative and add up to the union of all spans, whether they nest or overlap.
    A span's parent is the innermost one that was under way when it began and lasted as long as it did.

    Args:
        start: when each span began, in microseconds.
        duration: how long it took, in microseconds, not negative.
        tie: what tells equal spans apart: the smaller one encloses the greater one.

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
    """Give the time from `now` to `until` to the spans under way, dropping those that end; return the new now."""
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
    """Return microseconds in which at least one of the spans is under way."""
    if len(start) == 0:
        return 0.0
    order = np.argsort(start, kind="stable")
    begin, end = start[order], (start + duration)[order]
    before = np.concatenate(([begin[0]], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(end - np.maximum(begin, before), 0.0).sum())


def clip(start: Floats, duration: Floats, first: float, last: float) -> tuple[Floats, Floats]:
    """Start and duration of what lies between `first` and `last` of each span, in microseconds; 0 long if nothing."""
    begin = np.minimum(np.maximum(start, first), last)
    return begin, np.maximum(np.minimum(start + duration, last) - begin, 0.0)


class Paths:
    """Paths of names by number, each made of the path before it and one name more. Number 0 is the empty one."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._parts: list[tuple[int, int]] = [(0, 0)]
        self._numbers: dict[tuple[int, int], int] = {}

    def below(self, path: int, name: int) -> int:
        """Return the path that leads through `path` and then through the name of that number."""
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
    """What surrounds each event.

    Attributes:
        self_us: microseconds less what is covered by enclosed events; of the device's events all of them.
        parent: the event that encloses it most closely, -1 without one.
        path: number of the path of those that enclose it.
    """

    self_us: npt.NDArray[np.float64]
    parent: npt.NDArray[np.int64]
    path: npt.NDArray[np.int64]
    paths: Paths


def nested(raw: RawEvents, unnamed: Collection[int]) -> Nested:
    """Nest the events of each thread of the host.

    Args:
        unnamed: numbers of names that stand in no path: those of the steps.
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
    """Return what tells events apart that begin and end together.

    The profiler's own numbering, then name, then kind.
    """
    ranks = np.argsort(np.argsort(np.array(raw.names.texts, dtype=object), kind="stable"), kind="stable")
    # Events without a number, such as calls of the runtime, are the inner ones.
    external = raw.array("external")
    numbered = np.where(external >= 0, external, np.iinfo(np.int64).max)
    place = np.empty(len(raw), dtype=np.int64)
    place[np.lexsort((raw.array("kind"), ranks[raw.array("name")], numbered))] = np.arange(len(raw))
    return place
