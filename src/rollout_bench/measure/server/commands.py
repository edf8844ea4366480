"""An external load generator's command: its input, its process and CPU time, its report."""

from __future__ import annotations

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
from rollout_bench.measure.server.stream import Load, LoadPass, Target
from rollout_bench.workloads.requests import Request

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


class Harness(Protocol):
    """An external load generator: a module with these names."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """Name in messages."""

    def command(self, folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
        """Write the command's input into `folder`; return its command line, free of secrets, and its environment."""

    def read_report(self, report: dict[str, Any], load: Load, target: Target, offset_s: float) -> LoadPass:
        """Return the pass from the command's report, without the cost of sending.

        Raises:
            MeasuringFailed: if the report does not match the requests, or the wall clock, which was `offset_s` ahead of
                the monotonic clock before the pass, was set.
        """


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
        done = harness.read_report(report, every, target, offset_s)
        share = _busiest_share(used, done.began_s, done.began_s + done.elapsed_s)
        return replace(done, client=ClientUse(cpu_share=share), sent=sent)

    open_files()
    return run


def wrong_counts(prompt_tokens: int, output_tokens: int, request: Request) -> str | None:
    """Return why the token counts of a reported success are impossible; None if they are possible."""
    if 0 < output_tokens <= request.output_tokens and 0 <= prompt_tokens <= MOST_PROMPT_TOKENS:
        return None
    return (
        f"{prompt_tokens} prompt tokens and {output_tokens} output tokens are reported, where {request.output_tokens} "
        "were asked for at most"
    )


def missing(harness: str, reported: str, wanted: int) -> MeasuringFailed:
    """Return the failure of a command that reported fewer requests than it received."""
    cause = f"{harness} reports {reported} of {wanted} requests"
    return MeasuringFailed("load_generator", cause, LOOK)


def environment_of(prefix: str, key: str, target: Target) -> dict[str, str]:
    """Return a command's environment: this process's without variables of `prefix`, plus the server's key in `key`.

    Local servers bypass proxies.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    loopback = "127.0.0.1,localhost,::1"
    if "Authorization" in target.headers:
        found[key] = target.headers["Authorization"].removeprefix("Bearer ")
    return found | {name: ",".join(filter(None, [found.get(name), loopback])) for name in ("NO_PROXY", "no_proxy")}


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
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise MeasuringFailed("load_generator", f"{harness} {how} and without a report", LOOK)
    return used


def _busiest_share(used: CpuTimes, began_s: float, ended_s: float) -> float:
    """Return the CPU time of the busiest process between two times, divided by the time between them.

    A process can use at most one core, so 1 means a full core.
    """
    rises = [float(np.diff(np.interp([began_s, ended_s], *np.array(seen).T))[0]) for seen in used.values()]
    return max(rises, default=0.0) / max(ended_s - began_s, 1e-9)
