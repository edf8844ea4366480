"""Side files beside the record: compressed lines of JSON, one per sequence or scored sequence.

The record has the SHA-256 of its side file, so the rows are those that were written with it.
"""

import gzip
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.record import Launched, Record, SequenceRow
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole

_Row = TypeVar("_Row", bound=Strict)

ROWS_REMEDY = "restore it, or move the record away, too: the launch is then measured again"
"""Remedy for a side file without which its record says nothing."""

BATCH_BYTES = 1 << 20
"""Bytes that are validated in one call: one call per row would take minutes for a million rows."""


def write_rows(path: Path, rows: Iterable[Strict]) -> str:
    """Write a side file atomically; return its SHA-256 in hex."""
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    content = gzip.compress(lines.encode(), compresslevel=6, mtime=0)
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read_sequences(path: Path, record: Record) -> list[SequenceRow]:
    """Return the rows of the side file at `path`, which belongs to `record`.

    Raises:
        UserError: the file is missing, or is not the one that was written with the record.
    """
    return read_rows(path, record, SequenceRow, "restore it, or move it away: the launch then counts without it")


def read_rows(path: Path, record: Launched, row: type[_Row], remedy: str) -> list[_Row]:
    """Return the rows of the side file at `path`, each a `row`; errors are as in `read_sequences`, with `remedy`."""
    rows = TypeAdapter(list[row])  # type: ignore[valid-type]
    content_rows: list[_Row] = []
    try:
        with gzip.open(io.BytesIO(checked_content(path, record, remedy))) as file:
            while lines := file.readlines(BATCH_BYTES):
                content_rows += rows.validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        raise UserError(f"{path}: {place}: {first['msg']}", remedy) from None
    return content_rows


def checked_content(path: Path, record: Launched, remedy: str) -> bytes:
    """Return the content of the side file at `path`; errors are as in `read_sequences`, with `remedy`."""
    if not path.is_file():
        raise UserError(f"{path}: is missing" if not path.exists() else f"{path}: is no file", remedy)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", remedy) from None
    if hashlib.sha256(content).hexdigest() != (record.side_files_sha256 or {}).get(path.name):
        problem = "is not the one that was written with the record, which has another SHA-256 of it"
        raise UserError(f"{path}: {problem}", remedy)
    return content
