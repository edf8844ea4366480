"""Brings records home that were measured elsewhere: each is checked, then put in place whole, and none is replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rollout_bench.analysis.found import FAILURES, FoundFile, find_results
from rollout_bench.errors import UserError
from rollout_bench.files import write_json, write_whole
from rollout_bench.records.profile import Profile
from rollout_bench.records.record import Record
from rollout_bench.records.side_files import read_samples, read_sequences
from rollout_bench.records.store import (
    failure_path,
    read_failure,
    read_launched,
    sequences_path,
    server_path,
    traces_path,
)

_AGAIN = "collect again; if that does not help, delete it where it lies and measure that launch again"


@dataclass
class Collected:
    """What came of it: paths of what was brought home, how much was there already, and what was not taken and why."""

    records: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    present: int = 0
    refused: list[UserError] = field(default_factory=list)


def collect(source: Path, results: Path, logs: Path) -> Collected:
    """Copies the launches of `source`, which holds results/ and logs/ as a launch leaves them, to `results` and `logs`.

    A record that is at home stays, whatever the other one says. A failure comes home where there is no record.

    Raises:
        UserError: `source` holds no results folder, or the home folders can't be written.
    """
    if not (source / "results").is_dir():
        raise UserError(f"{source}: holds no folder results/", "give the folder that the results claim is mounted at")
    found, done = find_results(source / "results"), Collected()
    failed = [file for path, file in found.failures.items() if path not in found.records]
    for take, files in ((_record, found.records.values()), (_failure, failed)):
        for file in files:
            try:
                take(source, file, results, logs, done)
            except UserError as error:
                done.refused.append(error)
            except OSError as error:
                done.refused.append(UserError(f"{error.filename}: {error.strerror}", _AGAIN))
    return done


def _record(source: Path, file: FoundFile, results: Path, logs: Path, done: Collected) -> None:
    there, home = source / "results" / file.path, results / file.path
    if home.exists():
        done.present += 1
        return
    record = read_launched(there, file.mode)
    _check_place(there, file, (record.spec.mode, record.spec.experiment(), record.launch))
    if isinstance(record, Record):
        read_sequences(sequences_path(there), record)
        if record.server_file is not None:
            read_samples(server_path(there), record)
    if isinstance(record, Profile) and {t.name for t in record.traces} - _names(traces_path(there)):
        raise UserError(f"{traces_path(there)}: lacks a trace that the record names", _AGAIN)
    spec = home.with_name("spec.json")
    if not spec.exists():
        write_json(spec, record.spec)
    for beside in sorted(there.parent.glob(f"{there.stem}.*")):
        if beside != there and beside.suffix != ".tmp":
            _copy(beside, home.with_name(beside.name))
    _copy_log(source, file, logs)
    _copy(there, home)  # the last one: a record always has what belongs to it
    failure_path(home).unlink(missing_ok=True)
    done.records.append(file.path)


def _failure(source: Path, file: FoundFile, results: Path, logs: Path, done: Collected) -> None:
    there, home = source / "results" / FAILURES / file.path, failure_path(results / file.path)
    failure = read_failure(there)
    _check_place(there, file, (file.mode, failure.experiment, failure.launch))
    known = read_failure(home) if home.exists() else None
    if (results / file.path).exists() or (known is not None and known.failed_at >= failure.failed_at):
        done.present += 1
        return
    _copy_log(source, file, logs)
    write_whole(home, there.read_bytes())
    done.failures.append(file.path)


def _check_place(path: Path, file: FoundFile, told: tuple[str, str, int]) -> None:
    """Raises `UserError` where a file that tells of one launch lies at the place of another."""
    if told != (file.mode, file.experiment, file.launch):
        raise UserError(f"{path}: is of {told[0]} {told[1]} launch {told[2]}: it was moved", _AGAIN)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _copy_log(source: Path, file: FoundFile, logs: Path) -> None:
    folder = Path(file.mode) / file.experiment
    there = source / "logs" / folder
    for log in (there / f"launch-{file.launch}.log", *there.glob(f"launch-{file.launch}.replica-*.log")):
        if log.is_file():
            _copy(log, logs / folder / log.name)


def _copy(there: Path, home: Path) -> None:
    """Copies a file or a folder to where nobody sees half of it."""
    temporary = home.with_name(f".{home.name}.{os.getpid()}.tmp")
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        if there.is_dir():
            shutil.copytree(there, temporary)
            shutil.rmtree(home, ignore_errors=True)  # of a launch that never got a record
        else:
            shutil.copyfile(there, temporary)
        _flush(temporary)
        temporary.replace(home)
    finally:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    files: Iterable[Path] = path.rglob("*") if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
