"""TRL's settings from the commands that start it: accelerate, torchrun or trl, and perhaps a server of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.trainers.trainer_file import read_yaml

SEPARATORS = {";", "&", "&&", "||", "|"}
BEFORE_COMMANDS = {"env", "exec", "export", "nohup", "time"}
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
REDIRECTION = re.compile(r"[0-9&]*[<>]")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class LaunchCommand:
    """One command of a script.

    Attributes:
        words: the program and its arguments.
        devices: how many devices it sees, None where nothing says so.
    """

    words: list[str]
    devices: int | None

    @property
    def serves(self) -> bool:
        """Whether it starts TRL's server."""
        program = Path(self.words[0]).name
        return [program, *self.words[1:2]] == ["trl", "vllm-serve"] or "trl.scripts.vllm_serve" in self.words[:3]

    @property
    def trains(self) -> bool:
        """Whether it starts a training."""
        program, second = Path(self.words[0]).name, self.words[1:2]
        if program == "trl":
            return not self.serves and bool(second) and not second[0].startswith("-")
        is_python = program.startswith("python") and any(word.endswith(".py") for word in self.words)
        return (program == "accelerate" and second == ["launch"]) or program == "torchrun" or is_python


OF_NAMES = {"grpo": "grpo", "gspo": "grpo", "rloo": "rloo"}
"""Word in the name of a script -> the trainer of TRL's that it starts."""

OTHERS = {
    "async", "bco", "cpo", "distillation", "dpo", "gkd", "gold", "kto", "minillm", "mpo", "nash", "orpo", "ppo", "prm",
    "reward", "sdft", "sdpo", "sft", "ssd", "tpo", "xpo",
}  # fmt: skip
"""The same of trainers whose generation is another, or that generate nothing."""


def launched(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return the settings of the training that the commands in a file start, and what its trainer is called.

    Its YAML and its server's settings are among them. None: the name of what it starts says no trainer.

    Raises:
        UserError: the file can't be read, or starts no training, or several; or a YAML that it names is not there.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}", "give TRL's YAML, or a script with its command"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: byte {error.start}", "give TRL's YAML, or a script") from None
    commands = list(_commands(path, text))
    trainings = [command for command in commands if command.trains]
    if len(trainings) != 1:
        raise UserError(
            f"{path}: starts {len(trainings)} trainings, and one is wanted",
            "give a file with one of accelerate launch, torchrun, trl grpo or python SCRIPT.py, or TRL's YAML",
        )
    content, trainer = _training(path, trainings[0])
    for server in (command for command in commands if command.serves):
        content["server"] = flags(server.words[2:])
    return content, trainer


def _commands(path: Path, text: str) -> Iterator[LaunchCommand]:
    exported: int | None = None
    for line in re.finditer(r"(?:\\\n|[^\n])+", text):
        try:
            words = shlex.split(line[0].replace("\\\n", " "), comments=True)
        except ValueError as error:
            number = text.count("\n", 0, line.start()) + 1
            raise UserError(f"{path}: line {number}: {str(error).lower()}", "close its quotes") from None
        command: list[str] = []
        devices, redirected = exported, False
        for word in [*words, ";"]:
            assigned = None if command else ASSIGNMENT.fullmatch(word)
            if word in SEPARATORS:
                if command:
                    yield LaunchCommand(command, devices)
                command, devices, redirected = [], exported, False
            elif redirected or REDIRECTION.match(word):
                redirected = True
            elif assigned is not None and assigned[1] in VISIBLE_DEVICES:
                devices = None if "$" in assigned[2] else len(assigned[2].split(","))
                exported = devices if words[0] == "export" else exported
            elif assigned is None and (command or word not in BEFORE_COMMANDS):
                command.append(word)


def _training(path: Path, command: LaunchCommand) -> tuple[dict[str, Any], str | None]:
    """Return the settings of a training, as num_processes on how many devices it is, and what its trainer is called."""
    program = Path(command.words[0]).name
    rest = command.words[2:] if program in ("accelerate", "trl") else command.words[1:]
    script = 0 if program == "trl" else next((n for n, word in enumerate(rest) if word.endswith(".py")), None)
    if script is None:  # python -m, or a module that accelerate starts
        script = next((n + 1 for n, word in enumerate(rest) if word in ("-m", "--module")), len(rest) - 1)
    launcher, own = flags(rest[:script]), flags(rest[script if program == "trl" else script + 1 :])
    content: dict[str, Any] = {}
    if "config" in own:
        content = read_yaml(_beside(path, str(own.pop("config"))), "TRL", last_wins=True)
    content.update(own)
    plain = program.startswith("python") and "-m" not in rest[:script]
    launcher.setdefault("config_file", content.get("accelerate_config"))  # as trl calls it
    processes = 1 if plain else _processes(path, program, launcher, command.devices)
    if processes is not None:
        content.setdefault("num_processes", processes)
    named = command.words[1] if program == "trl" else " ".join(rest[script : script + 1])
    return content, _trainer(named.removesuffix(".py"))


def _trainer(script: str) -> str | None:
    """Return the trainer that a script, module or sub-command is called after: by its last part, as words."""
    words = re.findall("[a-z]+", re.split(r"[/.]", script)[-1].lower())
    known = [OF_NAMES[word] for word in words if word in OF_NAMES and "async" not in words]
    other = ["-".join(words)] if OTHERS.intersection(words) else []
    return next(iter([*known, *other]), None)


def _processes(path: Path, program: str, launcher: dict[str, Any], devices: int | None) -> Any:
    if "num_processes" in launcher:
        return launcher["num_processes"]
    if program == "torchrun" or "nproc_per_node" in launcher:
        per_node, nodes = launcher.get("nproc_per_node", 1), launcher.get("nnodes", 1)
        return per_node * nodes if isinstance(per_node, int) and isinstance(nodes, int) else None
    config = launcher.get("config_file")
    if config is not None and (found := _there(path, str(config))) is not None:
        return read_yaml(found, "accelerate", last_wins=True).get("num_processes", devices)
    return devices


def _there(script: Path, name: str) -> Path | None:
    return next((place for place in (script.parent / name, Path(name)) if place.is_file()), None)


def _beside(script: Path, name: str) -> Path:
    found = _there(script, name)
    if found is None:
        raise UserError(
            f"{script}: --config {name}: there is no such file beside it, nor here",
            "put it there, or give the YAML itself",
        )
    return found


def flags(words: list[str]) -> dict[str, Any]:
    """Return `--name value`, `--name=value` and `--name` as settings; several values are a list."""
    found: dict[str, Any] = {}
    name: str | None = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = [value] if equals else []
        elif name is not None:
            found[name].append(word)
    return {name: _values(values) for name, values in found.items()}


def _values(words: list[str]) -> Any:
    if not words:
        return True
    values = [_value(word) for word in words]
    return values[0] if len(values) == 1 else values


def _value(word: str) -> Any:
    try:
        return yaml.safe_load(word)
    except (yaml.YAMLError, ValueError):
        return word
