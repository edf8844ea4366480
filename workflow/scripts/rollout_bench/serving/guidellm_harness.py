"""Loads a server with guidellm: its scheduler, its worker processes and its clock, but our requests and arrival times.

Every request is sent exactly once. guidellm's own data sets, tokenizers, reports and command line are not used.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rollout_bench.errors import UserError

if TYPE_CHECKING:
    from guidellm.schemas import GenerationResponse, RequestInfo

CLOCK_TOLERANCE_S = 1e-3
SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Request:
    """One request, one sequence.

    Args:
        index: position in the workload.
        prompt_token_ids: the prompt.
        prompt_text: the same as text, for a server that takes no token ids.
        max_tokens: tokens to generate.
        due_s: when to send it, in seconds after the beginning of the pass; None for a closed loop.
    """

    index: int
    prompt_token_ids: list[int]
    prompt_text: str | None
    max_tokens: int
    due_s: float | None = None


@dataclass(frozen=True)
class Target:
    """A server that is up.

    Args:
        base_url: as in `http://127.0.0.1:1234/v1`.
        model: name that the server knows the model by.
        headers: sent with every request; never shown, a key may be among them.
        verify_tls: whether the server's certificate is checked.
        stream: whether answers are streamed.
        token_ids: whether prompts travel as token ids; else as text.
        body: further fields of each request.
    """

    base_url: str
    model: str
    headers: dict[str, str] = field(repr=False)
    verify_tls: bool
    stream: bool
    token_ids: bool
    body: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """How hard to load.

    Args:
        concurrency: most requests at a time; None for no limit.
        request_rate: requests per second on average, as in the requests' `due_s`; "inf" for all at once; None where
            `due_s` is a trace's, or for the next as soon as one is done.
        burstiness: shape of the gamma distribution that `due_s` was drawn from; here for the record alone.
    """

    concurrency: int | None
    request_rate: float | Literal["inf"] | None
    burstiness: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of one request; times in seconds after the beginning of the pass.

    Args:
        index: of the request.
        due_s: when it was to be sent; None in a closed loop.
        sent_s: when its headers were written, the connection standing; None if it never was sent.
        first_token_s: when the first chunk with a choice came; None without one or without streaming.
        last_token_s: when the last one came; without streaming when the answer was complete.
        gaps: seconds between successive chunks; None without streaming.
        prompt_tokens: as the server counted them.
        output_tokens: as the server counted them.
        finish_reason: as the server gave it.
        status: HTTP status; None if none came.
        error: why it failed; None if it did not.
    """

    index: int
    due_s: float | None
    sent_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    gaps: list[float] | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: str | None = None


class HarnessError(Exception):
    """The load generator failed, and not the server: nothing is known about the requests."""


def installed_version() -> str:
    """Version of guidellm.

    Raises:
        UserError: it is not installed in this Python.
    """
    try:
        return importlib.metadata.version("guidellm")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "harness: guidellm is not installed in the Python that runs the measurement",
            "install requirements/guidellm.in there, or set harness: vllm-bench",
        ) from None


def run(requests: list[Request], point: Point, target: Target, limit_s: float) -> list[Outcome]:
    """Sends every request once and waits for the answers, `limit_s` seconds at most.

    Returns:
        One outcome for each request, in the order of `requests`.

    Raises:
        UserError: guidellm is missing, or the requests do not fit the point or the target.
        HarnessError: guidellm failed, or the wall clock was set during the pass.
    """
    installed_version()
    _check(requests, point, target)
    if not requests:
        return []
    policy = asyncio.get_event_loop_policy()
    # Needs guidellm, which is missing where another generator is used.
    from rollout_bench.serving.guidellm_drive import drive, lead_s

    # Importing guidellm puts uvloop into this process for good; its worker processes see to that themselves.
    asyncio.set_event_loop_policy(policy)

    offset_s = time.time() - time.monotonic()
    found = asyncio.run(drive(requests, point, target, limit_s))
    # guidellm takes times from the wall clock. Where that was set in the meantime they are worthless.
    if abs(time.time() - time.monotonic() - offset_s) > CLOCK_TOLERANCE_S:
        raise HarnessError("the wall clock was set during the pass, which guidellm's times depend on")
    lead = lead_s(len(requests))
    late = f"no complete answer within {limit_s:g} s"
    outcomes = []
    for i, request in enumerate(requests):
        due_s = 0.0 if point.request_rate == "inf" else request.due_s
        response, info = found.get(i, (None, None))
        if info is None:
            outcomes.append(Outcome(index=request.index, due_s=due_s, error=late))
        else:
            error = _without_secrets(info.error, target) if info.status == "errored" else None
            error = late if info.status == "cancelled" else error
            outcomes.append(_outcome(request.index, due_s, response, info, lead, target.stream, error))
    return outcomes


def _outcome(
    index: int,
    due_s: float | None,
    response: GenerationResponse | None,
    info: RequestInfo,
    lead: float,
    stream: bool,
    error: str | None,
) -> Outcome:
    times, began = info.timings, info.scheduler_start_time + lead
    values = (response.response_metrics if response is not None else None) or {}
    last = times.last_token_iteration if stream else times.request_end
    return Outcome(
        index=index,
        due_s=due_s,
        sent_s=None if times.request_start is None else times.request_start - began,
        first_token_s=None if times.first_token_iteration is None else times.first_token_iteration - began,
        last_token_s=None if last is None else last - began,
        gaps=values.get("gaps") if stream else None,
        prompt_tokens=values.get("prompt_tokens"),
        output_tokens=values.get("output_tokens"),
        finish_reason=values.get("finish_reason"),
        status=values.get("status"),
        error=error,
    )


def _without_secrets(error: str | None, target: Target) -> str:
    """The text of an error, with no word of a header in it."""
    text = error or "unknown"
    for word in " ".join(target.headers.values()).split():
        text = text.replace(word, "***") if len(word) >= SHORTEST_SECRET else text
    return text


def _check(requests: list[Request], point: Point, target: Target) -> None:
    timed = sum(request.due_s is not None for request in requests)
    if point.request_rate == "inf":
        pass
    elif timed not in (0, len(requests)):
        raise UserError("some requests have an arrival time and some have none", "give it to all or to none")
    elif not timed and point.request_rate is not None:
        raise UserError("request_rate is given, but no request has an arrival time", "draw the times beforehand")
    elif not timed and point.concurrency is None:
        raise UserError("neither concurrency, request_rate nor arrival times are given", "give one of them")
    if not target.token_ids and any(request.prompt_text is None for request in requests):
        raise UserError("the server takes no token ids, and a prompt has no text", "give a tokenizer or text prompts")
