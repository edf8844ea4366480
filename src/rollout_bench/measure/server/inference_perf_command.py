"""Sends requests with the command `inference-perf`, and reads its JSON report of each request.

The command paces and sends the requests by its own workers. None of its data sets takes given prompts, so
`inference_perf_data` runs in its interpreter and hands it the requests of the pass. The field `user` numbers them.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.core.installed import python_of
from rollout_bench.measure.server import commands
from rollout_bench.measure.server.stream import Load, RequestOutcome, Target

NAME = "inference-perf"

DATA = Path(__file__).with_name("inference_perf_data.py")
"""Program for the command's own interpreter."""


def command(folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
    """Write requests and settings into `folder`; return the command line and its environment, which holds the key.

    Raises:
        MeasuringFailed: if the command is not installed here.
    """
    python = python_of("inference-perf")
    if python is None:
        raise MeasuringFailed("load_generator", "there is no command inference-perf on PATH", commands.LOOK)
    (folder / "requests.jsonl").write_text("".join(f"{json.dumps(body)}\n" for body in _bodies(load, target)))
    at_once = load.concurrency or len(load.requests)
    workers = max(1, min(len(os.sched_getaffinity(0)) - 1, 10, at_once))  # without the server's core
    settings = {
        "api": {"type": "completion", "streaming": True},
        "data": {"type": "mock"},
        "server": {"type": "vllm", "base_url": target.root, "model_name": target.model},
        "tokenizer": {
            "pretrained_model_name_or_path": target.tokenizer,
            "trust_remote_code": target.trust_remote_code,
        },
        "load": {
            "num_workers": workers,
            "worker_max_concurrency": -(-at_once // workers),
            **_arrivals(folder, load, at_once),
        },
        "report": {"request_lifecycle": {"per_request": True, "per_request_fields": {"response": False}}},
        "storage": {"local_storage": {"path": str(folder)}},
    }
    (folder / "run.json").write_text(json.dumps(settings))
    line = [python, str(DATA), "--config_file", str(folder / "run.json"), "--log-level", "WARNING"]
    return line, commands.command_environment("PYTHON", "INFERENCE_PERF_KEY", target)


def _bodies(load: Load, target: Target) -> Iterator[dict[str, Any]]:
    for number, (text, request) in enumerate(zip(load.prompts, load.requests, strict=True)):
        asked = target.asking(text, request.output_tokens) | {"user": str(number)}
        yield {name: value for name, value in asked.items() if name not in commands.UNREAD}


def _arrivals(folder: Path, load: Load, at_once: int) -> dict[str, Any]:
    """Return the settings of a load of `at_once` users, or write a trace of the times at which requests are due."""
    if load.due_s is None:
        return {"type": "concurrent", "stages": [{"num_requests": len(load.requests), "concurrency_level": at_once}]}
    moments = (datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=due_s) for due_s in load.due_s)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", *(f"{moment:%Y-%m-%d %H:%M:%S.%f},1,1" for moment in moments)]
    trace = folder / "trace.csv"
    trace.write_text("\n".join(lines) + "\n")
    return {
        "type": "trace_replay",
        "trace": {"file": str(trace), "format": "AzurePublicDataset"},
        "stages": [{"rate": len(load.requests), "duration": 1}],  # their product is the number of requests
    }


def read_report(report: list[dict[str, Any]], load: Load, _offset_s: float) -> commands.Report:
    """Return the contents of the report. Its times are from `time.perf_counter`, the monotonic clock.

    It does not say when a request was due, so the request that was sent with the least delay counts as sent in time.
    """
    numbered = sorted(
        ((int(json.loads(entry["request"])["user"]), entry) for entry in report), key=lambda pair: pair[0]
    )
    outcomes = [_outcome(entry) for _, entry in numbered]
    due_s = load.due_s or [0.0] * len(outcomes)
    began_s = min((one.sent_s or 0.0) - due for one, due in zip(outcomes, due_s, strict=True))
    for outcome, due in zip(outcomes, load.due_s or (), strict=False):
        outcome.due_s = began_s + due
    return began_s, max(one.ended_s or 0.0 for one in outcomes) - began_s, outcomes


def _outcome(entry: dict[str, Any]) -> RequestOutcome:
    answered = (entry["info"] or {}).get("response_metrics") or {}
    usage, error = answered.get("server_usage") or {}, entry["error"]
    outcome = RequestOutcome(sent_s=entry["start_time"], ended_s=entry["end_time"])
    if error is not None:
        status = error["error_type"].removeprefix("HTTP Error ")
        outcome.error = f"{error['error_type']}: {error['error_msg']}"
        outcome.status = int(status) if status.isdecimal() else None
    elif not usage:
        outcome.error = "the answer broke off, or the server does not say how many tokens are in it (usage)"
    else:
        outcome.prompt_tokens, outcome.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        outcome.pieces_s, outcome.every_piece = answered["chunk_times"], True
    return outcome
