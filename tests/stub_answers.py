"""What the stub server says: the bytes of its answers, in the form of vLLM's completions API."""

from __future__ import annotations

import json
import time
from typing import Any

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError"}
TOKEN_ID = 5
TOKEN_TEXT = " a"
KNOWN_FIELDS = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "messages",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
    }
)
"""The body fields of OpenAI's completions API; servers other than vLLM may refuse all others."""


def answer(status: int, content: object) -> bytes:
    """Return a whole HTTP answer whose body is JSON."""
    body = json.dumps(content, separators=(",", ":")).encode()
    reason = REASONS.get(status, "Internal Server Error" if status >= 500 else "Error")
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusal(status: int, message: str) -> bytes:
    """Return an error as vLLM says it."""
    kind = ERROR_TYPES.get(status, "InternalServerError")
    return answer(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})


class Completion:
    """A completion whose tokens are all alike, so that each of its chunks but two is the same bytes."""

    __slots__ = ("_body", "_id", "_ids", "_model", "_per_chunk", "_prompt", "_with_usage", "chat", "tokens")

    def __init__(self, number: int, body: dict[str, Any], model: str, per_chunk: int, *, usage: bool) -> None:
        self._id = f"cmpl-{number:08d}"
        self._model = model
        self._per_chunk = per_chunk
        self.chat = "messages" in body
        self._prompt = " ".join(each["content"] for each in body["messages"]) if self.chat else body["prompt"]
        self._ids = bool(body.get("return_token_ids"))
        self._with_usage = usage
        self.tokens: int = body.get("max_tokens", 16)

    @property
    def chunks(self) -> int:
        """Number of stream chunks that hold tokens."""
        return -(-self.tokens // self._per_chunk)

    def chunk(self, index: int) -> bytes:
        """Return the bytes of one stream chunk with tokens, by its index."""
        last = index == self.chunks - 1
        tokens = self.tokens - index * self._per_chunk if last else self._per_chunk
        choice = {
            "index": 0,
            **({"delta": {"content": TOKEN_TEXT * tokens}} if self.chat else {"text": TOKEN_TEXT * tokens}),
            "logprobs": None,
            "finish_reason": "length" if last else None,
            "stop_reason": None,
            "prompt_token_ids": self._prompt
            if self._ids and index == 0 and not isinstance(self._prompt, str)
            else None,
            "token_ids": [TOKEN_ID] * tokens if self._ids else None,
        }
        return self._event({**self._head(), "choices": [choice]})

    def tail(self) -> bytes:
        """Return what follows the last token: usage where it was asked for, and the end of the stream."""
        usage = self._event({**self._head(), "choices": [], "usage": self._usage()}) if self._with_usage else b""
        return usage + _http_chunk(b"data: [DONE]\n\n") + STREAM_END

    def whole(self) -> bytes:
        """Return the answer to a request that does not stream."""
        choice = {
            "index": 0,
            **(
                {"message": {"role": "assistant", "content": TOKEN_TEXT * self.tokens}}
                if self.chat
                else {"text": TOKEN_TEXT * self.tokens}
            ),
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "token_ids": [TOKEN_ID] * self.tokens if self._ids else None,
        }
        return answer(200, {**self._head(), "choices": [choice], "usage": self._usage()})

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": int(time.time()), "model": self._model}

    def _usage(self) -> dict[str, int]:
        prompt = len(self._prompt.split()) if isinstance(self._prompt, str) else len(self._prompt)
        return {"prompt_tokens": prompt, "total_tokens": prompt + self.tokens, "completion_tokens": self.tokens}

    def _event(self, content: dict[str, Any]) -> bytes:
        return _http_chunk(b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
