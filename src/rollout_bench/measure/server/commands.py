"""A harness's own command: what it is given, its process, the CPU time that it took, and its report."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from rollout_bench.contracts.load import Burstiness
from rollout_bench.contracts.record import ClientUse
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import LoadPass, ServingFailed, Target
from rollout_bench.workloads.requests import Request

LOOK_S = 0.1
"""How often the CPU time of the command's processes is read."""

CpuTimes = dict[int, list[tuple[float, float]]]
"""Pid -> CPU time in seconds at moments of the monotonic clock, as (moment, CPU time)."""


REPORT = "report.json"
"""What a command is to write, in the folder that it runs in."""

UNREAD = ("return_token_ids", "return_tokens_as_token_ids")
"""Fields of a request whose answers no command looks at."""

MOST_PROMPT_TOKENS = 10**8
"""A server that says that a prompt has more is not to be believed."""


@dataclass(frozen=True)
class Load:
    """What a command is to send in a pass.

    Attributes:
        requests: what is asked for, in order.
        texts: the prompt of each.
        due_s: when each is to be sent, in seconds after the beginning; None: all as soon as possible.
        request_rate: so many are sent in a second, where a command draws its own times; None: as above.
        burstiness: the shape of the gaps that it draws.
        concurrency: how many may be under way at once; None: any number.
        seed: seeds its draws.
    """

    requests: Sequence[Request]
    texts: Sequence[str]
    due_s: Sequence[float] | None
    request_rate: float | None
    burstiness: Burstiness
    concurrency: int | None
    seed: int

    @property
    def in_turn(self) -> bool:
        """Whether so many users send, each as soon as its answer has come."""
        return self.due_s is None and self.concurrency is not None


class Harness(Protocol):
    """A load generator of others: a module with these names."""

    @property
    def NAME(self) -> str:  # noqa: N802
        """What messages call it."""

    def command(self, folder: Path, load: Load, target: Target) -> tuple[list[str], dict[str, str]]:
        """Write what the command reads into `folder`; return its line, on which no secret is, and its environment."""

    def read_report(self, report: dict[str, Any], load: Load, target: Target, offset_s: float) -> LoadPass:
        """Return what the report says of a pass; what sending cost is not in it.

        Raises:
            ServingFailed: the report is not one of these requests, or the wall clock, which was `offset_s` ahead of the
                monotonic clock before the pass, was set.
        """


def prepare(harness: Harness, load: Load, sent: Sequence[tuple[int, int]], target: Target) -> Callable[[], LoadPass]:
    """Return what has `harness` send `load` and waits for the answers.

    Args:
        harness: whose command it is.
        load: what is sent.
        sent: for each of its requests, which of the pass's it is, and how often that had been sent before.
        target: where they go.
    """

    def run() -> LoadPass:
        """Raise `ServingFailed` where the command failed."""
        offset_s = time.time() - time.monotonic()
        with tempfile.TemporaryDirectory(prefix="harness-") as name:
            folder = Path(name)
            line, environment = harness.command(folder, load, target)
            used = run_command(line, folder, environment, harness.NAME)
            report = json.loads((folder / REPORT).read_text())
        done = harness.read_report(report, load, target, offset_s)
        share = busiest_share(used, done.began_s, done.began_s + done.elapsed_s)
        return replace(done, client=ClientUse(cpu_share=share), sent=list(sent))

    # Each request is an open file, and the command has this process's limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return run


def wrong_counts(prompt_tokens: int, output_tokens: int, request: Request) -> str | None:
    """Return why the counts of an answer can't be, which a command calls a success; None where they can."""
    if 0 < output_tokens <= request.output_tokens and 0 <= prompt_tokens <= MOST_PROMPT_TOKENS:
        return None
    return (
        f"{prompt_tokens} prompt tokens and {output_tokens} output tokens are reported, where {request.output_tokens} "
        "were asked for at most"
    )


def missing(harness: str, reported: str, wanted: int) -> ServingFailed:
    """Return the failure of a command that did not report as many requests as it was given."""
    cause = f"{harness} reports {reported} of {wanted} requests"
    return ServingFailed("load_generator", cause, f"{LOOK}, or set harness: rollout-bench")


def environment_of(prefix: str, key: str, target: Target) -> dict[str, str]:
    """Return the environment of a command: this process's without `prefix`, and what authorises requests in `key`.

    A server here needs no proxy.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    loopback = "127.0.0.1,localhost,::1"
    if "Authorization" in target.headers:
        found[key] = target.headers["Authorization"].removeprefix("Bearer ")
    return found | {name: ",".join(filter(None, [found.get(name), loopback])) for name in ("NO_PROXY", "no_proxy")}


def run_command(line: Sequence[str], folder: Path, environment: dict[str, str], harness: str) -> CpuTimes:
    """Run a harness's command in `folder` to its end; return the CPU times of its processes.

    Args:
        line: the command line.
        folder: where it runs; a harness may read files of settings there.
        environment: all of its environment.
        harness: what messages call it.

    Raises:
        ServingFailed: it failed.
    """
    process = subprocess.Popen(
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
            _note_cpu_times(process.pid, used)
            time.sleep(LOOK_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    status = process.returncode
    if status != 0 or not (folder / REPORT).exists():
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ServingFailed(
            "load_generator", f"{harness} {how} and without a report", f"{LOOK}, or set harness: rollout-bench"
        )
    return used


LOOK = "look into the log"


def _note_cpu_times(pid: int, used: CpuTimes) -> None:
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[process.pid].append((time.monotonic(), times.user + times.system))


def busiest_share(used: CpuTimes, began_s: float, ended_s: float) -> float:
    """Return the CPU time of the busiest process between two moments, over that time.

    A core is what one process can have.
    """
    rises = [float(np.diff(np.interp([began_s, ended_s], *np.array(seen).T))[0]) for seen in used.values()]
    return max(rises, default=0.0) / max(ended_s - began_s, 1e-9)
