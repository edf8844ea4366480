"""Copies records from a cluster into the local results folder. Each record is checked, and none is replaced."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.contracts.side_files import checked_content
from rollout_bench.contracts.store import (
    FAILURES,
    FoundFile,
    failure_path,
    find_results,
    read_failure,
    read_launched,
)
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_json, write_whole

_AGAIN = "collect again; if that does not help, move the file away in its source folder and measure the launch again"


@dataclass
class Collected:
    """Result of `collect`.

    Attributes:
        records: paths of copied records, relative to the results folder.
        failures: paths of copied failures.
        present: number of launches that were in the results folder already.
        refused: launches that were not copied, with the reason.
    """

    records: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    present: int = 0
    refused: list[UserError] = field(default_factory=list)


def collect(source: Path, results: Path, logs: Path) -> Collected:
    """Copy the launches of `source`, a folder with results/ and logs/, to `results` and `logs`.

    An existing record stays. A failure is copied if there is no record. Links below `source` are not followed, because
    a pod may have written them, and they could point to any file of the local machine.

    Raises:
        UserError: if `source` has no results folder.
    """
    if not (source / "results").is_dir():
        raise UserError(f"{source}: contains no folder results/", "give the folder where the results claim is mounted")
    listing, done = find_results(source / "results"), Collected()
    failed = [file for path, file in listing.failures.items() if path not in listing.records]
    for checked, files, taken in (
        (_record, listing.records.values(), done.records),
        (_failure, failed, done.failures),
    ):
        for file in files:
            try:
                paths = checked(source / "results", file, results)
                if not paths:
                    done.present += 1
                    continue
                logs_of_launch = (source / "logs" / file.mode / file.experiment).glob(f"launch-{file.launch}.*log")
                for log in [path for path in logs_of_launch if path.is_file() and not is_linked(source, path)]:
                    _copy(log, logs / log.relative_to(source / "logs"))
                for path in paths:
                    _copy(path, results / path.relative_to(source / "results"))
                if checked is _record:
                    failure_path(results / file.path).unlink(missing_ok=True)
                taken.append(file.path)
            except UserError as error:
                done.refused.append(error)
            except OSError as error:
                done.refused.append(UserError(f"{error.filename or source}: {error.strerror or error}", _AGAIN))
    return done


def _record(source: Path, file: FoundFile, results: Path) -> list[Path]:
    """Return what to copy of a record, itself last; nothing if it is in `results`."""
    source_path, target = source / file.path, results / file.path
    if target.exists():
        return []
    beside = [path for path in sorted(source_path.parent.glob(f"{source_path.stem}.*")) if path != source_path]
    for path in (source_path, *beside, *(inner for folder in beside for inner in folder.rglob("*"))):
        _check_no_link(source, path)
    record = read_launched(source_path, file.mode)
    _check_place(source_path, file, (record.spec.mode, record.spec.experiment(), record.launch))
    for name in record.side_files_sha256 or {}:
        checked_content(source_path.with_name(name), record, _AGAIN)
    if missing := [name for name in record.folders if not (source_path.parent / name).exists()]:
        raise UserError(f"{source_path.with_name(missing[0])}: is missing, and the record names it", _AGAIN)
    if not target.with_name("spec.json").exists():
        write_json(target.with_name("spec.json"), record.spec)
    return [*beside, source_path]


def _failure(source: Path, file: FoundFile, results: Path) -> list[Path]:
    """Return the failure to copy; nothing if `results` has the launch, or a later failure of it."""
    source_path, target = source / FAILURES / file.path, failure_path(results / file.path)
    _check_no_link(source, source_path)
    failure = read_failure(source_path)
    _check_place(source_path, file, (file.mode, failure.experiment, failure.launch))
    known = (results / file.path).exists() or (target.exists() and read_failure(target).failed_at >= failure.failed_at)
    return [] if known else [source_path]


def _copy(path: Path, home: Path) -> None:
    if path.is_dir():
        shutil.rmtree(home, ignore_errors=True)  # left by a launch without a record
        shutil.copytree(path, home)
    else:
        write_whole(home, path.read_bytes())


def is_linked(source: Path, path: Path) -> bool:
    """Return whether `path`, below `source`, is a link or lies behind one."""
    return path.resolve() != source.resolve() / path.relative_to(source)


def _check_no_link(source: Path, path: Path) -> None:
    if is_linked(source.parent, path):
        problem = f"{path}: is a link, or lies behind one, and is not followed"
        raise UserError(problem, "replace it with the file itself, and collect again")


def _check_place(path: Path, file: FoundFile, launch: tuple[str, str, int]) -> None:
    """Raise `UserError` if the content of a file belongs to another launch than its path."""
    if launch != (file.mode, file.experiment, file.launch):
        raise UserError(f"{path}: belongs to {launch[0]} {launch[1]} launch {launch[2]}, so the file was moved", _AGAIN)
