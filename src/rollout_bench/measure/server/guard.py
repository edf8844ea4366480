"""Makes a server that was started here require its key for every path.

vLLM requires the key only below /v1. The server is started with its development endpoints, which expose the loaded
weights, and other users of the machine must not reach these.
"""

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

KEY_VARIABLE = "VLLM_API_KEY"
"""Environment variable from which vLLM reads the key, so that no command line contains it."""


REFUSALS: dict[str, list[dict[str, Any]]] = {
    "http": [
        {"type": "http.response.start", "status": 401, "headers": []},
        {"type": "http.response.body", "body": b"no key"},
    ],
    "websocket": [{"type": "websocket.close", "code": 1008}],  # before it was accepted: status 403
}
"""Type of a connection -> messages that refuse it; other types come from the server itself."""


class KeyForAll:
    """ASGI middleware that requires the key, passed to vLLM with `--middleware`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ[KEY_VARIABLE]}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        given = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        if scope["type"] not in REFUSALS or hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
        else:
            for message in REFUSALS[scope["type"]]:
                await send(message)
