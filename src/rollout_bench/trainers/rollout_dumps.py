"""Rollouts that verl has saved: their lengths in tokens, and a trace of each step or of one engine's part.

verl writes one file for each step into `trainer.rollout_data_dir`. A file has one JSON line for each sequence, with
the texts of prompt and answer without special tokens.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rollout_bench.core.errors import UserError
from rollout_bench.trainers.step import StepPart
from rollout_bench.workloads.datasets import read_bytes
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
    return [
        [
            {
                "prompt_tokens": max(prompt, 1),
                "output_tokens": min(answer + 1, longest),
                "prompt_group": groups.setdefault((step, row.input), len(groups)),
            }
            for row, prompt, answer in zip(
                rows, count([row.input for row in rows]), count([row.output for row in rows]), strict=True
            )
        ]
        for step, rows in enumerate(steps)
    ]


def _rows(path: Path) -> list[_Row]:
    found = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
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
        order = generator(f"engine/{number}").permutation(len(step))
        offered = [step[place] for place in order] if spread else sorted(step, key=group)
        found += sorted(offered[: part.sequences], key=group)
    return found
