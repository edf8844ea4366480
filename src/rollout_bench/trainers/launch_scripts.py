"""The command that starts a training, in a shell script: its words, as the trainer gets them."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.core.yaml_files import read_text, value_in
from rollout_bench.plan.checks import OWN_VARIABLES
from rollout_bench.trainers.settings import OVERRIDE, TABLES, Influence, KeyRegistry
from rollout_bench.trainers.shell import ARGUMENTS, ONLY_EXPORTED, is_set_up, with_values
from rollout_bench.trainers.shell_functions import inlined
from rollout_bench.trainers.shell_words import Command, Piece, Word, commands

SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm")
"""Ends of the names of shell scripts."""

_SEVERAL_WORDS = re.compile(r"[@*]|arg|extra|flag|opt|param", re.IGNORECASE)
"""In the name of a variable that stands for several words of a command, not for the value of one option."""

_OF_A_LAUNCH = {
    "num_processes": "num_processes",
    "config_file": "accelerate_config",
    "deepspeed_config_file": "deepspeed",
    "zero_stage": "deepspeed.zero_optimization.stage",
    "use_fsdp": "fsdp",
}
"""Option of accelerate launch -> the key here that has its value."""

MAIN_PPO = "verl.trainer.main_ppo"
"""verl's module for a training."""

ROLLOUT = "actor_rollout_ref.rollout."

_OLDER = ["++trainer.use_v1=false"]
_APART = ["++rollout.nnodes=1", "++rollout.n_gpus_per_node=8", f"++{ROLLOUT}calculate_log_probs=true"]
_ONE_STEP_OFF = [*_OLDER, *_APART, f"++{ROLLOUT}free_cache_engine=false"]
_FULLY_ASYNC = [*_APART, "++data.train_batch_size=0", "++async_training.concurrent_samples_per_replica=16"]

ENTRY_POINTS: dict[str, list[str]] = {
    MAIN_PPO: [],
    "verl.experimental.one_step_off_policy.main_ppo": _ONE_STEP_OFF,
    "recipe.one_step_off_policy.main_ppo": _ONE_STEP_OFF,
    "verl.experimental.fully_async_policy.fully_async_main": _FULLY_ASYNC,
    "recipe.fully_async_policy.fully_async_main": _FULLY_ASYNC,
    "recipe.dapo.main_dapo": _OLDER,
    "recipe.dapo.src.main_dapo": _OLDER,
}
"""Module that starts a training -> overrides for what its own file of hydra's lays over verl's ppo_trainer."""

_OWN_FILE = re.compile(r"--config-name[= ](one_step_off_ppo|fully_async_ppo|dapo)(_megatron)?_trainer(\.yaml)?")
_OWN_FOLDER = re.compile(r"--config-path[= ](\./)?config")
"""Options of hydra for these files."""

_OF_FILES = {
    **{name: name for name in ("--config-path", "--config-name", "--config-dir")},
    "-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir",
}  # fmt: skip
"""Option of hydra for a file -> its long form."""

_WITHOUT_EFFECT = {
    **dict.fromkeys(("--cfg", "-c", "--package", "-p"), True),
    **dict.fromkeys(("--resolve", "--run", "-r", "--multirun", "-m"), False),
}
"""Option of hydra that changes no value -> whether a value of its own follows."""

_SWEEP = re.compile(r"[^\[{('\"]*,|(choice|range|interval|glob|shuffle|sort|tag)\(")
"""Values of a key in several trainings, for hydra's --multirun."""

_FOLDER_OF_THE_SCRIPT = re.compile(r"^(\$\(.*\)|\$\{.*?\}|\$\w+)/")
"""What a script writes before the name of a file beside it, such as $(dirname "$0")/."""

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
"""A word of the command line that gives a variable of the script its value. No trainer has a key in capitals."""

_NAMED_VALUE = re.compile(r"\$(?:([A-Z][A-Z0-9_]*)|\{([A-Z][A-Z0-9_]*)(?::?[-?].*)?\})", re.DOTALL)
"""A variable that may be given its value in this way."""

_OF_ENGINES = re.compile("(VLLM|NCCL|HCCL|PYTORCH)_.*|TASK_QUEUE_ENABLE|CPU_AFFINITY_CONF")
"""Variables that vLLM, the libraries of its devices and torch-npu read."""

_DEVICE = "trainer.device"
"""verl's key for the kind of device."""

_OF_NPUS = re.compile(r"(ASCEND|HCCL)_\w+=|.*(/Ascend/|ascend-toolkit)")
"""Words of a script that runs on NPUs."""

_MODULE = re.compile(r"[\w.]*main[\w.]*")
"""A module that starts something."""

_FILES = ("accelerate_config", "deepspeed")
"""Keys whose value names a file."""


@dataclass(frozen=True)
class ScriptWords:
    """What a script stands for.

    Attributes:
        words: words of the command line of from-verl or from-trl.
        lines: lines about the values that the script assigns to variables, and about those that it exports.
        environment: the variables that the script gives to its engines.
        starts_main: whether the training is verl's own main_ppo, not a recipe's.
    """

    words: list[str]
    lines: tuple[str, ...]
    environment: Mapping[str, str]
    starts_main: bool = False


def is_script(name: str) -> bool:
    """Return whether a word of the command line names a shell script."""
    return name.endswith(SUFFIXES) and "=" not in name


_WRITTEN_OUT = "write the words of this command out in the script; or give the YAML, and num_processes=N"
"""Remedy for a command that only the shell can read."""

_Options = list[tuple[str, list[Word]]]
"""Options of a command with their values, in turn."""

_STARTS = (("accelerate", "launch"), ("trl", "grpo"), ("trl", "rloo"))
"""Words that start a training with TRL."""

_LAUNCHERS: dict[tuple[str, ...], tuple[str, str]] = {
    ("torchrun",): ("nproc_per_node", "nnodes"),
    ("-m", "torch.distributed.run"): ("nproc_per_node", "nnodes"),
    ("deepspeed",): ("num_gpus", "num_nodes"),
}
"""Words that start any trainer's program on several devices -> options for processes of a node, and for nodes."""

_SERVER = ("trl", "vllm-serve")

_OTHER_TRAININGS = re.compile(
    "async|bco|cpo|distillation|dpo|gkd|gold|kto|minillm|nash|orpo|ppo|prm|reward|sdft|sdpo|sft|xpo"
)
"""Parts of the name of a program, as TRL's examples have it, that says another trainer than GRPO and RLOO."""


def trl_arguments(script: Path, overrides: Sequence[str]) -> ScriptWords:
    """Return the words for from-trl that the training in a script stands for, and its `trl vllm-serve`, if any.

    Args:
        script: the user's script. Files that it names are looked for here, then beside it.
        overrides: the user's own keys, which replace the values of variables; and values of variables (`VARIABLE`).

    Raises:
        UserError: if the script has no training or several, or a value that matters is a variable of the shell.
    """
    found = _commands(script, overrides, *_STARTS, *_LAUNCHERS, _SERVER)
    starts: Sequence[tuple[str, ...]] = _STARTS
    if not any(_after(found, *start) for start in _STARTS):
        starts = [*_LAUNCHERS]
    trainings = [(start, words) for start in starts for words in _after(found, *start)]
    servers = _after(found, *_SERVER)
    if len(trainings) != 1 or len(servers) > 1:
        begun = " or ".join(" ".join(start) for start in (*_STARTS, *_LAUNCHERS))
        problem = f"{script}: has {len(trainings)} commands {begun}, and {len(servers)} trl vllm-serve"
        if not trainings and any(_after(found, "-m", module) for module in ENTRY_POINTS):
            raise UserError(problem, f"did you mean `rollout-bench from-verl {script}`? It starts a training with verl")
        if not trainings:
            _check_known(script, found)
        raise UserError(problem, "give a script with one training; or its YAML, and num_processes=N")
    start, words = trainings[0]
    kind, options = start[-1], list[tuple[str, list[Word]]]()
    if start[0] != "trl":
        places = [
            place for place, word in enumerate(words) if word.text.endswith(".py") or word.text in ("-m", "--module")
        ]
        if not places:
            raise UserError(f"{script}: {' '.join(start)}: starts no file of Python", _WRITTEN_OUT)
        launch = dict(_options(script, words[: places[0]]))
        if start in _LAUNCHERS:
            launch = {"num_processes": processes} if (processes := _processes(launch, *_LAUNCHERS[start])) else {}
        options += [(key, launch[option]) for option, key in _OF_A_LAUNCH.items() if option in launch]
        program = next((word for word in words[places[0] :] if not word.text.startswith("-")), words[places[0]])
        kind = _trainer_of(script, program.text) or kind
        words = words[places[0] + (1 if words[places[0]].text.endswith(".py") else 2) :]
    options += _options(script, words)
    options += [(f"server.{name}", values) for server in servers for name, values in _options(script, server)]
    file = [values for name, values in options if name == "config"]
    registry = KeyRegistry.of("TRL", "grpo")
    _check_names(script, options, registry)
    line = _assigned_line(script, [(name, word) for name, words in options for word in words], registry, overrides)
    read = [
        *(["--trainer", kind] if kind == "rloo" else []),
        *(str(_file_named(script, values[0])) for values in file[-1:] if values),
        *(one for name, words in options if name != "config" for one in _overrides(script, name, words, registry)),
    ]
    return _script_words(read, line, found)


def _trainer_of(script: Path, program: str) -> str:
    """Return the trainer that the name of a file or module says, `grpo` or `rloo`; empty if it says none.

    Raises:
        UserError: if it says another one, which generates by other rules.
    """
    name = Path(program.removesuffix(".py").replace(".", "/")).name.lower()
    parts = set(re.split(r"[^a-z]+", name))
    trainer = next((kind for kind in ("grpo", "rloo") if kind in parts), "")
    if "async" in parts or (not trainer and any(map(_OTHER_TRAININGS.fullmatch, parts))):
        raise UserError(
            f"{script}: {program}: is by its name no training with GRPO or RLOO, and others generate by other rules",
            "give the script of a GRPO or RLOO training; if this one is, give its YAML, and num_processes=N",
        )
    return trainer


def _processes(launch: Mapping[str, list[Word]], on_node: str, nodes: str) -> list[Word]:
    """Return the number of processes of a launcher with these options; empty if it is not a plain number."""
    numbers = [launch.get(on_node, []), launch.get(nodes, [Word((Piece("1"),))])]
    texts = ["".join(word.text for word in words if not word.variable) for words in numbers]
    if not all(text.isdecimal() for text in texts):
        return []
    return [Word((Piece(str(int(texts[0]) * int(texts[1]))),))]


def verl_arguments(script: Path, overrides: Sequence[str]) -> ScriptWords:
    """Return the words of verl's command line in a script: overrides, and hydra's options.

    Args:
        script: the user's script.
        overrides: the user's own keys, which replace the values of variables; and values of variables (`VARIABLE`).

    Raises:
        UserError: if the script does not start verl.trainer.main_ppo once, or a value that matters is a variable of
            the shell.
    """
    found = _commands(script, overrides, *(("-m", module) for module in ENTRY_POINTS))
    trainings = [(module, words) for module in ENTRY_POINTS for words in _after(found, "-m", module)]
    if len(trainings) != 1:
        others = dict.fromkeys(
            words[0].text for words in _after(found, "-m") if words and _MODULE.fullmatch(words[0].text)
        )
        named_too = (
            f"; {', '.join(others)} is none of those whose defaults are known" if others and not trainings else ""
        )
        problem = f"{script}: has {len(trainings)} commands python -m {MAIN_PPO}, and one is read{named_too}"
        if not trainings and any(_after(found, *start) for start in _STARTS):
            raise UserError(problem, f"did you mean `rollout-bench from-trl {script}`? It starts a training with TRL")
        if not trainings:
            _check_known(script, found)
        raise UserError(problem, "add --cfg job to the command that starts your training, and use the YAML it prints")
    named: list[tuple[str, Word]] = []
    registry = KeyRegistry.of("verl", next(iter(TABLES["verl"]["versions"])))
    ((module, given),) = trainings
    words: list[str] = [*ENTRY_POINTS[module]]
    given = given if module == MAIN_PPO else _without_own_file(given)
    for word in _without_hydras_options(script, module, given, overrides, registry):
        override = OVERRIDE.fullmatch(word.text)
        if word.variable and (override is None or not override["equals"] or word.text.startswith(("-", "$", "`"))):
            problem = f"{script}: {word.text}: has a variable of the shell, which only the shell knows{_caused(word)}"
            variable = _NAMED_VALUE.fullmatch(word.variable)
            added = f"add {variable[1] or variable[2]}=VALUE to the command, or " if variable else ""
            raise UserError(problem, f"{added}write its words out in the script")
        if override is not None:
            named.append((override["path"], word))
        if word.variable and override is not None:
            words.append(f"{override['sign'] or ''}{override['path']}=null")
        else:
            words.append(word.text)
    line = _assigned_line(script, named, registry, overrides)
    read = _script_words(words, line, found)
    if any(map(_OF_NPUS.match, (word.text for command in found for word in command))) and _DEVICE not in dict(named):
        lines = (*read.lines, f"The script sets up Ascend's toolkit, so {_DEVICE}=npu is taken.")
        read = replace(read, words=[*read.words, f"++{_DEVICE}=npu"], lines=lines)
    return replace(read, starts_main=module == MAIN_PPO)


def _without_hydras_options(
    script: Path, module: str, words: Sequence[Word], overrides: Sequence[str], registry: KeyRegistry
) -> Iterator[Word]:
    """Yield words for verl, with hydra's options for its files alone, and without sweeps that the user overrides.

    Raises:
        UserError: if an option is not hydra's, or a key has several values.
    """
    lines = read_text(script, "shell script", "").splitlines()
    place = next((f"{script}: line {number}" for number, line in enumerate(lines, 1) if module in line), str(script))
    overridden = {found["path"] for found in map(OVERRIDE.fullmatch, overrides) if found}
    left = iter(words)
    for word in left:
        name, equals, _ = word.text.partition("=")
        override = OVERRIDE.fullmatch(word.text)
        if (
            override is not None
            and _SWEEP.match(override["value"] or "")
            and not registry.find(override["path"]).is_inert
        ):
            path, value = override["path"], override["value"]
            if path not in overridden:
                problem = f"{place}: {path}={value}: is a sweep of several trainings, and one is read"
                raise UserError(problem, f"add {path}=VALUE to the command, with one of them")
        elif name in _OF_FILES:
            _check_not_written(script, word)
            yield replace(word, pieces=(Piece(_OF_FILES[name]), *word.without(name).pieces))
            if not equals and (value := next(left, None)) is not None:
                _check_not_written(script, value)
                yield value
        elif name in _WITHOUT_EFFECT:
            if _WITHOUT_EFFECT[name] and not equals:
                next(left, None)
        elif name.startswith("-") and not word.variable:
            raise UserError(
                f"{place}: {word.text}: is no option of hydra's, which reads verl's command", "leave it out there"
            )
        else:
            yield word


def _script_words(words: list[str], assigned: str, found: Sequence[list[Word]]) -> ScriptWords:
    """Return the words with the variables that the commands `found` export or have before them."""
    given: dict[str, Word] = {}
    for command in found:
        texts = [word.text for word in command]
        is_named = texts[:1] in (["export"], ["env"])
        for word in (
            command[is_named:] if is_named else itertools.takewhile(lambda one: VARIABLE.fullmatch(one.text), command)
        ):
            name = word.text.partition("=")[0]
            if VARIABLE.fullmatch(word.text) and _OF_ENGINES.fullmatch(name) and name not in OWN_VARIABLES:
                given[name] = word.without(f"{name}=")
    unknown = [name for name, word in given.items() if word.variable or may_be_secret(name, word.text)]
    environment = {name: word.text for name, word in given.items() if name not in unknown}
    lines = [assigned]
    if environment:
        lines.append(
            f"Variables that the script gives to its engines are in engine.environment: {', '.join(environment)}."
        )
    if unknown:
        lines.append(f"Left out of engine.environment, since only the shell knows the value: {', '.join(unknown)}.")
    return ScriptWords(words, tuple(filter(None, lines)), environment)


def _without_own_file(words: Sequence[Word]) -> list[Word]:
    """Return the words without hydra's options for the file that an entry point has of its own."""
    kept: list[Word] = []
    for word in words:
        begun = kept[-1].text if kept and kept[-1].text in ("--config-name", "--config-path") else ""
        option = f"{begun} {word.text}" if begun else word.text
        if not (_OWN_FILE.fullmatch(option) or _OWN_FOLDER.fullmatch(option)):
            kept.append(word)
        elif begun:
            kept.pop()
    return kept


def _commands(script: Path, overrides: Sequence[str], *starts: tuple[str, ...]) -> list[list[Word]]:
    """Return the words of each command, with the values of variables that the script assigns before `starts`.

    Variables among `overrides` have their value from there, as `NAME=VALUE bash script` gives it.
    """
    given = {word.partition("=")[0]: word.partition("=")[2] for word in overrides if VARIABLE.fullmatch(word)}
    text = read_text(script, "shell script", "give the script that starts the training")
    found = inlined(commands(text))
    for command in found:
        if any(word.text == "xargs" for word in command.words) and any(_names(command, start) for start in starts):
            raise UserError(f"{script}: {command.place}: xargs adds words, which only the shell knows", _WRITTEN_OUT)
        if command.words[-1].text in (" ", "\t"):
            problem = (
                f"{script}: {command.place}: its command ends in a blank after a backslash, and the next line is none"
            )
            raise UserError(problem, "take the blank at the end of the line away")
    for name in given:
        if not re.search(rf"\b{name}\b", text):
            raise UserError(f"{name}: the script {script} has no such variable", "name one that it has, or a key")

    def sourced(word: Word) -> list[Command] | None:
        return _sourced(script, word)

    def run(values: Mapping[str, str]) -> list[list[Word]]:
        begun = [place for place, command in enumerate(found) if any(_names(command, start) for start in starts)]
        return with_values(found, max(begun, default=-1), given=values, sourced=sourced)

    for name, value in given.items():
        others = {key: other for key, other in given.items() if key != name}
        another = run({**others, name: _ANOTHER})
        counts = another != run({**others, name: f"{_ANOTHER}0"}) or re.search(rf"\$\{{{name}:?\+", text)
        if not counts or another == run(others):
            problem = f"{name}={value}: the script {script} gives {name} a value of its own, so this has no effect"
            raise UserError(problem, "change it in the script, or write the trainer's key with the value")
    return run(given)


_ANOTHER = "4294967291"
"""A value that no script gives a variable."""


def _names(command: Command, start: tuple[str, ...]) -> bool:
    """Return whether a command has the words `start`, or a text for another shell that has them."""
    return bool(_after([command.words], *start)) or any(" ".join(start) in word.text for word in command.words)


def _sourced(script: Path, word: Word) -> list[Command] | None:
    """Return the commands of a file that the script sources; None if it is not here, or sets up an environment."""
    beside = script.parent / _FOLDER_OF_THE_SCRIPT.sub("", word.text)
    is_elsewhere = word.text.startswith(("/", "~"))
    if Path(word.text).name == "activate" or (is_elsewhere and is_set_up(word.text)) or not beside.is_file():
        return None
    text = read_text(beside, "shell script", "give the script that starts the training")
    return commands(text, beside.name)


def _after(found: Sequence[list[Word]], *start: str) -> list[list[Word]]:
    """Return what follows the words `start` in each command that has them, without the script's own arguments.

    In place of these there are the overrides after the script's name.
    """
    rest = []
    for command in found:
        texts = tuple(word.text for word in command)
        place = next((at for at in range(len(texts)) if texts[at : at + len(start)] == start), None)
        if place is not None:
            rest.append([word for word in command[place + len(start) :] if word.text not in ARGUMENTS])
    return rest


def _options(script: Path, words: Sequence[Word]) -> _Options:
    """Return name and values of each option, its name as TRL's argparse has it.

    Raises:
        UserError: if a variable stands for several words, which may be options.
    """
    found: _Options = []
    for word in words:
        name, equals, _ = word.text.partition("=")
        if word.text == word.variable and _SEVERAL_WORDS.search(word.variable):
            raise _unknown_words(script, word)
        if name.startswith("--"):
            found.append((name[2:].replace("-", "_"), [word.without(f"{name}=")] if equals else []))
        elif found:
            found[-1][1].append(word)
        elif word.variable:
            raise _unknown_words(script, word)
    return found


def _unknown_words(script: Path, word: Word) -> UserError:
    """Return the error for a variable that stands for words of a command."""
    named = _NAMED_VALUE.fullmatch(word.variable)
    added = f"add {named[1] or named[2]}='WORDS' to this command, or " if named else ""
    problem = f"{script}: {word.text}: stands for words that are not known here{_caused(word)}"
    return UserError(problem, f"{added}{_WRITTEN_OUT}")


def _check_known(script: Path, found: Sequence[list[Word]]) -> None:
    """Raise `UserError` for the first of the commands `found` that is a variable."""
    first = (words[0] for words in found if words and words[0].text == words[0].variable)
    if unknown := next(first, None):
        problem = f"{script}: {unknown.text}: is a command that only the shell knows{_caused(unknown)}"
        raise UserError(problem, "write its words out in the script")


def _check_names(script: Path, options: _Options, registry: KeyRegistry) -> None:
    """Raise `UserError` for the short form of a key, which argparse takes for it, or one that is misspelt."""
    for name, _ in options:
        if name == "server.config":
            raise UserError(f"{script}: trl vllm-serve: --config: is not read", "write its keys as options there")
        if registry.find(name).influence is Influence.UNKNOWN and not name.startswith("no_"):
            longer = [key for key in registry.keys if key.startswith(name) and "." not in key[len(name) :]]
            near = longer[0] if longer else registry.misspelt(name)
            if near and name != "config":
                raise UserError(f"{script}: --{name}: there is no such key", f"write it in full: --{near}")


def _assigned_line(
    script: Path, named: Sequence[tuple[str, Word]], registry: KeyRegistry, overrides: Sequence[str]
) -> str:
    """Return a line about values of keys that matter, which the script assigns to variables.

    Raises:
        UserError: if a variable without such a value is that of a key, which is not among the user's overrides.
    """
    overridden = {found["path"] for found in map(OVERRIDE.fullmatch, overrides) if found}
    inert = {name for name, _ in named if registry.find(name).is_inert}
    inert |= {name for name, _ in named if registry.find(name).influence is Influence.UNKNOWN and name != "config"}
    matters = [(name, word) for name, word in named if name not in overridden | inert]
    unknown = {name: word for name, word in matters if word.variable}
    if unknown:
        names = ", ".join(f"{name} ({word.variable})" for name, word in unknown.items()) + _caused(*unknown.values())
        files = "write the name of its file in the script, and " if "config" in unknown else ""
        added = " ".join(f"{name}=VALUE" for name in unknown if name != "config")
        remedy = f"{files}add {added} to the command" if added else files.removesuffix(", and ")
        plain = [_NAMED_VALUE.fullmatch(word.variable) for word in unknown.values()]
        if added and all(plain) and not any(ONLY_EXPORTED in word.cause for word in unknown.values()):
            remedy += f", or {' '.join(dict.fromkeys(f'{found[1] or found[2]}=VALUE' for found in plain if found))}"
        raise UserError(f"{script}: has variables of the shell as values, which only the shell knows: {names}", remedy)
    taken = dict.fromkeys(one for _, word in matters for one in word.taken)
    shown = [f"{one.partition('=')[0]}=..." if may_be_secret(*one.split("=", 1)) else one for one in taken]
    home = " but HOME" if any(str(Path.home()) in one for one in shown) else ""
    return f"Values of variables, none from the environment{home}: {', '.join(shown)}." if taken else ""


def _caused(*words: Word) -> str:
    """Return the places of the script because of which words have no value, for messages; empty: none are known."""
    causes = "; ".join(dict.fromkeys(word.cause for word in words if word.cause))
    return f", because of {causes}" if causes else ""


def _overrides(script: Path, name: str, values: Sequence[Word], registry: KeyRegistry) -> list[str]:
    """Return an option of TRL's command line as overrides in YAML, which replace a mapping as a whole."""
    if not values:
        positive = name.removeprefix("no_")
        is_off = positive != name and registry.find(name).influence is Influence.UNKNOWN
        return [f"++{positive}=false" if is_off else f"++{name}=true"]
    if any(word.variable for word in values):
        return [f"++{name}=null"]
    texts = [str(_file_named(script, word)) if name in _FILES else word.text for word in values]
    written = _as_yaml(texts[0]) if len(texts) == 1 else json.dumps(texts)
    return [*([f"++{name}=null"] if written.startswith("{") else []), f"++{name}={written}"]


def _check_not_written(script: Path, word: Word) -> None:
    """Raise `UserError` if the script itself writes the file that a word names."""
    if word.written_by:
        name = re.sub(r"^-+[\w-]+=", "", word.text)
        problem = f"{script}: {word.written_by} writes {name}, so what lies there now may be another's"
        raise UserError(problem, "run the script up to there, and give the YAML that it leaves in place of the script")


def _as_yaml(text: str) -> str:
    """Return YAML for a word, which argparse reads as a text unless it is a number, a switch or JSON."""
    try:
        return text if isinstance(value_in(text), (bool, int, float, dict)) else json.dumps(text)
    except (yaml.YAMLError, ValueError):
        return json.dumps(text)


def _file_named(script: Path, word: Word) -> Path:
    """Return a file that the script names, as seen from here, or else beside the script.

    Raises:
        UserError: if the script writes it.
    """
    _check_not_written(script, word)
    name = word.text
    beside = script.parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)
