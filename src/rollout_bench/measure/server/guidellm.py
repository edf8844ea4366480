"""Requests sent by guidellm's own command, `guidellm run`, and its JSON report read back.

The command gets the pass as a data set: text, output tokens and time of each request. Its replay profile sends each row
once, when it is due; its concurrent profile goes through them again and again, until a time is over or so many are
sent. The report keeps a request's start, its first and its last token, and the server's token counts.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server import guidellm_command
from rollout_bench.measure.server.harness_process import busiest_share, caller_environment, run_command
from rollout_bench.measure.server.paced import LoadEnd
from rollout_bench.measure.server.stream import LoadPass, RequestOutcome, ServingFailed, Target
from rollout_bench.workloads.requests import Request

CLOCK_TOLERANCE_S = 1e-3
CONNECT_LIMIT_S = 60.0
MOST_PROCESSES = 10
"""More than ten worker processes is more than guidellm by itself ever starts."""

HAND_OUT_PER_S = 500
"""So many requests a second pass through guidellm's queue to its processes on two cores, with room to spare."""

STATUS = re.compile(r"^HTTPStatusError\W+\w+ \w+ '(\d{3}) ")
MOST_PROMPT_TOKENS = 10**8
"""A server that says that a prompt has more is not to be believed."""

UNREAD = ("return_token_ids", "return_tokens_as_token_ids")
"""Fields of a request whose answers guidellm does not look at."""


@dataclass(frozen=True)
class SendingPlan:
    """What guidellm is to do in a pass.

    Attributes:
        rows: its data set.
        lead_s: from its beginning to that of the pass, in which requests are handed to its processes.
        due_s: when each row is to be sent, in seconds after the beginning of the pass; None: as soon as possible.
        users: so many send one request after the other, and begin again after the last row; None: each row is sent
            once.
        count: how many are sent; None: any number.
        duration_s: when requests are cut, in seconds after the beginning of the pass; None: never.
    """

    rows: list[dict[str, Any]]
    lead_s: float
    due_s: list[float] | None
    users: int | None
    count: int | None
    duration_s: float | None

    @property
    def profile(self) -> dict[str, Any]:
        """Its profile. Not its "poisson": each of its processes draws the same gaps. None has burstiness."""
        if self.users is not None:
            return {"kind": "concurrent", "streams": self.users}
        return {"kind": "replay", "schedule_turn": "timestamp"}

    @property
    def constraints(self) -> list[dict[str, Any]]:
        """Its constraints. Without one on their number guidellm 0.8.1 waits for ever where the last answer is quick."""
        found: list[dict[str, Any]] = [] if self.count is None else [{"kind": "max_requests", "count": self.count}]
        if self.duration_s is not None:
            # guidellm counts it from when the first request is sent
            first_s = min(self.due_s) if self.due_s else 0.0
            found.append({"kind": "max_duration", "seconds": self.duration_s - first_s})
        return found


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
    ending: LoadEnd | None = None,
) -> Callable[[], LoadPass]:
    """Return what sends all `requests` and waits for the answers.

    Args:
        requests: what is asked for.
        prompts: the text of each.
        due_s: when each is to be sent, in seconds after the beginning; None: all as soon as possible.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        ending: when sending ends, where not every request is sent once; they begin again after the last.

    Raises:
        ServingFailed: guidellm can't cut requests so soon.
    """
    plan = plan_of(requests, prompts, due_s, concurrency, ending)
    most = concurrency or len(plan.rows)

    def run() -> LoadPass:
        """Raise `ServingFailed` where guidellm failed, or the wall clock was set during the pass."""
        offset_s = time.time() - time.monotonic()
        with tempfile.TemporaryDirectory(prefix="guidellm-") as name:
            folder = Path(name)
            (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plan.rows))
            (folder / "run.json").write_text(json.dumps({"spec": _settings(target, folder, plan)}))
            line = [sys.executable, "-m", guidellm_command.__name__, "run", "--disable-console"]
            line += ["--config", str(folder / "run.json")]
            environment = _environment(folder, target, most)
            if plan.users is not None:
                environment[guidellm_command.AGAIN] = "1"
            used = run_command(line, folder, environment, "report.json", "guidellm")
            report = json.loads((folder / "report.json").read_text())
        # guidellm takes times from the wall clock. Where that was set in the meantime they are worthless.
        if abs(time.time() - time.monotonic() - offset_s) > CLOCK_TOLERANCE_S:
            raise ServingFailed(
                "load_generator",
                "the wall clock was set during the pass, which guidellm's times depend on",
                "run again, or set harness: vllm",
            )
        done = read_report(report, requests, target, plan, offset_s)
        cpu_share = busiest_share(used, done.began_s, done.began_s + done.elapsed_s)
        return LoadPass(done.began_s, done.elapsed_s, done.outcomes, ClientUse(cpu_share=cpu_share), done.sent)

    # Each request is an open file, and guidellm's processes have this one's limit.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    return run


def plan_of(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    ending: LoadEnd | None,
) -> SendingPlan:
    """Return what guidellm is to do; raise `ServingFailed` where it would cut requests before it sent any."""
    users = None if ending is None or due_s is not None else concurrency
    count = len(requests) if due_s is None else len(due_s)
    if ending is not None and due_s is None:
        count = ending.requests or count
    if users is not None:
        rows = [_row(prompts[i], request, i) for i, request in enumerate(requests)]
        sent = ending.requests if ending is not None else None
        return SendingPlan(rows, 0.0, None, users, sent, None if ending is None else ending.duration_s)
    lead_s = 1.0 + count / HAND_OUT_PER_S
    times = [0.0] * count if due_s is None else list(due_s)
    duration_s = None if ending is None or ending.wait else ending.duration_s
    if duration_s is not None and lead_s + 2 * min(times, default=0.0) >= duration_s:
        raise ServingFailed(
            "load_generator",
            f"guidellm cuts requests {duration_s:g} s after the first one, and is not ready to send any before",
            "set a longer duration_s, a higher request_rate, or harness: vllm",
        )
    # In the order of arrival: with a limit on concurrency a later one would take the turn of an earlier one.
    order = sorted(range(count), key=times.__getitem__)
    rows = [
        _row(prompts[i % len(prompts)], requests[i % len(requests)], i) | {"relative_timestamp": lead_s + times[i]}
        for i in order
    ]
    return SendingPlan(rows, lead_s, None if due_s is None else times, None, count, duration_s)


def _row(prompt: list[int] | str, request: Request, number: int) -> dict[str, Any]:
    # request_duration comes back in the report, and nothing uses it
    return {"text": prompt, "output_tokens_count": request.output_tokens, "request_duration": number}


def _settings(target: Target, folder: Path, plan: SendingPlan) -> dict[str, Any]:
    # None takes out what guidellm sends by itself. "identity": a few compressed bytes may be gigabytes.
    body = {"ignore_eos": None, **{name: value for name, value in target.body.items() if name not in UNREAD}}
    if target.stream:
        body["stream_options"] = {"continuous_usage_stats": None}
    return {
        "backend": {
            "kind": "openai_http",
            "target": target.url,
            "model": target.model,
            "request_format": "/v1/completions",
            "stream": target.stream,
            "timeout_connect": CONNECT_LIMIT_S,
            "http2": False,
            "follow_redirects": False,
            "verify": target.verify_tls,
            "validate_backend": False,
            "extras": {"headers": {"Accept-Encoding": "identity"}, "body": body},
        },
        "profile": plan.profile,
        "constraints": plan.constraints,
        "data": [{"kind": "json_file", "path": str(folder / "requests.jsonl")}],
        "outputs": [{"kind": "json", "path": str(folder / "report.json")}],
    }


def _environment(folder: Path, target: Target, concurrency: int) -> dict[str, str]:
    """Return the command's environment.

    The key stands in it alone, every cache is in `folder`, the caller's settings not.
    """
    cores = len(os.sched_getaffinity(0))  # all but one: on two cores the server has one to itself
    found = caller_environment("GUIDELLM__") | {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "GUIDELLM__LOGGING__CONSOLE_LOG_LEVEL": "WARNING",
        "GUIDELLM__MAX_CONCURRENCY": str(concurrency),
        "GUIDELLM__MAX_WORKER_PROCESSES": str(max(1, min(cores - 1, MOST_PROCESSES))),
    }
    if "Authorization" in target.headers:
        found["GUIDELLM__SPEC__BACKEND__API_KEY"] = target.headers["Authorization"].removeprefix("Bearer ")
    return found


def read_report(
    report: dict[str, Any], requests: Sequence[Request], target: Target, plan: SendingPlan, offset_s: float
) -> LoadPass:
    """Return what guidellm's report says of a pass; what sending cost is not in it.

    Args:
        report: it, parsed.
        requests: what was asked for.
        target: where they went.
        plan: what guidellm was to do.
        offset_s: by how much the wall clock, from which its times are, is ahead of the monotonic clock.

    Raises:
        ServingFailed: requests are missing.
    """
    (benchmark,) = report["benchmarks"]
    kinds = benchmark["requests"]
    stats = [stat for kind in ("successful", "errored", "incomplete") for stat in kinds[kind]]
    may_be_cut = plan.duration_s is not None
    if plan.duration_s is None and len(stats) < (plan.count or 0):
        cause = f"guidellm reports {len(stats)} of {plan.count} requests"
        raise ServingFailed("load_generator", cause, "look into the log, or set harness: vllm")
    if not stats:
        raise ServingFailed("load_generator", "guidellm sent no request in the time of a pass", "set a longer one")
    if plan.users is not None:
        stats.sort(key=_started_s)
        began_s = _started_s(stats[0]) - offset_s
        found = [_outcome(stat, requests[_number(stat)], target, offset_s, may_be_cut) for stat in stats]
        sent = list(_counted(map(_number, stats)))
    else:
        began_s = stats[0]["info"]["scheduler_start_time"] - offset_s + plan.lead_s
        by_number = {_number(stat): stat for stat in stats}
        found, sent = [], [divmod(number, len(requests))[::-1] for number in range(len(plan.rows))]
        for number, (place, _) in enumerate(sent):
            stat = by_number.get(number)  # guidellm reports nothing of what it never sent
            found.append(
                RequestOutcome() if stat is None else _outcome(stat, requests[place], target, offset_s, may_be_cut)
            )
            if plan.due_s is not None:
                found[-1].due_s = began_s + plan.due_s[number]
    ended_s = max((outcome.ended_s for outcome in found if outcome.ended_s is not None), default=began_s)
    if plan.duration_s is not None:
        ended_s = began_s + plan.duration_s
        for outcome in found:
            if outcome.ended_s is None:
                outcome.cut_s = outcome.ended_s = ended_s
    again = plan.users is not None or len(plan.rows) != len(requests) or plan.duration_s is not None
    return LoadPass(began_s, max(ended_s - began_s, 1e-9), found, ClientUse(cpu_share=0.0), sent if again else None)


def _number(stat: dict[str, Any]) -> int:
    return round(float(stat["info"]["settings"]["trace_duration"]))


def _started_s(stat: dict[str, Any]) -> float:
    timings = stat["info"]["timings"]
    return float(timings.get("request_start") or timings.get("resolve_start") or timings.get("resolve_end") or 0.0)


def _counted(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Yield each number, and how often it had come before."""
    seen: Counter[int] = Counter()
    for number in numbers:
        yield number, seen[number]
        seen[number] += 1


def _outcome(
    stat: dict[str, Any], request: Request, target: Target, offset_s: float, may_be_cut: bool
) -> RequestOutcome:
    times = {
        name: value - offset_s
        for name, value in stat["info"]["timings"].items()
        if isinstance(value, float) and value > 0
    }
    outcome = RequestOutcome(
        streamed=target.stream,
        sent_s=times.get("request_start"),
        ended_s=times.get("request_end", times.get("resolve_end")),
        prompt_tokens=stat["input_metrics"]["text_tokens"],
        output_tokens=stat["output_metrics"]["text_tokens"] or 0,
    )
    ends = ("first_token_iteration", "last_token_iteration") if target.stream else ("request_end",)
    outcome.pieces_s = sorted({times[end] for end in ends if end in times})
    if may_be_cut and stat["info"]["status"] == "cancelled":  # at the end of its time
        outcome.cut_s = outcome.ended_s = times.get("resolve_end", outcome.ended_s)
        # without the server's count: a token for each piece that came, as most have
        outcome.output_tokens, outcome.counted = int(stat["info"]["timings"].get("token_iterations") or 0), True
        return outcome
    if stat["info"]["status"] == "completed":
        outcome.status = 200
        outcome.error = _wrong(outcome, request)
        if outcome.error is not None:
            outcome.prompt_tokens, outcome.output_tokens = None, 0
    else:
        said = str(stat["info"]["error"] or "guidellm cancelled it").split("\\n")[0]  # then come links and addresses
        outcome.error = said
        if found := STATUS.search(said):
            outcome.status = int(found[1])
    target.settle(outcome)
    return outcome


def _wrong(outcome: RequestOutcome, request: Request) -> str | None:
    """Return what is wrong with an answer that guidellm calls a success; None where nothing is."""
    if outcome.prompt_tokens is None:
        # Without the server's usage, guidellm reports as many output tokens as were asked for.
        return "the answer broke off, or the server does not say how many tokens are in it (usage)"
    if not 0 < outcome.output_tokens <= request.output_tokens or not 0 <= outcome.prompt_tokens <= MOST_PROMPT_TOKENS:
        return (
            f"the server says {outcome.prompt_tokens} prompt tokens and {outcome.output_tokens} output tokens, where "
            f"{request.output_tokens} were asked for at most"
        )
    if not outcome.pieces_s:
        return "no piece of the answer had text, so guidellm saw no token come"
    return None
