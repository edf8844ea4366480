"""A server of ours answers nobody who has not its key, whatever the path."""

import asyncio
from typing import Any

import pytest

from rollout_bench.measure.server.guard import KEY_VARIABLE, KeyForAll

KEY = "the-key-of-a-launch"


def asked(headers: list[tuple[bytes, bytes]], path: str, kind: str = "http") -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is sent for a request, and the paths that came through to the server."""
    sent: list[dict[str, Any]] = []
    through: list[str] = []

    async def server(scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        through.append(scope["path"])

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(KeyForAll(server)({"type": kind, "path": path, "headers": headers}, None, send))
    return sent, through


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the key of the server."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/collective_rpc", "/docs", "/v1/models", "//health", "/%2e"])
@pytest.mark.parametrize(
    "given", [None, b"", b"Bearer", b"Bearer another", KEY.encode(), b"bearer " + KEY.encode()], ids=str
)
def test_without_the_key_every_path_is_refused(path: str, given: bytes | None):
    sent, through = asked([] if given is None else [(b"authorization", given)], path)
    assert (sent[0]["status"], through) == (401, [])
    sent, through = asked([] if given is None else [(b"authorization", given)], path, "websocket")
    assert ([message["type"] for message in sent], through) == (["websocket.close"], [])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_with_the_key_a_request_passes(kind: str):
    assert asked([(b"authorization", f"Bearer {KEY}".encode())], "/health", kind) == ([], ["/health"])
