"""Rollouts that verl has saved: their lengths in tokens, and a trace of each step or of one engine's part.

verl writes one file for each step into `trainer.rollout_data_dir`. A file has one JSON line for each sequence, with
the texts of prompt and answer without special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.trainers.step import StepPart
from rollout_bench.workloads.lengths import generator

Count = Callable[[Sequence[str]], list[int]]
"""Function that returns the number of tokens of each text."""

SHAPE = 'each line is an object with the texts "input" and "output": what trainer.rollout_data_dir makes verl write'


@dataclass(frozen=True)
class RolloutDumps:
    """Folder of saved rollouts, and file for their lengths.

    Attributes:
        folder: value of trainer.rollout_data_dir.
        file: the trace to write.
    """

    folder: Path
    file: Path


@dataclass(frozen=True)
class DumpedSequence:
    """One sequence of a step.

    Attributes:
        prompt: index of the sequence's prompt among the prompts of all steps.
        prompt_tokens: tokens of the prompt, without special tokens.
        output_tokens: generated tokens, including the token that ended the sequence.
    """

    prompt: int
    prompt_tokens: int
    output_tokens: int


def read_dumps(folder: Path, count: Count, longest: int) -> list[list[DumpedSequence]]:
    """Return the sequences of each step, in the order of the steps.

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
    asked = dict.fromkeys(prompt for rows in steps for prompt, _ in rows)
    prompt_tokens = dict(zip(asked, count(list(asked)), strict=True))
    numbers = {(step, prompt): 0 for step, rows in enumerate(steps) for prompt, _ in rows}
    numbers = {group: number for number, group in enumerate(numbers)}
    found = []
    for step, rows in enumerate(steps):
        outputs = count([output for _, output in rows])
        found.append(
            [
                DumpedSequence(numbers[step, prompt], max(prompt_tokens[prompt], 1), min(tokens + 1, longest))
                for (prompt, _), tokens in zip(rows, outputs, strict=True)
            ]
        )
    return found


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'is not UTF-8'}", SHAPE
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{path}: line {number} is not valid JSON", "remove that line") from None
        texts = [row.get(key) for key in ("input", "output")] if isinstance(row, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{path}: line {number} has no texts input and output", SHAPE)
        found.append((str(texts[0]), str(texts[1])))
    return found


def trace(steps: Sequence[Sequence[DumpedSequence]], part: StepPart, spread: bool) -> list[dict[str, int]]:
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
    found = []
    for number, step in enumerate(enough):
        order = sorted(range(len(step)), key=lambda place: step[place].prompt)
        if spread:
            order = generator(f"engine/{number}").permutation(len(step)).tolist()
        taken = sorted(order[: part.sequences], key=lambda place: step[place].prompt)
        found += [
            {"prompt_tokens": one.prompt_tokens, "output_tokens": one.output_tokens, "prompt_group": one.prompt}
            for one in (step[place] for place in taken)
        ]
    return found


def counting(tokenizer: Any) -> Count:
    """Return a function that counts the tokens of texts with a tokenizer of transformers."""

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []

    return count
