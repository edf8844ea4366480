"""Notes of when messages pass through a process, kept until a pass is over, and what is mixed into queues to take them.

Nothing here needs vLLM. All times are of the machine's monotonic clock, so those of two processes can be subtracted.
Each end of a link counts its messages from its first one on, so the n-th that is put into a queue is the n-th got from
it. Nothing is noted, only counted, until a pass begins; rows lie in memory that was allocated before.
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
"""Number of the message, three moments in nanoseconds, and its size in bytes; -1 where it is not known."""

Wire = tuple[bytes, ...]
"""The bytes of a message as they were sent: its main part, and the buffers beside it."""


class Ending:
    """One end of one link in this process.

    Args:
        name: of the queue that both ends belong to, or of the socket.
        writes: whether messages come from here.
    """

    def __init__(self, name: str, writes: bool) -> None:
        self.name = name
        self.writes = writes
        self.number = 0
        """Messages so far, from the first one on."""
        self.reached = 0
        """When the message that is being sent was encoded, or the one that is being read had come."""
        self.noting = False
        self.sent: list[Wire] | None = None
        """The messages themselves, where contents are looked at and this end writes."""
        self.through_socket: set[int] = set()
        """Which of `sent`, by their place, were too large for the ring."""
        self._rows = bytearray()
        self._tags: list[Any] = []
        self._count = 0
        self._dropped = 0

    def begin(self, look: Look, capacity: int) -> None:
        """Note up to `capacity` messages from the next one on."""
        self._rows = bytearray(capacity * ROW.size)
        self._tags = [None] * capacity
        self._count = self._dropped = 0
        self.sent = [] if look == "contents" and self.writes else None
        self.through_socket = set()
        self.noting = True

    def note(self, first: int, second: int, third: int, size: int, tag: Any) -> None:
        """Note the message that was sent or got just now, and count it."""
        count = self._count
        if count < len(self._tags):
            ROW.pack_into(self._rows, count * ROW.size, self.number, first, second, third, size)
            self._tags[count] = tag
            self._count = count + 1
        else:
            self._dropped += 1
        self.number += 1

    def end(self) -> Noted:
        """Stop noting, and return what was noted."""
        self.noting = False
        rows = list(ROW.iter_unpack(bytes(self._rows[: self._count * ROW.size])))
        noted = Noted(
            self.name, self.writes, rows, self._tags[: self._count], self._dropped, self.sent, self.through_socket
        )
        self._rows, self._tags, self._count, self.sent = bytearray(), [], 0, None
        return noted


@dataclass(frozen=True)
class Noted:
    """What was noted at one end.

    Attributes:
        name: of the queue or the socket.
        writes: whether it is the end that sends.
        rows: as `ROW` has them. A writer's moments: began to encode, encoded, put. A reader's: asked, got, decoded.
        tags: what the message is, one for each row.
        dropped: messages that there was no room for.
        sent: the messages themselves, one for each row, where contents were looked at.
        through_socket: places in `sent` of those that were too large for the ring.
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
    """All that one process notes."""

    endings: list[Ending] = field(default_factory=list)
    tag: Callable[[Any], Any] = lambda message: None
    """What is kept of a message that is put into a queue."""

    def ending(self, name: str, writes: bool) -> Ending:
        """Return a new end of a link, which is noted with the others."""
        ending = Ending(name, writes)
        self.endings.append(ending)
        return ending

    def begin(self, look: Look, capacity: int) -> None:
        """Begin a pass."""
        for ending in self.endings:
            ending.begin(look, capacity)

    def end(self, path: Path, **more: Any) -> None:
        """End a pass: write what was noted, and `more`, to `path`."""
        noted = [ending.end() for ending in self.endings]
        content = {"noted": [each for each in noted if each.rows or each.dropped], **more}
        path.write_bytes(pickle.dumps(content, protocol=5))


BEGIN, END = "rollout_bench_begin_messages", "rollout_bench_end_messages"
"""What the workers are asked when a pass begins and ends, and with them the core."""

CORE_FILE, WORKER_FILES = "core.pickle", "worker-{rank}.pickle"
"""What the core and each worker write once a pass has ended."""

HERE = ProcessNotes()
"""What this process notes."""


class NotedRing:
    """Mixed in before a queue over shared memory: notes each message that is put into it or got out of it."""

    ending: Ending
    """Has to be there before the first message."""

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
        """Get the next message out of the queue; counts none where the time is up before."""
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
        """Return the context in which a message is decoded, entered once there is one."""
        return AwaitedSlot(super().acquire_read(*args, **kwargs), self.ending)  # type: ignore[misc]


class AwaitedSlot:
    """Notes when a slot of the ring had something to read."""

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
    """Keeps what was written to a slot of the ring, byte by byte as a reader will find it."""

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
    """Return the parts of the message in a slot of the ring: a flag, how many, then each after its length."""
    parts, offset = [], 3
    for _ in range(int.from_bytes(slot[1:3], "big")):
        length = int.from_bytes(slot[offset : offset + 4], "big")
        parts.append(bytes(slot[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    return tuple(parts)


class SocketProxy:
    """A socket whose calls are its own, but for those that a subclass has."""

    def __init__(self, socket: Any, ending: Ending) -> None:
        self._socket = socket
        self._ending = ending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class CopyingSocket(SocketProxy):
    """Keeps messages that were too large for the ring."""

    def send_multipart(self, parts: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Send `parts`."""
        if self._ending.sent is not None:
            self._ending.sent.append(tuple(bytes(part) for part in parts))
        return self._socket.send_multipart(parts, *args, **kwargs)


class AwaitedSocket(SocketProxy):
    """Notes when a message came that was too large for the ring."""

    def recv_multipart(self, *args: Any, **kwargs: Any) -> Any:
        """Receive the parts of a message."""
        parts = self._socket.recv_multipart(*args, **kwargs)
        self._ending.reached = now()
        return parts


class NotedEncoding:
    """Mixed in before an encoder: notes each message that is encoded for a socket."""

    ending: Ending
    tag: Callable[[Any], Any]

    def encode(self, obj: Any) -> Any:
        """Return the parts of the message that `obj` makes."""
        ending = self.ending
        if not ending.noting:
            return super().encode(obj)  # type: ignore[misc]
        began = now()
        parts = super().encode(obj)  # type: ignore[misc]
        self._note(obj, parts, began, now())
        return parts

    def encode_into(self, obj: Any, buffer: bytearray) -> Any:
        """As `encode`, with the main part in `buffer`."""
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
    """Mixed in before a decoder: notes each message that is decoded."""

    ending: Ending
    tag: Callable[[Any], Any]

    def decode(self, parts: Any) -> Any:
        """Return what the message is."""
        ending = self.ending
        if not ending.noting:
            return super().decode(parts)  # type: ignore[misc]
        got = now()
        obj = super().decode(parts)  # type: ignore[misc]
        ending.note(got, got, now(), size_of(parts), self.tag(obj))
        return obj


def size_of(parts: Any) -> int:
    """Return the bytes of a message that is one part, or several."""
    return sum(map(_length, parts)) if isinstance(parts, list | tuple) else _length(parts)


def _length(part: Any) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


class _BareRing:
    """A queue that does nothing but go through the same calls as a real one."""

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
    """An encoder and decoder that does nothing."""

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
    """Return what the probes add to a call, in seconds: put_s, got_s, encode_s, decode_s.

    The median over `rounds` of `calls` calls with the probe, less the median of as many without it.
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
    """Return the seconds that one of `calls` calls takes."""
    parts = (b"",)
    began = now()
    for _ in range(calls):
        call(parts)
    return (now() - began) / calls / 1e9
