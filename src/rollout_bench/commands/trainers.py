"""Conversion of a trainer's rollout settings into a config of rollout-bench."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.options import Parser
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.plan.config_file import read_config
from rollout_bench.trainers.launch_scripts import VARIABLE, ScriptWords, is_script, trl_arguments, verl_arguments
from rollout_bench.trainers.settings import OVERRIDE, TABLES, KeyRegistry, TrainerFile
from rollout_bench.trainers.step import WHILE_LOADING, MadeConfig
from rollout_bench.trainers.training_log import trl_generation_s, verl_generation_s
from rollout_bench.trainers.trl import trl_config, trl_cycle, trl_placement
from rollout_bench.trainers.verl import verl_config, verl_cycle, verl_placement

SAVED = {
    "verl": "folder from trainer.rollout_data_dir",
    "TRL": "folder `completions` in output_dir, of a training with log_completions",
}
"""Trainer -> where it saves rollouts."""


_OF_THE_CONFIG = (
    "say it of the config that is made: rollout-bench plan --configfile mine.yaml --config 'quants=[bf16, fp8]'"
)
AFTERWARDS = {
    **dict.fromkeys(("--config", "--quant", "--quantization", "--quants"), _OF_THE_CONFIG),
    **dict.fromkeys(("--out", "--output", "-o"), "write `> mine.yaml` at the end: the config goes to stdout"),
}
"""Options that a user may expect here -> what does it."""

OWN_FILES, OWN_FOLDERS = ("ppo_trainer", "ppo_megatron_trainer"), ("config", "./config")
"""hydra's --config-name and --config-path of verl's own files, which have the same defaults of generation."""


def from_verl(argv: Sequence[str]) -> int:
    """Print the config of verl's settings."""
    print(verl_text(argv), end="")
    return 0


def from_trl(argv: Sequence[str]) -> int:
    """Print the config of TRL's settings."""
    print(trl_text(argv), end="")
    return 0


def verl_text(argv: Sequence[str]) -> str:
    """Read verl's settings as the words of a command name them; return the config as YAML, and print the account."""
    parser = _parser("verl", "overrides as on verl's command line: a.b=1, +a.b=1, ~a.b")
    parser.add_argument(
        "--verl",
        type=_version,
        default=next(iter(TABLES["verl"]["versions"])),
        metavar="{" + ",".join(TABLES["verl"]["versions"]) + "}",
        help="version of verl whose defaults replace missing keys (default: %(default)s)",
    )
    for hydra in ("--config-path", "--config-name", "--config-dir"):  # as scripts call verl
        parser.add_argument(hydra, help=argparse.SUPPRESS)
    options = _options(parser, argv, verl_arguments)
    foreign = "give the YAML that verl is started with; add --cfg job there to print it"
    words = [*_hydras_file(options), options.file, *options.overrides]
    settings = TrainerFile.read(words, KeyRegistry.of("verl", options.verl), foreign)
    added = frozenset(found["path"] for found in map(OVERRIDE.fullmatch, options.added) if found)
    settings = replace(settings, starts_main=options.starts_main, added=added)
    made = verl_config(settings, options.lengths, options.lengths_file, options.one_engine)
    return _config_text(options, _whole_config(options, settings, made, verl_cycle, verl_placement, verl_generation_s))


def _hydras_file(options: argparse.Namespace) -> list[str]:
    """Return the user's file that hydra's options name, if any.

    Raises:
        UserError: if the options name a file that is neither there nor verl's own.
    """
    name, folder = options.config_name, options.config_dir or options.config_path
    is_users = Path(name or OWN_FILES[0]).stem in OWN_FILES and folder in (None, *OWN_FOLDERS)
    if is_users:
        return []
    file = Path(folder or ".") / f"{(name or OWN_FILES[0]).removesuffix('.yaml')}.yaml"
    if not file.is_file():
        raise UserError(
            f"--config-name: there is no {file} here",
            "name its folder with --config-path, as seen from here; or add --cfg job to verl's command, and use the"
            " YAML that it prints",
        )
    return [str(file)]


def trl_text(argv: Sequence[str]) -> str:
    """Read TRL's settings as the words of a command name them; return the config as YAML, and print the account."""
    parser = _parser("TRL", "overrides of the file: num_processes=8, ~vllm_dtype")
    parser.add_argument(
        "--trainer",
        choices=[*TABLES["TRL"]["versions"]],
        help="trainer whose defaults replace missing keys (default: grpo)",
    )
    options = _options(parser, argv, trl_arguments)
    trainer = options.trainer or "grpo"
    foreign = None if options.trainer else "give settings of GRPO; or say whose they are: --trainer rloo"
    settings = TrainerFile.read([options.file, *options.overrides], KeyRegistry.of("TRL", trainer), foreign)
    made = trl_config(settings, options.one_engine, trainer, options.lengths, options.lengths_file)
    return _config_text(options, _whole_config(options, settings, made, trl_cycle, trl_placement, trl_generation_s))


def _parser(trainer: str, overrides: str) -> Parser:
    parser = Parser(
        prog=f"rollout-bench from-{trainer.lower()}",
        description=f"Make a config from {trainer}'s settings: one rollout step with all its engines, or a whole step. "
        "The config goes to stdout. The treatment of each key goes to stderr, and into the config as comments.",
        epilog="Exit status: 0 when the config is written, 1 on an error.",
    )
    parser.set_defaults(measured="step")
    choice = parser.add_mutually_exclusive_group()
    for flag, measured, says in (
        ("--one-engine", "engine", "one engine's part of a step, for a machine with too few devices for all engines"),
        ("--placement", "placement", "a whole step: should engine and trainer share their devices, or part them?"),
        ("--cycle", "cycle", "one engine's whole step: does the quantization still pay with its weight updates?"),
    ):
        choice.add_argument(flag, action="store_const", dest="measured", const=measured, help=f"measure {says}")
    log = f"log of a training with {trainer}: the summary has its time of generation beside the measured one; with "
    log += "--placement its time of training is that of the step"
    parser.add_argument("--log", type=Path, metavar="FILE", help=log)
    parser.add_argument(
        "--lengths",
        type=Path,
        metavar="DIR",
        help=f"{SAVED[trainer]}: use the lengths of these rollouts, in the model's tokens",
    )
    parser.add_argument(
        "--lengths-file",
        type=Path,
        default=Path("lengths.jsonl"),
        metavar="FILE",
        help="file for these lengths, which the config names (default: %(default)s)",
    )
    file = f"the YAML or shell script that {trainer} is started with, or an override of {trainer}'s defaults"
    parser.add_argument("file", metavar="FILE", help=file)
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help=overrides)
    return parser


def _version(text: str) -> str:
    """Return the known version of verl that `text` names, such as v0.9.0."""
    known: list[str] = [*TABLES["verl"]["versions"]]
    version = next((one for one in known if f"{text.removeprefix('v')}.".startswith(f"{one}.")), None)
    if version is None:
        raise UserError(
            f"--verl {text}: its defaults are not known here",
            f"known: {', '.join(known)}; or add --cfg job to verl's command and give the YAML that it prints: it has"
            " all keys, so that no defaults count",
        )
    return version


def _options(
    parser: Parser, argv: Sequence[str], in_script: Callable[[Path, Sequence[str]], ScriptWords]
) -> argparse.Namespace:
    """Return the options of the command line; for a script, those that the words `in_script` add to them."""
    for word in argv:
        if word.partition("=")[0] in ("models", "quants"):
            raise UserError(f"{parser.prog}: {word}: is no key of a trainer's", _OF_THE_CONFIG)
        if remedy := AFTERWARDS.get(word.partition("=")[0]):
            file = next((other for other in argv if other.endswith((".yaml", ".yml")) and Path(other).is_file()), "")
            is_file = word.partition("=")[0] == "--config" and file
            raise UserError(
                f"{parser.prog}: {word}: is no option", f"write {parser.prog} {file}" if is_file else remedy
            )
    options = parser.parse_intermixed_args(argv)
    options.from_script, options.environment, options.starts_main = (), {}, False
    options.added = options.overrides
    options.command = [*parser.prog.split(), *map(_without_secret, argv)]
    if is_script(options.file):
        overrides = vars(options).pop("overrides")
        script = in_script(Path(options.file), overrides)
        options = parser.parse_intermixed_args(script.words, options)
        options.overrides += [word for word in overrides if not VARIABLE.fullmatch(word)]
        options.from_script, options.environment = script.lines, script.environment
        options.starts_main = script.starts_main
    if options.log is not None and options.measured == "cycle":
        raise UserError("--log: --cycle has no time to take from it", "leave one of them out")
    options.one_engine = options.measured in ("engine", "cycle")
    return options


def _write_trace(path: Path, made: MadeConfig) -> None:
    content = "".join(json.dumps(line) + "\n" for line in made.trace).encode()
    if path.exists() and (not path.is_file() or path.read_bytes() != content):
        raise UserError(f"{path}: already exists with different content", "name another with --lengths-file")
    write_whole(path, content)


def _whole_config(
    options: argparse.Namespace,
    settings: TrainerFile,
    made: MadeConfig,
    cycle: Callable[[TrainerFile, MadeConfig], MadeConfig],
    placement: Callable[[TrainerFile, MadeConfig, Path | None], MadeConfig],
    generation_s: Callable[[Path], float],
) -> MadeConfig:
    """Return the config of what the options measure, with the lines of the script that it is made from.

    `made` is of a step's generation; `cycle` and `placement` make a config of a whole step from it. `generation_s`
    returns the time of generation in a trainer's log.
    """
    if options.measured == "cycle":
        made = cycle(settings, made)
    elif options.measured == "placement":
        made = placement(settings, made, options.log)
    else:
        made = made.compared(WHILE_LOADING)
        if options.log is not None:
            made = made.with_logged(generation_s(options.log), options.log)
    if options.environment:
        engine = made.config.get("engine") or {}
        engine = {**engine, "environment": {**engine.get("environment", {}), **options.environment}}
        made = replace(made, config={**made.config, "engine": engine})
    return replace(made, head=(*made.head, *options.from_script))


def _config_text(options: argparse.Namespace, made: MadeConfig) -> str:
    """Write the trace, if there is one, and print the account on stderr; return the config with the command in it.

    Raises:
        UserError: the config is not valid.
    """
    read_config(made.config)
    if made.trace:
        _write_trace(options.lengths_file, made)
    print(made.explanation, file=sys.stderr)
    return made.yaml(shlex.join(options.command))


def _without_secret(word: str) -> str:
    """Return a word of the command, without its value if that may be a secret. The config contains the command."""
    name, equals, value = word.partition("=")
    return f"{name}=..." if equals and may_be_secret(name, value) else word
