"""A stub of vLLM's OpenAI-compatible server that streams tokens at a known pace: to test load generators, not engines.

It listens on 127.0.0.1 and a port that the kernel gives, written to --port-file when it is ready. GET /truth says for
each completion request when its head was read and when each chunk was handed to the kernel, in seconds of
time.monotonic(), which is one clock for the whole machine; DELETE /truth forgets. A request is told by its X-Request-Id
header, or by its place in the list. What a client saw minus the truth is the client's own error, unless this process
was short of CPU too: then requests lie unread in the kernel, and chunks come later than the options say.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stub_answers import KNOWN_FIELDS, STREAM_HEAD, Completion, answer, refusal
from stub_loop import Connection, Loop, Request

DEFAULT_MODEL = "stub"


class Share:
    """Picks a share of what it is asked about, evenly spread and the same in every run."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._asked = 0

    def picks(self) -> bool:
        """Return whether the next one belongs to the share."""
        self._asked += 1
        return int(self._asked * self._share) > int((self._asked - 1) * self._share)


class Truth:
    """What happened to one completion request."""

    __slots__ = ("chunks_s", "end", "head_read_s", "request_id", "status")

    def __init__(self, request: Request) -> None:
        self.request_id = request.headers.get("x-request-id")
        self.head_read_s = request.head_read_s
        self.chunks_s = array("d")
        self.status: int | None = None
        self.end = "running"  # then "finished", "refused", "stalled", "closed" by the stub or "left" by the client

    def to_json(self) -> dict[str, Any]:
        """Return the fields, as GET /truth shows them."""
        return {name: list(self.chunks_s) if name == "chunks_s" else getattr(self, name) for name in self.__slots__}


class Stream:
    """One answer under way: `fire` sends the next chunk, or the whole answer where the client did not ask to stream."""

    def __init__(self, server: Server, connection: Connection, truth: Truth, done: Completion, streams: bool) -> None:
        self._server = server
        self._connection = connection
        self._truth = truth
        self._index = 0
        self._streams = streams
        self._chunks = done.chunks if streams else 1
        self._last = done.chunk(done.chunks - 1) + done.tail() if streams else done.whole()
        self._first = done.chunk(0) if self._chunks > 1 else self._last
        self._middle = done.chunk(1) if self._chunks > 2 else b""
        options = server.options
        self._itl_s = options.itl_ms / 1000
        self._due_s = truth.head_read_s + options.ttft_ms / 1000
        if not streams:
            self._due_s += self._itl_s * (done.chunks - 1)
        self._fault = None
        if options.stall_after is not None and server.stalled.picks():
            self._fault = (options.stall_after if streams else 0, "stalled")
        elif options.close_after is not None and server.closed.picks():
            self._fault = (options.close_after if streams else 0, "closed")

    def begin(self) -> None:
        """Get in line for the first chunk; a stream's head goes out at once, as vLLM's does."""
        self._connection.on_close = self._left
        if self._streams:
            self._connection.send(STREAM_HEAD)
        self._server.loop.wheel.add(self._jittered(), self)

    def fire(self) -> float | None:
        """Send what is due; return when the next chunk is."""
        if self._connection.closed:
            return None
        if self._fault is not None and self._index == self._fault[0]:
            self._truth.end = self._fault[1]
            if self._truth.end == "closed":
                self._connection.close(reset=True)
            return None
        last = self._index == self._chunks - 1
        self._truth.chunks_s.append(time.monotonic())
        self._connection.send(self._last if last else self._middle if self._index else self._first)
        if last:
            self._truth.end = "finished"
            self._connection.on_close = None
            self._connection.answered()
            return None
        self._index += 1
        self._due_s += self._itl_s
        return self._jittered()

    def _jittered(self) -> float:
        jitter_ms = self._server.options.jitter_ms
        return self._due_s + self._server.random.random() * jitter_ms / 1000 if jitter_ms else self._due_s

    def _left(self) -> None:
        if self._truth.end == "running":
            self._truth.end = "left"


class Server:
    """Answers requests as the options say, and notes what happened."""

    def __init__(self, options: argparse.Namespace, listener: socket.socket) -> None:
        self.options = options
        self.loop = Loop(listener, self.handle)
        self.random = random.Random(options.seed)
        self.failing = Share(options.status_share if options.status is not None else 0)
        self.stalled = Share(options.stall_share)
        self.closed = Share(options.close_share)
        self.truths: list[Truth] = []
        self._key = os.environ[options.api_key_env] if options.api_key_env else None

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request, or begin to."""
        if request.method == "POST" and request.path in ("/v1/completions", "/v1/chat/completions"):
            self._complete(connection, request)
            return
        connection.send(self._plain_answer(request))
        connection.answered()

    def _plain_answer(self, request: Request) -> bytes:
        match request.method, request.path:
            case "GET", "/v1/models":
                model = {"id": self.options.model or DEFAULT_MODEL, "object": "model", "created": 0, "owned_by": "stub"}
                models = {"object": "list", "data": [{**model, "max_model_len": self.options.max_model_len}]}
                return answer(200, models) if self._may(request) else answer(401, {"error": "Unauthorized"})
            case "GET", "/health":
                return answer(200, {})
            case "GET", "/version":
                return answer(200, {"version": "stub"})
            case "GET", "/truth":
                return answer(200, {"requests": [truth.to_json() for truth in self.truths]})
            case "DELETE", "/truth":
                self.truths = []
                return answer(200, {})
        return answer(404, {"detail": "Not Found"})

    def _complete(self, connection: Connection, request: Request) -> None:
        truth = Truth(request)
        self.truths.append(truth)
        status, refused, body = self._checked(request)
        truth.status = status
        if refused is not None:
            truth.end = "refused"
            connection.send(refused)
            connection.answered()
            return
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        model = body.get("model") or DEFAULT_MODEL
        done = Completion(len(self.truths), body, model, self.options.tokens_per_chunk, usage=usage)
        Stream(self, connection, truth, done, bool(body.get("stream"))).begin()

    def _checked(self, request: Request) -> tuple[int, bytes | None, dict[str, Any]]:
        """Return the status, the refusal if it is one, and the body."""
        if not self._may(request):
            return 401, answer(401, {"error": "Unauthorized"}), {}
        if self.failing.picks():
            return self.options.status, refusal(self.options.status, "as --status says"), {}
        try:
            body = json.loads(request.body)
            chats = request.path.startswith("/v1/chat/")
            prompt, tokens = body["messages"][0]["content"] if chats else body["prompt"], body.get("max_tokens", 16)
        except (ValueError, KeyError, TypeError) as error:
            return 400, refusal(400, f"the body is not what it must be: {error!r}"), {}
        if self.options.model is not None and body.get("model") != self.options.model:
            return 404, refusal(404, f"The model `{body.get('model')}` does not exist."), {}
        unknown = sorted(body.keys() - KNOWN_FIELDS)
        if self.options.strict and unknown:
            return 400, refusal(400, f"Unexpected fields in the request: {', '.join(unknown)}"), {}
        if self.options.text_only and not isinstance(prompt, str):
            return 400, refusal(400, "prompt must be a string"), {}
        if not isinstance(tokens, int) or tokens < 1:
            return 400, refusal(400, f"max_tokens must be at least 1, got {tokens}."), {}
        return 200, None, body

    def _may(self, request: Request) -> bool:
        return self._key is None or request.headers.get("authorization") == f"Bearer {self._key}"


@contextlib.contextmanager
def running_stub(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the stub with these options while the block runs; give its address, `http://127.0.0.1:<port>`.

    `folder` is where it may write its port; `env` is added to the environment.
    """
    port_file = folder / "stub.port"
    port_file.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--port-file", str(port_file), *options]
    process = subprocess.Popen(command, env={**os.environ, **(env or {})})
    try:
        deadline = time.monotonic() + 60
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the stub did not start: {command}")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """Listen, say where, serve until a signal comes."""
    options = _parser().parse_args()
    gc.disable()  # a collection over 10,000 streams takes longer than a slot of the wheel
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1 << 16)
    server = Server(options, listener)
    unfinished = options.port_file.with_suffix(".part")
    unfinished.write_text(str(listener.getsockname()[1]))
    unfinished.replace(options.port_file)
    server.loop.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--port-file", type=Path, required=True, help="gets the port once the server listens")
    add("--ttft-ms", type=float, default=50, help="from a request's head to its first chunk")
    add("--itl-ms", type=float, default=20, help="from one chunk to the next")
    add("--jitter-ms", type=float, default=0, help="each chunk is late by up to so much, evenly distributed")
    add("--seed", type=int, default=0, help="of the jitter")
    add("--tokens-per-chunk", type=int, default=1)
    add("--model", help="the only model there is; without it every name is taken")
    add("--max-model-len", type=int, default=32768, help="what /v1/models says; not kept")
    add("--api-key-env", metavar="NAME", help="demand the key that this environment variable holds, else 401")
    add("--text-only", action="store_true", help="refuse prompts of token ids with 400")
    add("--strict", action="store_true", help="refuse fields that OpenAI's API has not with 400")
    add("--status", type=int, help="answer this, such as 429 or 500, ...")
    add("--status-share", type=float, default=1, help="... to this share of requests")
    add("--stall-after", type=int, metavar="CHUNKS", help="send no more after so many chunks ...")
    add("--stall-share", type=float, default=1, help="... of this share of requests")
    add("--close-after", type=int, metavar="CHUNKS", help="reset the connection after so many chunks ...")
    add("--close-share", type=float, default=1, help="... of this share of requests")
    return parser


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
