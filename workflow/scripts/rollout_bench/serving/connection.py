"""Single requests to a server before, between and after passes: is it there, what is it, what does it count."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from rollout_bench.plan.loads import EndpointSpec
from rollout_bench.records.online import Served
from rollout_bench.serving.metrics import median_s
from rollout_bench.serving.target import ServingFailed, Target

ANSWER_S = 30.0
"""How long a single request may take."""

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

        Raises:
            OSError: there is no server, or no answer in time.
        """
        body = None if content is None else json.dumps(content).encode()
        headers = {**self.target.headers, **({"Content-Type": "application/json"} if body else {})}
        with contextlib.closing(self._connect(answer_s)) as connection:
            try:
                connection.request(method, self._root.path.rstrip("/") + path, body, headers)
                answer = connection.getresponse()
                return answer.status, self.target.without_secrets(answer.read().decode(errors="replace"))
            except http.client.HTTPException as error:
                raise ConnectionError(f"{type(error).__name__} {error}".strip()) from None

    def json(self, method: str, path: str, content: Any = None) -> Any:
        """As `ask`, parsed; None where the answer is no JSON or no success."""
        status, text = self.ask(method, path, content)
        if status != 200:
            return None
        try:
            return json.loads(text)
        except ValueError:
            return None

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
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)


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
        raise ServingFailed("unreachable", f"{url}: no answer for {ANSWER_S:g} s", HOW_TO_REACH) from None
    except OSError as error:
        raise ServingFailed("unreachable", f"{url}: {error}", HOW_TO_REACH) from None


def check_answer(status: int, text: str, model: str) -> None:
    """Raises `ServingFailed` where the answer to a completion is none."""
    said = " ".join(text.split())[:200]
    if status in (401, 403):
        raise ServingFailed(
            "wrong_key", f"the server refuses the key: {status} {said}", "set the variable that api_key_env names"
        )
    if status == 404:
        raise ServingFailed(
            "wrong_model", f"the server has no model '{model}': {said}", "name one that GET /v1/models lists"
        )
    if status != 200:
        fix = "read what it says; the load may be more than it takes"
        raise ServingFailed("request_refused", f"the server answers {status}: {said}", fix)


def identity(connection: Connection, model: str, token_ids: bool) -> Served:
    """What the server says of itself; raises `ServingFailed` where it does not know `model` or the key is wrong."""
    status, text = connection.ask("GET", "/v1/models")
    listed: list[dict[str, Any]] = []
    if status == 200:
        with contextlib.suppress(ValueError, AttributeError):
            listed = [entry for entry in json.loads(text).get("data", []) if isinstance(entry, dict)]
    elif status in (401, 403):
        check_answer(status, text, model)
    names = [str(entry.get("id")) for entry in listed]
    if listed and model not in names:
        raise ServingFailed(
            "wrong_model",
            f"the server has no model '{model}', but {', '.join(names[:5])}",
            "name one of these in model",
        )
    entry = listed[names.index(model)] if listed else {}
    version = connection.json("GET", "/version")
    meta = entry.get("meta")  # llama.cpp's
    longest = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return Served(
        model=model,
        version=str(version["version"]) if isinstance(version, dict) and "version" in version else None,
        max_model_len=longest if isinstance(longest, int) else None,
        owned_by=str(entry["owned_by"]) if entry.get("owned_by") else None,
        token_ids=token_ids,
    )


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
