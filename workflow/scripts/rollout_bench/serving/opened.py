"""A server that answers: one of ours, or somebody's, with what is known of it and how requests are put to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.engines.facts import engine_facts
from rollout_bench.plan.spec import Spec
from rollout_bench.records.online import Served
from rollout_bench.records.profile import LinearShape
from rollout_bench.records.record import EngineFacts, Flag
from rollout_bench.serving.answers import parsed
from rollout_bench.serving.connection import Connection, check_answer, headers_of, identity, reaching
from rollout_bench.serving.metrics import cache_labels
from rollout_bench.serving.server import NAME, Server
from rollout_bench.serving.stream import TOKEN_IDS
from rollout_bench.serving.target import ServingFailed, Target
from rollout_bench.serving.text import PromptText

PROBE = [70, 71, 72, 73, 74, 75, 76, 77]
"""A prompt for finding out what a server takes; no vocabulary is so small that it lacks these."""


NOT_UNDERSTOOD = (400, 415, 422, 501)
"""Statuses by which servers refuse prompts of token ids, and fields that they don't know."""

BUSY_TRIES = 3

DYING_S = 1.0
"""How long a process may take from closing its sockets to its end."""


@dataclass
class Opened:
    """A server that has answered a completion.

    Attributes:
        target: where requests go and what each carries.
        connection: single requests to it.
        served: what it said of itself.
        facts: what is known of the engine behind it.
        device: `device_model` and `device_memory_bytes`, where a worker told.
        world_size: devices the engine uses.
        vocabulary: prompts' token ids are below it.
        text: turns token ids into text, where prompts travel as text; else None.
        processes: pids of the server and its engine -> what they are.
        flags: doubts that hold for all passes.
        server: the process, where it is ours.
    """

    target: Target
    connection: Connection
    served: Served
    facts: EngineFacts
    device: dict[str, Any]
    world_size: int
    vocabulary: int
    text: PromptText | None = None
    processes: dict[int, str] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    server: Server | None = None

    def check(self) -> None:
        """Raises `ServingFailed` where a server of ours has ended."""
        if self.server is not None:
            self.server.check()

    @contextlib.contextmanager
    def between_passes(self) -> Iterator[None]:
        """Turns what goes wrong with single requests into `ServingFailed`."""
        try:
            with reaching(self.target.url):
                yield
        except ServingFailed:
            time.sleep(DYING_S)
            self.check()  # that a server of ours ended says more than that nothing listens
            raise

    def reset(self) -> None:
        """Empties the prefix cache of a server of ours; nobody else's is touched."""
        if self.server is None:
            return
        for _ in range(40):  # the blocks of the last request are freed a moment after its answer
            answer = self.connection.json("POST", "/reset_prefix_cache")
            if not isinstance(answer, dict) or answer.get("success") is not False:
                return
            time.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")

    def linears(self) -> list[LinearShape]:
        """The linear layers of the first worker's part of the model, of a server of ours."""
        with self.between_passes():
            return [LinearShape.model_validate(s) for s in _from_workers(self.connection, "rollout_bench_linears")[0]]

    def stop(self) -> None:
        """Ends a server of ours."""
        if self.server is not None:
            self.server.stop()


def open_own(spec: Spec, model: str, **more: Any) -> Callable[[], Opened]:
    """Starts a server, with `more` arguments of the engine; what is returned waits until it is ready."""
    server = Server(spec, model, more)
    return lambda: _own(spec, model, server)


def sampling(spec: Spec, end_of_text: list[int]) -> dict[str, Any]:
    """Fields of every request that vLLM knows: the sampling of offline mode."""
    workload = spec.workload
    body: dict[str, Any] = {
        "temperature": workload.temperature,
        "top_p": workload.top_p,
        "top_k": workload.top_k,
        "ignore_eos": workload.ignore_eos,
        "return_token_ids": True,  # so that tokens are counted, not claimed
    }
    if workload.logprobs is not None:
        body |= {"logprobs": workload.logprobs, "return_tokens_as_token_ids": True}
    if end_of_text and not workload.ignore_eos:
        body["stop_token_ids"] = end_of_text
    return body


def _own(spec: Spec, model: str, server: Server) -> Opened:
    load = spec.load
    assert load is not None, "an online spec has a load"
    port = server.wait_for_port()
    target = Target(
        url=f"http://127.0.0.1:{port}/v1",
        model=NAME,
        headers={"Authorization": f"Bearer {server.key}"},
        verify_tls=True,
        stream=load.stream,
        body=sampling(spec, []),
    )
    connection = Connection(target)
    with reaching("the server"):
        ranks = _from_workers(connection, "rollout_bench_census")
        settings = _from_workers(connection, "rollout_bench_settings")[0]
        if load.token_ids and not spec.workload.ignore_eos:
            target.body.update(sampling(spec, settings["end_of_text"]))
        text = (
            None
            if load.token_ids
            else PromptText(
                str(spec.engine.args.get("tokenizer") or model), bool(spec.engine.args.get("trust_remote_code"))
            )
        )
        check_answer(*connection.complete(PROBE if text is None else text.of(PROBE), {}), target)
        served = identity(connection, load.token_ids)
        cache = cache_labels(connection.metrics())
    facts = engine_facts(ranks, settings["resolved"], settings["tensor_parallel_size"], _kv_cache_tokens(cache))
    processes = {**server.processes(), **{int(rank["pid"]): "worker" for rank in ranks}}
    return Opened(
        target=target,
        connection=connection,
        served=served,
        facts=facts.model_copy(update={"served": served}),
        device=ranks[0],
        world_size=settings["world_size"],
        vocabulary=settings["vocabulary"],
        text=text,
        processes=processes,
        flags=[] if text is None else [text_flag()],
        server=server,
    )


def _from_workers(connection: Connection, method: str) -> list[dict[str, Any]]:
    answer = connection.json("POST", "/collective_rpc", {"method": method})
    if not isinstance(answer, dict) or not answer.get("results"):
        raise RuntimeError(f"the server does not answer /collective_rpc for {method}: is this vLLM older than 0.23?")
    return list(answer["results"])


def _kv_cache_tokens(labels: dict[str, str]) -> int | None:
    said = labels.get("kv_cache_size_tokens", "")
    if said.isdigit():
        return int(said)
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    return int(blocks) * int(size) if blocks.isdigit() and size.isdigit() else None


def open_endpoint(spec: Spec) -> Opened:
    """Finds out what the endpoint of `spec` is and takes; raises `ServingFailed` where it can't be measured."""
    endpoint, load = spec.endpoint, spec.load
    assert endpoint is not None, "what is opened is an endpoint"
    assert load is not None, "an online spec has a load"
    full = sampling(spec, [])
    plain = {name: full[name] for name in ("temperature", "top_p")}
    text = PromptText(None)

    def target(body: dict[str, Any]) -> Target:
        return Target(endpoint.url, endpoint.model, headers_of(endpoint), endpoint.verify_tls, load.stream, body)

    with reaching(endpoint.url):
        connection = Connection(target(full))
        served = identity(connection, load.token_ids)
        refused: tuple[int, str] | None = None
        for body, token_ids in ((full, True), (full, False), (plain, True), (plain, False)):
            if token_ids and not load.token_ids:
                continue
            connection = Connection(target(body))
            status, answer = _asked_patiently(connection, PROBE if token_ids else text.of(PROBE))
            if status not in (200, *NOT_UNDERSTOOD):
                check_answer(status, answer, connection.target)
            if status == 200 and (not token_ids or _took_token_ids(answer)):
                return _found(connection, endpoint.vocabulary, served, body is full, token_ids, text, answer)
            if status != 200:
                refused = refused or (status, answer)
        check_answer(*(refused or (400, "it takes prompts neither as token ids nor as text")), connection.target)
    raise ServingFailed("request_refused", f"{endpoint.url} answers nothing that could be measured", "try it by hand")


def _asked_patiently(connection: Connection, prompt: list[int] | str) -> tuple[int, str]:
    """Status and text of a completion; a server that is busy is asked again, since its load is not to depend on it."""
    for _ in range(BUSY_TRIES):
        status, answer = connection.complete(prompt, {})
        if (status != 429 and status < 500) or status == 501:
            break
        time.sleep(1.0)
    return status, answer


def _took_token_ids(answer: str) -> bool:
    """Whether the probe was read as one prompt of so many tokens, a beginning-of-text token besides."""
    try:
        content = parsed(answer)
        counted = content["usage"]["prompt_tokens"]
        return len(content["choices"]) == 1 and counted in (len(PROBE), len(PROBE) + 1)
    except (KeyError, TypeError):
        return False


def _found(
    connection: Connection, vocabulary: int, served: Served, full: bool, token_ids: bool, text: PromptText, answer: str
) -> Opened:
    counts = TOKEN_IDS.search(answer.encode()) is not None
    served = served.model_copy(update={"token_ids": token_ids, "counts_tokens": counts})
    flags = [] if token_ids else [text_flag()]
    if not full:
        sentence = "The server refuses ignore_eos, top_k and the like: texts may end early, and sampling is its own."
        flags.append(Flag(code="plain_sampling", severity="warning", sentence=sentence))
    if not counts:
        sentence = "The server does not return token ids: output tokens are its own count, and not seen one by one."
        flags.append(Flag(code="tokens_claimed", severity="warning", sentence=sentence))
    facts = EngineFacts(
        resolved={}, kv_cache_tokens=None, weights_bytes_by_dtype=None, linear_methods={}, served=served
    )
    return Opened(
        target=connection.target,
        connection=connection,
        served=served,
        facts=facts,
        device={},
        world_size=1,
        vocabulary=vocabulary,
        text=None if token_ids else text,
        flags=flags,
    )


def text_flag() -> Flag:
    """Says that prompts travel as text."""
    sentence = "Prompts are sent as text: the server tokenizes them, so prompt lengths are only about as asked."
    return Flag(code="prompts_as_text", severity="warning", sentence=sentence)
