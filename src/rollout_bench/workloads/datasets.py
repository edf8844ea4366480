"""Data sets: files with lengths, prompts or conversations for a workload.

This module needs only the standard library and pydantic. Data sets are read during planning, and again by the engine
process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rollout_bench.contracts.load import DatasetFormat
from rollout_bench.core.errors import UserError, near_miss

ASKING = ("human", "user")
ANSWERING = ("gpt", "chatgpt", "assistant", "bing", "bard")
"""Names of the speakers in common ShareGPT files."""

MOST_TOKENS = 10_000_000
SHAPES = {
    "trace": 'a trace has JSON lines as {"prompt_tokens": 512, "output_tokens": 64, "arrival_s": 0.5}, perhaps with '
    "a prompt_group whose prompt it shares; a trace of Mooncake's may stay as it is",
    "prompts": 'prompts are JSON lines as {"prompt": "text or token ids", "output_tokens": 64}, or plain text with one '
    "prompt a line",
    "sharegpt": 'a ShareGPT file is one JSON list of {"conversations": [{"from": "human", "value": "..."}, '
    '{"from": "gpt", "value": "..."}]}',
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt of a data set.

    Attributes:
        prompt: its text or token ids; in a trace, its number of tokens.
        output: number of tokens to generate, or the answer text with that number of tokens; None if the file has
            neither.
        arrival_s: arrival time in seconds, relative to any fixed time of the file.
        group: in a trace, entries with the same group have the same prompt in a pass.
    """

    prompt: str | tuple[int, ...] | int
    output: str | int | None
    arrival_s: float | None = None
    group: int | None = None


def prompt_numbers(taken: Sequence[Entry]) -> list[int]:
    """Return the index of each entry's prompt in a pass; entries of the same group have the same prompt."""
    found: dict[tuple[int | None, int | None], int] = {}
    keys = [(number, None) if entry.group is None else (None, entry.group) for number, entry in enumerate(taken)]
    return [found.setdefault(key, len(found)) for key in keys]


def read_dataset(path: Path, format: DatasetFormat) -> list[Entry]:
    """Return all entries of the file, in order.

    Raises:
        UserError: if it cannot be read, has another format, or is empty; the text names the line.
    """
    return entries(path, read_bytes(path), format)


def read_bytes(path: Path) -> bytes:
    """Return the file's content; raise `UserError` if it cannot be read."""
    if path.exists() and not path.is_file() and not path.is_dir():  # pipes and /dev/zero never end
        raise UserError(f"{path}: cannot be read: it is not a regular file", "name a file")
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "name a file" if path.is_dir() else "correct the path: it is relative to where snakemake runs"
        raise UserError(f"{path}: cannot be read: {error.strerror}", remedy) from None


def sha256(content: bytes) -> str:
    """Return the checksum by which a spec identifies the file."""
    return hashlib.sha256(content).hexdigest()


def entries(path: Path, content: bytes, format: DatasetFormat) -> list[Entry]:
    """Return all entries in the file's content; raise the errors of `read_dataset`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text", "save the file as UTF-8") from None
    try:
        found = list(_READERS[format](text))
        _check_arrivals([entry.arrival_s for entry in found])
    except _DamagedError as error:
        raise UserError(f"{path}: {error}", SHAPES[format]) from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply", SHAPES[format]) from None
    if not found:
        raise UserError(f"{path}: contains no prompts", SHAPES[format])
    return found


class _DamagedError(Exception):
    """The fault of a file, without the file's name."""


TRACE_KEYS = (
    ("prompt_tokens", "input_length"),
    ("output_tokens", "output_length"),
    ("arrival_s", "timestamp"),
    ("prompt_group",),
)
"""Keys of a line that are read: our name, and Mooncake's name if it has one. Other keys are ignored."""


def _check_spelling(where: str, row: dict[str, Any]) -> None:
    lacking = [name for names in TRACE_KEYS if not row.keys() & set(names) for name in names]
    for key in row.keys() - {name for names in TRACE_KEYS for name in names} if lacking else ():
        meant = near_miss(key, lacking)
        if meant is not None:
            raise _DamagedError(f"{where}: has no {meant}, but {_short(key)}, which says nothing")


def _trace(text: str) -> Iterator[Entry]:
    prompts: dict[int, int] = {}
    for where, line in _lines(text):
        row = _object(where, line)
        _check_spelling(where, row)
        group, prompt = row.get("prompt_group"), _tokens(where, row, "prompt_tokens", "input_length")
        if group is not None:
            if type(group) is not int or not 0 <= group < 1 << 31:
                raise _DamagedError(f"{where}: prompt_group is {_short(group)}, and no whole number from 0 up")
            if prompts.setdefault(group, prompt) != prompt:
                raise _DamagedError(f"{where}: prompt_group {group} has {prompt} prompt_tokens, above {prompts[group]}")
        arrival = row.get("arrival_s")
        if arrival is None and "timestamp" in row:  # Mooncake's key, in milliseconds
            arrival = _seconds(f"{where}: timestamp", row["timestamp"]) / 1000
        yield Entry(
            prompt,
            _tokens(where, row, "output_tokens", "output_length"),
            None if arrival is None else _seconds(f"{where}: arrival_s", arrival),
            group,
        )


def _prompts(text: str) -> Iterator[Entry]:
    is_json = text.lstrip().startswith("{")
    for where, line in _lines(text):
        if not is_json:
            yield Entry(line, None)
            continue
        row = _object(where, line)
        prompt = row.get("prompt")
        if isinstance(prompt, list) and prompt and all(type(i) is int and 0 <= i < 1 << 31 for i in prompt):
            prompt = tuple(prompt)
        elif not (isinstance(prompt, str) and prompt.strip()):
            raise _DamagedError(f"{where}: prompt is {_short(prompt)}, and neither a text nor a list of token ids")
        yield Entry(prompt, _tokens(where, row, "output_tokens") if row.get("output_tokens") is not None else None)


def _sharegpt(text: str) -> Iterator[Entry]:
    try:
        conversations = json.loads(text, object_pairs_hook=_no_key_twice)
    except ValueError as error:
        raise _DamagedError(f"is no JSON: {error}") from None
    if not isinstance(conversations, list):
        raise _DamagedError(f"is no JSON list, but {_short(conversations)}")
    for number, conversation in enumerate(conversations):
        turns = conversation.get("conversations") if isinstance(conversation, dict) else None
        if not isinstance(turns, list):
            raise _DamagedError(f"entry {number}: has no list of conversations")
        pair = _first_pair(turns)
        if pair is not None:
            yield Entry(*pair)


def _first_pair(turns: list[Any]) -> tuple[str, str] | None:
    """Return the first question and the first answer after it; None if one is missing, as in many such files."""
    asked: str | None = None
    for turn in turns:
        said = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(said, str) or not said.strip():
            continue
        if asked is None and turn.get("from") in ASKING:
            asked = said
        elif asked is not None and turn.get("from") in ANSWERING:
            return asked, said
    return None


_READERS: dict[DatasetFormat, Callable[[str], Iterator[Entry]]] = {
    "trace": _trace,
    "prompts": _prompts,
    "sharegpt": _sharegpt,
}


def _lines(text: str) -> Iterator[tuple[str, str]]:
    # not splitlines(): texts in JSON may contain other line separators
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", line.rstrip("\r")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {_short(twice)} stands twice")
    return found


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_no_key_twice)
    except ValueError as error:
        raise _DamagedError(f"{where}: is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise _DamagedError(f"{where}: is no JSON object, but {_short(row)}")
    return row


def _tokens(where: str, row: dict[str, Any], *names: str) -> int:
    name = next((name for name in names if name in row), None)
    if name is None:
        raise _DamagedError(f"{where}: has no {names[0]}")
    value = row[name]
    if type(value) is not int or not 1 <= value <= MOST_TOKENS:
        raise _DamagedError(f"{where}: {name} is {_short(value)}, and no number of tokens from 1 up")
    return value


def _seconds(where: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _DamagedError(f"{where} is {_short(value)}, and no time")
    return float(value)


def _check_arrivals(arrivals: list[float | None]) -> None:
    known = [arrival for arrival in arrivals if arrival is not None]
    if known and len(known) < len(arrivals):
        raise _DamagedError(f"only {len(known)} of {len(arrivals)} entries say when they arrive")
    late = next((number for number, (a, b) in enumerate(pairwise(known), 2) if b < a), None)
    if late is not None:
        raise _DamagedError(f"entry {late} arrives before the one above it: sort them by their arrival")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 40 else f"{text[:37]}..."
