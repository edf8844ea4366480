"""Where results lie, and how they are written and read: whole or not at all, validated both ways."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from rollout_bench.errors import UserError
from rollout_bench.files import read_model, write_json, write_whole
from rollout_bench.plan.strict import Strict
from rollout_bench.records.online import ServerSample
from rollout_bench.records.operators import Operators
from rollout_bench.records.profile import Profile
from rollout_bench.records.record import Failure, Launched, Record, SequenceRow

_Launched = TypeVar("_Launched", bound=Launched)
_Row = TypeVar("_Row", bound=Strict)
_ROWS = TypeAdapter(list[SequenceRow])
_SAMPLES = TypeAdapter(list[ServerSample])

LOOKING = frozenset({"profile", "operators"})
"""Modes that look into the engine; their records are not `Record`s, and hold no throughput."""

_REMEDY = "restore the file, or delete it to measure that launch again"


def record_path(results: Path, mode: str, experiment: str, launch: int) -> Path:
    """Where the record of a launch lies."""
    return results / mode / experiment / f"launch-{launch}.json"


def present(records: Iterable[str]) -> set[str]:
    """Those of `records` that exist, found by listing each of their folders once."""
    wanted = set(records)
    there: set[str] = set()
    for folder in {record.rpartition("/")[0] for record in wanted}:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            there.update(f"{folder}/{entry.name}" for entry in entries)
    return there & wanted


def failure_path(record: Path) -> Path:
    """Where the failure of the launch lies that was to write `record`."""
    results = record.parent.parent.parent
    return results / "failures" / record.relative_to(results)


def sequences_path(record: Path) -> Path:
    """The side file of `record`."""
    return record.with_suffix(".sequences.jsonl.gz")


def server_path(record: Path) -> Path:
    """The side file of `record` with the server's metrics over time."""
    return record.with_suffix(".server.jsonl.gz")


def traces_path(record: Path) -> Path:
    """The folder of traces beside a profile's `record`."""
    return record.with_suffix(".traces")


def operators_path(record: Path) -> Path:
    """The table of operators that is made from the traces of a profile's `record`."""
    return record.with_suffix(".operators.csv.gz")


def write_record(
    path: Path, record: Record, sequences: Iterable[SequenceRow], samples: Iterable[ServerSample] = ()
) -> None:
    """Writes the side files, then the record, each whole; a record therefore always has its side files."""
    _write_lines(sequences_path(path), sequences)
    if record.server_file is not None:
        _write_lines(server_path(path), samples)
    checked = Record.model_validate(record.model_dump())
    write_json(path, checked)


def _write_lines(path: Path, rows: Iterable[Strict]) -> None:
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    write_whole(path, gzip.compress(lines.encode(), compresslevel=6, mtime=0))


def write_failure(record: Path, failure: Failure) -> None:
    """Leaves the failure of the launch that was to write `record`."""
    write_json(failure_path(record), failure)


def read_record(path: Path) -> Record:
    """Reads and validates a record.

    Raises:
        UserError: naming file and field, where the file can't be read, is no JSON, is of another
            schema version, does not validate, or holds a spec that does not hash to its key.
    """
    return _unedited(path, read_model(path, Record, _REMEDY))


def _unedited(path: Path, record: _Launched) -> _Launched:
    if record.spec.key() != record.key:
        raise UserError(
            f"{path}: key: is {record.key} but the spec in it hashes to {record.spec.key()}: it was edited",
            _REMEDY,
        )
    return record


def read_profile(path: Path) -> Profile:
    """Reads and validates the record of a profile launch, as `read_record` does."""
    return _unedited(path, read_model(path, Profile, _REMEDY))


def read_operators(path: Path) -> Operators:
    """Reads and validates the record of an operators launch, as `read_record` does."""
    return _unedited(path, read_model(path, Operators, _REMEDY))


def read_launched(path: Path, mode: str) -> Launched:
    """Reads and validates the record of a launch in any mode, as `read_record` does."""
    if mode == "operators":
        return read_operators(path)
    return read_profile(path) if mode == "profile" else read_record(path)


def read_failure(path: Path) -> Failure:
    """Reads and validates a failure; raises `UserError` naming file and field."""
    return read_model(path, Failure, _REMEDY)


def read_sequences(path: Path) -> list[SequenceRow]:
    """Reads the side file at `path`; raises `UserError` naming file and line."""
    return _read_lines(path, _ROWS, SequenceRow)


def read_samples(path: Path) -> list[ServerSample]:
    """Reads the side file at `path` with a server's metrics; raises `UserError` naming file and line."""
    return _read_lines(path, _SAMPLES, ServerSample)


def _read_lines(path: Path, rows: TypeAdapter[list[_Row]], row: type[_Row]) -> list[_Row]:
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        # All rows in one call: a summary of 5,000 launches reads a million, and one call for each takes minutes.
        return rows.validate_json(b"[" + b",".join(lines) + b"]")
    except (OSError, EOFError, zlib.error, ValidationError) as error:
        number, problem = _first_damage(path, row, error)
        remedy = "restore it, or delete this file alone: the percentiles then lack its launch"
        raise UserError(f"{path}: line {number}: {problem}", remedy) from None


def _first_damage(path: Path, row: type[Strict], found: Exception) -> tuple[int, str]:
    """Number of the first line of a side file that can't be read, and why; `found` where each line alone can."""
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (named in what is returned)
                row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        return number, ": ".join([*map(str, first["loc"]), first["msg"]])
    except (OSError, EOFError, zlib.error) as error:
        return number + 1, str(error)
    return number, str(found).splitlines()[0]
