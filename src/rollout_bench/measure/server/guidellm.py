"""Sends requests with the command `guidellm run`, and reads its JSON report.

The command receives the pass as a data set: text, output tokens and time of each request. It sends each row once: when
it is due, or when a user is free. The report has each request's start, its first and last token, and the server's token
counts.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import commands
from rollout_bench.measure.server.stream import Load, RequestOutcome, Target

NAME = "guidellm"

STATUS = re.compile(r"^HTTPStatusError\W+\w+ \w+ '(\d{3}) ")


def command(folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
    """Write data set and settings; return the command line and its environment, which holds the key."""
    rows = [
        # request_duration returns in the report as the request's number; guidellm ignores it
        {"text": text, "output_tokens_count": request.output_tokens, "request_duration": number,
         "relative_timestamp": _lead_s(load) + (load.due_s[number] if load.due_s is not None else 0.0)}
        for number, (text, request) in enumerate(zip(load.prompts, load.requests, strict=True))
    ]  # fmt: skip
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # None removes a field that guidellm sends by default. "identity": a few compressed bytes may be gigabytes.
    body = {"ignore_eos": None, **{name: value for name, value in target.body.items() if name not in commands.UNREAD}}
    settings = {
        "backend": {
            "kind": "openai_http",
            "target": target.url,
            "model": target.model,
            "request_format": "/v1/completions",
            "stream": True,
            "http2": False,
            "follow_redirects": False,
            "verify": target.verify_tls,
            "validate_backend": False,
            "extras": {
                "headers": {"Accept-Encoding": "identity"},
                "body": body | {"stream_options": {"continuous_usage_stats": None}},
            },
        },
        "profile": {"kind": "concurrent", "streams": load.concurrency}
        if load.in_turn
        else {"kind": "replay", "schedule_turn": "timestamp"},
        "constraints": [{"kind": "max_requests", "count": len(rows)}],
        "data": [{"kind": "json_file", "path": str(folder / "requests.jsonl")}],
        "outputs": [{"kind": "json", "path": str(folder / commands.REPORT)}],
    }
    (folder / "run.json").write_text(json.dumps({"spec": settings}))
    environment = commands.command_environment("GUIDELLM__", "GUIDELLM__SPEC__BACKEND__API_KEY", target) | {
        **dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME"), str(folder)),
        "HF_HUB_OFFLINE": "1",
        "GUIDELLM__LOGGING__CONSOLE_LOG_LEVEL": "WARNING",
        "GUIDELLM__MAX_WORKER_PROCESSES": str(
            max(1, min(len(os.sched_getaffinity(0)) - 1, 10))
        ),  # without the server's core
        "GUIDELLM__MAX_CONCURRENCY": str(load.concurrency or len(rows)),
    }
    return [
        sys.executable,
        "-m",
        "guidellm",
        "run",
        "--disable-console",
        "--config",
        str(folder / "run.json"),
    ], environment


def _lead_s(load: Load) -> float:
    """Return the seconds that guidellm needs before the pass to distribute requests, 500 a second."""
    return 1.0 + len(load.requests) / 500


def read_report(report: dict[str, Any], load: Load, offset_s: float) -> commands.Report:
    """Return the contents of the report. Its times are from the wall clock."""
    if abs(time.time() - time.monotonic() - offset_s) > 1e-3:
        cause = "the wall clock was set during the pass, which guidellm's times depend on"
        raise MeasuringFailed("load_generator", cause, "run again, or set harness: rollout-bench")
    kinds = report["benchmarks"][0]["requests"]
    stats = [stat["info"] | stat for kind in ("successful", "errored", "incomplete") for stat in kinds[kind]]
    stats.sort(key=lambda stat: float(stat["settings"]["trace_duration"]))
    outcomes = [_outcome(stat, offset_s) for stat in stats]
    if load.in_turn:
        began_s = min((outcome.sent_s for outcome in outcomes if outcome.sent_s is not None), default=0.0)
    else:
        began_s = min((stat["scheduler_start_time"] for stat in stats), default=0.0) - offset_s + _lead_s(load)
    for outcome, due_s in zip(outcomes, load.due_s or (), strict=False):
        outcome.due_s = began_s + due_s
    ended_s = max((outcome.ended_s for outcome in outcomes if outcome.ended_s is not None), default=began_s)
    return began_s, ended_s - began_s, outcomes


def _outcome(stat: dict[str, Any], offset_s: float) -> RequestOutcome:
    times = {
        name: value - offset_s for name, value in stat["timings"].items() if isinstance(value, float) and value > 0
    }
    ends = ("first_token_iteration", "last_token_iteration")
    outcome = RequestOutcome(
        sent_s=times.get("request_start"),
        ended_s=times.get("request_end", times.get("resolve_end")),
        pieces_s=sorted({times[end] for end in ends if end in times}),
        prompt_tokens=stat["input_metrics"]["text_tokens"],
        output_tokens=stat["output_metrics"]["text_tokens"] or 0,
    )
    if stat["status"] != "completed":
        outcome.error = str(stat["error"] or "guidellm cancelled it").split("\\n")[0]  # links and addresses follow
        outcome.status = int(named[1]) if (named := STATUS.search(outcome.error)) else None
    elif outcome.prompt_tokens is None:  # guidellm then reports the requested number of output tokens
        outcome.error = "the answer broke off, or the server does not say how many tokens are in it (usage)"
    elif not outcome.pieces_s:
        outcome.error = "no piece of the answer had text, so guidellm saw no token come"
    return outcome
