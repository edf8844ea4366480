"""Contents of a message: bytes by field, size in other formats, and difference from the previous message."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

from rollout_bench.contracts.messages import (
    FormatSize,
    Link,
    MessageContent,
    MessageDifference,
    MessageFormat,
    MessagePart,
)
from rollout_bench.measure.probes.message_notes import Wire, size_of

RUN_BYTES = 8
"""Minimum length in bytes of a run that counts as common to two messages; shorter runs occur by chance."""

EXACT_BYTES = 1 << 15
"""Largest message, in bytes, with an exact distance, whose time grows with the square of the size."""

HAS_RAPIDFUZZ = importlib.util.find_spec("rapidfuzz") is not None

REPEATS = 3
"""Number of repetitions of each conversion; the fastest counts."""

PROTOCOL: int = 5


@dataclass
class Contents:
    """Analyses the messages of one pass, each against the previous one with the same link, writer and method."""

    _before: dict[tuple[Any, ...], bytes] = field(default_factory=dict)

    def of(self, wire: Wire, through_socket: bool, link: Link, rank: int | None, method: str) -> MessageContent:
        """Return the contents of the message that was sent as `wire`."""
        whole = b"".join(wire)
        before = self._before.get((link, rank, method))
        self._before[link, rank, method] = whole
        on_ring = link in ("core_to_workers", "workers_to_core")
        message = pickle.loads(wire[0], buffers=wire[1:]) if on_ring else decoded(wire, link)
        known = None if before is None else repeated_bytes(whole, before)
        distance, distance_by = (None, None) if known is None else distance_between(whole, before or b"", known)
        return MessageContent(
            inline_bytes=len(wire[0]),
            out_of_band_bytes=sum(map(len, wire[1:])),
            buffers=len(wire) - 1,
            through="ring" if on_ring and not through_socket else "socket",
            distance=distance,
            distance_by=distance_by,
            repeated_bytes=known,
            fields=fields_of(message, pickled_size if on_ring else packed_size),
            formats={
                name: size for name, made in FORMATS.items() if (size := made(message, _TYPES.get(link))) is not None
            },
            difference=None if before is None else difference(whole, before),
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


def distance_between(message: bytes, before: bytes, repeated: int) -> tuple[int, Literal["levenshtein", "runs"]]:
    """Return the distance of two messages in bytes, and its method; `repeated` is from `repeated_bytes`."""
    if HAS_RAPIDFUZZ and max(len(message), len(before)) <= EXACT_BYTES:
        from rapidfuzz.distance import Levenshtein  # type: ignore[import-not-found,unused-ignore]

        return int(Levenshtein.distance(before, message)), "levenshtein"
    return len(message) - repeated, "runs"


def difference(message: bytes, before: bytes) -> MessageDifference:
    """Return the size and times of a difference with which a reader of `before` can rebuild `message`."""

    def make() -> bytes:
        compressor = zlib.compressobj(level=1, wbits=-15, zdict=before)
        return compressor.compress(message) + compressor.flush()

    def apply() -> bytes:
        return zlib.decompressobj(wbits=-15, zdict=before).decompress(made)

    make_s, made = least(make)
    apply_s, again = least(apply)
    assert again == message, "a difference makes the message"
    return MessageDifference(size_bytes=len(made), make_s=make_s, apply_s=apply_s)


def least(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the shortest time of several calls in seconds, and the last result."""
    times, done = [], None
    for _ in range(REPEATS):
        began = perf_counter()
        done = call()
        times.append(perf_counter() - began)
    return min(times), done


def decoded(wire: Wire, link: Link) -> Any:
    """Return the object of a message that was sent over a socket."""
    from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
    from vllm.v1.serial_utils import MsgpackDecoder

    return MsgpackDecoder(EngineCoreOutputs if link == "core_to_front_end" else EngineCoreRequest).decode(wire)


def pickled_size(message: Any) -> int:
    """Return the size of `message` in bytes as a pickle without separate buffers."""
    return len(pickle.dumps(message, protocol=PROTOCOL))


def packed_size(message: Any) -> int:
    """Return the size of `message` in bytes in vLLM's msgpack."""
    from vllm.v1.serial_utils import MsgpackEncoder

    return size_of(list(MsgpackEncoder().encode(message)))


def in_pickle(message: Any, _: Any) -> FormatSize:
    """Return size and times of `message` in Python's pickle."""
    buffers: list[Any] = []

    def make() -> bytes:
        buffers.clear()
        return pickle.dumps(message, protocol=PROTOCOL, buffer_callback=buffers.append)

    make_s, made = least(make)
    beside = [buffer.raw() for buffer in buffers]
    read_s, _ = least(lambda: pickle.loads(made, buffers=beside))
    return FormatSize(size_bytes=size_of([made, *beside]), make_s=make_s, read_s=read_s, typed=True)


def in_msgpack(message: Any, types: Callable[[], Any] | None) -> FormatSize | None:
    """Return size and times of `message`, of `types`, in vLLM's msgpack; None if msgpack cannot represent it."""
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    encoder = MsgpackEncoder()
    try:
        make_s, made = least(lambda: encoder.encode(message))
    except (TypeError, ValueError):
        return None
    for kind in (types, None):
        try:
            decoder = MsgpackDecoder(None if kind is None else kind())
            read_s, _ = least(lambda: decoder.decode(list(made)))  # noqa: B023 (called immediately)
        except Exception:  # several types from msgspec and typing
            continue
        return FormatSize(size_bytes=size_of(list(made)), make_s=make_s, read_s=read_s, typed=kind is not None)
    return None


FORMATS: dict[MessageFormat, Callable[[Any, Any], FormatSize | None]] = {"pickle5": in_pickle, "msgpack": in_msgpack}


def _request_type() -> Any:
    from vllm.v1.engine import EngineCoreRequest

    return EngineCoreRequest


def _outputs_type() -> Any:
    from vllm.v1.engine import EngineCoreOutputs

    return EngineCoreOutputs


def _to_workers_type() -> Any:
    from vllm.v1.core.sched.output import SchedulerOutput

    return tuple[str, tuple[SchedulerOutput | None], dict[str, Any], int | None]


def _from_workers_type() -> Any:
    from vllm.v1.outputs import ModelRunnerOutput

    return tuple[int, ModelRunnerOutput | None]


_TYPES: dict[Link, Callable[[], Any]] = {
    "front_end_to_core": _request_type,
    "core_to_workers": _to_workers_type,
    "workers_to_core": _from_workers_type,
    "core_to_front_end": _outputs_type,
}


def fields_of(message: Any, size: Callable[[Any], int]) -> dict[MessagePart, int]:
    """Return the bytes of `message` by their purpose; the sum is `size(message)`."""
    left = total = size(message)
    found: dict[MessagePart, int] = {}
    for name, emptied in emptied_in_turn(message):
        now_left = size(emptied)
        found[name] = left - now_left
        left = now_left
    assert sum(found.values()) + left == total
    return {**found, "rest": left}


def emptied_in_turn(message: Any) -> Iterator[tuple[MessagePart, Any]]:
    """Yield the name of each field and a copy of `message` in which this and all earlier fields are empty."""
    if not isinstance(message, tuple):
        yield from _emptied(message)
        return
    for place, part in enumerate(message):  # (method, args, kwargs, rank) or (status, output)
        inside = part[0] if isinstance(part, tuple) and part else part
        for name, emptied in _emptied(inside):
            held = (emptied, *part[1:]) if isinstance(part, tuple) else emptied
            yield name, (*message[:place], held, *message[place + 1 :])


def _emptied(part: Any) -> Iterator[tuple[MessagePart, Any]]:
    yield from _EMPTIED.get(type(part).__name__, lambda _: iter(()))(part)


def _changed(part: Any, **changes: Any) -> Any:
    """Return a copy of `part` with `changes`; fields that this version of vLLM lacks are ignored."""
    part = copy.copy(part)
    for name, value in changes.items():
        if hasattr(part, name):
            setattr(part, name, value)
    return part


def _of_scheduler_output(part: Any) -> Iterator[tuple[MessagePart, Any]]:
    new = [
        _changed(request, prompt_token_ids=None, prefill_token_ids=None, prompt_is_token_ids=None)
        for request in part.scheduled_new_reqs
    ]
    part = _changed(part, scheduled_new_reqs=new)
    yield "prompt_token_ids", part
    new = [_changed(request, sampling_params=None) for request in new]
    part = _changed(part, scheduled_new_reqs=new)
    yield "sampling_parameters", part
    cached = _changed(part.scheduled_cached_reqs, new_block_ids=[])
    new = [_changed(request, block_ids=()) for request in new]
    part = _changed(part, scheduled_new_reqs=new, scheduled_cached_reqs=cached)
    yield "block_ids", part
    part = _changed(part, scheduled_new_reqs=[])
    yield "new_requests", part
    yield "cached_requests", _changed(part, scheduled_cached_reqs=None)


def _of_runner_output(part: Any) -> Iterator[tuple[MessagePart, Any]]:
    part = _changed(part, sampled_token_ids=[])
    yield "token_ids", part
    yield "requests", _changed(part, req_ids=[], req_id_to_index={})


def _of_request(part: Any) -> Iterator[tuple[MessagePart, Any]]:
    part = _changed(part, prompt_token_ids=None)
    yield "prompt_token_ids", part
    yield "sampling_parameters", _changed(part, sampling_params=None)


def _of_outputs(part: Any) -> Iterator[tuple[MessagePart, Any]]:
    part = _changed(part, outputs=[_changed(output, new_token_ids=[]) for output in part.outputs])
    yield "token_ids", part
    part = _changed(part, scheduler_stats=None)
    yield "statistics", part
    yield "requests", _changed(part, outputs=[])


_EMPTIED: dict[str, Callable[[Any], Iterator[tuple[MessagePart, Any]]]] = {
    "SchedulerOutput": _of_scheduler_output,
    "ModelRunnerOutput": _of_runner_output,
    "EngineCoreRequest": _of_request,
    "EngineCoreOutputs": _of_outputs,
}
"""vLLM class of a message -> generator of its fields, in the order of emptying."""
