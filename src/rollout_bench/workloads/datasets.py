"""Data sets: files with lengths, prompts or conversations for a workload.

This module needs only the standard library and pydantic. Data sets are read during planning, and again by the engine
process.
"""

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rollout_bench.contracts.load import MOST_TURNS, DatasetFormat
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.numbers import several
from rollout_bench.core.readers import finite

ASKING = ("human", "user")
ANSWERING = ("gpt", "chatgpt", "assistant", "bing", "bard")
"""Names of the speakers in common ShareGPT files."""

SHAPES = {
    "trace": 'a trace has JSON lines, or a JSON list, as {"prompt_tokens": 512, "output_tokens": 64, "arrival_s": 0.5},'
    " perhaps with a prompt_group whose prompt it shares, or with turns: output_tokens [64, 20], tool_tokens [30], "
    "tool_ms [800]; files of Mooncake, AReaL and NeMo-RL may stay as they are",
    "prompts": 'prompts are JSON lines, or a JSON list, as {"prompt": "text or token ids", "output_tokens": 64}, or '
    "plain text (.txt) with one prompt a line",
    "messages": 'messages are JSON lines, or a JSON list, as {"messages": [{"role": "user", "content": "text"}], '
    '"output_tokens": 64}',
    "sharegpt": 'a ShareGPT file is a JSON list, or JSON lines, of {"conversations": [{"from": "human", '
    '"value": "..."}, {"from": "gpt", "value": "..."}]}',
}

PLAIN = ("", ".txt", ".text", ".md")
"""Suffixes of files that may hold plain text with one prompt a line."""

PANDAS = {".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".xlsx": "read_excel"}
"""Suffix of a table -> function of pandas that reads it."""

UNPACK = {".gz": "gunzip -k", ".xz": "unxz -k", ".bz2": "bunzip2 -k", ".zst": "unzstd"}
"""Suffix of a compressed file -> command that writes the plain file beside it."""

_JSON_BEGINS = re.compile(r"\s*(\{|\[\s*[\[{\"\]])")
"""Beginning of JSON lines or a JSON list; a plain prompt may begin as `[INST]`."""

NO_TEMPLATE = "use a model whose tokenizer has one, or format: prompts with the texts"
"""Remedy for messages that no chat template renders."""

Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Id = Annotated[int, Field(ge=0, lt=1 << 31)]


class _Line(BaseModel):
    """A JSON line of a data set; other keys are ignored.

    Attributes:
        KEYS: keys with their other names. If one is missing, a key that resembles it is an error.
    """

    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = ()
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @classmethod
    def in_our_keys(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of a known program's file in our keys; other rows unchanged."""
        return row


class TraceLine(_Line):
    """A line of a trace; several answers are turns, with a tool between."""

    KEYS = (("prompt_tokens",), ("output_tokens",), ("arrival_s",), ("prompt_group",))
    prompt_tokens: Tokens
    output_tokens: Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_TURNS)]
    arrival_s: float | None = None
    prompt_group: Id | str | None = None
    tool_tokens: list[Tokens] = []
    tool_ms: list[Annotated[float, Field(ge=0, le=1e10)]] = []

    @classmethod
    def in_our_keys(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return a line of Mooncake's traces, AReaL's dumps (`segments`) or NeMo-RL's (`token_loss_mask`) in our keys.

        Dumps have no times of tools: they are 0, unless somebody added `tool_ms`. A line is Mooncake's as a whole or
        not at all, because a time beside our keys has no known unit.
        """
        if row.keys() >= {"input_length", "output_length"} and not row.keys() & {"prompt_tokens", "output_tokens"}:
            return _of_mooncake(row)
        try:
            if "segments" in row:
                parts = [(part["role"] == "gen", part["len"]) for part in row["segments"]]
            elif "token_loss_mask" in row:  # padded at its end, like a tool without an answer
                parts = [(bool(sampled), 1) for sampled in row["token_loss_mask"]]
            elif "timestamp" in row and "arrival_s" not in row:
                raise _DamagedError("has a timestamp, which is in milliseconds only beside input_length and "
                                    "output_length: name it arrival_s, in seconds")  # fmt: skip
            else:
                return row
            if parts[0][0]:
                raise _DamagedError("begins with an answer, without a prompt")
            lengths = [sum(length for _, length in run) for _, run in groupby(parts, key=itemgetter(0))]
            group = row.get("task_id") if "segments" in row else str(row["token_ids"][: lengths[0]])
        except (KeyError, IndexError, TypeError):
            raise _DamagedError("has segments without role and len, or a token_loss_mask without token_ids") from None
        answers = lengths[1::2]
        tools = lengths[2::2][: max(0, len(answers) - 1)]
        times = row.get("tool_ms", [0.0] * len(tools))
        lengths_and_times = {
            "prompt_tokens": lengths[0],
            "output_tokens": answers,
            "tool_tokens": tools,
            "tool_ms": times,
        }
        return {**lengths_and_times, "prompt_group": group}


def _of_mooncake(row: dict[str, Any]) -> dict[str, Any]:
    lengths = {"prompt_tokens": row["input_length"], "output_tokens": row["output_length"]}
    time_ms = row.get("timestamp")
    if time_ms is None:
        return lengths
    if not isinstance(time_ms, int | float) or finite(time_ms) is None:
        raise _DamagedError(f"timestamp is {_short(time_ms)}, no number of milliseconds")
    return {**lengths, "arrival_s": time_ms / 1000}


class PromptLine(_Line):
    """A line of prompts: a text with a visible character, or token ids."""

    prompt: Annotated[str, Field(pattern=r"\S")] | Annotated[list[Id], Field(min_length=1)]
    output_tokens: Tokens | None = None


class Message(BaseModel):
    """A turn of a conversation, as a chat template takes it; other keys are ignored."""

    model_config = ConfigDict(strict=True)
    role: Annotated[str, Field(pattern=r"\S")]
    content: str


class MessagesLine(_Line):
    """A line of messages, with this key or TRL's `prompt`; a last message of the assistant is the answer."""

    KEYS = (("messages", "prompt"),)
    messages: Annotated[list[Message], Field(min_length=1, validation_alias=AliasChoices(*KEYS[0]))]
    output_tokens: Tokens | None = None


Line = TypeVar("Line", bound=_Line)


class TurnLengths(NamedTuple):
    """A further turn of a sequence: the time of its tool, and the tokens of the tool's result and of the answer."""

    tool_ms: float
    tool_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt of a data set.

    Attributes:
        prompt: its text, messages or token ids; in a trace, its number of tokens.
        output: number of tokens to generate, or the answer text with that number of tokens; None if the file has
            neither.
        arrival_s: arrival time in seconds, relative to any fixed time of the file.
        group: in a trace, entries with the same group have the same prompt in a pass.
        further: in a trace, the turns after the first answer.
    """

    prompt: str | list[Message] | tuple[int, ...] | int
    output: str | int | None
    arrival_s: float | None = None
    group: int | str | None = None
    further: tuple[TurnLengths, ...] = ()

    @property
    def has_text(self) -> bool:
        """Whether a tokenizer is needed."""
        return isinstance(self.prompt, str | list) or isinstance(self.output, str)


def prompt_numbers(taken: Sequence[Entry]) -> list[int]:
    """Return the index of each entry's prompt in a pass; entries of the same group have the same prompt."""
    found: dict[tuple[int | None, int | str | None], int] = {}
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
    remedy = "correct the path: it is relative to where snakemake runs"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # pipes and /dev/zero never end
            problem = "Is a directory" if stat.S_ISDIR(mode) else "it is not a regular file"
            raise UserError(f"{path}: cannot be read: {problem}", "name a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}", remedy) from None


def sha256(content: bytes) -> str:
    """Return the checksum by which a spec identifies the file."""
    return hashlib.sha256(content).hexdigest()


def entries(path: Path, content: bytes, format: DatasetFormat) -> list[Entry]:
    """Return all entries in the file's content; raise the errors of `read_dataset`."""
    suffix = path.suffix.lower()
    if suffix in PANDAS:
        problem, column = f"{path}: a table ({suffix}) is not read", ".rename(columns={'COLUMN': 'prompt'})"
        lines = (
            f"pandas.{PANDAS[suffix]}('{path}'){column if format == 'prompts' else ''}.to_json('{path.stem}.jsonl', "
        )
        raise UserError(problem, f"write JSON lines: {lines}orient='records', lines=True)")
    if suffix in UNPACK:
        remedy = f"unpack it ({UNPACK[suffix]} {path.name}), and name {path.with_suffix('').name}"
        raise UserError(f"{path}: is compressed ({suffix})", remedy)
    try:
        text = content.decode("utf-8-sig")
        if format == "prompts" and suffix not in PLAIN and not _JSON_BEGINS.match(text) and text.strip():
            raise _DamagedError(f"is no JSON, and {suffix} is no suffix of plain text")
        found = list(_READERS[format](text))
        _check_arrivals([entry.arrival_s for entry in found])
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text", "save the file as UTF-8") from None
    except (_DamagedError, RecursionError) as error:
        fault = error if isinstance(error, _DamagedError) else "is nested too deeply"
        other = _other_format(text, format) if _JSON_BEGINS.match(text) else None
        raise UserError(f"{path}: {fault}", f"write format: {other}" if other else SHAPES[format]) from None
    return found


def _other_format(text: str, format: DatasetFormat) -> DatasetFormat | None:
    """Return the format besides `format` in which a text of JSON is a data set; None without one."""
    for other, read in _READERS.items():
        with suppress(_DamagedError, RecursionError):
            if other != format and list(read(text)):
                return other
    return None


class _DamagedError(Exception):
    """The fault of a file, without the file's name."""


def _rows(text: str, line: type[Line], read: Callable[[Line], Entry]) -> Iterator[Entry]:
    """Yield the entry of each object in a JSON list, or of each JSON line."""
    for place, part in _parts(text):
        try:
            yield read(_checked(part, line))
        except _DamagedError as error:
            raise _DamagedError(f"{place}: {error}") from None


def _parts(text: str) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each part of a JSON list, or of each JSON line."""
    if text.lstrip().startswith("["):
        yield from ((f"entry {number}", part) for number, part in enumerate(_json(text), 1))
        return
    # not splitlines(): texts in JSON may contain other line separators
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                part = _json(line)
            except _DamagedError as error:
                raise _DamagedError(f"line {number}: {error}") from None
            yield f"line {number}", part


def _trace(text: str) -> Iterator[Entry]:
    prompts: dict[int | str, int] = {}

    def read(line: TraceLine) -> Entry:
        group, prompt = line.prompt_group, line.prompt_tokens
        if group is not None and prompts.setdefault(group, prompt) != prompt:
            raise _DamagedError(f"prompt_group {_short(group)} has {prompt} prompt_tokens, above {prompts[group]}")
        answers = [line.output_tokens] if isinstance(line.output_tokens, int) else line.output_tokens
        if not len(line.tool_tokens) == len(line.tool_ms) == len(answers) - 1:
            counts = f"{len(line.tool_tokens)} tool_tokens and {len(line.tool_ms)} tool_ms"
            raise _DamagedError(f"has {counts} between {several(len(answers), 'answer')}")
        further = tuple(map(TurnLengths, line.tool_ms, line.tool_tokens, answers[1:]))
        return Entry(prompt, answers[0], line.arrival_s, group, further)

    return _rows(text, TraceLine, read)


def _prompts(text: str) -> Iterator[Entry]:
    def read(line: PromptLine) -> Entry:
        return Entry(line.prompt if isinstance(line.prompt, str) else tuple(line.prompt), line.output_tokens)

    if _JSON_BEGINS.match(text):
        return _rows(text, PromptLine, read)
    return (Entry(prompt.rstrip("\r"), None) for prompt in text.split("\n") if prompt.strip())


def _messages(text: str) -> Iterator[Entry]:
    def read(line: MessagesLine) -> Entry:
        asked, answer = line.messages, line.output_tokens
        if asked[-1].role != "assistant":
            return Entry(asked, answer)
        if not asked[:-1]:
            raise _DamagedError("has an answer, but no message before it")
        return Entry(asked[:-1], asked[-1].content if answer is None else answer)

    return _rows(text, MessagesLine, read)


def _sharegpt(text: str) -> Iterator[Entry]:
    for place, conversation in _parts(text):
        turns = conversation.get("conversations") if isinstance(conversation, dict) else None
        if not isinstance(turns, list):
            raise _DamagedError(f"{place}: has no list of conversations")
        pair = _first_pair(turns)
        if pair is not None:
            yield Entry(*pair)


def _first_pair(turns: list[Any]) -> tuple[str, str] | None:
    """Return the first question and the first answer after it; None if one is missing, as in many such files."""
    known = [turn for turn in turns if isinstance(turn, dict) and isinstance(turn.get("value"), str)]
    messages = iter([(turn.get("from"), turn["value"]) for turn in known if turn["value"].strip()])
    asked = next((text for who, text in messages if who in ASKING), None)
    answered = next((text for who, text in messages if who in ANSWERING), None)
    return None if asked is None or answered is None else (asked, answered)


_READERS: dict[DatasetFormat, Callable[[str], Iterator[Entry]]] = {
    "trace": _trace,
    "prompts": _prompts,
    "messages": _messages,
    "sharegpt": _sharegpt,
}


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice)
    except ValueError as error:
        raise _DamagedError(f"is no JSON: {error}") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {_short(twice)} stands twice")
    return found


def _checked(row: Any, line: type[Line]) -> Line:
    if not isinstance(row, dict):
        raise _DamagedError(f"is no JSON object, but {_short(row)}")
    row = line.in_our_keys(row)
    lacking = [name for names in line.KEYS if not row.keys() & set(names) for name in names]
    for key in row.keys() - {name for names in line.KEYS for name in names}:
        if meant := near_miss(key, lacking):
            raise _DamagedError(f"has no {meant}, but {_short(key)}, which says nothing")
    try:
        return line.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            keys = f": its keys are {', '.join(map(_short, row))}" if len(first["loc"]) == 1 else ""
            raise _DamagedError(f"has no {first['loc'][-1]}{keys}") from None
        raise _DamagedError(f"{name} is {_short(row[name])}: {first['msg']}") from None


def _check_arrivals(arrivals: list[float | None]) -> None:
    known = [arrival for arrival in arrivals if arrival is not None]
    if not arrivals:
        raise _DamagedError("contains no prompts")
    if known and len(known) < len(arrivals):
        raise _DamagedError(f"only {len(known)} of {len(arrivals)} entries say when they arrive")
    late = next((number for number, (a, b) in enumerate(pairwise(known), 2) if b < a), None)
    if late is not None:
        raise _DamagedError(f"entry {late} arrives before the one above it: sort them by their arrival")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 40 else f"{text[:37]}..."
