"""Rollouts that verl has saved: their lengths in tokens, and a trace of each step or of one engine's part.

verl writes one file for each step into `trainer.rollout_data_dir`. A file has one JSON line for each sequence, with
the texts of prompt and answer without special tokens.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from rollout_bench.core.errors import UserError
from rollout_bench.trainers.step import StepPart
from rollout_bench.workloads.lengths import generator

Count = Callable[[Sequence[str]], list[int]]
"""Function that returns the number of tokens of each text."""

SHAPE = 'each line is an object with the texts "input" and "output": what trainer.rollout_data_dir makes verl write'


class _Row(BaseModel):
    input: str
    output: str


def read_dumps(folder: Path, count: Count, longest: int) -> list[list[dict[str, int]]]:
    """Return the lines of a trace for the sequences of each step, in the order of the steps.

    Args:
        folder: value of trainer.rollout_data_dir.
        count: function that counts tokens with the model's tokenizer.
        longest: maximum tokens of an answer. A shorter answer has one more token, its end token, than its text.

    Raises:
        UserError: if the folder does not exist, contains no steps, or has a damaged line.
    """
    if not folder.is_dir():
        raise UserError(f"--lengths {folder}: there is no such folder", "name the folder in trainer.rollout_data_dir")
    files = sorted(folder.glob("*.jsonl"), key=lambda path: (len(path.stem), path.stem))  # 9.jsonl before 10.jsonl
    steps = [rows for path in files if (rows := _rows(path))]
    if not steps:
        raise UserError(f"--lengths {folder}: contains no rollouts STEP.jsonl", "name the folder in rollout_data_dir")
    groups: dict[tuple[int, str], int] = {}
    found = []
    for step, rows in enumerate(steps):
        prompts = list(dict.fromkeys(row.input for row in rows))
        asked = dict(zip(prompts, count(prompts), strict=True))
        answers = count([row.output for row in rows])
        found.append(
            [
                {
                    "prompt_tokens": max(asked[row.input], 1),
                    "output_tokens": min(tokens + 1, longest),
                    "prompt_group": groups.setdefault((step, row.input), len(groups)),
                }
                for row, tokens in zip(rows, answers, strict=True)
            ]
        )
    return found


def _rows(path: Path) -> list[_Row]:
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "is not UTF-8"
        raise UserError(f"{path}: cannot be read: {problem}", SHAPE) from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found += [_Row.model_validate_json(line)] if line.strip() else []
        except ValidationError:
            raise UserError(f"{path}: line {number} has no texts input and output", SHAPE) from None
    return found


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
            "use the settings of the recorded run: data.train_batch_size, rollout.n and the devices",
        )
    found, group = [], itemgetter("prompt_group")
    for number, step in enumerate(enough):
        order = (
            generator(f"engine/{number}").permutation(len(step))
            if spread
            else np.argsort([*map(group, step)], kind="stable")
        )
        found += sorted((step[place] for place in order[: part.sequences]), key=group)
    return found


def counting(tokenizer: Any) -> Count:
    """Return a function that counts the tokens of texts with a tokenizer of transformers."""
    return lambda texts: [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
