"""Single requests to a server before, between and after passes: is it there, what is it, what does it count."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from rollout_bench.plan.loads import EndpointSpec
from rollout_bench.records.online import Served
from rollout_bench.serving.answers import ERROR_BYTES, elsewhere, encoding_of, parsed, told
from rollout_bench.serving.metrics import median_s
from rollout_bench.serving.target import ServingFailed, Target

ANSWER_S = 30.0
"""How long a single request may take, from its beginning to the last byte of its answer."""

ANSWER_BYTES = 8 << 20
"""More than any single answer takes: what each worker of a large server says of its layers, or /metrics."""

PINGS = 11

HOW_TO_REACH = "check its url, that it is up, and that no proxy or firewall stands between"


class Connection:
    """Asks the server behind a target, one request at a time.

    Args:
        target: the server.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._root = urlsplit(target.root)

    def ask(self, method: str, path: str, content: Any = None, answer_s: float = ANSWER_S) -> tuple[int, str]:
        """Status and text of the answer to a request for `path`, below the address above /v1.

        The text is as the server wrote it, to be shown through `Target.quoted` only. Of an error it is the beginning,
        of a redirect where it leads.

        Raises:
            OSError: there is no server, or no whole answer in time, or one without end.
        """
        body = None if content is None else json.dumps(content).encode()
        headers = {**self.target.headers, **({"Content-Type": "application/json"} if body else {})}
        with contextlib.closing(self._connect(answer_s)) as connection:
            try:
                connection.request(method, self._root.path.rstrip("/") + path, body, headers)
                return _read(connection.getresponse())
            except http.client.HTTPException as error:
                said = self.target.quoted(f"{type(error).__name__} {error}")
                raise ConnectionError(said) from None

    def json(self, method: str, path: str, content: Any = None) -> Any:
        """As `ask`, parsed; None where the answer is no JSON or no success."""
        status, text = self.ask(method, path, content)
        return parsed(text) if status == 200 else None

    def metrics(self) -> str:
        """The text of /metrics; empty where the server has none."""
        status, text = self.ask("GET", "/metrics")
        return text if status == 200 and "vllm:" in text else ""

    def round_trip_s(self) -> float | None:
        """Median time of a request that does nothing, in seconds."""
        times = []
        for _ in range(PINGS):
            start = time.monotonic()
            status, _text = self.ask("GET", "/health")
            if status == 200:
                times.append(time.monotonic() - start)
        return median_s(times)

    def complete(self, prompt: list[int] | str, more: dict[str, Any]) -> tuple[int, str]:
        """Has one token generated."""
        body = {**self.target.body, "model": self.target.model, "prompt": prompt, "max_tokens": 1, **more}
        return self.ask("POST", "/v1/completions", body)

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._root.hostname or "", self._root.port or (443 if self._root.scheme == "https" else 80)
        if self._root.scheme == "https":
            context = ssl.create_default_context()
            if not self.target.verify_tls:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        connection.response_class = partial(_Answer, time.monotonic() + timeout_s)  # type: ignore[assignment]
        return connection


class _Arriving(io.RawIOBase):
    """What comes over a connection until a moment of the monotonic clock; sockets only limit the wait for each byte."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket, until_s: float) -> None:
        self._raw = raw
        self._connected = connected
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connected.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer, head and all, that comes until `until_s` or not at all."""

    def __init__(self, until_s: float, connected: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(connected, *arguments, **more)
        self.fp = io.BufferedReader(_Arriving(self.fp.detach(), connected, until_s))


def _read(answer: http.client.HTTPResponse) -> tuple[int, str]:
    encoding, redirect = encoding_of(answer.headers), elsewhere(answer.status, answer.headers)
    if redirect is not None:
        return answer.status, redirect
    if encoding is not None:
        raise ConnectionError("the answer is compressed, though that was not asked for")
    if answer.status != 200:
        return answer.status, answer.read(ERROR_BYTES).decode(errors="replace")
    content = answer.read(ANSWER_BYTES + 1)
    if len(content) > ANSWER_BYTES:
        raise ConnectionError(f"the answer is longer than {ANSWER_BYTES} bytes")
    if answer.length:
        raise http.client.IncompleteRead(content, answer.length)
    return answer.status, content.decode(errors="replace")


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong on the way to `url` into `ServingFailed`."""
    try:
        yield
    except ssl.SSLError as error:
        cause = f"{url}: its certificate is not accepted: {error.reason or error}"
        raise ServingFailed("tls", cause, "mend the certificate, or set verify_tls: false") from None
    except socket.gaierror as error:
        raise ServingFailed("unreachable", f"{url}: no such host: {error.strerror}", HOW_TO_REACH) from None
    except ConnectionRefusedError:
        raise ServingFailed("refused", f"{url}: connection refused: nothing listens there", HOW_TO_REACH) from None
    except TimeoutError:
        raise ServingFailed("unreachable", f"{url}: no whole answer within {ANSWER_S:g} s", HOW_TO_REACH) from None
    except OSError as error:
        raise ServingFailed("unreachable", f"{url}: {error}", HOW_TO_REACH) from None


def check_answer(status: int, text: str, target: Target) -> None:
    """Raises `ServingFailed` where the answer to a completion is none."""
    said = target.quoted(told(None, None, text), 200)
    if status in (401, 403):
        raise ServingFailed(
            "wrong_key", f"the server refuses the key: {status} {said}", "set the variable that api_key_env names"
        )
    if status == 404:
        raise ServingFailed(
            "wrong_model", f"the server has no model '{target.model}': {said}", "name one that GET /v1/models lists"
        )
    if 300 <= status < 400:
        fix = "if the host that it names is the one to be measured, set url to its address"
        raise ServingFailed("request_refused", f"the server answers {status}: {said}", fix)
    if status != 200:
        fix = "read what it says; the load may be more than it takes"
        raise ServingFailed("request_refused", f"the server answers {status}: {said}", fix)


def identity(connection: Connection, token_ids: bool) -> Served:
    """What the server says of itself; raises `ServingFailed` where it has not the model or the key is wrong."""
    target, model = connection.target, connection.target.model
    status, text = connection.ask("GET", "/v1/models")
    if status in (401, 403):
        check_answer(status, text, target)
    found = parsed(text) if status == 200 else None
    data = found.get("data") if isinstance(found, dict) else None
    listed = {entry["id"]: entry for entry in data if _names_itself(entry)} if isinstance(data, list) else {}
    if listed and model not in listed:
        names = target.quoted(", ".join(list(listed)[:5]))
        raise ServingFailed(
            "wrong_model", f"the server has no model '{model}', but {names}", "name one of these in model"
        )
    entry = listed.get(model, {})
    version = connection.json("GET", "/version")
    meta = entry.get("meta")  # llama.cpp's
    longest = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return Served(
        model=model,
        version=_word(target, version, "version"),
        max_model_len=longest if type(longest) is int and longest > 0 else None,
        owned_by=_word(target, entry, "owned_by"),
        token_ids=token_ids,
    )


def _names_itself(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str)


def _word(target: Target, answer: Any, name: str) -> str | None:
    """What a server says under `name`, fit to be kept; None where it says nothing there."""
    word = answer.get(name) if isinstance(answer, dict) else None
    return target.quoted(word, 100) if isinstance(word, str) and word else None


def headers_of(endpoint: EndpointSpec) -> dict[str, str]:
    """The headers of every request to `endpoint`, secrets filled in from the environment.

    Raises:
        ServingFailed: a variable is not set.
    """
    headers = {name: re.sub(r"\$\{(\w+)\}", lambda m: _variable(m[1]), text) for name, text in endpoint.headers.items()}
    if endpoint.api_key_env is not None:
        headers["Authorization"] = f"Bearer {_variable(endpoint.api_key_env)}"
    return headers


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise ServingFailed("wrong_key", f"the environment variable {name} is not set", f"export {name} and run again")
    if not value.isascii() or not value.isprintable():
        cause = f"the environment variable {name} holds a line break or what no header can carry"
        raise ServingFailed("wrong_key", cause, f"export {name} with the key alone, and run again")
    return value
