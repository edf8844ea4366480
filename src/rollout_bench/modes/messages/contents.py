"""Contents of a message: size, time to pickle and unpickle it, fields, and distance to the message before."""

import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import fields
from time import perf_counter
from typing import Any, Literal

from rollout_bench.modes.messages.record import StepMessage

RUN_BYTES = 8
"""Minimum length in bytes of a run that counts as common to two messages; shorter runs occur by chance."""

EXACT_BYTES = 1 << 15
"""Largest message, in bytes, with an exact distance, whose time grows with the square of the size."""

HAS_RAPIDFUZZ = importlib.util.find_spec("rapidfuzz") is not None

REPEATS = 3
"""Number of repetitions of each conversion; the fastest counts."""

Wire = tuple[bytes, ...]
"""A pickled message: its main part, and its buffers."""


def message_of(wire: Wire, before: Wire | None, pickled: Callable[[Any], Wire]) -> StepMessage:
    """Return the message that was pickled as `wire` by `pickled`; `before` is that of the previous step."""
    read_s, message = least(lambda: pickle.loads(wire[0], buffers=wire[1:]))
    make_s, _ = least(lambda: pickled(message))
    whole, previous = b"".join(wire), None if before is None else b"".join(before)
    distance, distance_by = (None, None) if previous is None else distance_between(whole, previous)
    return StepMessage(
        size_bytes=len(whole),
        make_s=make_s,
        read_s=read_s,
        distance=distance,
        distance_by=distance_by,
        fields={each.name: sum(map(len, pickled(getattr(message, each.name)))) for each in fields(message)},
    )


def repeated_bytes(message: bytes, before: bytes) -> int:
    """Return the number of bytes of `message` in runs of at least `RUN_BYTES` bytes that also occur in `before`."""
    import numpy as np

    if min(len(message), len(before)) < RUN_BYTES:
        return 0
    starts = np.flatnonzero(np.isin(_windows(message), _windows(before)))
    edges = np.zeros(len(message) + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + RUN_BYTES, -1)
    return int(np.count_nonzero(np.cumsum(edges)[:-1]))


def _windows(content: bytes) -> Any:
    """Return every run of `RUN_BYTES` bytes in `content`, each as one number."""
    import numpy as np

    view = np.lib.stride_tricks.sliding_window_view(np.frombuffer(content, dtype=np.uint8), RUN_BYTES)
    return np.ascontiguousarray(view).view(np.uint64).ravel()


def distance_between(message: bytes, before: bytes) -> tuple[int, Literal["levenshtein", "runs"]]:
    """Return the distance of two messages in bytes, and its method."""
    if HAS_RAPIDFUZZ and max(len(message), len(before)) <= EXACT_BYTES:
        from rapidfuzz.distance import Levenshtein  # type: ignore[import-not-found,unused-ignore]

        return int(Levenshtein.distance(before, message)), "levenshtein"
    return len(message) - repeated_bytes(message, before), "runs"


def least(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest time of several calls in seconds, and the last result."""
    times, done = [], None
    for _ in range(REPEATS):
        began = perf_counter()
        done = call()
        times.append(perf_counter() - began)
    return min(times), done
