"""Copies records from a cluster into the local results folder. Each record is checked, and none is replaced.

Only plain files of launches are read. Links are not followed, because a link could point to any file of the local
machine.
"""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rollout_bench.contracts.mode import TRACES
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.side_files import content_of
from rollout_bench.contracts.store import (
    FAILURES,
    FoundFile,
    failure_path,
    find_results,
    read_failure,
    read_launched,
    traces_path,
)
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_json

_BESIDE = {ending for mode in MODES.values() for ending in mode.side_files} - {TRACES}
_LEFT = re.compile(
    r"(?:results|results/failures|logs)/(?P<launch>[^/]+/[^/]+/launch-\d+)"
    rf"(?:\.json|{'|'.join(map(re.escape, sorted(_BESIDE)))}|{re.escape(TRACES)}/.+"
    r"|\.operators\.csv\.(?:gz|txt)|(?:\.replica-\d+)?\.log)"
)
_LONGEST = 200
"""Maximum bytes of a name. File systems allow 255, and temporary copies have longer names."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # otherwise a pipe without a writer would block


def launch_of(path: str) -> str | None:
    """Return the launch, `<mode>/<experiment>/launch-<i>`, that owns the file at `path` below the claim, or None."""
    match, parts = _LEFT.fullmatch(path), path.split("/")
    odd = any(part in ("", ".", "..") or len(part.encode()) > _LONGEST for part in parts)
    return None if match is None or odd else match["launch"]


def copy_file(root: Path, path: str, target: Path) -> None:
    """Copy the plain file at `path` below `root` to `target`, with fsync.

    Raises:
        UserError: if the file is no plain file or can't be copied, or if its path below `root` contains a link.
    """
    *folders, name = PurePosixPath(path).parts
    descriptor = -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for flags, part in [*((_DIRECTORY, folder) for folder in folders), (_FILE, name)]:
            above, descriptor = descriptor, os.open(part, flags, dir_fd=descriptor)
            os.close(above)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        with open(descriptor, "rb", closefd=False) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR)
        problem = "is a link, or lies behind one, and is not followed" if linked else error.strerror
        raise UserError(f"{root / path}: {problem}", "replace it with the file itself, and collect again") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


_AGAIN = "collect again; if that does not help, delete the file in its source folder and measure the launch again"


@dataclass
class Collected:
    """Result of `collect`.

    Attributes:
        records: paths of copied records, relative to the results folder.
        failures: paths of copied failures.
        present: number of launches that were in the results folder already.
        refused: launches that were not copied, with the reason.
        left_out: side files that were not copied, one line each.
    """

    records: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    present: int = 0
    refused: list[UserError] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(source: Path, results: Path, logs: Path) -> Collected:
    """Copy the launches of `source`, a folder with results/ and logs/, to `results` and `logs`.

    An existing record stays. A failure is copied if there is no record. Checks read a private copy, which no other
    process can change.

    Raises:
        UserError: if `source` has no results folder, or its results folder is a link.
    """
    where = "give the folder where the results claim is mounted"
    if not (source / "results").is_dir():
        raise UserError(f"{source}: contains no folder results/", where)
    if (source / "results").is_symlink():
        raise UserError(f"{source / 'results'}: is a link, and is not followed", where)
    results.mkdir(parents=True, exist_ok=True)
    found, done = find_results(source / "results"), Collected()
    failed = [file for path, file in found.failures.items() if path not in found.records]
    for take, files in ((_record, found.records.values()), (_failure, failed)):
        for file in files:
            try:
                with tempfile.TemporaryDirectory(prefix=".collecting-", dir=results) as copies:
                    take(source, file, Path(copies), results, logs, done)
            except UserError as error:
                # name the original file, not the copy
                done.refused.append(UserError(error.problem.replace(copies, str(source)), error.remedy))
            except OSError as error:
                done.refused.append(UserError(f"{error.filename}: {error.strerror}", _AGAIN))
    return done


def _record(source: Path, file: FoundFile, copies: Path, results: Path, logs: Path, done: Collected) -> None:
    home = results / file.path
    if home.exists():
        done.present += 1
        return
    copied = copies / "results" / file.path
    copy_file(source, f"results/{file.path}", copied)
    record = read_launched(copied, file.mode)
    _check_place(copied, file, (record.spec.mode, record.spec.experiment(), record.launch))
    _copy_beside(source, file, copies, done)
    for name in record.side_files_sha256 or {}:
        content_of(copied.with_name(name), record, _AGAIN)
    if missing := [name for name in record.folders if not (copied.parent / name).exists()]:
        raise UserError(f"{copied.with_name(missing[0])}: is missing, and the record names it", _AGAIN)
    spec = home.with_name("spec.json")
    if not spec.exists():
        write_json(spec, record.spec)
    shutil.rmtree(traces_path(home), ignore_errors=True)  # left by a launch without a record
    for beside in sorted(copied.parent.iterdir()):
        if beside != copied:
            beside.replace(home.with_name(beside.name))
    _copy_logs(source, file, logs, done)
    copied.replace(home)  # last, so that a record always has its side files
    failure_path(home).unlink(missing_ok=True)
    done.records.append(file.path)


def _failure(source: Path, file: FoundFile, copies: Path, results: Path, logs: Path, done: Collected) -> None:
    home = failure_path(results / file.path)
    copied = copies / "results" / FAILURES / file.path
    copy_file(source, f"results/{FAILURES}/{file.path}", copied)
    failure = read_failure(copied)
    _check_place(copied, file, (file.mode, failure.experiment, failure.launch))
    known = read_failure(home) if home.exists() else None
    if (results / file.path).exists() or (known is not None and known.failed_at >= failure.failed_at):
        done.present += 1
        return
    _copy_logs(source, file, logs, done)
    home.parent.mkdir(parents=True, exist_ok=True)
    copied.replace(home)
    done.failures.append(file.path)


def _check_place(path: Path, file: FoundFile, told: tuple[str, str, int]) -> None:
    """Raise `UserError` if the content of a file belongs to another launch than its path."""
    if told != (file.mode, file.experiment, file.launch):
        raise UserError(f"{path}: belongs to {told[0]} {told[1]} launch {told[2]}, so the file was moved", _AGAIN)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _copy_beside(source: Path, file: FoundFile, copies: Path, done: Collected) -> None:
    for path in _beside(source / "results" / file.path):
        _copy(source, path, copies / path.relative_to(source), done)


def _beside(record: Path) -> Iterator[Path]:
    """Yield the side files of `record`: equal name with another suffix, and files in such folders, without links."""
    for path in sorted(record.parent.glob(f"{record.stem}.*")):
        if path.is_dir() and not path.is_symlink():
            yield from (inner for inner in sorted(path.rglob("*")) if inner.is_symlink() or not inner.is_dir())
        elif path != record and path.suffix != ".tmp":
            yield path


def _copy_logs(source: Path, file: FoundFile, logs: Path, done: Collected) -> None:
    folder = Path(file.mode) / file.experiment
    there = source / "logs" / folder
    for log in (there / f"launch-{file.launch}.log", *there.glob(f"launch-{file.launch}.replica-*.log")):
        if log.exists():
            home = logs / folder / log.name
            temporary = home.with_name(f".{home.name}.{os.getpid()}.tmp")
            if _copy(source, log, temporary, done):
                temporary.replace(home)


def _copy(source: Path, path: Path, target: Path, done: Collected) -> bool:
    """Copy a file of a launch; return whether it was copied. A refused file is added to `done.left_out`."""
    name = path.relative_to(source).as_posix()
    try:
        if launch_of(name) is None:
            raise UserError(f"{path}: is not a file of a launch", _AGAIN)
        copy_file(source, name, target)
    except UserError as error:
        done.left_out.append(f"left out: {error.problem}")
        return False
    return True
