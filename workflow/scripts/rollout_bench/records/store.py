"""Reading and writing of results: whole or not at all, validated both ways."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rollout_bench.errors import UserError
from rollout_bench.records.record import SCHEMA_VERSION, Failure, Record, SequenceRow

Model = TypeVar("Model", bound=BaseModel)


def record_path(results: Path, mode: str, experiment: str, launch: int) -> Path:
    """Where the record of a launch lies."""
    return results / mode / experiment / f"launch-{launch}.json"


def failure_path(record: Path) -> Path:
    """Where the failure of the launch lies that was to write `record`."""
    results = record.parent.parent.parent
    return results / "failures" / record.relative_to(results)


def sequences_path(record: Path) -> Path:
    """The side file of `record`."""
    return record.with_suffix(".sequences.jsonl.gz")


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` to `path` by way of a temporary file, fsync and rename.

    Raises:
        UserError: the file system refuses; then neither `path` nor the temporary file is left changed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        remedy = "check the folder's owner and permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space, then run the same command again: what was measured before is kept"
        raise UserError(f"{path}: cannot be written: {error.strerror}", remedy) from None


def write_record(path: Path, record: Record, sequences: Iterable[SequenceRow]) -> None:
    """Writes the side file, then the record, each whole; a record therefore always has its side file."""
    lines = "".join(row.model_dump_json() + "\n" for row in sequences)
    write_whole(sequences_path(path), gzip.compress(lines.encode(), compresslevel=6, mtime=0))
    checked = Record.model_validate(record.model_dump())
    write_whole(path, (json.dumps(checked.model_dump(mode="json"), indent=1) + "\n").encode())


def write_failure(record: Path, failure: Failure) -> None:
    """Leaves the failure of the launch that was to write `record`."""
    write_whole(failure_path(record), (json.dumps(failure.model_dump(mode="json"), indent=1) + "\n").encode())


def read_record(path: Path) -> Record:
    """Reads and validates a record.

    Raises:
        UserError: naming file and field, where the file can't be read, is no JSON, is of another
            schema version, does not validate, or holds a spec that does not hash to its key.
    """
    record = _read(path, Record)
    if record.spec.key() != record.key:
        raise UserError(
            f"{path}: key: is {record.key} but the spec in it hashes to {record.spec.key()}: it was edited",
            "restore the file, or delete it to measure that launch again",
        )
    return record


def read_failure(path: Path) -> Failure:
    """Reads and validates a failure; raises `UserError` naming file and field."""
    return _read(path, Failure)


def read_sequences(path: Path) -> list[SequenceRow]:
    """Reads the side file at `path`; raises `UserError` naming file and line."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = []
            for number, line in enumerate(file, 1):  # noqa: B007 (named in the error below)
                rows.append(SequenceRow.model_validate_json(line))
            return rows
    except (OSError, EOFError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(
            f"{path}: line {number}: {str(error).splitlines()[0]}", "delete the launch to measure it again"
        ) from None


def _read(path: Path, model: type[Model]) -> Model:
    remedy = "restore the file, or delete it to measure that launch again"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", remedy) from None
    except ValueError as error:
        raise UserError(f"{path}: is not whole JSON: {error}", remedy) from None
    if isinstance(content, dict) and content.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version: is {content['schema_version']!r}, this version reads {SCHEMA_VERSION}",
            "delete it to measure that launch again, or read it with the version that wrote it",
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise UserError(f"{path}: {where}: {first['msg']}", remedy) from None
