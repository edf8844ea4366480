"""Who uses the cores besides a launch: the workflow's own Snakemake and the kernel's threads are named as such."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollout_bench.measure.machine import host, quiet
from rollout_bench.measure.machine.host import Reading, between, kernel_thread
from rollout_bench.measure.machine.quiet import User

SOURCES = Path(__file__).parents[3] / "src"

OF_THE_KERNEL, OF_A_USER = 0x208040, 0x400000
"""Flags of a task."""


def stat(proc: Path, pid: int, name: str, flags: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) I 2 0 0 0 -1 {flags} 0 0 0 0 7 9 0 0 20 0 1 0 50 0 0\n")


@pytest.mark.parametrize(
    ("name", "flags", "thread"),
    [
        ("kdamond.0", OF_THE_KERNEL, "kdamond: memory reclaim"),
        ("kswapd0", OF_THE_KERNEL, "kswapd: memory reclaim"),
        ("kworker/0:1-events (x)", OF_THE_KERNEL, "kworker: deferred work"),
        ("of-a-driver", OF_THE_KERNEL, "of-a-driver"),
        ("kdamond.0", OF_A_USER, None),
        ("make", OF_A_USER, None),
    ],
)
def test_a_thread_of_the_kernel_is_known_by_its_flags_and_not_by_its_name(
    tmp_path: Path, name: str, flags: int, thread: str | None
) -> None:
    stat(tmp_path, 77, name, flags)
    assert kernel_thread(77, name, tmp_path) == thread


def reading(moment: float, ticks: int) -> Reading:
    others = {(77, 1): ("kdamond.0", ticks), (78, 1): ("make", 1)}
    return Reading(moment, 2, ticks, 0, 200 + int(100 * moment), 0, others, None, None, None, None)


def test_the_record_and_who_waits_for_quiet_name_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (host, quiet):
        monkeypatch.setattr(module, "kernel_thread", lambda pid, name: "kdamond: memory reclaim")
    assert between(reading(0.0, 0), reading(1.0, 60)).busiest_other == "the kernel (kdamond: memory reclaim)"
    assert str(User(77, "kdamond.0", 0.3)) == "the kernel (kdamond: memory reclaim; pid 77, 30 %)"


ASKS = (
    "import os\n"
    "from rollout_bench.measure.machine.host import culprit\n"
    "print(culprit(os.getppid(), 'snakemake'), '|', culprit(os.getpid(), 'snakemake'), flush=True)\n"
)


@pytest.mark.parametrize(
    ("program", "called"),
    [
        ("snakemake", "this workflow's own snakemake"),
        ("another", "snakemake (pid "),
    ],
)
def test_only_the_snakemake_that_started_the_launch_is_called_the_workflow_s_own(
    tmp_path: Path, program: str, called: str
) -> None:
    starts = tmp_path / program
    starts.write_text(
        f"import subprocess, sys\nsys.exit(subprocess.run([sys.executable, '-c', {ASKS!r}], check=False).returncode)\n"
    )
    paths = [str(SOURCES), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(starts)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    parent, _, itself = done.stdout.strip().partition(" | ")
    assert parent.startswith(called)
    assert re.fullmatch(rf"snakemake \(pid \d+ of {re.escape(getpass.getuser())}\)", itself)
