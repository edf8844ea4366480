"""Claims on launches that are being measured, and failures of processes that ended silently.

A claim prevents two processes on any machines from measuring a launch simultaneously. It also remains after a process
was killed. A claim is a hard link: on any shared file system, NFS included, exactly one process succeeds in making it.
Locks of flock may hold on one machine only.
A claim does not show whether its process is alive. The kernel answers for processes of this machine, Slurm for others.
Without an answer, the claim is valid for the maximum duration of a launch.

The cause of a launch's silent end comes from its claim, the log of its Slurm job, and Slurm's state of the job.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from rollout_bench.cluster import slurm
from rollout_bench.contracts.failures import Cause, failure_of, state_of
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.progress import PROGRESS, LaunchProgress, progress_path, read_progress
from rollout_bench.contracts.store import STARTED, claim_path, write_failure
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_model, write_json
from rollout_bench.core.processes import group_of, node_name, scheduler_job

SPARE_S = 900.0
"""Seconds that a launch may exceed its time limit: end of the engine, writing of files, differing clocks."""

PATIENCE_S = 60.0
"""Seconds to wait for an earlier process of the same job to end, if its node failed."""


class Owner(Strict):
    """The process that measures a launch."""

    host: str = Field(description="Host name of the machine.")
    node: str = Field(description="The scheduler's name of the machine.")
    pid: int = Field(description="Pid of the measuring command.")
    started_ticks: int = Field(description="Start of the command in clock ticks since boot, because pids are reused.")
    job: str | None = Field(description="Id of the scheduler's job.")
    until_s: float = Field(description="Latest possible end of the command, in seconds since 1970.")
    log: str = Field(description="Path of the launch's log.")

    def lives(self) -> bool:
        """Return whether the process may still be running; if unknown, True until the launch's time is over."""
        if self.host == socket.gethostname():
            return group_of(self.pid).started == self.started_ticks
        if self.job is not None and self.job == scheduler_job():
            return False  # the scheduler restarted the job here, so the first process has ended
        known = None if self.job is None else slurm.ask(self.job)
        if known is not None:
            return known.state in slurm.LIVING
        # ask again after the controller has answered, because a busy controller may have missed the first question
        forgotten = self.job is not None and slurm.answers() and slurm.ask(self.job) is None
        return not forgotten and time.time() < self.until_s

    def holder(self) -> str:
        """Return the process in words, for messages."""
        return f"process {self.pid} on {self.node}" + (f", job {self.job}" if self.job else "")


def read_claim(path: Path) -> Owner:
    """Return the claim at `path`; raise a `UserError` with file and field if it is damaged."""
    return read_model(path, Owner, "move the file away if nothing measures that launch")


@contextlib.contextmanager
def claimed(record: Path, log: Path, timeout_s: float) -> Iterator[None]:
    """Hold the claim on the launch of `record` (an absolute path) inside the block.

    Args:
        record: path of the launch's record.
        log: the launch's log.
        timeout_s: the launch's time limit.

    Raises:
        UserError: if another process measures or may measure the launch, or the claim can't be written.
    """
    path = claim_path(record)
    owner = Owner(
        host=socket.gethostname(),
        node=node_name(),
        pid=os.getpid(),
        started_ticks=group_of(os.getpid()).started,
        job=scheduler_job(),
        until_s=round(time.time() + timeout_s + SPARE_S, 1),
        log=str(log),
    )
    ours = path.with_name(f".{path.name}.{owner.host}.{owner.pid}")
    write_json(ours, owner)
    try:
        _take_claim(record, ours, owner)
    finally:
        ours.unlink(missing_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(UserError):  # gone, or replaced by another process
            if read_claim(path) == owner:
                progress_path(record).unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def _take_claim(record: Path, ours: Path, owner: Owner) -> None:
    path = claim_path(record)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            os.link(ours, path)
        except FileExistsError:
            try:
                other = read_claim(path)
            except UserError:
                if not path.exists():  # removed meanwhile
                    continue
                raise
            if not other.lives():
                _end(record, other, again_here=other.job is not None and other.job == owner.job)
            elif other.job is None or other.job != owner.job or time.monotonic() > deadline:
                raise UserError(
                    f"{path}: the launch is being measured by {other.holder()}",
                    "wait for that process or end it; if it is already gone, move the file away",
                ) from None
            else:
                time.sleep(1.0)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be linked: {error.strerror}", "put results/ on another file system"
            ) from None
        else:
            return


def give_up(path: Path, dead: Owner) -> None:
    """Remove the claim of a dead process, but keep a newer claim at the same path."""
    aside = path.with_name(f".{path.name}.dead.{socket.gethostname()}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        try:
            if read_claim(aside) != dead:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
            else:
                path.with_suffix(PROGRESS).unlink(missing_ok=True)
        finally:
            aside.unlink()


_KILLED = Cause(
    "killed",
    "the measuring command was killed (SIGKILL), and left no word",
    "run the same command again; where nobody killed it, memory may have run out: look at dmesg",
)


def running_launches(results: Path) -> dict[str, tuple[LaunchProgress, Owner]]:
    """Return the running launches: path of the record, relative to `results` -> progress, and the process.

    No scheduler is asked. A launch on another machine counts as running until its time is over.
    """
    launches = {}
    for record, claim in _claims(results):
        here = claim.host == socket.gethostname()
        if claim.lives() if here else time.time() < claim.until_s:
            launches[str(record.relative_to(results))] = read_progress(record), claim
    return launches


def _claims(results: Path) -> Iterator[tuple[Path, Owner]]:
    """Yield the record and the claim of each claimed launch."""
    folder = results / STARTED
    for path in sorted(folder.glob("*/*/launch-*.json")):
        with contextlib.suppress(UserError):  # removed meanwhile, or damaged: the launch itself reports that
            yield results / path.relative_to(folder), read_claim(path)


def fail_dead_claims(results: Path) -> list[Path]:
    """Turn the claims of dead processes into failures; return the paths of the missing records."""
    return [record for record, claim in _claims(results) if not claim.lives() and _end(record, claim)]


def _end(record: Path, dead: Owner, *, again_here: bool = False) -> bool:
    """Remove the claim of a dead process, and write its failure unless it left a record or a failure.

    Args:
        record: path of the launch's record.
        dead: the process.
        again_here: its job goes on here and measures the launch again, so nothing has failed.

    Returns:
        Whether a failure was written.
    """
    job = dead.job
    has_failed = not again_here and state_of(record) == "missing"
    if has_failed:
        cause = None if job is None else slurm.cause_of(slurm.ask(job), slurm.JOB_LOGS.rglob(f"{job}.log"))
        launch, phase = int(record.stem.removeprefix("launch-")), read_progress(record).text
        failure = failure_of(record.parent.name, launch, phase, cause or _KILLED, dead.log, dead.node, job)
        write_failure(record, failure)
    give_up(claim_path(record), dead)
    return has_failed
