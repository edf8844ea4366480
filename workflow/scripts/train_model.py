#!/usr/bin/env python3
"""Train a small model on problems with one right answer, and write it as a bf16 checkpoint.

Takes minutes on two cores. What it was trained with, its losses and the share of its right answers to problems that
are new to it stand in training.json beside the weights. Needs only the engine's Python.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NoReturn

import _src  # noqa: F401 (puts src/ on the path)
from pydantic import ValidationError

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import wrong_field
from rollout_bench.checkpoints.training_settings import (
    TRAINED_PRESETS,
    TRAINING_VERSION,
    ResolvedTraining,
    TrainedModel,
)
from rollout_bench.core.errors import UserError, run_command


def main() -> int:
    """Parse, train, and say what happened."""
    options = _parser().parse_args()
    training = read_training(options.trained)
    from rollout_bench.checkpoints.training import TrainedWeights  # torch, which --help needs not

    source = TrainedWeights(training, lambda line: print(line, flush=True))
    built = build_checkpoint(training.shape, "bf16", options.out, source=source)
    print(f"trained {options.out}" if built else f"{options.out} is already there and whole; left alone")
    return 0


def read_training(text: str) -> ResolvedTraining:
    """Read a preset's name, or a JSON object of `trained:` fields or of a whole training, as specs have it.

    Raises:
        UserError: neither, or a field is wrong.
    """
    presets = ", ".join(TRAINED_PRESETS)
    remedy = f'give a preset ({presets}) or a JSON object such as \'{{"preset": "bytes-tiny", "seed": 1}}\''
    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {"preset": text}
        whole = "shape" in fields
        training = ResolvedTraining.model_validate(fields) if whole else TrainedModel.model_validate(fields).resolve()
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"--trained is not valid JSON: {error}", remedy) from error
    except ValidationError as error:
        raise UserError(f"--trained: {wrong_field(error, TrainedModel)}", remedy) from error
    if training.version != TRAINING_VERSION:
        raise UserError(f"--trained: version {training.version} is of another rollout-bench", remedy)
    return training


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"`{self.prog} --help` lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--trained",
        required=True,
        metavar="JSON|PRESET",
        help=f"a preset ({', '.join(TRAINED_PRESETS)}) or a JSON object of the fields under `trained:` in the config",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="directory to make; a whole one is left alone"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
