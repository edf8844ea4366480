"""Records when messages pass through a process, until the end of a pass, with mixins for queues, encoders and decoders.

This module does not need vLLM. All times are on the machine's monotonic clock, so times of different processes can be
subtracted. Each end of a link counts its messages from the start, so the n-th message put into a queue is the n-th
message taken out. Before a pass begins, messages are only counted. Records go into preallocated memory.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic_ns
from typing import Any

from rollout_bench.contracts.messages import Look

now = monotonic_ns
"""Nanoseconds on the machine's monotonic clock."""

ROW = struct.Struct("5q")
"""Number of the message, three times in nanoseconds, and its size in bytes (-1 if unknown)."""

Wire = tuple[bytes, ...]
"""The sent bytes of a message: its main part and its separate buffers."""


class Ending:
    """One end of a link in this process.

    Args:
        name: name of the socket, or of the queue, which both ends share.
        writes: whether this end sends.
    """

    def __init__(self, name: str, writes: bool) -> None:
        self.name = name
        self.writes = writes
        self.number = 0
        """Number of messages since the start."""
        self.reached = 0
        """Time at which the current message was encoded (when sending) or arrived (when reading)."""
        self.noting = False
        self.sent: list[Wire] | None = None
        """The messages themselves, if the pass records contents and this end sends."""
        self.through_socket: set[int] = set()
        """Indices in `sent` of messages that were too large for the ring."""
        self._rows = bytearray()
        self._tags: list[Any] = []
        self._count = 0
        self._dropped = 0

    def begin(self, look: Look, capacity: int) -> None:
        """Start recording, with room for `capacity` messages."""
        self._rows = bytearray(capacity * ROW.size)
        self._tags = [None] * capacity
        self._count = self._dropped = 0
        self.sent = [] if look == "contents" and self.writes else None
        self.through_socket = set()
        self.noting = True

    def note(self, first: int, second: int, third: int, size: int, tag: Any) -> None:
        """Record and count the message that was just sent or received."""
        count = self._count
        if count < len(self._tags):
            ROW.pack_into(self._rows, count * ROW.size, self.number, first, second, third, size)
            self._tags[count] = tag
            self._count = count + 1
        else:
            self._dropped += 1
        self.number += 1

    def end(self) -> Noted:
        """Stop recording, and return the records."""
        self.noting = False
        rows = list(ROW.iter_unpack(bytes(self._rows[: self._count * ROW.size])))
        noted = Noted(
            self.name, self.writes, rows, self._tags[: self._count], self._dropped, self.sent, self.through_socket
        )
        self._rows, self._tags, self._count, self.sent = bytearray(), [], 0, None
        return noted


@dataclass(frozen=True)
class Noted:
    """The records of one end.

    Attributes:
        name: name of the queue or the socket.
        writes: whether this end sends.
        rows: rows of `ROW`. The three times of a writer: encoding began, encoded, put. Of a reader: asked, got,
            decoded.
        tags: identifies the message of each row.
        dropped: number of messages that were not recorded because there was no room.
        sent: the message of each row, if the pass recorded contents.
        through_socket: indices in `sent` of messages that were too large for the ring.
    """

    name: str
    writes: bool
    rows: list[tuple[int, ...]]
    tags: list[Any]
    dropped: int
    sent: list[Wire] | None
    through_socket: set[int]


@dataclass
class ProcessNotes:
    """All records of one process."""

    endings: list[Ending] = field(default_factory=list)
    tag: Callable[[Any], Any] = lambda message: None
    """Returns the tag of a message that is put into a queue."""

    def ending(self, name: str, writes: bool) -> Ending:
        """Return a new end of a link, which is recorded with the others."""
        ending = Ending(name, writes)
        self.endings.append(ending)
        return ending

    def begin(self, look: Look, capacity: int) -> None:
        """Begin a pass."""
        for ending in self.endings:
            ending.begin(look, capacity)

    def end(self, path: Path, **more: Any) -> None:
        """End a pass: write the records, and `more`, to `path`."""
        noted = [ending.end() for ending in self.endings]
        content = {"noted": [each for each in noted if each.rows or each.dropped], **more}
        path.write_bytes(pickle.dumps(content, protocol=5))


BEGIN, END = "rollout_bench_begin_messages", "rollout_bench_end_messages"
"""Methods that are called on the workers, through the core, when a pass begins and ends."""

CORE_FILE, WORKER_FILES = "core.pickle", "worker-{rank}.pickle"
"""Files that the core and each worker write at the end of a pass."""

HERE = ProcessNotes()
"""The records of this process."""


class NotedRing:
    """Mixin for a queue in shared memory that records each message put into it or taken from it."""

    ending: Ending
    """Must be set before the first message."""

    def enqueue(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Put `obj` into the queue."""
        ending = self.ending
        if not ending.noting:
            ending.number += 1
            return super().enqueue(obj, *args, **kwargs)  # type: ignore[misc]
        began = now()
        done = super().enqueue(obj, *args, **kwargs)  # type: ignore[misc]
        ending.note(began, ending.reached, now(), -1, HERE.tag(obj))
        return done

    def dequeue(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next message of the queue; after a timeout, nothing is counted."""
        ending = self.ending
        asked = now()
        message = super().dequeue(*args, **kwargs)  # type: ignore[misc]
        if ending.noting:
            ending.note(asked, ending.reached, now(), -1, None)
        else:
            ending.number += 1
        return message

    def acquire_write(self, *args: Any, **kwargs: Any) -> Any:
        """Return the context in which the encoded message is copied to the ring."""
        slot = super().acquire_write(*args, **kwargs)  # type: ignore[misc]
        self.ending.reached = now()
        return slot if self.ending.sent is None else CopiedSlot(slot, self.ending)

    def acquire_read(self, *args: Any, **kwargs: Any) -> Any:
        """Return the context in which a message is decoded, entered once a message is there."""
        return AwaitedSlot(super().acquire_read(*args, **kwargs), self.ending)  # type: ignore[misc]


class AwaitedSlot:
    """Context of a ring slot that records when a message arrived."""

    __slots__ = ("_ending", "_slot")

    def __init__(self, slot: Any, ending: Ending) -> None:
        self._slot = slot
        self._ending = ending

    def __enter__(self) -> Any:
        buffer = self._slot.__enter__()
        self._ending.reached = now()
        return buffer

    def __exit__(self, *error: Any) -> Any:
        return self._slot.__exit__(*error)


class CopiedSlot:
    """Context of a ring slot that copies the written bytes as a reader will find them."""

    def __init__(self, slot: Any, ending: Ending) -> None:
        self._slot = slot
        self._ending = ending
        self._buffer: Any = None

    def __enter__(self) -> Any:
        self._buffer = self._slot.__enter__()
        return self._buffer

    def __exit__(self, *error: Any) -> Any:
        assert self._ending.sent is not None, "made where messages are kept"
        if self._buffer[0]:
            self._ending.through_socket.add(len(self._ending.sent))  # the bytes follow, see `CopyingSocket`
        else:
            self._ending.sent.append(parts_of(self._buffer))
        return self._slot.__exit__(*error)


def parts_of(slot: Any) -> Wire:
    """Return the parts of the message in a ring slot: a flag, the number of parts, then length and bytes of each."""
    parts, offset = [], 3
    for _ in range(int.from_bytes(slot[1:3], "big")):
        length = int.from_bytes(slot[offset : offset + 4], "big")
        parts.append(bytes(slot[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    return tuple(parts)


class SocketProxy:
    """A socket proxy; subclasses replace single methods."""

    def __init__(self, socket: Any, ending: Ending) -> None:
        self._socket = socket
        self._ending = ending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class CopyingSocket(SocketProxy):
    """Copies messages that were too large for the ring."""

    def send_multipart(self, parts: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Send `parts`."""
        if self._ending.sent is not None:
            self._ending.sent.append(tuple(bytes(part) for part in parts))
        return self._socket.send_multipart(parts, *args, **kwargs)


class AwaitedSocket(SocketProxy):
    """Records when a message that was too large for the ring arrived."""

    def recv_multipart(self, *args: Any, **kwargs: Any) -> Any:
        """Receive the parts of a message."""
        parts = self._socket.recv_multipart(*args, **kwargs)
        self._ending.reached = now()
        return parts


class NotedEncoding:
    """Mixin for an encoder that records each message encoded for a socket."""

    ending: Ending
    tag: Callable[[Any], Any]

    def encode(self, obj: Any) -> Any:
        """Return the parts of the message for `obj`."""
        ending = self.ending
        if not ending.noting:
            return super().encode(obj)  # type: ignore[misc]
        began = now()
        parts = super().encode(obj)  # type: ignore[misc]
        self._note(obj, parts, began, now())
        return parts

    def encode_into(self, obj: Any, buffer: bytearray) -> Any:
        """Like `encode`, with the main part in `buffer`."""
        ending = self.ending
        if not ending.noting:
            return super().encode_into(obj, buffer)  # type: ignore[misc]
        began = now()
        parts = super().encode_into(obj, buffer)  # type: ignore[misc]
        self._note(obj, parts, began, now())
        return parts

    def _note(self, obj: Any, parts: Any, began: int, encoded: int) -> None:
        ending = self.ending
        ending.note(began, encoded, encoded, size_of(parts), self.tag(obj))
        if ending.sent is not None:
            ending.sent.append(tuple(bytes(part) for part in parts))


class NotedDecoding:
    """Mixin for a decoder that records each decoded message."""

    ending: Ending
    tag: Callable[[Any], Any]

    def decode(self, parts: Any) -> Any:
        """Return the decoded message."""
        ending = self.ending
        if not ending.noting:
            return super().decode(parts)  # type: ignore[misc]
        got = now()
        obj = super().decode(parts)  # type: ignore[misc]
        ending.note(got, got, now(), size_of(parts), self.tag(obj))
        return obj


def size_of(parts: Any) -> int:
    """Return the bytes of a message of one or several parts."""
    return sum(map(_length, parts)) if isinstance(parts, list | tuple) else _length(parts)


def _length(part: Any) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


class _BareRing:
    """A queue that only makes the same calls as a real queue."""

    class _Slot:
        def __enter__(self) -> bytes:
            return b""

        def __exit__(self, *error: Any) -> None:
            pass

    def acquire_write(self) -> Any:
        return self._Slot()

    acquire_read = acquire_write

    def enqueue(self, obj: Any) -> None:
        with self.acquire_write():
            pass

    def dequeue(self) -> None:
        with self.acquire_read():
            pass


class _BareCodec:
    """An encoder and decoder that do nothing."""

    _parts: tuple[bytes, ...] = (b"",)

    def encode(self, obj: Any) -> Any:
        return self._parts

    def decode(self, parts: Any) -> Any:
        return None


class _NotedBareRing(NotedRing, _BareRing):
    pass


class _NotedBareCodec(NotedEncoding, NotedDecoding, _BareCodec):
    def tag(self, obj: Any) -> Any:
        return None


def costs(calls: int = 2000, rounds: int = 9) -> dict[str, float]:
    """Return the time that each probe adds to a call, in seconds: put_s, got_s, encode_s, decode_s.

    The result is the median over `rounds` of `calls` calls with the probe, minus the median without it.
    """
    ring, codec, bare_ring, bare_codec = _NotedBareRing(), _NotedBareCodec(), _BareRing(), _BareCodec()
    ending = ring.ending = codec.ending = Ending("cost", writes=True)
    pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "put_s": (ring.enqueue, bare_ring.enqueue),
        "got_s": (lambda _: ring.dequeue(), lambda _: bare_ring.dequeue()),
        "encode_s": (codec.encode, bare_codec.encode),
        "decode_s": (codec.decode, bare_codec.decode),
    }
    return {name: _added(ending, noted, bare, calls, rounds) for name, (noted, bare) in pairs.items()}


def _added(ending: Ending, noted: Callable[[Any], Any], bare: Callable[[Any], Any], calls: int, rounds: int) -> float:
    with_it, without = [], []
    for _ in range(rounds):
        ending.begin("times", calls)
        with_it.append(timed(noted, calls))
        without.append(timed(bare, calls))
    return max(median(with_it) - median(without), 0.0)


def timed(call: Callable[[Any], Any], calls: int) -> float:
    """Return the mean time of one call over `calls` calls, in seconds."""
    parts = (b"",)
    began = now()
    for _ in range(calls):
        call(parts)
    return (now() - began) / calls / 1e9
