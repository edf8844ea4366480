"""What a plan needs to know of a data set, read once for each state of the file."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.errors import UserError
from rollout_bench.workloads.datasets import Entry, Format, entries, read_bytes, sha256


@dataclass(frozen=True)
class DatasetFacts:
    """What a data set holds. Lengths are in tokens.

    Attributes:
        sha256: the content's.
        prompts: number of its entries.
        longest_pair: prompt and output of the longest sequence of a trace; zeros of another file.
        longest_prompt: of a trace; 0 of another file.
        shortest_prompt: of a trace; 0 of another file.
        longest_output: the longest that the file says as a number; 0 where it says none.
        outputs: how many entries say how long the output is, as a number or by an answer.
        has_text: whether a tokenizer is needed.
        largest_id: of prompts given as token ids; -1 where there are none.
        has_arrivals: whether it says when requests arrive.
    """

    sha256: str
    prompts: int
    longest_pair: tuple[int, int]
    longest_prompt: int
    shortest_prompt: int
    longest_output: int
    outputs: int
    has_text: bool
    largest_id: int
    has_arrivals: bool


def dataset_facts(path: Path, format: Format) -> DatasetFacts:
    """The facts of the file; raises `UserError` where it can't be read or is not of the format."""
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        read_bytes(path)
        raise UserError(f"{path}: {error}", "correct the path") from None
    return _facts(path, format, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _facts(path: Path, format: Format, size_bytes: int, mtime_ns: int) -> DatasetFacts:
    content = read_bytes(path)
    found = entries(path, content, format)
    pairs = [_pair(entry) for entry in found]
    return DatasetFacts(
        sha256=sha256(content),
        prompts=len(found),
        longest_pair=max(pairs, key=sum),
        longest_prompt=max(prompt for prompt, _ in pairs),
        shortest_prompt=min(prompt for prompt, _ in pairs),
        longest_output=_most(entry.output for entry in found),
        outputs=sum(entry.output is not None for entry in found),
        has_text=any(isinstance(text, str) for entry in found for text in (entry.prompt, entry.output)),
        largest_id=max((max(entry.prompt) for entry in found if isinstance(entry.prompt, tuple)), default=-1),
        has_arrivals=found[0].arrival_s is not None,
    )


def _pair(entry: Entry) -> tuple[int, int]:
    if isinstance(entry.prompt, int) and isinstance(entry.output, int):
        return entry.prompt, entry.output
    return 0, 0


def _most(values: Iterable[str | int | None]) -> int:
    return max((value for value in values if isinstance(value, int)), default=0)
