"""Events of each host thread as a tree: self times and paths."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout_bench.traces.events import BETWEEN
from rollout_bench.traces.raw_events import DEVICE_ANNOTATION, KERNEL, RawEvents
from rollout_bench.traces.spans import nest


class Paths:
    """Paths of names by number, each made of the path before it and one name more. Number 0 is the empty one."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._parts: list[tuple[int, int]] = [(0, 0)]
        self._numbers: dict[tuple[int, int], int] = {}

    def below(self, path: int, name: int) -> int:
        """The path that leads through `path` and then through the name of that number."""
        known = self._numbers.get((path, name))
        if known is None:
            known = self._numbers[(path, name)] = len(self._parts)
            self._parts.append((path, name))
        return known

    def texts(self) -> list[str]:
        """Every path as text."""
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
    """Nests the events of each thread of the host.

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
    """Fills in the paths of one thread's events, parents first."""
    inside: dict[int, int] = {}
    for event, above, word in zip(events.tolist(), parent[events].tolist(), name[events].tolist(), strict=True):
        before = inside[above] if above >= 0 else 0
        path[event] = before
        inside[event] = before if word in unnamed else paths.below(before, word)


def _ties(raw: RawEvents) -> npt.NDArray[np.int64]:
    """What tells events apart that begin and end together: the profiler's own numbering, then name, then kind."""
    ranks = np.argsort(np.argsort(np.array(raw.names.texts, dtype=object), kind="stable"), kind="stable")
    # Events without a number, such as calls of the runtime, are the inner ones.
    external = raw.array("external")
    numbered = np.where(external >= 0, external, np.iinfo(np.int64).max)
    place = np.empty(len(raw), dtype=np.int64)
    place[np.lexsort((raw.array("kind"), ranks[raw.array("name")], numbered))] = np.arange(len(raw))
    return place
