"""A server that records every request of a load generator, and answers each with tokens that cost nothing."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ANSWER_S = 0.15
"""Seconds from a request to the end of its answer."""

PIECES = 4
"""Pieces of an answer, however many tokens it has: load generators read the number of tokens from `usage`."""


@dataclass
class Recorded:
    """A request as it came.

    Attributes:
        path: path of its address.
        body: its body.
        came_s: time of its arrival, on the monotonic clock.
        ended_s: time at which it ended: with its answer, or because the client left.
    """

    path: str
    body: dict[str, Any]
    came_s: float
    ended_s: float = float("inf")

    @property
    def prompt(self) -> str | list[int]:
        """Text or token ids of the prompt; of a chat, the text of its messages."""
        messages = self.body.get("messages")
        if messages is None:
            prompt: str | list[int] = self.body["prompt"]
            return prompt
        contents = [message["content"] for message in messages]
        return "".join(one if isinstance(one, str) else "".join(part["text"] for part in one) for one in contents)


@dataclass
class Recorder:
    """A running server: its address, the model that it has, and the requests so far in the order of arrival."""

    model: str
    url: str = ""
    requests: list[Recorded] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of OpenAI's API."""
        came_s = time.monotonic()
        if request.method != "POST":
            about = {
                "id": self.model,
                "object": "model",
                "created": 0,
                "owned_by": "recorder",
                "max_model_len": 1 << 20,
            }
            return web.json_response({"object": "list", "data": [about]})
        if not request.path.endswith("/completions"):  # such as vLLM's /tokenize, which other servers lack
            raise web.HTTPNotFound
        recorded = Recorded(request.path, await request.json(), came_s)
        self.requests.append(recorded)
        try:
            return await self._stream(request, recorded)
        finally:
            recorded.ended_s = time.monotonic()

    async def _stream(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        body, prompt = recorded.body, recorded.prompt
        tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 1
        parts = [tokens * (place + 1) // PIECES - tokens * place // PIECES for place in range(PIECES)]
        for part in filter(None, parts):
            await asyncio.sleep(ANSWER_S / PIECES)
            text = " a" * part
            said = {"delta": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
            ids = {"token_ids": [5] * part} if body.get("return_token_ids") else {}
            await _event(response, {"choices": [{"index": 0, "finish_reason": None, **said, **ids}]})
        end = {"delta": {}} if "messages" in body else {"text": ""}
        await _event(response, {"choices": [{"index": 0, "finish_reason": "length", **end}]})
        asked = len(prompt.split() if isinstance(prompt, str) else prompt)
        usage = {"prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens}
        await _event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response


async def _event(response: web.StreamResponse, content: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps({"object": "text_completion", **content}).encode() + b"\n\n")


@contextlib.contextmanager
def recording(model: str) -> Iterator[Recorder]:
    """Run a recorder while the block runs."""
    recorder, loop = Recorder(model), asyncio.new_event_loop()
    ended, started = asyncio.Event(), threading.Event()

    async def serve() -> None:
        server = web.Server(
            recorder.answer, request_factory=lambda *made: web.BaseRequest(*made, loop, client_max_size=1 << 30)
        )
        listening = await loop.create_server(server, "127.0.0.1", 0, backlog=1024)
        recorder.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        started.set()
        await ended.wait()
        listening.close()
        await server.shutdown(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
