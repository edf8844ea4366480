"""The event loop of the stub server: sockets and due times, for 10,000 streams on part of one core.

One epoll and one wheel of 1 ms slots instead of a task, a future and a timer for each token; bytes go to the kernel
in the call that notes the moment, so that what is noted is what the client could see.
"""

from __future__ import annotations

import heapq
import math
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

SLOT_S = 0.001
"""epoll waits in whole milliseconds, so finer slots would not be kept."""
BATCH = 64
"""So many sockets are served before the wheel gets its turn again: a burst of requests must not hold up the streams."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Due(Protocol):
    """What the wheel turns: `fire` sends what is due and returns when the next thing is, or None."""

    def fire(self) -> float | None: ...


class Wheel:
    """Things by the 1 ms slot in which they are due; a slot never fires early."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Due]] = {}
        self._order: list[int] = []

    def add(self, due_s: float, thing: Due) -> None:
        """Note that a thing is due at `due_s` of time.monotonic()."""
        slot = math.ceil(due_s / SLOT_S)
        things = self._slots.get(slot)
        if things is None:
            self._slots[slot] = [thing]
            heapq.heappush(self._order, slot)
        else:
            things.append(thing)

    def turn(self) -> None:
        """Fire what is due by now; what falls due meanwhile waits until the sockets had their turn."""
        now_s = time.monotonic()
        while self._order and self._order[0] * SLOT_S <= now_s:
            for thing in self._slots.pop(heapq.heappop(self._order)):
                due_s = thing.fire()
                if due_s is not None:
                    self.add(due_s, thing)

    def wait_s(self) -> float:
        """Return how long nothing is due; at most a second."""
        return min(1.0, max(0.0, self._order[0] * SLOT_S - time.monotonic())) if self._order else 1.0


class Request:
    """One HTTP request, with the moment at which its head was read."""

    __slots__ = ("body", "head_read_s", "headers", "method", "path")

    def __init__(self, method: str, path: str, headers: dict[str, str], head_read_s: float) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.head_read_s = head_read_s
        self.body = b""


class Connection:
    """One client: its bytes become requests, and what is sent goes to the kernel at once where it takes it."""

    __slots__ = ("_arrived", "_loop", "_pending", "_request", "_socket", "busy", "closed", "on_close")

    def __init__(self, loop: Loop, client: socket.socket) -> None:
        self._loop = loop
        self._socket = client
        self._arrived = b""
        self._pending = b""
        self._request: Request | None = None
        self.busy = False  # an answer is under way: a request that was sent behind it waits
        self.closed = False
        self.on_close: Callable[[], None] | None = None

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel; what it does not take follows when the client has read."""
        if self.closed:
            return
        if self._pending:
            self._pending += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._pending = data[sent:]
            self._loop.watch(self._socket, select.EPOLLIN | select.EPOLLOUT)

    def answered(self) -> None:
        """Say that the answer is whole, so that the next request on this connection is taken up."""
        self.busy = False
        self._take_requests()

    def close(self, *, reset: bool = False) -> None:
        """End the connection; with `reset` the client sees "connection reset by peer"."""
        if self.closed:
            return
        self.closed = True
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._loop.forget(self._socket)
        self._socket.close()
        if self.on_close is not None:
            self.on_close()

    def ready(self, events: int) -> None:
        """Do what epoll says is possible."""
        if events & select.EPOLLOUT and self._pending:
            data, self._pending = self._pending, b""
            self._loop.watch(self._socket, select.EPOLLIN)
            self.send(data)
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._arrived += data
        self._take_requests()

    def _take_requests(self) -> None:
        while not self.busy and not self.closed:
            if self._request is None:
                head, found, rest = self._arrived.partition(b"\r\n\r\n")
                if not found:
                    return
                self._arrived = rest
                self._request = _parse_head(head)
                if "expect" in self._request.headers:
                    self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = int(self._request.headers.get("content-length", 0))
            if len(self._arrived) < length:
                return
            request, self._request = self._request, None
            request.body, self._arrived = self._arrived[:length], self._arrived[length:]
            self.busy = True
            self._loop.handle(self, request)


class Loop:
    """Serves a listening socket for ever; `handle` is called with every whole request."""

    def __init__(self, listener: socket.socket, handle: Callable[[Connection, Request], None]) -> None:
        self.wheel = Wheel()
        self.handle = handle
        self._listener = listener
        self._connections: dict[int, Connection] = {}
        self._epoll = select.epoll()
        listener.setblocking(False)
        self._epoll.register(listener, select.EPOLLIN)

    def watch(self, client: socket.socket, events: int) -> None:
        """Change what epoll looks for on a connection."""
        self._epoll.modify(client, events)

    def forget(self, client: socket.socket) -> None:
        """Take a connection out; its socket must be open still."""
        self._epoll.unregister(client)
        del self._connections[client.fileno()]

    def run(self) -> None:
        """Serve until the process ends."""
        listening = self._listener.fileno()
        while True:
            for file, events in self._epoll.poll(self.wheel.wait_s(), BATCH):
                if file == listening:
                    self._accept()
                elif file in self._connections:
                    self._connections[file].ready(events)
            self.wheel.turn()

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                client, _address = self._listener.accept()
            except OSError:  # none is waiting, or no file is left: whoever waits is taken later
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[client.fileno()] = Connection(self, client)
            self._epoll.register(client, select.EPOLLIN)


def _parse_head(head: bytes) -> Request:
    head_read_s = time.monotonic()
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs}, head_read_s)
