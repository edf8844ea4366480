"""A harness's own command as a process: its environment, its end, and the CPU time that it took."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.stream import ServingFailed

LOOK_S = 0.1
"""How often the CPU time of the command's processes is read."""

CpuTimes = dict[int, list[tuple[float, float]]]
"""Pid -> CPU time in seconds at moments of the monotonic clock, as (moment, CPU time)."""


def caller_environment(prefix: str) -> dict[str, str]:
    """Return this process's environment without variables that begin with `prefix`; a server here needs no proxy."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
    loopback = "127.0.0.1,localhost,::1"
    return found | {name: ",".join(filter(None, [found.get(name), loopback])) for name in ("NO_PROXY", "no_proxy")}


def run_command(line: Sequence[str], folder: Path, environment: dict[str, str], report: str, harness: str) -> CpuTimes:
    """Run a harness's command in `folder` to its end; return the CPU times of its processes.

    Args:
        line: the command line.
        folder: where it runs; a harness may read files of settings there.
        environment: all of its environment.
        report: the file in `folder` that it is to write.
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
    if status != 0 or not (folder / report).exists():
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ServingFailed("load_generator", f"{harness} {how} and without a report", f"{LOOK}, or set harness: vllm")
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
