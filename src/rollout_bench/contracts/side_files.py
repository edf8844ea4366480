"""Side files beside the record: compressed lines of JSON, one per sequence, message or scored sequence."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.inside import Drift, ScoredRow
from rollout_bench.contracts.load import longest
from rollout_bench.contracts.record import Iteration, Record, SequenceRow
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole

_Row = TypeVar("_Row", bound=Strict)
_ROWS = TypeAdapter(list[SequenceRow])
_SCORES = TypeAdapter(list[ScoredRow])

REMEDY = "restore it, or delete it: the launch then counts without it"

LINE_BYTES = 1 << 16
"""Maximum bytes of a line without its tokens."""

TOKEN_BYTES = 32
"""Maximum bytes of a line per token: two numbers."""

SCORE_BYTES = 64
"""Maximum bytes of a line per scored token: four numbers."""

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
        UserError: the file is missing, damaged, of another launch, or differs from the record's numbers of rows or
            tokens; the message names file and line.
    """
    expected = sum(map(_rows_of, record.iterations))
    line_bytes = LINE_BYTES + TOKEN_BYTES * longest(record.spec.workload.output_tokens)
    rows = _read(path, _ROWS, SequenceRow, expected, line_bytes)
    if len(rows) != expected:
        raise UserError(f"{path}: has {len(rows)} of {expected} rows", REMEDY)
    tokens: Counter[int] = Counter()
    for row in rows:
        if row.error is None:
            tokens[row.iteration] += row.output_tokens
    for iteration in record.iterations:
        if tokens[iteration.index] != iteration.output_tokens:
            there = f"has {tokens[iteration.index]} output tokens of iteration {iteration.index}"
            raise UserError(f"{path}: {there}, but the record has {iteration.output_tokens}", REMEDY)
    _check_written_with(path, record)
    return rows


def _rows_of(iteration: Iteration) -> int:
    return iteration.sequences + (iteration.failed or 0) + (iteration.incomplete or 0)


def read_scores(path: Path, record: Drift) -> list[ScoredRow]:
    """Return the rows of the side file at `path`, which belongs to `record`; errors are as in `read_sequences`."""
    drift = record.spec.drift
    assert drift is not None, "records of this mode have it"
    with _needed_by_its_record():
        tokens = max(drift.tokens, int(record.engine.resolved.get("max_model_len") or 0))
        rows = _read(path, _SCORES, ScoredRow, record.scores, LINE_BYTES + SCORE_BYTES * tokens)
        if len(rows) != record.scores:
            raise UserError(f"{path}: has {len(rows)} of {record.scores} rows", REMEDY)
        _check_written_with(path, record)
        for number, row in enumerate(rows, 1):
            of_tokens = len(row.logprobs) if row.token_ids is None else len(row.token_ids)
            if not len(row.logprobs) == len(row.first) == of_tokens:
                raise UserError(f"{path}: line {number}: the numbers of probabilities and tokens differ", REMEDY)
        for batch in drift.batch_sizes:
            scored = sum(len(row.logprobs) for row in rows if row.batch == batch)
            if scored != record.scored_tokens:
                problem = f"has {scored} tokens scored at batch size {batch}, but the record has {record.scored_tokens}"
                raise UserError(f"{path}: {problem}", REMEDY)
    return rows


@contextmanager
def _needed_by_its_record() -> Iterator[None]:
    """Change the remedy of errors inside: delete the record with its side file, since it is useless without it."""
    try:
        yield
    except UserError as error:
        raise UserError(
            error.problem, "restore it, or delete the record too: the launch is then measured again"
        ) from None


def _read(path: Path, rows: TypeAdapter[list[_Row]], row: type[_Row], most: int, line_bytes: int) -> list[_Row]:
    """Return the rows of a side file with at most `most` lines of `line_bytes`, to limit the unpacked size."""
    if not path.is_file():
        raise UserError(f"{path}: is missing" if not path.exists() else f"{path}: is no file", REMEDY)
    found: list[_Row] = []
    try:
        for lines in _batches(path, most, line_bytes):
            found += _validated(lines, rows, row, len(found))
    except _DamagedRowError as damage:
        raise UserError(f"{path}: {damage}", REMEDY) from None
    return found


class _DamagedRowError(Exception):
    """A problem of a side file."""


def _check_written_with(path: Path, record: Record | Drift) -> None:
    known = (record.side_files_sha256 or {}).get(path.name)
    if known is None:
        return
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256")
    if content.hexdigest() != known:
        problem = "is not the one that was written with the record, which has another SHA-256 of it"
        raise UserError(f"{path}: {problem}", REMEDY)


def _batches(path: Path, most: int, line_bytes: int) -> Iterator[list[bytes]]:
    number, size, lines = 1, 0, []
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(line_bytes + 1):
                if number > most:
                    raise _DamagedRowError(f"line {number}: it has more than the {most} rows that the record counts")
                if len(line) > line_bytes:
                    raise _DamagedRowError(f"line {number}: is longer than {line_bytes} bytes")
                lines.append(line)
                size += len(line)
                if size > BATCH_BYTES:
                    yield lines
                    size, lines = 0, []
                number += 1
    except (OSError, EOFError, zlib.error) as error:
        raise _DamagedRowError(f"line {number}: {error}") from None
    if lines:
        yield lines


def _validated(lines: list[bytes], rows: TypeAdapter[list[_Row]], row: type[_Row], before: int) -> list[_Row]:
    try:
        return rows.validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError:
        for number, line in enumerate(lines, before + 1):
            try:
                row.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                problem = ": ".join([*map(str, first["loc"]), first["msg"]])
                raise _DamagedRowError(f"line {number}: {problem}") from None
        raise  # not caused by a single line
