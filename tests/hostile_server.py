"""A server that answers a while as it should, then as one that is broken, or that wants to do harm.

with hostile_server("redirect", after=10) as server:
    ...  # requests to server.url
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stub_answers import Completion, answer

FIRST_KIND = 9000
"""Token id: a prompt that begins with it, or with one after it, is answered by the kind of that place in `KINDS`."""

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
"""Heads of answers that end with the connection."""
TOKEN = b'data: {"choices": [{"index": 0, "text": "a", "finish_reason": null, "token_ids": [5]}]}\n\n'
DEEP = b"[" * 200_000
BOMB = gzip.compress(bytes(200 << 20))


class HostileServer(ThreadingHTTPServer):
    """Answers completions as `kinds` say, in turn, once `after` of them were answered well."""

    daemon_threads = True

    def __init__(self, kinds: tuple[str | None, ...], after: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kinds = kinds or (None,)
        self.after = after
        self.completions = 0
        self.met: list[dict[str, str]] = []  # the headers of each request, by their names in small letters
        self.sent_bytes = 0
        self.elsewhere = ""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.server_port}"

    def kind_of(self, body: dict[str, Any]) -> str | None:
        """Return how a completion is answered; None: well."""
        with self.lock:
            hostile = self.completions - self.after
            self.completions += 1
        prompt = body["prompt"]
        first = int(prompt.split()[0]) if isinstance(prompt, str) and prompt[:1].isdigit() else prompt[0]
        if isinstance(first, int) and first >= FIRST_KIND:
            return list(KINDS)[first - FIRST_KIND]
        return None if hostile < 0 else self.kinds[hostile % len(self.kinds)]

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing: clients that leave are what is wanted."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: HostileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say what a server of its kind has to say."""
        self.server.met.append({name.lower(): value for name, value in self.headers.items()})
        found = {"/v1/models": {"data": [{"id": "stub"}]}, "/version": {"version": "stub"}, "/health": {}}
        kind = None if self.server.after else self.server.kinds[0]
        if kind is not None:
            self.close_connection = True
            KINDS[kind](self, {})
        elif self.path in found:
            self.wfile.write(answer(200, found[self.path]))
        else:
            self.wfile.write(answer(404, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        """Complete, well or otherwise."""
        self.server.met.append({name.lower(): value for name, value in self.headers.items()})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.server.kind_of(body)
        self.close_connection = kind is not None or bool(body.get("stream"))
        if kind is not None:
            KINDS[kind](self, body)
            return
        done = Completion(self.server.completions, body, "stub", 1, usage=bool(body.get("stream")))
        if body.get("stream"):
            events = b"".join(_unchunked(done.chunk(index)) for index in range(done.chunks))
            self.wfile.write(STREAM + events + b"data: [DONE]\n\n")
        else:
            self.wfile.write(done.whole())

    def send(self, *pieces: bytes) -> None:
        """Send what is counted."""
        for piece in pieces:
            self.wfile.write(piece)
            with self.server.lock:
                self.server.sent_bytes += len(piece)

    def for_ever(self, piece: bytes, pause_s: float = 0.0) -> None:
        """Send `piece` again and again, until the client has left or a minute is over."""
        end_s = time.monotonic() + 60
        while time.monotonic() < end_s:
            self.send(piece)
            time.sleep(pause_s)

    def log_message(self, *_arguments: object) -> None:
        """Do nothing: what is wrong is meant to be."""


def _unchunked(chunk: bytes) -> bytes:
    return chunk.partition(b"\r\n")[2][:-2]


def _error(text: str, status: int = 500) -> bytes:
    content = json.dumps({"error": {"message": text}}).encode()
    return b"HTTP/1.1 %d No\r\nConnection: close\r\n\r\n%b" % (status, content)


def _usage(tokens: int) -> Callable[[Handler, dict[str, Any]], None]:
    """Text without token ids, and `tokens` as the server's own count."""

    def respond(handler: Handler, body: dict[str, Any]) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens}
        choice = {"index": 0, "text": "a", "finish_reason": "length"}
        whole = json.dumps({"choices": [choice], "usage": usage}).encode()
        handler.send(STREAM + b"data: " + whole + b"\n\ndata: [DONE]\n\n" if body.get("stream") else WHOLE + whole)

    return respond


def _redirect(status: int) -> Callable[[Handler, dict[str, Any]], None]:
    def respond(handler: Handler, _body: dict[str, Any]) -> None:
        to = f"{handler.server.elsewhere or 'http://elsewhere.invalid'}/v1/completions?secret=path"
        handler.send(b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nConnection: close\r\n\r\n" % (status, to.encode()))

    return respond


def _sends(*pieces: bytes, again: bytes = b"", pause_s: float = 0.0) -> Callable[[Handler, dict[str, Any]], None]:
    def respond(handler: Handler, _body: dict[str, Any]) -> None:
        handler.send(*pieces)
        if again:
            handler.for_ever(again, pause_s)

    return respond


def _echoes_the_key(handler: Handler, _body: dict[str, Any]) -> None:
    said = " and ".join(value for name, value in handler.headers.items() if name in ("Authorization", "X-Api-Key"))
    content = json.dumps({"error": {"message": "x" * 290 + f" {said} is wrong"}}).replace("/", "\\/").encode()
    handler.send(b"HTTP/1.1 429 No\r\nConnection: close\r\n\r\n%b" % content)


KINDS: dict[str, Callable[[Handler, dict[str, Any]], None]] = {
    "redirect": _redirect(307),
    "redirect_get": _redirect(302),
    "deep_json": _sends(STREAM, b"data: " + DEEP + b"\n\ndata: [DONE]\n\n"),
    "deep_error": _sends(b"HTTP/1.1 500 No\r\n\r\n" + b'{"error":' + b'[{"a":' * 400 + b"1" + b"}]" * 400 + b"}"),
    "negative_usage": _usage(-7),
    "claims_many": _usage(10**12),
    "many_tokens": _sends(STREAM, again=TOKEN * 100),
    "endless_stream": _sends(STREAM, again=b": still here\n\n" * 1000),
    "endless_line": _sends(STREAM, again=b"data: x" * 1000),
    "endless_error": _sends(b"HTTP/1.1 500 No\r\n\r\n", again=b"error " * 10_000),
    "gzip_error": _sends(b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n\r\n" + BOMB),
    "gzip_answer": _sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + BOMB),
    "long_head": _sends(b"HTTP/1.1 200 OK\r\nX-Long: ", again=b"x" * 100_000),
    "escapes": _sends(_error("\x1b[31mred\x1b]0;title\x07 \u202etxt.exe\x9b2J")),
    "echo": _echoes_the_key,
    "forged": _sends(
        STREAM
        + b'data: {"choices": [{"index": 0, "text": "\\"token_ids\\": [1, 2, 3]", "finish_reason": "stop"}]}\n\n'
        + b"data: [DONE]\n\n"
    ),
    "nested_ids": _sends(STREAM, b"data: " + b'"token_ids":[' * 60_000 + b"\n\ndata: [DONE]\n\n"),
}
"""What a server may do that it should not, by name."""


@contextlib.contextmanager
def hostile_server(*kinds: str | None, after: int = 0) -> Iterator[HostileServer]:
    """Run a server while the block runs; with `after` 0 all else that it is asked is answered as the first kind says.

    Args:
        kinds: how completions are answered, in turn: names of `KINDS`, None for well. Well if there is none.
        after: so many completions are answered well before.
    """
    with HostileServer(kinds, after) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
