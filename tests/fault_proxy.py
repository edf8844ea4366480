"""A TCP proxy before a server that a test wants to see stall, vanish or refuse; it knows nothing of HTTP.

with FaultProxy(server_port) as proxy:
    ...  # requests to proxy.url
    proxy.hold()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """Passes bytes between 127.0.0.1:`port` and the server, and withholds them when told.

    Every method returns when it has been done. `requested_bytes` came from clients and `answered_bytes` from the
    server; what is held is not counted yet.
    """

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self.server = (server_host, server_port)
        self.requested_bytes = 0
        self.answered_bytes = 0
        self.connections = 0
        self.holding = False
        self.ends: set[_End] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        # Never listens: keeps the port ours while nothing accepts on it, so that clients are refused by the kernel.
        self._keeper = _bound(0)
        self.port: int = self._keeper.getsockname()[1]
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.refuse()
        self._do(self._settle)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._keeper.close()

    def hold(self) -> None:
        """From now on bytes pass neither way; connections stay open, and new ones are made."""
        self._do(self._set_holding, True)

    def release(self) -> None:
        """Let everything pass that was held, and what comes."""
        self._do(self._set_holding, False)

    def refuse(self) -> None:
        """From now on whoever connects gets "connection refused"; connections that exist go on."""
        self._do(self._refuse)

    def accept(self) -> None:
        """Take new connections again."""
        self._do(self._accept)

    def drop(self) -> None:
        """Reset every connection that exists, on both sides."""
        self._do(self._drop)

    def _do(self, action: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async def act() -> None:
            await action(*arguments)
            await asyncio.sleep(0)  # what was asked for by call_soon has been done too

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    async def _set_holding(self, holding: bool) -> None:
        self.holding = holding
        for end in self.ends:
            end.let_pass()

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.setblocking(False)
            self._listener.listen(1024)
            self._loop.add_reader(self._listener, self._take, self._listener)

    def _take(self, listener: socket.socket) -> None:
        # asyncio.Server loses a connection that it has taken when it is closed in the same moment.
        with contextlib.suppress(BlockingIOError):
            client, _address = listener.accept()
            self.start(self._loop.connect_accepted_socket(lambda: _End(self, None), client))

    def start(self, connecting: Coroutine[Any, Any, Any]) -> None:
        """Run what makes an end, so that the proxy's end waits for it."""
        task = self._loop.create_task(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _drop(self) -> None:
        for end in list(self.ends):
            end.reset()

    async def _settle(self) -> None:
        while self.ends or self._connecting:
            await self._drop()
            await asyncio.sleep(0.001)


class _End(asyncio.Protocol):
    """One side of a connection: towards the client where it was made without a peer, else towards the server."""

    def __init__(self, proxy: FaultProxy, peer: _End | None) -> None:
        self._proxy = proxy
        self._peer = peer
        self._is_client = peer is None
        self._transport: asyncio.Transport | None = None
        self._kept = bytearray()
        """What came though reading was paused: early versions of Python 3.11 read once all the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.ends.add(self)
        if self._peer is None:
            self._proxy.connections += 1
            self._proxy.start(self._connect())
        elif self._peer._transport is None or self._peer._transport.is_closing():
            self.reset()
            return
        else:
            self._peer._peer = self
            self._peer.let_pass()
        self.let_pass()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _End(self._proxy, self), *self._proxy.server)
        except OSError:
            self.reset()

    def let_pass(self) -> None:
        """Read or not, as the proxy says; not before there is somebody to read for."""
        assert self._transport is not None
        if self._proxy.holding or self._peer is None:
            self._transport.pause_reading()
        else:
            if self._kept:
                kept, self._kept = bytes(self._kept), bytearray()
                self.data_received(kept)
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._proxy.holding or self._peer is None:
            self._kept += data
            return
        if self._is_client:
            self._proxy.requested_bytes += len(data)
        else:
            self._proxy.answered_bytes += len(data)
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.ends.discard(self)
        if self._peer is None or self._peer._transport is None:
            return
        if exc is None:
            self._peer._transport.close()
        else:
            self._peer.reset()

    def reset(self) -> None:
        """End this side so that it sees "connection reset by peer"."""
        assert self._transport is not None
        if not self._transport.is_closing():
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
