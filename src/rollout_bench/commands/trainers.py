"""Conversion of a trainer's rollout settings into a config of rollout-bench."""

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.plan.config_file import read_config
from rollout_bench.trainers.account import MadeConfig
from rollout_bench.trainers.keys import TRL_TRAINERS, VERL_VERSIONS, KeyRegistry
from rollout_bench.trainers.trainer_file import TrainerFile, check_own, is_override, laid_over, read_yaml
from rollout_bench.trainers.trl import trl_config
from rollout_bench.trainers.verl import verl_config

COMMAND_LINE = "the command line"
"""Name in messages for settings that come only from overrides."""


def verl_parser() -> argparse.ArgumentParser:
    """Return the argument parser of from-verl."""
    parser = _parser(
        "verl",
        "verl's YAML: shipped with verl, saved by verl, or written by you; without a file, verl's defaults apply",
        "overrides as on verl's command line: a.b=1, +a.b=1, ~a.b",
    )
    parser.add_argument(
        "--verl",
        choices=VERL_VERSIONS,
        default=VERL_VERSIONS[0],
        help="version of verl whose defaults replace missing keys (default: %(default)s)",
    )
    parser.add_argument(
        "--lengths",
        type=Path,
        metavar="DIR",
        help="folder from trainer.rollout_data_dir: use the lengths of these rollouts, in the model's tokens",
    )
    parser.add_argument(
        "--lengths-file",
        type=Path,
        default=Path("lengths.jsonl"),
        metavar="FILE",
        help="file for these lengths, which the config names (default: %(default)s)",
    )
    return parser


def _parser(trainer: str, file: str, overrides: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Make a config from {trainer}'s settings: one rollout step with all its engines. "
        "The config goes to stdout. The treatment of each key goes to stderr, and into the config as comments.",
        epilog="Exit status: 0 when the config is written, 1 on an error.",
    )
    parser.add_argument(
        "--one-engine",
        action="store_true",
        help="measure only one engine's part of a step, for a machine with too few devices for all engines",
    )
    parser.add_argument("file", metavar="FILE", help=file)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    return parser


def from_verl() -> int:
    """Read verl's settings, derive the config, then write it."""
    arguments = verl_parser().parse_intermixed_args()
    registry = KeyRegistry.of("verl", arguments.verl)
    name, content = arguments.file, {}
    if is_override(name):
        name, arguments.overrides = COMMAND_LINE, [name, *arguments.overrides]
    else:
        content = read_yaml(Path(name), "verl")
        check_own(name, content, registry, "give the YAML that verl is started with; add --cfg job there to print it")
    content = laid_over(content, arguments.overrides, registry)
    made = verl_config(
        TrainerFile.of(name, content, registry), arguments.lengths, arguments.lengths_file, arguments.one_engine
    )
    return _write(made, arguments.lengths and arguments.lengths_file)


def _write_trace(path: Path, made: MadeConfig) -> None:
    content = "".join(json.dumps(line) + "\n" for line in made.trace).encode()
    if path.exists() and (not path.is_file() or path.read_bytes() != content):
        raise UserError(f"{path}: already exists with different content", "name another with --lengths-file")
    write_whole(path, content)


def trl_parser() -> argparse.ArgumentParser:
    """Return the argument parser of from-trl."""
    parser = _parser(
        "TRL",
        "TRL's YAML",
        "overrides of the file: num_processes=8, ~vllm_dtype",
    )
    parser.add_argument(
        "--trainer",
        choices=TRL_TRAINERS,
        help="trainer whose defaults replace missing keys (default: grpo)",
    )
    return parser


def from_trl() -> int:
    """Read TRL's settings, derive the config, then write it."""
    arguments = trl_parser().parse_intermixed_args()
    content = read_yaml(Path(arguments.file), "TRL", last_wins=True)
    trainer = arguments.trainer or "grpo"
    registry = KeyRegistry.of("TRL", trainer)
    if arguments.trainer is None:
        check_own(arguments.file, content, registry, "give settings of GRPO; or say whose they are: --trainer rloo")
    content = laid_over(content, arguments.overrides, registry)
    return _write(trl_config(TrainerFile.of(arguments.file, content, registry), arguments.one_engine, trainer))


def _write(made: MadeConfig, trace: Path | None = None) -> int:
    read_config(made.config)  # raises `UserError` if the config is invalid
    if trace is not None:
        _write_trace(trace, made)
    made = replace(made, config={**made.config, "timeout_s": TIMEOUT_S})
    words = [*sys.argv[0].split()[1:], *map(_without_secret, sys.argv[1:])]
    text = made.yaml(shlex.join(["rollout-bench", *words]))
    print(made.told, file=sys.stderr)
    print(text, end="")
    return 0


TIMEOUT_S = 14_400
"""Time limit of a launch of a trainer's step, in seconds. One pass may take many minutes."""


def _without_secret(word: str) -> str:
    """Return a word of the command, without its value if that may be a secret. The config contains the command."""
    name, equals, value = word.partition("=")
    return f"{name}=..." if equals and may_be_secret(name, value) else word
