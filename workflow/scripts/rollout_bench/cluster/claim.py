"""The claim on a launch: a note beside the results that says who measures it, while it is measured.

It keeps two processes from measuring one launch at the same time, on whatever machines they run, and it is what
remains of a process that was killed. Made by a hard link, which exactly one of several wins on any shared file system,
NFS included, where the locks of flock may be of one machine only. No lock tells whether the holder lives, so that is
asked: the kernel, where the holder ran on this machine, else Slurm. Where neither can tell, the claim holds for as long
as a launch may take.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field

from rollout_bench.cluster import slurm
from rollout_bench.engines.processes import group_of
from rollout_bench.errors import UserError
from rollout_bench.files import read_model, write_json
from rollout_bench.placement.node import node_name, scheduler_job
from rollout_bench.plan.strict import Strict

FOLDER = ".started"
"""Below the results folder; the same paths as the records'."""

SPARE_S = 900.0
"""How much longer than its time limit a launch may take: ending the engine, writing, clocks that differ."""

PATIENCE_S = 60.0
"""How long a process of the same job that a failed node left behind may take to end."""


class Claim(Strict):
    """Who measures a launch."""

    host: str = Field(description="Name of the machine, as its kernel has it.")
    node: str = Field(description="Name of the machine, as its scheduler has it.")
    pid: int = Field(description="The measuring command.")
    started_ticks: int = Field(description="Its start in clock ticks since boot, which tells it from a later process.")
    job: str | None = Field(description="Id of the scheduler's job.")
    until_s: float = Field(description="When it has ended at the latest, in seconds since 1970.")
    log: str = Field(description="Path of the launch's log.")

    def lives(self) -> bool:
        """Whether the process may still be there; where nobody can tell, until the launch's time is over."""
        if self.host == socket.gethostname():
            return group_of(self.pid).started == self.started_ticks
        if (
            self.job is not None and self.job == scheduler_job()
        ):  # started again elsewhere: the scheduler has ended the first
            return False
        known = None if self.job is None else slurm.ask(self.job)
        if known is not None:
            return known.state in slurm.LIVING
        # asked again, once the controller is known to answer: a busy one may have failed to, just before
        forgotten = self.job is not None and slurm.answers() and slurm.ask(self.job) is None
        return not forgotten and time.time() < self.until_s

    def holder(self) -> str:
        """Who it is, in words."""
        return f"process {self.pid} on {self.node}" + (f", job {self.job}" if self.job else "")


def claim_path(record: Path) -> Path:
    """Where the claim on the launch lies that is to write `record`."""
    results = record.parent.parent.parent
    return results / FOLDER / record.relative_to(results)


def read_claim(path: Path) -> Claim:
    """Reads a claim; raises `UserError` naming file and field."""
    return read_model(path, Claim, "delete the file if nothing measures that launch")


@contextlib.contextmanager
def claimed(record: Path, log: Path, timeout_s: float, tell_of_dead: Callable[[Path, Claim], object]) -> Iterator[None]:
    """Holds the claim on the launch that is to write `record` (an absolute path).

    Args:
        log: the launch's log.
        timeout_s: the launch's time limit.
        tell_of_dead: is told of a claim that a dead process left, before it is taken over.

    Raises:
        UserError: another process measures it, or may do so, or the note can't be written.
    """
    path = claim_path(record)
    own = Claim(
        host=socket.gethostname(),
        node=node_name(),
        pid=os.getpid(),
        started_ticks=group_of(os.getpid()).started,
        job=scheduler_job(),
        until_s=round(time.time() + timeout_s + SPARE_S, 1),
        log=str(log),
    )
    ours = path.with_name(f".{path.name}.{own.host}.{own.pid}")
    write_json(ours, own)
    try:
        _take(path, ours, own, lambda dead: tell_of_dead(record, dead))
    finally:
        ours.unlink(missing_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(UserError):  # gone, or another's that took it over
            if read_claim(path) == own:
                path.unlink(missing_ok=True)


def _take(path: Path, ours: Path, own: Claim, tell_of_dead: Callable[[Claim], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            os.link(ours, path)
        except FileExistsError:
            try:
                other = read_claim(path)
            except UserError:
                if not path.exists():  # given up meanwhile
                    continue
                raise
            if not other.lives():
                tell_of_dead(other)
                give_up(path, other)
            elif other.job is None or other.job != own.job or time.monotonic() > deadline:
                raise UserError(
                    f"{path}: the launch is being measured by {other.holder()}",
                    "wait for it or end it; delete the file if there is no such process any more",
                ) from None
            else:
                time.sleep(1.0)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be linked: {error.strerror}", "put results/ on another file system"
            ) from None
        else:
            return


def give_up(path: Path, dead: Claim) -> None:
    """Removes the claim of a dead process, and no other that was made meanwhile."""
    aside = path.with_name(f".{path.name}.dead.{socket.gethostname()}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if read_claim(aside) != dead:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
