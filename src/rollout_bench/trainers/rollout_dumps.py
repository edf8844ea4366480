"""Rollouts that a trainer has saved: their lengths in tokens, and a trace of each step or of one engine's part.

verl writes JSON lines into `trainer.rollout_data_dir`, and TRL with `log_completions` parquet into `completions` of its
output folder: a file for each step, with the texts of prompt and answer of each sequence, without special tokens.
"""

import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import several
from rollout_bench.trainers.step import StepPart
from rollout_bench.workloads.datasets import read_bytes
from rollout_bench.workloads.lengths import generator
from rollout_bench.workloads.requests import load_tokenizer

Count = Callable[[Sequence[str]], list[int]]
"""Function that returns the number of tokens of each text."""

SHAPE = (
    'each line is an object with the texts "input" and "output", as of verl with trainer.rollout_data_dir, or "prompt" '
    'and "completion", as of TRL with log_completions'
)

FOLDERS = "name the folder in verl's trainer.rollout_data_dir, or completions in the output folder of TRL"

NO_PARQUET = (
    "install pyarrow here, or write JSON lines where TRL is: "
    "pandas.read_parquet(FILE).to_json(FILE + '.jsonl', orient='records', lines=True)"
)


ANSWERS = "\nassistant\n"

MARKED = (
    r"<(?P<tag>tool_response|tool_output|information|interpreter|observation)>"
    rf"(?:(?:(?!<(?P=tag)>).)*?</(?P=tag)>|.*?(?:{ANSWERS}|\Z))"
)
TOOLS = re.compile(
    rf"\n(?:user|tool|ipython|environment|observation)\n(?:(?!{ANSWERS}).)*{ANSWERS}|{MARKED}",
    re.DOTALL,
)
"""Text of a tool in a saved answer of several turns: between the lines of a chat's roles, or between a tool's marks.

A mark without its end lasts until the next answer: the end may be cut off, or be a token that is not saved.
"""


class _Row(BaseModel):
    input: str = Field(validation_alias=AliasChoices("input", "prompt"))
    output: str = Field(validation_alias=AliasChoices("output", "completion"))

    @property
    def generated(self) -> tuple[str, int]:
        """The answer without the text of tools, and the number of tool calls in it."""
        # a line of a role counts only before an answer; to look for one after the last takes quadratic time
        before, answers, last = self.output.rpartition(ANSWERS)
        begin, calls = TOOLS.subn("\n", before + answers)
        end, more = re.subn(MARKED, "\n", last, flags=re.DOTALL)
        return begin + end, calls + more


def workload_and_trace(
    dumps: Path,
    file: Path | None,
    model: tuple[str, bool],
    longest: int,
    part: StepPart,
    spread: bool,
    room: int | None = None,
) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """Return the workload keys of saved rollouts, and the lines of the trace that they name.

    Args:
        dumps: folder of the rollouts.
        file: the trace.
        model: value of `weights` for the model, whose tokenizer counts; whether it may run code of its own.
        longest: maximum tokens of an answer.
        part: number of measured sequences.
        spread: if true, sequences are drawn at random from the whole step.
        room: maximum tokens of a prompt and its answer; None: without a maximum.

    Raises:
        UserError: the errors of `read_dumps` and `trace`, or the model has no tokenizer.
    """
    folder = str(Path(model[0].removeprefix("hub:")).expanduser())
    # Loaded after the folder was read, so that an error in the folder needs no request to a hub.
    tokenizer = cache(lambda: load_tokenizer(folder, model[1]))

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer()(texts, add_special_tokens=False)["input_ids"]]

    dataset = {"format": "trace", "path": str(file)}
    keys = {"prompts": part.sequences, "samples_per_prompt": 1, "dataset": dataset}
    return keys, trace(read_dumps(dumps, count, longest, room), part, spread)


def read_dumps(folder: Path, count: Count, longest: int, room: int | None = None) -> list[list[dict[str, int]]]:
    """Return the lines of a trace for the sequences of each step, in the order of the steps.

    Args:
        folder: folder with a file for each step. A step that repeats the one before counts once, because TRL logs a
            generation again at each of its optimizer steps.
        count: function that counts tokens with the model's tokenizer.
        longest: maximum tokens of an answer. A shorter answer has one more token, its end token, than its text; an
            answer of several turns has an end token for each, and no tokens of tools, which a warning tells.
        room: maximum tokens of a prompt and its answer; None: without a maximum.

    Raises:
        UserError: if the folder does not exist, contains no steps, or has a damaged line.
    """
    if not folder.is_dir():
        raise UserError(f"--lengths {folder}: there is no such folder", FOLDERS)
    files = (path for path in folder.iterdir() if path.suffix in (".jsonl", ".parquet"))
    found = map(_rows, sorted(files, key=lambda path: (len(path.stem), path.stem)))  # 9.jsonl before 10.jsonl
    steps = [rows for rows, _ in groupby(found) if rows]
    if not steps:
        raise UserError(f"--lengths {folder}: contains no rollouts, neither .jsonl nor .parquet", FOLDERS)
    groups: dict[tuple[int, str], int] = {}
    lines: list[list[dict[str, int]]] = []
    calls = 0
    for step, rows in enumerate(steps):
        texts, turns = zip(*(row.generated for row in rows), strict=True)
        calls += sum(turns)
        lines.append(
            [
                {
                    "prompt_tokens": max(prompt, 1),
                    "output_tokens": min(
                        answer + tools + 1, longest, longest if room is None else max(room - max(prompt, 1), 1)
                    ),
                    "prompt_group": groups.setdefault((step, row.input), len(groups)),
                }
                for row, prompt, answer, tools in zip(
                    rows, count([row.input for row in rows]), count(texts), turns, strict=True
                )
            ]
        )
    if calls:
        print(
            f"--lengths {folder}: warning: {several(calls, 'result')} of tools in the answers are left out, because"
            " they are not generated; a sequence is measured as one answer without waiting for tools. A trace with"
            " tool_tokens and tool_ms has them: docs/loads.md#a-trace",
            file=sys.stderr,
        )
    return lines


def _rows(path: Path) -> list[_Row]:
    found = []
    content = read_bytes(path) if path.suffix == ".jsonl" else _from_parquet(path)
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            found += [_Row.model_validate_json(line)] if line.strip() else []
        except ValidationError:
            raise UserError(f"{path}: line {number} has no texts of prompt and answer", SHAPE) from None
    return found


def _from_parquet(path: Path) -> bytes:
    """Return prompts and answers of a parquet file as JSON lines."""
    import pandas as pd

    try:
        table = pd.read_parquet(path).filter(["prompt", "completion"])
    except ImportError:
        raise UserError(f"{path}: is parquet, which pandas cannot read here", NO_PARQUET) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no parquet file: {error}", FOLDERS) from None
    return table.to_json(orient="records", lines=True).encode()


def trace(steps: Sequence[Sequence[dict[str, int]]], part: StepPart, spread: bool) -> list[dict[str, int]]:
    """Return the lines of a trace: the measured number of sequences from each step, with a prompt's samples together.

    Args:
        steps: sequences of each step.
        part: number of measured sequences.
        spread: if true, sequences are drawn at random from the whole step; else whole prompts are used in order.

    Raises:
        UserError: if every step has fewer sequences.
    """
    enough = [step for step in steps if len(step) >= part.sequences]
    if not enough:
        most = max(map(len, steps))
        raise UserError(
            f"--lengths: the steps have at most {most} sequences, but {part.sequences} are needed",
            "use the settings of the recorded run: batch size, samples of a prompt and devices; with TRL, without "
            "log_unique_prompts",
        )
    found, group = [], itemgetter("prompt_group")
    for number, step in enumerate(enough):
        order = generator(f"engine/{number}").permutation(len(step))
        offered = [step[place] for place in order] if spread else sorted(step, key=group)
        found += sorted(offered[: part.sequences], key=group)
    return found
