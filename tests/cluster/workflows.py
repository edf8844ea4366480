"""Workflows that run on the Slurm of a test: with the instant interpreter, or with an engine that does as told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked_runs
import stand_in
from slurm import Slurm
from workspace import Workspace

from rollout_bench.contracts.record import Failure
from rollout_bench.contracts.store import read_failure

ON_SLURM = ("--workflow-profile", "profiles/slurm", "--latency-wait", "5")

IMPATIENT = Path(__file__).with_name("impatient_snakemake.py")

OVERLAY = {**stand_in.CONFIG, "isolation": "per_device", "cluster": {"cpus_per_device": 1, "device_resource": "gpu"}}
"""One GPU for each launch, several launches on a node."""


class OnSlurm(Workspace):
    """A workspace whose commands talk to the Slurm of the test."""

    def __init__(self, path: Path, slurm: Slurm, overlay: Mapping[str, Any]) -> None:
        super().__init__(path, {**OVERLAY, **overlay})
        self.slurm = slurm

    @property
    def environment(self) -> dict[str, str]:
        """As in a shell where the test's Slurm is the only one."""
        own, of_slurm = super().environment, self.slurm.environment
        return {**own, **of_slurm, "PATH": f"{of_slurm['PATH'].partition(':')[0]}:{own['PATH']}"}

    def command(self, *arguments: str) -> list[str]:
        """As in any workspace, but asking Slurm for the states of jobs more often."""
        return [sys.executable, str(IMPATIENT), *arguments]

    def snakemake(self, *arguments: str, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        """As in any workspace; only dry runs, which ask nobody, are forks."""
        if "-n" not in arguments:
            return self.by_itself(*arguments, timeout_s=timeout_s)
        return forked_runs.run(list(arguments), self.path, self.environment, timeout_s)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """As in any workspace; what still runs when the Slurm ends, ends with it."""
        run = super().start(*arguments)
        self.slurm.at_end.append(lambda: self._end(run))
        return run

    def _end(self, run: subprocess.Popen[str]) -> None:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        for process in self.processes():  # of jobs: without cgroups Slurm loses sight of those whose parent it killed
            process.kill()

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Comment of each job that was submitted from here, which names its launch -> the id and state of the last."""
        columns = "--Format=JobID: |,State: |,WorkDir: |,Comment:"
        lines = self.slurm.run("squeue", "--noheader", "--states=all", columns).splitlines()
        rows = sorted(([word.strip() for word in line.split("|")] for line in lines), key=lambda row: int(row[0]))
        return {row[3]: (row[0], row[1]) for row in rows if row[2] == str(self.path)}

    def run_requeued(self) -> None:
        """Let jobs that were put back into the queue run now: Slurm would wait for two minutes."""
        waiting = [job for job, state in self.jobs().values() if state == "PENDING"]
        for job in waiting:
            self.slurm.run("scontrol", "update", f"job={job}", "StartTime=now", check=False)

    def job(self, launch: int) -> tuple[str, str]:
        """Id and state of the last job of a launch."""
        return next(job for comment, job in self.jobs().items() if comment.endswith(f"_{launch}"))

    def starts(self, launch: int | None = None) -> list[str]:
        """Return measurements that began, of one launch or all."""
        begun = stand_in.starts(self.path)
        return begun if launch is None else [start for start in begun if start.endswith(f"launch-{launch}")]

    def failure(self, launch: int) -> Failure:
        """Return the failure of a launch."""
        (path,) = self.path.glob(f"results/failures/*/*/launch-{launch}.json")
        return read_failure(path)


def until(what: str, holds: Callable[[], object], limit_s: float = 150.0) -> None:
    """Return once `holds` is true."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s"
        time.sleep(0.1)
