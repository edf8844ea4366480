"""An external load generator's command: its input, its process and CPU time, its report."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.paced import open_files
from rollout_bench.measure.server.server import how_ended
from rollout_bench.measure.server.stream import Load, LoadPass, RequestOutcome, Target

LOOK_S = 0.1
"""Interval between readings of the processes' CPU times, in seconds."""

CpuTimes = dict[int, list[tuple[float, float]]]
"""Pid -> readings (time on the monotonic clock, CPU time), both in seconds."""


REPORT = "report.json"
"""File that a command must write into its working folder."""

UNREAD = ("return_token_ids", "return_tokens_as_token_ids")
"""Request fields whose answers no command reads."""

LOOK = "look into the log, or set harness: rollout-bench"

MOST_PROMPT_TOKENS = 10**8
"""Largest plausible number of prompt tokens in a report."""


Report = tuple[float, float, list[RequestOutcome]]
"""Start on the monotonic clock, duration in seconds, and the outcome of each request in order."""


class Harness(Protocol):
    """An external load generator: a module with these names."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """Name in messages."""

    def command(self, folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
        """Write the command's input into `folder`; return its command line, free of secrets, and its environment."""

    def read_report(self, report: Any, load: Load, offset_s: float) -> Report:
        """Return the contents of the command's report.

        Raises:
            MeasuringFailed: if the wall clock, which was `offset_s` ahead of the monotonic clock before the pass, was
                set, and the report depends on it.
        """


def read(harness: Harness, report: Any, load: Load, target: Target, offset_s: float = 0.0) -> LoadPass:
    """Return the pass from the report of `harness`, without the cost of sending; impossible counts are failures.

    Raises:
        MeasuringFailed: if the report does not match the requests, or `Harness.read_report` raises it.
    """
    began_s, elapsed_s, outcomes = harness.read_report(report, load, offset_s)
    if len(outcomes) != len(load.requests):
        cause = f"{harness.NAME} reports {len(outcomes)} of {len(load.requests)} requests"
        raise MeasuringFailed("load_generator", cause, LOOK)
    for outcome, request in zip(outcomes, load.requests, strict=True):
        prompt_tokens, output_tokens = outcome.prompt_tokens or 0, outcome.output_tokens
        possible = 0 < output_tokens <= request.output_tokens and 0 <= prompt_tokens <= MOST_PROMPT_TOKENS
        if outcome.error is None and not possible:
            outcome.error = (
                f"{prompt_tokens} prompt tokens and {output_tokens} output tokens are reported, where "
                f"{request.output_tokens} were asked for at most"
            )
        if outcome.error is None:
            outcome.status = 200
        else:
            outcome.pieces_s, outcome.prompt_tokens, outcome.output_tokens = [], None, 0
        target.settle(outcome)
    return LoadPass(began_s, max(elapsed_s, 1e-9), outcomes, ClientUse(cpu_share=0.0), list(load.order()))


def prepare(harness: Harness, load: Load, target: Target) -> Callable[[], LoadPass]:
    """Return a function that lets `harness` send `load` to `target` and waits for the answers.

    The harness receives a request again for each time that it is sent, and each prompt as text.
    """
    sent = list(load.order())
    every = replace(
        load,
        requests=[load.requests[place] for place, _ in sent],
        prompts=[str(load.prompts[place]) for place, _ in sent],
    )

    def run() -> LoadPass:
        """Run the command; raise `MeasuringFailed` if it failed."""
        offset_s = time.time() - time.monotonic()
        with tempfile.TemporaryDirectory(prefix="harness-") as name:
            folder = Path(name)
            used = _run(*harness.command(folder, every, target), folder, harness.NAME)
            report = json.loads((folder / REPORT).read_text())
        done = read(harness, report, every, target, offset_s)
        share = _busiest_share(used, done.began_s, done.began_s + done.elapsed_s)
        return replace(done, client=ClientUse(cpu_share=share), sent=sent)

    open_files()
    return run


def command_environment(prefix: str, key: str, target: Target) -> dict[str, str]:
    """Return a command's environment: this process's without variables of `prefix`, plus the server's key in `key`.

    Local servers bypass proxies.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    loopback = "127.0.0.1,localhost,::1"
    if "Authorization" in target.headers:
        environment[key] = target.headers["Authorization"].removeprefix("Bearer ")
    return environment | {
        name: ",".join(filter(None, [environment.get(name), loopback])) for name in ("NO_PROXY", "no_proxy")
    }


def _run(line: list[str], environment: dict[str, str], folder: Path, harness: str) -> CpuTimes:
    """Run a load generator's command in `folder` to its end; return the CPU times of its processes."""
    process = psutil.Popen(
        line,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),
    )
    used: CpuTimes = defaultdict(list)
    try:
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    times = each.cpu_times()
                    used[each.pid].append((time.monotonic(), times.user + times.system))
            time.sleep(LOOK_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if status != 0 or not (folder / REPORT).exists():
        raise MeasuringFailed("load_generator", f"{harness} {how_ended(status)} and without a report", LOOK)
    return used


def _busiest_share(used: CpuTimes, began_s: float, ended_s: float) -> float:
    """Return the CPU time of the busiest process between two times, divided by the time between them.

    A process can use at most one core, so 1 means a full core.
    """
    rises = [float(np.diff(np.interp([began_s, ended_s], *np.array(seen).T))[0]) for seen in used.values()]
    return max(rises, default=0.0) / max(ended_s - began_s, 1e-9)
