"""Makes a server that was started here require its key for every path.

vLLM requires the key only below /v1. The server is started with its development endpoints, which expose the loaded
weights, and other users of the machine must not reach these.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

KEY_VARIABLE = "VLLM_API_KEY"
"""Environment variable from which vLLM reads the key, so that no command line contains it."""


class KeyForAll:
    """ASGI middleware that requires the key, passed to vLLM with `--middleware`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ[KEY_VARIABLE]}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, self._wanted):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})  # before it was accepted: status 403
                    return
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"no key"})
                return
        await self._app(scope, receive, send)
