"""Requests sent by guidellm's own command, `guidellm run`, and its JSON report read back.

The command gets the pass as a data set: text, output tokens and time of each request. Its replay profile sends each row
once, when it is due. The report keeps a request's start, its first and its last token, and the server's token counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import LoadPass, RequestOutcome, ServingFailed, Target
from rollout_bench.workloads.requests import Request

CLOCK_TOLERANCE_S = 1e-3
CONNECT_LIMIT_S = 60.0
MOST_PROCESSES = 10
"""More than ten worker processes is more than guidellm by itself ever starts."""

HAND_OUT_PER_S = 500
"""So many requests a second pass through guidellm's queue to its processes on two cores, with room to spare."""

COMMAND = """\
from guidellm.cli import cli
from guidellm.scheduler.worker_group import WorkerProcessGroup

until_told_to_end = WorkerProcessGroup.request_updates

async def to_the_last(group):
    async for update in until_told_to_end(group):
        yield update
    await group.messaging.receive_task
    received = group.messaging.buffer_receive_queue
    while received.qsize():
        yield received.get_nowait()

WorkerProcessGroup.request_updates = to_the_last
cli()
"""
"""guidellm's command, which reads what has come of requests to the last.

In guidellm 0.8.1 the loop that reads it ends where nothing came for 0.1 s and an event is set. The event is set before
the last update is handed to the loop: where threads are held up, this update is lost, or all that wait.
"""

LOOK_S = 0.1
"""How often the CPU time of guidellm's processes is read."""

STATUS = re.compile(r"^HTTPStatusError\W+\w+ \w+ '(\d{3}) ")
MOST_PROMPT_TOKENS = 10**8
"""A server that says that a prompt has more is not to be believed."""

UNREAD = ("return_token_ids", "return_tokens_as_token_ids")
"""Fields of a request whose answers guidellm does not look at."""


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
) -> Callable[[], LoadPass]:
    """Return what sends all `requests` and waits for the answers.

    Args:
        requests: what is asked for.
        prompts: the text of each.
        due_s: when each is to be sent, in seconds after the beginning; None: all as soon as possible.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
    """
    lead_s = 1.0 + len(requests) / HAND_OUT_PER_S
    # In the order of arrival: with a limit on concurrency a later one would take the turn of an earlier one.
    order = sorted(range(len(requests)), key=lambda i: 0.0 if due_s is None else due_s[i])
    rows = [
        {
            "text": prompts[i],
            "output_tokens_count": requests[i].output_tokens,
            "relative_timestamp": lead_s + (0.0 if due_s is None else due_s[i]),
            "request_duration": i,  # comes back in the report; replay by timestamp does not use it
        }
        for i in order
    ]

    def run() -> LoadPass:
        """Raise `ServingFailed` where guidellm failed, or the wall clock was set during the pass."""
        offset_s = time.time() - time.monotonic()
        with tempfile.TemporaryDirectory(prefix="guidellm-") as name:
            folder = Path(name)
            (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "run.json").write_text(json.dumps({"spec": _settings(target, folder, len(requests))}))
            used = _run(folder, _environment(folder, target, concurrency or len(requests)))
            report = json.loads((folder / "report.json").read_text())
        # guidellm takes times from the wall clock. Where that was set in the meantime they are worthless.
        if abs(time.time() - time.monotonic() - offset_s) > CLOCK_TOLERANCE_S:
            raise ServingFailed(
                "load_generator",
                "the wall clock was set during the pass, which guidellm's times depend on",
                "run again, or set harness: vllm",
            )
        outcomes, began_s = _read(report, requests, target, offset_s)
        began_s += lead_s
        for outcome, due in zip(outcomes, due_s or [], strict=False):
            outcome.due_s = began_s + due
        ended_s = max((outcome.ended_s for outcome in outcomes if outcome.ended_s is not None), default=began_s)
        cpu_share = _busiest_share(used, began_s, ended_s)
        return LoadPass(began_s, max(ended_s - began_s, 1e-9), outcomes, ClientUse(cpu_share=cpu_share))

    # Each request is an open file, and guidellm's processes have this one's limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return run


def _settings(target: Target, folder: Path, count: int) -> dict[str, Any]:
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
        # Not guidellm's "poisson": each of its processes draws the same gaps. Nor is there one with burstiness.
        "profile": {"kind": "replay", "schedule_turn": "timestamp"},
        # Else guidellm 0.8.1 waits for ever where the last answer is very quick.
        "constraints": [{"kind": "max_requests", "count": count}],
        "data": [{"kind": "json_file", "path": str(folder / "requests.jsonl")}],
        "outputs": [{"kind": "json", "path": str(folder / "report.json")}],
    }


def _environment(folder: Path, target: Target, concurrency: int) -> dict[str, str]:
    """Return the command's environment.

    The key stands in it alone, every cache is in `folder`, the caller's settings not.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith("GUIDELLM__")}
    cores = len(os.sched_getaffinity(0))  # all but one: on two cores the server has one to itself
    found |= {
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
    loopback = "127.0.0.1,localhost,::1"
    return found | {name: ",".join(filter(None, [found.get(name), loopback])) for name in ("NO_PROXY", "no_proxy")}


CpuTimes = dict[int, list[tuple[float, float]]]
"""Pid -> CPU time in seconds at moments of the monotonic clock, as (moment, CPU time)."""


def _run(folder: Path, environment: dict[str, str]) -> CpuTimes:
    """Run the command in `folder` to its end; return the CPU times of its processes.

    Raises:
        ServingFailed: it failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", "--config", str(folder / "run.json"), "--disable-console"],
        cwd=folder,  # guidellm reads a .env file where it runs
        env=environment,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),
    )
    used: CpuTimes = defaultdict(list)
    try:
        while process.poll() is None:
            _note_cpu_times(process.pid, used)
            time.sleep(LOOK_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0 or not (folder / "report.json").exists():
        cause = f"guidellm ended with status {process.returncode} and without a report"
        raise ServingFailed("load_generator", cause, "look into the log, or set harness: vllm")
    return used


def _note_cpu_times(pid: int, used: CpuTimes) -> None:
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[process.pid].append((time.monotonic(), times.user + times.system))


def _busiest_share(used: CpuTimes, began_s: float, ended_s: float) -> float:
    """Return the CPU time of the busiest process between two moments, over that time.

    A core is what one process can have.
    """
    rises = [float(np.diff(np.interp([began_s, ended_s], *np.array(seen).T))[0]) for seen in used.values()]
    return max(rises, default=0.0) / max(ended_s - began_s, 1e-9)


def _read(
    report: dict[str, Any], requests: Sequence[Request], target: Target, offset_s: float
) -> tuple[list[RequestOutcome], float]:
    """Return what became of each request, in their order, and when guidellm began, both on the monotonic clock."""
    (benchmark,) = report["benchmarks"]
    kinds = benchmark["requests"]
    stats = {
        round(stat["info"]["settings"]["trace_duration"]): stat
        for kind in ("successful", "errored", "incomplete")
        for stat in kinds[kind]
    }
    if len(stats) < len(requests):
        cause = f"guidellm reports {len(stats)} of {len(requests)} requests"
        raise ServingFailed("load_generator", cause, "look into the log, or set harness: vllm")
    outcomes = [_outcome(stats[i], request, target, offset_s) for i, request in enumerate(requests)]
    return outcomes, stats[0]["info"]["scheduler_start_time"] - offset_s


def _outcome(stat: dict[str, Any], request: Request, target: Target, offset_s: float) -> RequestOutcome:
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
