"""Contents of a message: size, fields, distance to the message before, and what it costs in several formats."""

import importlib.util
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from time import perf_counter
from typing import Any, Literal

from rollout_bench.modes.messages.record import FormatCost, FormatName, StepMessage

RUN_BYTES = 8
"""Minimum length in bytes of a run that counts as common to two messages; shorter runs occur by chance."""

EXACT_BYTES = 1 << 15
"""Largest message, in bytes, with an exact distance, whose time grows with the square of the size."""

HAS_RAPIDFUZZ = importlib.util.find_spec("rapidfuzz") is not None

REPEATS = 3
"""Number of repetitions of each conversion; the fastest counts."""

Wire = tuple[bytes, ...]
"""An encoded message: its main part, and its buffers."""

Encode = Callable[[Any], Sequence[bytes | memoryview]]
"""Returns the parts of an encoded message."""


def message_of(
    wire: Wire, before: Wire | None, pickled: Callable[[Any], Wire], vllm_msgpack: Encode | None = None
) -> StepMessage:
    """Return the message that was pickled as `wire` by `pickled`; `before` is that of the previous step.

    `vllm_msgpack` is vLLM's encoder between front end and core.
    """
    read_s, message = least(lambda: loaded(wire))
    make_s, _ = least(lambda: pickled(message))
    whole, previous = b"".join(wire), None if before is None else b"".join(before)
    distance, distance_by = (None, None) if previous is None else distance_between(whole, previous)
    return StepMessage(
        size_bytes=len(whole),
        buffer_bytes=sum(map(len, wire[1:])),
        make_s=make_s,
        read_s=read_s,
        distance=distance,
        distance_by=distance_by,
        fields={each.name: sum(map(len, pickled(getattr(message, each.name)))) for each in fields(message)},
        formats=dict(format_costs(message, None if before is None else loaded(before), pickled, vllm_msgpack)),
    )


def loaded(wire: Wire) -> Any:
    """Return the message that was pickled as `wire`."""
    return pickle.loads(wire[0], buffers=wire[1:])


def format_costs(
    message: Any, before: Any, pickled: Callable[[Any], Wire], vllm_msgpack: Encode | None = None
) -> Iterator[tuple[FormatName, FormatCost]]:
    """Yield what `message` would cost in other formats; reading gives the values, not vLLM's objects.

    The changed fields are found before the time is taken.
    """
    import msgspec

    ways: dict[FormatName, tuple[Encode, Callable[[Any], Any]]] = {
        "pickle_values": (lambda it: pickled(values_in(it)), loaded),
        "msgpack_values": (
            lambda it: (msgspec.msgpack.encode(values_in(it), enc_hook=pickle.dumps),),
            lambda wire: msgspec.msgpack.decode(wire[0]),
        ),
    }
    if vllm_msgpack is not None:
        ways["msgpack_vllm"] = (vllm_msgpack, lambda wire: msgspec.msgpack.decode(wire[0]))
    if before is not None:
        now, then = ({each.name: getattr(it, each.name) for each in fields(it)} for it in (message, before))
        changed = {name: value for name, value in now.items() if pickled(value) != pickled(then[name])}
        ways["pickle_changes"] = (lambda _: pickled(changed), loaded)
    for name, (encode, read) in ways.items():
        try:
            make_s, wire = least(lambda encode=encode: encode(message))  # type: ignore[misc]
            read_s, _ = least(lambda read=read, wire=wire: read(wire))  # type: ignore[misc]
        except TypeError:  # a format that has no such type
            continue
        yield name, FormatCost(size_bytes=sum(map(len, wire)), coding_s=make_s + read_s)


def values_in(value: Any) -> Any:
    """Return the values in an object without the names of its classes and fields: lists for dataclasses and structs."""
    names = [each.name for each in fields(value)] if is_dataclass(value) else getattr(value, "__struct_fields__", None)
    if names is not None:
        return [values_in(getattr(value, name)) for name in names]
    if isinstance(value, dict):
        return {key: values_in(each) for key, each in value.items()}
    return [values_in(each) for each in value] if isinstance(value, list | tuple | set) else value


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
