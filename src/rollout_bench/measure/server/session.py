"""A session with a server, started here or elsewhere: facts about it, single requests, prompts as text."""

import asyncio
import bisect
import contextlib
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from rollout_bench.contracts.load import ENDPOINT_VOCABULARY, EndpointSpec
from rollout_bench.contracts.record import EngineFacts, Flag, Served
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.measure.engine import lora
from rollout_bench.measure.probes.loaded_weights import engine_facts
from rollout_bench.measure.server.server import NAME, Server
from rollout_bench.measure.server.server_metrics import cache_labels
from rollout_bench.measure.server.stream import (
    Prompt,
    Target,
    Unusable,
    beginning,
    event_of,
    in_words,
    open_session,
    parsed,
    refusal,
    server_message,
)
from rollout_bench.workloads.requests import Request, load_tokenizer

_COMMON = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some
so these would other into has more her two like him see time could no make than first been its who now
people my made over did down only way find use may water long little very after words called just where most
know get through back
"""
WORDS = tuple(_COMMON.split())
"""Words that are single tokens in most vocabularies."""


class PromptText:
    """Turns token ids into text.

    Args:
        model: folder or hub id of the model, whose tokenizer decodes; None if unknown: then each id becomes a word, and
            a prompt of n ids has about n tokens.
        trust_remote_code: whether the tokenizer may run code from the model.
    """

    def __init__(self, model: str | None, trust_remote_code: bool = False) -> None:
        self._tokenizer: Any = model and load_tokenizer(model, trust_remote_code)
        self.vocabulary = len(self._tokenizer) if self._tokenizer else ENDPOINT_VOCABULARY
        """Number of ids that it can decode."""

    def of(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        if self._tokenizer is not None:
            return str(self._tokenizer.decode(list(token_ids)))
        return " ".join(WORDS[number % len(WORDS)] for number in token_ids)


ANSWER_S = 30.0
"""Time limit for a single request, until the last byte of its answer, in seconds."""

ANSWER_BYTES = 8 << 20
"""Upper bound for the bytes of a single answer, such as /metrics or the layers of all workers."""

HOW_TO_REACH = "check its url, that it is up, and that no proxy or firewall stands between"


class Connection:
    """Sends single requests to the server of a target, one at a time.

    Args:
        target: the server.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def ask(self, method: str, path: str, content: Any = None, answer_s: float = ANSWER_S) -> tuple[int, str]:
        """Return status and text of the answer to a request for `path`, relative to the address above /v1.

        The text is the server's own, so show it only through `Target.quoted`. For an error it is the start of the
        answer, for a redirect a sentence with the target.

        Raises:
            OSError: if no server answers, or the answer is incomplete, late or too long.
        """
        return asyncio.run(self._answer(method, path, content, answer_s))

    def json(self, method: str, path: str, content: Any = None) -> Any:
        """Return the parsed answer of `ask`; None if it is not JSON or the status is not 200."""
        status, text = self.ask(method, path, content)
        return parsed(text) if status == 200 else None

    def metrics(self) -> str:
        """Return the text of /metrics; empty if the server has no vLLM metrics."""
        status, text = self.ask("GET", "/metrics")
        return text if status == 200 and "vllm:" in text else ""

    def complete(self, prompt: list[int] | str) -> tuple[int, str]:
        """Request a completion of one token."""
        return self.ask("POST", self.target.asked_at.removeprefix(self.target.root), self.target.asking(prompt, 1))

    async def _answer(self, method: str, path: str, content: Any, answer_s: float) -> tuple[int, str]:
        url, limit = f"{self.target.root}{path}", aiohttp.ClientTimeout(total=answer_s)
        given: dict[str, Any] = {"json": content, "headers": self.target.headers, "allow_redirects": False}
        try:
            async with (
                open_session(self.target.verify_tls) as session,
                session.request(method, url, timeout=limit, **given) as response,
            ):
                return response.status, await _text(response)
        except (aiohttp.ClientError, Unusable) as error:
            # aiohttp wraps errors of sockets and certificates
            inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
            cause = str(error) if isinstance(error, Unusable) else in_words(error)
            raise inner or ConnectionError(self.target.quoted(cause)) from None


async def _text(response: aiohttp.ClientResponse) -> str:
    refused = await refusal(response)
    if refused is not None:
        return refused
    content = await beginning(response, ANSWER_BYTES)
    if len(content) > ANSWER_BYTES:
        raise ConnectionError(f"the answer is longer than {ANSWER_BYTES} bytes")
    return content.decode(errors="replace")


PROBE_S = 5.0
"""Time limit for finding out whether a server speaks https, in seconds."""


@contextlib.contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Convert connection errors for `url` into `MeasuringFailed`."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        cause = f"{url}: its certificate is not accepted: {error.verify_message or error}"
        raise MeasuringFailed("tls", cause, "mend the certificate, or set verify_tls: false") from None
    except socket.gaierror as error:
        raise MeasuringFailed("unreachable", f"{url}: no such host: {error.strerror}", HOW_TO_REACH) from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        is_late = isinstance(error, TimeoutError)
        if not refused and not is_late:
            check_scheme(url)
        if isinstance(error, ssl.SSLError):
            cause = f"{url}: no connection by TLS: {error.reason or error}"
            raise MeasuringFailed("tls", cause, "look at the server's settings of TLS, and at its log") from None
        # the text of `Connection.ask` is in words
        cause = str(error) if type(error) is ConnectionError else in_words(error)
        cause = f"no whole answer within {ANSWER_S:g} s" if is_late else cause
        raise MeasuringFailed("refused" if refused else "unreachable", f"{url}: {cause}", HOW_TO_REACH) from None


def check_scheme(url: str) -> None:
    """Raise `MeasuringFailed` if the server at `url` speaks https where that says http, or http where it says https."""
    parts = urlsplit(url)
    if not parts.hostname:
        return
    asked, port = parts.scheme, parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    at = parts.hostname, port
    spoken = next((name for name, speaks in SPEAKS.items() if _is_so(speaks, at, parts.path)), asked)
    if spoken != asked:
        cause = f"{url}: the server speaks {'plain ' * (spoken == 'http')}{spoken} there, not {asked}"
        address = f"{spoken}{url.removeprefix(asked)}"
        raise MeasuringFailed("tls", cause, f"write {address}", [address])


def _speaks_https(connection: socket.socket, host: str, _path: str) -> bool:
    with ssl._create_unverified_context().wrap_socket(connection, server_hostname=host):  # nothing is sent through it
        return True


def _speaks_http(connection: socket.socket, host: str, path: str) -> bool:
    connection.sendall(f"GET {path}/models HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    answer = connection.recv(12)
    return answer.startswith(b"HTTP/") and not answer.endswith(b" 400")


SPEAKS = {"https": _speaks_https, "http": _speaks_http}
"""Scheme -> whether the server of an open connection speaks it."""


def _is_so(speaks: Callable[[socket.socket, str, str], bool], at: tuple[str, int], path: str) -> bool:
    try:
        with socket.create_connection(at, PROBE_S) as connection:
            return speaks(connection, at[0], path)
    except OSError:
        return False


def check_answer(status: int, text: str, target: Target) -> None:
    """Raise `MeasuringFailed` if the answer to a completion reports a failure."""
    if status != 200:
        raise _failure(status, text, target)


def _failure(status: int, text: str, target: Target) -> MeasuringFailed:
    message = target.quoted(server_message(None, None, text), 200)
    if status in (401, 403):
        cause = f"the server refuses the key: {status} {message}"
        remedy = "export the key in the variable that api_key_env names, as api_key_env: SERVER_KEY does"
        if "Authorization" in target.headers:
            remedy = "it was sent as exported: export the one that this server knows, or correct the url"
        return MeasuringFailed("wrong_key", cause, remedy)
    if status == 404:
        cause = f"a completion of the model '{target.model}' was answered with 404: {message or 'no text'}"
        return MeasuringFailed("wrong_model", cause, "name a model that GET /v1/models lists, or correct the url")
    no_template = "give the server a chat template (--chat-template FILE of vLLM), or leave api: chat out"
    return MeasuringFailed(
        "request_refused",
        f"the server answers {status}: {message}",
        "if the host that it names is the one to be measured, set url to its address"
        if 300 <= status < 400
        else no_template
        if "chat template" in message
        else "read what it says; the load may be more than it takes",
    )


def identity(connection: Connection, token_ids: bool) -> Served:
    """Return the server's identity; raise `MeasuringFailed` if it lacks the model or refuses the key."""
    target, model = connection.target, connection.target.model
    status, text = connection.ask("GET", "/v1/models")
    if status in (401, 403):
        check_answer(status, text, target)
    if status == 400:  # with which many servers answer http where they speak https
        check_scheme(target.url)
    answer = parsed(text) if status == 200 else None
    data = answer.get("data") if isinstance(answer, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    listed = {entry["id"]: entry for entry in entries if isinstance(entry.get("id"), str)}
    if listed and model not in listed:
        cause = f"the server has no model '{model}', but {target.quoted(', '.join(list(listed)[:5]))}"
        raise MeasuringFailed("wrong_model", cause, "name one of these in model", list(map(target.quoted, listed)))
    if not isinstance(data, list):
        _check_has_api(connection)
    entry = listed.get(model, {})
    version = connection.json("GET", "/version")
    meta = entry.get("meta")  # llama.cpp's
    longest = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return Served(
        model=model,
        version=_server_value(target, version, "version"),
        max_model_len=longest if type(longest) is int and longest > 0 else None,
        owned_by=_server_value(target, entry, "owned_by"),
        token_ids=token_ids,
    )


COMPLETING = "/v1/completions", "/v1/chat/completions"


def _check_has_api(connection: Connection) -> None:
    """Raise `MeasuringFailed` if no completion can be asked for: an API refuses a request of nothing in other words."""
    absent = {path: connection.ask("POST", path, {})[0] for path in COMPLETING}
    if not {*absent.values()} <= {404, 405, 501}:
        return
    url = connection.target.url
    raise MeasuringFailed(
        "wrong_model",
        f"{url}: there is no completions API at this address: {COMPLETING[0]} answers {absent[COMPLETING[0]]}",
        "correct the url: it ends in /v1, above /v1/models and /v1/completions of an OpenAI-compatible server",
    )


def _server_value(target: Target, answer: Any, name: str) -> str | None:
    """Return the server's value of `name`, safe to store; None if it is missing."""
    word = answer.get(name) if isinstance(answer, dict) else None
    return target.quoted(word, 100) if isinstance(word, str) and word else None


def headers_of(endpoint: EndpointSpec) -> dict[str, str]:
    """Return the headers of every request to `endpoint`, with secrets from the environment.

    Raises:
        MeasuringFailed: if a variable is not set.
    """
    name = endpoint.api_key_env
    key = {} if name is None else {"Authorization": f"Bearer {_variable(name)}"}
    if name is not None and key["Authorization"].startswith("Bearer Bearer "):
        cause = f"the environment variable {name} has Bearer before the key, which is put there anyway"
        raise MeasuringFailed("wrong_key", cause, f"export {name} with the key alone, and run again")
    filled = {name: re.sub(r"\$\{(\w+)\}", lambda m: _variable(m[1]), text) for name, text in endpoint.headers.items()}
    return filled | key


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if value and value.isascii() and value.isprintable():
        return value
    problem = "holds a line break or what no header can carry" if value else "is not set"
    cause = f"the environment variable {name} {problem}"
    raise MeasuringFailed("wrong_key", cause, f"export {name} with the key alone, and run again")


PROBE = [70, 71, 72, 73, 74, 75, 76, 77]
"""Prompt for testing which requests a server accepts; every vocabulary has these ids."""


NOT_UNDERSTOOD = (400, 415, 422, 501)
"""Statuses with which servers reject prompts of token ids or unknown fields."""

BUSY_TRIES = 3

DYING_S = 5.0
"""Longest time from closing its sockets to the end of a process, on a busy machine, in seconds."""


@dataclass
class Opened:
    """A server that has answered a completion.

    Attributes:
        target: address, and contents of every request.
        connection: sends single requests to it.
        facts: known facts of its engine.
        census: weights and facts of the first worker; empty for an endpoint.
        world_size: number of devices that the engine uses.
        vocabulary: upper bound of the prompts' token ids, exclusive.
        text: turns token ids into text if prompts are sent as text; else None.
        end_of_text: token ids that end a text, if the engine needs to be told.
        processes: pids of the server and its engine -> their names.
        flags: flags that hold for all passes.
        server: the server's process if it was started here.
    """

    target: Target
    connection: Connection
    facts: EngineFacts
    census: dict[str, Any]
    world_size: int
    vocabulary: int
    text: PromptText | None = None
    end_of_text: list[int] = field(default_factory=list)
    processes: dict[int, str] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    server: Server | None = None

    def check(self) -> None:
        """Raise `MeasuringFailed` if a server started here has ended."""
        if self.server is not None:
            self.server.check()

    @contextlib.contextmanager
    def between_passes(self) -> Iterator[None]:
        """Convert errors of single requests into `MeasuringFailed`."""
        with _reaching_living(self.server, self.target.url):
            yield

    def reset(self) -> None:
        """Clear the prefix cache of a server started here; other servers are left alone."""
        if self.server is None:
            return
        for _ in range(40):  # the blocks of the last request are freed shortly after its answer
            answer = self.connection.json("POST", "/reset_prefix_cache")
            if not isinstance(answer, dict) or answer.get("success") is not False:
                return
            time.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")

    def prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        """Return the prompt of each request, as the server receives it."""
        ids = [request.prompt_token_ids for request in requests]
        return [*ids] if self.text is None else [self.text.of(each) for each in ids]

    def said(self, requests: Sequence[Request]) -> list[list[Prompt]]:
        """Return the user's part of each further turn of each request, as the server receives it."""
        ids = [[turn.tool_token_ids for turn in request.further] for request in requests]
        return [[each if self.text is None else self.text.of(each) for each in turns] for turns in ids]

    def serve(self, spec: Spec) -> None:
        """Ask a server started here for the workload of `spec` from now on."""
        self.target.body.clear()
        self.target.body.update(sampling(spec, self.end_of_text))

    def stop(self) -> None:
        """End the server if it was started here."""
        if self.server is not None:
            self.server.stop()


@contextlib.contextmanager
def _reaching_living(server: Server | None, url: str) -> Iterator[None]:
    """Convert connection errors for `url` into `MeasuringFailed`; the end of our `server` is the better cause."""
    try:
        with connection_errors(url):
            yield
    except MeasuringFailed:
        until_s = time.monotonic() + DYING_S
        while server is not None and time.monotonic() < until_s:
            server.check()
            time.sleep(0.05)
        raise


_SENTENCES = {
    "prompts_as_text": (
        "Prompts are sent as text: the server tokenizes them, so prompt lengths are only about as asked."
    ),
    "plain_sampling": (
        "The server refuses ignore_eos, top_k and the like: texts may end early, and sampling is its own."
    ),
    "tokens_claimed": (
        "The server does not return token ids: output tokens are its own count, and not seen one by one."
    ),
}
FLAGS = {code: Flag(code=code, severity="warning", sentence=text) for code, text in _SENTENCES.items()}
"""Code -> flag for something that the server did not accept."""


def sampling(spec: Spec, end_of_text: list[int]) -> dict[str, Any]:
    """Return the sampling fields of every request in vLLM's form, as in offline mode."""
    workload = spec.workload
    logprobs = workload.logprobs
    body = {
        "temperature": workload.temperature,
        "top_p": workload.top_p,
        "top_k": workload.top_k,
        "ignore_eos": workload.ignore_eos,
        "return_token_ids": True,  # so that tokens are counted, not claimed
        "logprobs": logprobs,
        "return_tokens_as_token_ids": None if logprobs is None else True,
        "stop_token_ids": None if workload.ignore_eos else end_of_text or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def start_server(spec: Spec, model: str, adapter: tuple[Path, dict[str, int]] | None = None, **more: Any) -> Opened:
    """Start a server, test it with a completion, and return it with its facts.

    Args:
        spec: the spec of the launch.
        model: local folder or hub id of the weights.
        adapter: from `written_adapter`; requests then name it in place of the model.
        more: engine arguments that are not settings of the experiment.
    """
    server = Server(spec, model, more, adapter and adapter[0])
    load = spec.load
    assert load is not None, "an online spec has a load"
    target = Target(
        url=f"http://127.0.0.1:{server.wait_for_port()}/v1",
        model=NAME,
        headers={"Authorization": f"Bearer {server.key}"},
        verify_tls=True,
        body=sampling(spec, []),
        chat=load.api == "chat",
        tokenizer=str(spec.engine.args.get("tokenizer") or model),
        trust_remote_code=bool(spec.engine.args.get("trust_remote_code")),
    )
    connection = Connection(target)
    with _reaching_living(server, "the server"):
        ranks = from_workers(connection, "rollout_bench_census")
        asked = json.dumps(spec.engine.args)
        settings = from_workers(connection, "rollout_bench_settings", asked=asked)[0]
        end_of_text = settings["end_of_text"] if load.token_ids else []
        text = None if load.token_ids else PromptText(target.tokenizer, target.trust_remote_code)
        check_answer(*connection.complete(PROBE if text is None else text.of(PROBE)), target)
        cache = cache_labels(connection.metrics())
        facts = engine_facts(ranks, settings, cache, identity(connection, load.token_ids))
        if adapter is not None:
            ids = lora.probe_prompt(settings["vocabulary"], settings["resolved"]["max_model_len"])
            base, adapted = (_prompt_logprobs(connection, ids, name) for name in (NAME, lora.NAME))
            held = from_workers(connection, "rollout_bench_adapter")
            facts = facts.model_copy(update={"adapter": lora.adapter_facts(adapter[1], held, base, adapted)})
            target = replace(target, model=lora.NAME)
            connection = Connection(target)
    processes = {**server.processes(), **{int(rank["pid"]): "worker" for rank in ranks}}
    return Opened(
        target=target,
        connection=connection,
        facts=facts,
        census=ranks[0],
        world_size=settings["world_size"],
        vocabulary=settings["vocabulary"],
        text=text,
        end_of_text=end_of_text,
        processes=processes,
        flags=[] if text is None else [FLAGS["prompts_as_text"]],
        server=server,
    )


def _prompt_logprobs(connection: Connection, ids: list[int], model: str) -> list[float]:
    """Return the log probability of each token of a prompt but the first, as `model` of the server has it."""
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    status, text = connection.ask("POST", "/v1/completions", body)
    check_answer(status, text, connection.target)
    logprobs = json.loads(text)["choices"][0]["prompt_logprobs"][1:]
    return [of[str(token)]["logprob"] for token, of in zip(ids[1:], logprobs, strict=True)]


def from_workers(connection: Connection, method: str, answer_s: float = ANSWER_S, **given: Any) -> list[Any]:
    """Return what `method` of each worker returns, as JSON has it, within `answer_s` seconds.

    Raises:
        RuntimeError: if the server does not answer so.
    """
    status, text = connection.ask("POST", "/collective_rpc", {"method": method, "kwargs": given}, answer_s)
    answer = parsed(text) if status == 200 else None
    if not isinstance(answer, dict) or not answer.get("results"):
        refused = connection.target.quoted(text)
        raise RuntimeError(f"the server answers {status} to /collective_rpc for {method} (since vLLM 0.23): {refused}")
    return list(answer["results"])


def open_endpoint(spec: Spec) -> Opened:
    """Find out what the endpoint of `spec` is and accepts; raise `MeasuringFailed` if it cannot be measured."""
    endpoint, load = spec.endpoint, spec.load
    assert endpoint is not None, "what is opened is an endpoint"
    assert load is not None, "an online spec has a load"
    full = sampling(spec, [])
    plain = {name: full[name] for name in ("temperature", "top_p")}
    try:
        text = PromptText(endpoint.tokenizer)
    except UserError as error:
        fix = "name a folder with tokenizer files in the endpoint's tokenizer, or leave it out"
        raise MeasuringFailed("wrong_tokenizer", error.problem, fix) from None
    headers, refused = headers_of(endpoint), []
    ways = [(body, ids) for body in (full, plain) for ids in (True, False) if load.token_ids or not ids]
    where = endpoint.url, endpoint.model, headers, endpoint.verify_tls
    target = Target(*where, full, load.api == "chat", endpoint.tokenizer)
    with connection_errors(endpoint.url):
        served = identity(Connection(target), load.token_ids)
        for body, token_ids in ways:
            connection = Connection(replace(target, body=body))
            status, answer = _asked_patiently(connection, PROBE if token_ids else text.of(PROBE))
            if status not in (200, *NOT_UNDERSTOOD):
                check_answer(status, answer, target)
            if status != 200:
                refused.append((status, answer))
            elif not token_ids or (took_token_ids(answer) and (spec.workload.turns is None or counts_tokens(answer))):
                vocabulary = vocabulary_of(connection, text.vocabulary) if token_ids else text.vocabulary
                return _opened_server(
                    connection, served, body is full, vocabulary, text if not token_ids else None, answer
                )
    status, answer = refused[0] if refused else (400, "it takes prompts neither as token ids nor as text")
    raise _failure(status, answer, target)


def _asked_patiently(connection: Connection, prompt: list[int] | str) -> tuple[int, str]:
    """Return status and text of a completion.

    A busy server is asked again, so that the result does not depend on its load.
    """
    for _ in range(BUSY_TRIES):
        status, answer = connection.complete(prompt)
        if (status != 429 and status < 500) or status == 501:
            break
        time.sleep(1.0)
    return status, answer


def took_token_ids(answer: str) -> bool:
    """Return whether the probe was read as one prompt with its length, or one token more for the start of text."""
    event = event_of(answer.encode())
    counted = event.usage.get("prompt_tokens") if isinstance(event.usage, dict) else None
    return len(event.choices or ()) == 1 and counted in (len(PROBE), len(PROBE) + 1)


def vocabulary_of(connection: Connection, most: int) -> int:
    """Return how many token ids the server accepts in prompts, at most `most`; it takes a completion for each guess.

    Raises:
        MeasuringFailed: the server fails, or it refuses prompts for another reason than their ids.
    """
    refused = 200, ""

    def is_refused(vocabulary: int) -> bool:
        nonlocal refused
        status, answer = _asked_patiently(connection, [*PROBE[:-1], vocabulary - 1])
        if status not in NOT_UNDERSTOOD:
            check_answer(status, answer, connection.target)
            if took_token_ids(answer):
                return False
        refused = status, answer
        return True

    if not is_refused(most):
        return most
    tried = range(PROBE[-1] + 1, most)
    first = bisect.bisect_left(tried, True, key=is_refused)
    if first < 2:  # only the ids of the probe itself, which was accepted before
        raise _failure(*refused, connection.target)
    return tried[first - 1]


def counts_tokens(answer: str) -> bool:
    """Return whether the answer has the token ids that were generated."""
    return any(choice.token_ids is not None for choice in event_of(answer.encode()).choices or ())


def _opened_server(
    connection: Connection, served: Served, full: bool, vocabulary: int, text: PromptText | None, answer: str
) -> Opened:
    token_ids = text is None
    counts = counts_tokens(answer)
    served = served.model_copy(update={"token_ids": token_ids, "counts_tokens": counts})
    codes = {"prompts_as_text": not token_ids, "plain_sampling": not full, "tokens_claimed": not counts}
    facts = EngineFacts(
        resolved={}, kv_cache_tokens=None, weights_bytes_by_dtype=None, linear_methods={}, served=served
    )
    return Opened(
        target=connection.target,
        connection=connection,
        facts=facts,
        census={},
        world_size=1,
        vocabulary=vocabulary,
        text=text,
        flags=[FLAGS[code] for code, raised in codes.items() if raised],
    )
