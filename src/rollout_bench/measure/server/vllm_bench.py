"""Requests sent by `vllm bench serve`'s own Python entry point.

vLLM paces the requests and limits how many are under way; the function that sends one is ours, since vLLM's keeps
neither status, finish reason, nor how many tokens came in each piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import inspect
import json
import resource
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.stream import (
    TEMPLATE_TOKENS,
    LoadPass,
    Prompt,
    Question,
    RequestOutcome,
    ServingFailed,
    Target,
    open_session,
    send,
)
from rollout_bench.workloads.requests import Request

BACKEND = "rollout-bench"
"""What vLLM calls our function."""

LOOK_S = 0.01
"""How often the event loop is asked whether it is late."""


def questions(requests: Sequence[Request], prompts: Sequence[list[int] | str], target: Target) -> list[Question]:
    """Return what is sent for each request, made before the pass so that making it costs nothing in it."""
    return [
        question_of(prompt, request.output_tokens, target) for request, prompt in zip(requests, prompts, strict=True)
    ]


def question_of(prompt: Prompt, output_tokens: int, target: Target) -> Question:
    """Return what is sent to have `prompt` answered with so many tokens."""
    how: dict[str, Any] = {"stream": target.stream}
    if target.stream:
        how["stream_options"] = {"include_usage": True}
    parts = 1 if isinstance(prompt, str) else len(prompt)
    added = TEMPLATE_TOKENS * parts if target.chat else 0
    return Question(json.dumps({**target.asking(prompt, output_tokens), **how}).encode(), output_tokens, added)


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
) -> Callable[[], LoadPass]:
    """Make what is needed to send all `requests`; what is returned sends them and waits for the answers.

    Args:
        requests: what is asked for.
        prompts: the prompt of each, as token ids or text.
        due_s: when each is to be sent, in seconds after the beginning, rising; None: all as soon as possible.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
    """
    from vllm.benchmarks import serve
    from vllm.benchmarks.datasets import SampleRequest

    outcomes = [RequestOutcome() for _ in requests]
    contents = questions(requests, prompts, target)
    headers = {"Content-Type": "application/json", **target.headers}
    url = target.asked_at

    name = secrets.token_hex(4)  # nobody else's requests at that server, nor those of another pass, have such ids
    handed_s: dict[int, float] = {}
    began_s: list[float] = []
    sessions: list[aiohttp.ClientSession] = []  # ours, since vLLM's does not tell when a request was really sent

    async def request(request_func_input: Any, session: Any, pbar: Any = None) -> Any:  # named as vLLM names them
        number = int(request_func_input.request_id)
        outcome = outcomes[number]
        if paced_here and due_s is not None:
            began_s.append(time.monotonic())
            await asyncio.sleep(max(0.0, began_s[0] + due_s[number] - time.monotonic()))
        handed_s[number] = time.monotonic()
        own = {**headers, "X-Request-Id": f"{name}-{number}"}
        await send(sessions[0], url, own, contents[number], target.stream, outcome)
        target.settle(outcome)
        return _as_vllm_has_it(outcome, request_func_input.prompt_len)

    serve.ASYNC_REQUEST_FUNCS[BACKEND] = request
    fields = {field.name for field in dataclasses.fields(SampleRequest)}
    samples = [
        SampleRequest(
            prompt="",
            prompt_len=len(asked.prompt_token_ids),
            expected_output_len=asked.output_tokens,
            request_id=str(number),
            **({"timestamp": due_s[number]} if due_s is not None and "timestamp" in fields else {}),
        )
        for number, asked in enumerate(requests)
    ]
    arguments: dict[str, Any] = {
        "task_type": serve.TaskType.GENERATION,
        "endpoint_type": BACKEND,
        "api_url": url,
        "base_url": "",  # else vLLM asks its /metrics four times a pass, at any length and wherever it redirects to
        "model_id": target.model,
        "model_name": target.model,
        "tokenizer": None,
        "input_requests": samples,
        "logprobs": None,
        "request_rate": float("inf"),
        "burstiness": 1.0,
        "disable_tqdm": True,
        "num_warmups": 0,
        "profile": False,
        "selected_percentile_metrics": ["ttft"],
        "selected_percentiles": [50.0],
        "ignore_eos": False,
        "goodput_config_dict": {},
        "max_concurrency": concurrency,
        "lora_modules": None,
        "extra_headers": None,
        "extra_body": None,
        "ready_check_timeout_sec": 0,
        "ssl_context": target.verify_tls if target.url.startswith("https") else None,
        "self_timed": due_s is not None,
    }
    known = inspect.signature(serve.benchmark).parameters
    paced_here = due_s is not None and "self_timed" not in known  # versions before it can't send at given times
    if paced_here and concurrency is not None:
        raise ServingFailed(
            "load_generator",
            "this vLLM's bench serve can't send at given times and limit the concurrency as well",
            "leave online.concurrency or online.request_rate out, use harness: guidellm, or another vLLM",
        )

    async def watched() -> list[float]:
        late: list[float] = []
        watcher = asyncio.create_task(watch(late))
        sessions.append(open_session(target.verify_tls))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that all failed is told by us
                await serve.benchmark(**{name: value for name, value in arguments.items() if name in known})
        finally:
            watcher.cancel()
            await sessions[0].close()
        return late

    def run() -> LoadPass:
        before, cpu_before = time.monotonic(), time.process_time()
        with no_collection():
            late_s = asyncio.run(watched())  # not uvloop, which hangs as it closes where vLLM left a connection open
        cpu_s, all_s = time.process_time() - cpu_before, time.monotonic() - before
        return _pass_of(outcomes, due_s, handed_s, ClientUse.of(cpu_s / all_s, late_s, LOOK_S))

    open_files()
    return run


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Hold back the garbage collector: over thousands of open answers a collection takes longer than a token."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _pass_of(
    outcomes: list[RequestOutcome], due_s: Sequence[float] | None, handed_s: Mapping[int, float], client: ClientUse
) -> LoadPass:
    """Return the pass, from when vLLM handed each request over; it began with the first."""
    began_s = min(handed_s.values())
    if due_s is not None:
        # vLLM does not tell when its clock began; no request can have been handed over before it was due
        began_s = min(handed - due_s[number] for number, handed in handed_s.items())
        for outcome, due in zip(outcomes, due_s, strict=True):
            outcome.due_s = began_s + due
    else:
        for number, handed in handed_s.items():
            outcomes[number].due_s = handed
    ended_s = max(outcome.ended_s for outcome in outcomes if outcome.ended_s is not None)
    return LoadPass(began_s, max(ended_s - began_s, 1e-9), outcomes, client)


async def watch(late: list[float]) -> None:
    """Note by how much the event loop is late each time: so late may any answer be seen, too."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            slept = time.monotonic()
            await asyncio.sleep(LOOK_S)
            late.append(max(0.0, time.monotonic() - slept - LOOK_S))


def _as_vllm_has_it(outcome: RequestOutcome, prompt_len: int) -> Any:
    """Return what vLLM's report needs; we read none of it back."""
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

    output = RequestFuncOutput(success=outcome.error is None, prompt_len=prompt_len, error=outcome.error or "")
    output.start_time = outcome.sent_s or 0.0
    if outcome.pieces_s and outcome.sent_s is not None:
        output.ttft = outcome.pieces_s[0] - outcome.sent_s
        output.latency = outcome.pieces_s[-1] - outcome.sent_s
        output.output_tokens = outcome.output_tokens
    return output


def open_files() -> None:
    """Allow as many open files as allowed: each request is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
