"""The config that Snakemake's arguments give, where possible without its parser, whose imports take a second."""

import argparse
import itertools
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from snakemake.utils import update_config

from rollout_bench.contracts.fields import AUTO, flat, name_made_of, typed
from rollout_bench.contracts.load import DatasetFormat
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.model_keys import keys_of
from rollout_bench.core.places import config_file, home
from rollout_bench.core.secrets import looks_secret
from rollout_bench.core.yaml_files import flow
from rollout_bench.plan.checks import OTHER_QUANTS, SHORT
from rollout_bench.plan.config import Config, WorkloadSettings
from rollout_bench.plan.config_file import (
    ENGINE_ARGS,
    NAMED,
    NOT_MEASURED,
    OTHER_KEYS,
    PROFILES,
    RESULTS_ELSEWHERE,
    RESULTS_FOLDERS,
    check_config_file,
    check_selection,
    load_in,
    models_in,
    read_config,
)
from rollout_bench.plan.meant import api_meant, hub_name
from rollout_bench.plan.quants import known_quants
from rollout_bench.plan.serving import Endpoint, OnlineLoad

_PROFILES = Path("default"), Path("profiles", "default"), Path("workflow", "profiles", "default")
"""Where Snakemake looks for the profile of a workflow in this folder."""

_MORE = re.compile(r"config|directory|jobs|__|[?\\]")
"""Part of a profile that may change what is read here, also by a template."""


_KEY = re.compile(r"[a-zA-Z_][\w-]*\w")
"""Name before the = of a value, as Snakemake demands it."""


_RULES = ("all", "measure", "checkpoint", "round", "summary")
"""Rules of the workflow, of which Snakemake says itself if they have no name to make."""

_SUMMARIES = [f"results/summary.{end}" for end in ("csv", "html", "json", "md", "txt")]
"""Files that are made for whoever calls; what else a run makes is below the folders of `_MADE`."""

_MADE = ("results/figures", "results/summaries/", "results/blocks/")

_LISTS = {"--config": ("--config", "-C"), "--configfile": ("--configfile", "--configfiles")}
"""Options that take several values -> their spellings."""

_AS_IT_IS = "leave it out: the times of each request and all percentiles are kept"
_AGAIN = "leave it out: a run measures what is missing or failed, and nothing twice"
_A_SERVER = "leave it out: each server gets a free port; `rollout-bench init --from endpoint URL` is for one that is up"
_REQUESTS = "leave it out: a server is asked through OpenAI's completions, at the url of its entry in endpoints"

_A_MODEL = "leave it out: of a server, endpoints names its model: --config 'endpoints={mine: {url: URL, model: NAME}}'"
_NUMBERS = "leave it out: every run writes results/summary.json"

_ADDRESSES = ("base_url", "host", "target", "u", "url")
"""Options of other programs for the address of a server."""

_RANKS = ("--lora-rank", "--max-lora-rank")

_FORMS = ("--backend", "--endpoint-type", "--request-format", "--request-type")

_WITH = {
    "--rate": ("--profile", "--rate-type"),
    "--port": ("--host",),
    **dict.fromkeys(("--dataset-path", "--random-input-len", "--random-output-len"), ("--dataset", "--dataset-name")),
}
"""Option of other programs -> those that it belongs to."""

_OF_OTHERS = {
    **dict.fromkeys(("--continue", "--failed-first", "--ff", "--last-failed", "--lf", "--resume"), _AGAIN),
    **dict.fromkeys(("--metric-percentiles", "--percentile-metrics", "--save-detailed", "--save-result"), _AS_IT_IS),
    **dict.fromkeys(_FORMS, _REQUESTS),
    **dict.fromkeys(("--exitfirst", "--maxfail"), "leave it out: a run stops when a whole block failed for one cause"),
    **dict.fromkeys(("--log-level", "--loglevel"), "write --verbose"),
    "--port": _A_SERVER,
    "--header": "leave it out: a server is sent only its key, whose variable endpoints names: api_key_env",
    **dict.fromkeys(("--json", "--output-format"), _NUMBERS),
    "--served-model-name": _A_MODEL,
    "-o": RESULTS_ELSEWHERE,
    "--config-name": "leave it out: config files stand after --configfile",
    "--multirun": "leave it out: sweep={KEY: [VALUE, VALUE]} measures several values of a key",
    "--api-key": "name its variable: --config 'endpoints={mine: {api_key_env: MY_SERVER_KEY}}'",
}
"""Options of vllm bench, guidellm and pytest -> the remedy, where no key of a config has their value."""

_NAME = re.compile(r"[\w-]+")

_DATA = ("data", "dataset", "dataset_name", "dataset_path")
"""Options of other programs for prompts or their lengths."""

_LONG = re.compile(r"-[A-Za-z]\w[\w-]+(=.*)?")
"""One dash before what may be the name of a long option."""


@dataclass(frozen=True)
class Call:
    """What a call gives.

    Attributes:
        config: values of the command line.
        configfiles: config files, absolute; each is laid over those before it.
        directory: the folder to work in.
        jobs: whether a number of jobs is given, so that they are submitted to a cluster.
        alone: whether these files take the place of the default config.
    """

    config: Mapping[str, Any]
    configfiles: Sequence[Path]
    directory: Path
    jobs: bool = False
    alone: bool = False

    def merged(self) -> dict[str, Any]:
        """Return the config in all files under the values of the command line."""
        found: dict[str, Any] = {}
        for file in self.configfiles:
            update_config(found, load(file))
        update_config(found, self.config)
        return found


def _is_value(word: str) -> bool:
    return "=" in word and word.partition("=")[0] in Config.model_fields


def _of_target(word: str) -> str:
    """Return the remedy for a value among the targets; empty for others."""
    plain = word.lstrip("+")  # as hydra adds keys
    key, equals, value = plain.partition("=")
    if _is_value(plain):
        return f"write --config {shlex.quote(f'{key}={_spaced(value)}' if value.startswith('{') else plain)}"
    is_option = key.startswith("-") or not equals
    return "" if is_option else _below(f"--{key.rpartition('.')[2]}", f"--x={value}", ())


def _check_target(word: str, words: Sequence[str]) -> None:
    if remedy := _of_target(word):
        kind = "a value of the config" if _is_value(word.lstrip("+")) else "a value"
        raise UserError(f"{word}: is {kind}, not a target", _together([remedy, *map(_of_target, words)]))
    if word.endswith((".yaml", ".yml")) and not word.startswith("results/"):
        config_file(word)
        raise UserError(f"{word}: is no target", f"write --configfile {shlex.quote(word)}")


def _check_made(target: str) -> None:
    """Refuse a target that the workflow of this package does not make; rules and files of a user's are not known."""
    if target in _RULES:
        return
    path = os.path.normpath(target)
    if target.endswith(".py") or "::" in target:
        raise UserError(f"{target}: is no target", "leave it out to measure what is missing")
    if path in _SUMMARIES or path.startswith(_MADE) or ("/" in path and not path.startswith("results/")):
        return
    close = near_miss(path if "/" in path else f"results/{path}.md", _SUMMARIES, 0.8)
    known = "leave it out to measure what is missing; targets: results/summary.md, .html, .csv, .txt, .json"
    remedy = f"did you mean {close}?" if close else _selecting(target) or known
    raise UserError(f"{target}: is no target", remedy)


def _selecting(name: str) -> str:
    """Return the remedy for a target that is the name of something to measure; empty for others."""
    config = _default()
    quants = {*known_quants({}), *(config.get("quant_settings") or ())}
    names = {"modes": MODES, "quants": quants, "models": config.get("model_settings") or ()}
    names["workloads"] = config.get("workload_settings") or ()
    key = next((key for key, known in names.items() if name in known), "")
    return f"write --config '{key}=[{', '.join(_beside(name) if key == 'quants' else [name])}]'" if key else ""


def _beside(quant: str) -> list[str]:
    """Return a quantization after the one that it is compared with."""
    return list(dict.fromkeys([str((_default().get("baseline") or {}).get("quant") or "bf16"), quant]))


def _default() -> dict[str, Any]:
    """Return the config of this folder, or the package's."""
    return load(config_file("config.yaml"))


def _is_our_workflow(words: Sequence[str]) -> bool:
    """Return whether a call runs the package's Snakefile: no other is named in `words` or lies in this folder."""
    snakefile = Path("Snakefile")
    is_named = any(word.partition("=")[0] in ("-s", "--snakefile") for word in words)
    return not is_named and (not snakefile.exists() or snakefile.resolve() == (home() / snakefile).resolve())


def check_words(words: Sequence[str]) -> None:
    """Check the arguments `words` of a call, on whose mistakes Snakemake ends with a traceback or its whole usage.

    Raises:
        UserError: a file is no config, a value is not name=value, or Snakemake has no such option.
    """
    if "-v" in words:
        raise UserError("-v: is --version to Snakemake", "write --verbose, or `rollout-bench --version`")
    try:
        given, others = _parser().parse_known_args(with_shipped(words))
    except argparse.ArgumentError as error:
        raise UserError(str(error), "give a value, or leave the option out") from None
    try:
        _check_words(words, given, others)
    except UserError as error:
        remedy = _with_rest(error.remedy, words, [*given.config, *filter(_is_value, others)])
        raise UserError(error.problem, remedy, error.status) from None


def _check_words(words: Sequence[str], given: argparse.Namespace, others: Sequence[str]) -> None:
    _check_results(words)
    for option, forms in _LISTS.items():
        if sum(word.partition("=")[0] in forms for word in words) > 1:
            raise UserError(
                f"{option}: stands twice, and Snakemake takes the last only", f"write all after one {option}"
            )
    options = {word for word in (*others, *filter(_LONG.fullmatch, words)) if word.startswith("-")}
    targets = _check_options(words) if options - {"-n", "--dry-run"} else others
    _check_folder(given.directory)
    for word in others:
        _check_target(word, others)
    for target in targets if _is_our_workflow(words) else ():
        if not target.startswith("-"):
            _check_made(target)
    for file in given.configfile:
        check_config_file(file)
    _check_shell(given.config)
    for place in range(len(given.config)):
        _check_entry(place, given.config)


def _check_shell(entries: Sequence[str]) -> None:
    """Check that the shell left the entries after --config as they were typed, and that each names another key."""
    for place, entry in enumerate(entries):
        if "=" in entry and _open_brackets(entry) and entries[place + 1 :]:
            ends = range(place + 2, len(entries) + 1)
            parts = (" ".join(entries[place:end]) for end in ends)
            whole = next((part for part in parts if not _open_brackets(part) and part.count("=") == 1), None)
            if whole is not None:
                raise UserError(f"--config {whole}: the shell splits it at its spaces", f"quote it: --config '{whole}'")
    names = [entry.partition("=")[0] for entry in entries if "=" in entry]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is None:
        return
    values = [entry.partition("=")[2] for entry in entries if entry.startswith(f"{twice}=")]
    if typed_text := _in_braces(values):
        raise UserError(
            f"--config {twice}={{...}}: the shell makes several words of braces that are not quoted",
            f"write --config {shlex.quote(f'{twice}={typed_text}')}",
        )
    raise UserError(f"--config {twice}: stands twice, and Snakemake takes the last only", "write it once")


def _in_braces(values: Sequence[str]) -> str:
    """Return the YAML of which the shell's brace expansion made `values`; empty if it is none."""
    begin = os.path.commonprefix(values)  # noqa: RUF071 (of texts)
    begin = begin[: max(map(begin.rfind, ":{[")) + 1]
    ends = [re.search(r"[\]}]*$", value) for value in values] if "{" in begin else []
    end = min((found[0] for found in ends if found), key=len, default="")
    inner = ",".join(value.removeprefix(begin).removesuffix(end) for value in values)
    whole = f"{begin}{{{inner}}}{end}" if ":" in inner else f"{begin}[{inner}]{end}"
    meant = _spaced(whole)
    try:
        content = yaml.safe_load(meant)
    except yaml.YAMLError:
        return ""
    is_list = isinstance(content, list) and not any(map(str.isdecimal, values))
    return flow(content) if is_list or (isinstance(content, dict) and None not in content.values()) else ""


def _spaced(text: str) -> str:
    """Return flow YAML with the space after each colon and comma that YAML or a reader wants."""
    return re.sub(r",(?=\S)", ", ", re.sub(r"(?<=[\w\"']):(?=[^\s/])", ": ", text))


def _check_folder(folder: Path) -> None:
    """Refuse a folder to work in that is not there."""
    if not folder.is_dir():
        raise UserError(
            f"--directory {folder}: there is no such folder",
            "leave it out, or make the folder, with its config.yaml: `rollout-bench init` there writes one",
        )


def _check_results(words: Sequence[str]) -> None:
    """Refuse an option for the folder of the results."""
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if option.strip("-").replace("-", "_") in RESULTS_FOLDERS:
            raise UserError(f"{option}: there is no such option", RESULTS_ELSEWHERE)


def _check_entry(place: int, entries: Sequence[str]) -> None:
    """Check the entry at `place` of those after --config."""
    entry = entries[place]
    key, equals, text = entry.partition("=")
    if not equals:
        raise UserError(f"--config {entry}: is not name=value", _meant(place, entries))
    if key.startswith("+"):  # as hydra adds keys
        raise UserError(f"--config {entry}: a key has no + here", f"write --config {shlex.quote(entry.lstrip('+'))}")
    name, value = (key[1:], text.removesuffix("}")) if key.startswith("{") else (key, text)  # the first as in a file
    _check_name(name, text, entries, entry)
    if len(key) == 1 or (name != key and name not in Config.model_fields):  # to Snakemake no name of a value
        read_config({name: value_of(value)}, {name: value})
    if not _KEY.fullmatch(key):
        top, *below = name.split(".")
        if remedy := _of_load(top, below, value):
            raise UserError(f"--config {entry}: {key!r} is no key", remedy)
        nested = "".join(f"{{{part}: " for part in below) + value + "}" * len(below)
        listed = "docs/reference/config.csv lists the keys"
        remedy = f"write --config '{top}={nested}'" if top in Config.model_fields else listed
        raise UserError(f"--config {entry}: {key!r} is no key", remedy)
    first, *more = re.split(rf"[;,\s]\s*(?=(?:{'|'.join(Config.model_fields)})=)", entry)
    if more:
        remedy = f"separate them by spaces: {shlex.join([first, *more])}"
        raise UserError(f"--config {entry}: has several values", remedy)
    if bare := re.search(r"(?<=: )([\w.]+(?:, *[\d.]+)+) *(?=\}|, *[a-z])", text):
        listed = f"{text[: bare.start()]}[{bare[1]}]{text[bare.end() :]}"
        problem = f"--config {entry}: a list of values stands in brackets"
        raise UserError(problem, f"write --config {shlex.quote(f'{key}={listed}')}")
    _check_brackets(key, text)
    check_selection("--config ", key, value_of(text))


def _check_brackets(key: str, text: str) -> None:
    """Refuse a mapping or list that YAML cannot read."""
    if not text.startswith(("{", "[")) or isinstance(value_of(text), dict | list):
        return
    missing = _missing_brackets(text)
    repaired = (
        text + missing,
        _spaced(text) + missing,
        re.sub(r"(?<=\w) (?=\{)", ": ", text) + missing,
        re.sub(r"(: *)(\w+: *[^{},]+)", r"\1{\2}", text) + missing,
    )
    meant = next((one for one in repaired if isinstance(value_of(one), dict | list)), "")
    problem = f"--config {key}={text}: " + ("a bracket is not closed" if missing else "YAML can't read it")
    remedy = f"write --config {shlex.quote(f'{key}={meant}')}" if meant else "write {KEY: VALUE, KEY: {KEY: VALUE}}"
    raise UserError(problem, remedy)


def _missing_brackets(text: str) -> str:
    """Return the closing brackets that `text` lacks at its end."""
    lacking = list[str]()
    for letter in text:
        if letter in "{[":
            lacking.append("}" if letter == "{" else "]")
        elif lacking and letter == lacking[-1]:
            lacking.pop()
    return "".join(reversed(lacking))


def _check_name(name: str, text: str, entries: Sequence[str], entry: str) -> None:
    """Refuse the `entry` of `entries` whose name is none of a key, or that has a key below it and no braces."""
    if name not in Config.model_fields and (remedy := _of_target(entry)):
        raise UserError(f"--config {entry}: {name!r} is no key", _together([remedy, *map(_of_target, entries)]))
    field = Config.model_fields.get(name)
    if field and get_origin(field.annotation) is dict and (inner := re.fullmatch(r"([\w.]+)=([^=]+)", text)):
        meant = shlex.quote(f"{name}={{{inner[1]}: {inner[2]}}}")
        raise UserError(f"--config {entry}: has a value below {name}", f"write --config {meant}")


def _of_load(top: str, below: Sequence[str], value: str) -> str:
    """Return the remedy for a path of keys that means one of a load, as rollout.n does; empty if it means another."""
    field = Config.model_fields.get(top)
    known = {key for model in models_in(field.annotation) for key in model.model_fields} if field else set()
    meant = OTHER_KEYS.get(below[-1], below[-1]) if below else ""
    if top == "workload_settings" and below[:2] == [_first_load(), "online"] and len(below) == 3:
        return _load_with(below[2], value)
    if not below or top in NAMED or top == "sweep" or below[0] in known:
        return ""
    return _load_with(meant, value)


def _load_with(key: str, value: str) -> str:
    """Return the remedy that sets `key` of a load to `value`; empty if no load has it."""
    config = _default()
    name = _first_load()
    settings = (config.get("workload_settings") or {}).get(name) or {}
    online = settings.get("online")
    if key == "prompts" and isinstance(online, Mapping) and "requests" in online:
        key = "requests"  # which decides how many are sent
    is_count = isinstance(_values(value), int | float | list)
    is_online = key in OnlineLoad.model_fields and (is_count or key not in WorkloadSettings.model_fields)
    if not is_online and key not in WorkloadSettings.model_fields:
        return ""
    is_switch = value == "VALUE" and WorkloadSettings.model_fields.get(key, FieldInfo()).annotation is bool
    load = _online(settings, key, _values(value)) if is_online else {key: True if is_switch else typed(value)}
    mode = " 'modes=[online]'" if is_online and not config.get("endpoints") and "online" not in config["modes"] else ""
    return f"write --config {shlex.quote(f'workload_settings={flow({name: load})}')}{mode}"


def _online(load: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return what sets `key` of a load's requests to `value`, with the prompts and the requests that it then needs."""
    online = load.get("online") or {}
    rates, sent = online.get("request_rate"), online.get("requests")
    with_it: dict[str, Any] = {key: value}
    needed = value if key == "requests" else 0
    if key == "duration_s" and isinstance(value, int | float):
        with_it |= {"requests": None} if sent else {}
        if not rates and not online.get("concurrency"):
            rates = with_it["request_rate"] = 4  # a time needs requests that arrive in it
        rates = rates if isinstance(rates, list) else [rates]
        needed = max([rate * value for rate in rates if isinstance(rate, int | float)], default=0)
    elif key == "request_rate" and isinstance(sent, list) and isinstance(value, list):
        longest_s = max((count / rate for count, rate in zip(sent, rates or (), strict=False)), default=0.0)
        with_it["requests"] = [math.ceil(rate * longest_s) for rate in value] if longest_s else max(sent)
        needed = max(value) * longest_s
    elif key in ("concurrency", "request_rate") and isinstance(sent, list):
        with_it["requests"] = max(sent)
    if key == "concurrency" and rates:
        with_it["request_rate"] = "inf"  # no longer when they arrive, but how many at once
    prompts = math.ceil(needed / load.get("samples_per_prompt", 1)) if isinstance(needed, int | float) else 0
    return {**({"prompts": prompts} if prompts > load.get("prompts", prompts) else {}), "online": with_it}


def _values(text: str) -> Any:
    """Return the number or word in `text`, or the list of several numbers."""
    several = re.fullmatch(r"\[?([\d.]+(?:, ?[\d.]+)+)\]?", text)
    return [typed(one) for one in several[1].replace(" ", "").split(",")] if several else typed(text)


def _meant(place: int, entries: Sequence[str]) -> str:
    """Return the remedy for the entry at `place` of those after --config, which has no =."""
    before, (entry, *later) = ["", *entries[:place]], entries[place:]
    if before[-1].endswith("=") or (later and later[0].startswith("=")):
        return "write name=value without spaces around ="
    key, colon, value = entry.partition(":")
    if colon and value and _KEY.fullmatch(key):
        return f"did you mean {shlex.quote(f'{key}={value}')}?"
    if later and key in Config.model_fields and "=" not in later[0]:
        ends = (" ".join(later[:end]) for end in range(1, len(later) + 1))
        whole = next((text for text in ends if not _open_brackets(text)), later[0])
        return f"did you mean {shlex.quote(f'{key}={whole}')}?"
    if entry.endswith((".yaml", ".yml")):
        return f"write --configfile {shlex.quote(entry)}"
    return "write name=value, and a target before --config"


def _refuse_option(problem: str, words: Sequence[str]) -> NoReturn:
    """Raise `UserError` for an unknown option of `words`; suggest --config if its value has the form KEY=VALUE."""
    ambiguous = re.fullmatch(r"ambiguous option: (\S+) could match (.*)", problem)
    close = near_miss(ambiguous[1], ambiguous[2].split(", ")) if ambiguous else None
    remedy = f"did you mean '{close}'?" if close else "`snakemake --help` lists the options"
    value = _value_of(problem, words)
    if value.endswith((".yaml", ".yml")):
        remedy = f"write --configfile {shlex.quote(value)}"
    raise UserError(problem, f"write --config {shlex.quote(value)}" if _is_value(value) else remedy) from None


def _check_options(words: Sequence[str]) -> Sequence[str]:
    """Check the options in `words` with Snakemake's own parser; return the targets."""
    from snakemake.cli import get_argument_parser, parse_cores, parse_jobs  # loads all plugins: a second
    from snakemake.exceptions import CliException, ResourceError, WorkflowError

    parser = get_argument_parser()
    parser.exit_on_error = False
    parser.error = partial(_refuse_option, words=words)  # its own prints the whole usage
    known = [name for action in parser._actions for name in action.option_strings]
    _check_spelling(words, known)
    try:
        given, others = parser.parse_known_args(list(words))
        for value, parse in ((given.cores, parse_cores), (given.jobs, parse_jobs)):
            if value is not None:
                parse(value)
    except (argparse.ArgumentError, CliException, WorkflowError) as error:
        _refuse_option(str(error), words)
    except (KeyError, ValueError, ResourceError) as error:  # of Snakemake's own readers, without the option's name
        _refuse_option(f"the value of an option can't be read: {error}", words)
    for option, profiles in (("--profile", given.profile), ("--workflow-profile", given.workflow_profile)):
        for profile in [profiles] if isinstance(profiles, str) else profiles or ():
            _check_profile(option, profile)
    _check_known(others, words, known)
    return list(given.targets)


_MISSPELT = 0.75
"""Similarity to an option from which on another is its misspelling."""


def _check_spelling(words: Sequence[str], known: Sequence[str]) -> None:
    """Refuse options with one dash, and those of other programs, of which Snakemake's parser takes some for its own."""
    for word in filter(_LONG.fullmatch, words):
        option = word.partition("=")[0]
        if f"-{option}" in known:
            raise UserError(f"{option}: there is no such option", f"write two dashes: -{option}")
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("-") and option[1:] in SHORT:  # vLLM's; to Snakemake -tp is -t -p
            raise UserError(f"{word}: there is no such option", _below(f"-{word}", word, words))
        if option == "--mode" and (mode := _value_after(word, words)) in MODES:
            raise UserError("--mode: to Snakemake it is how a process was started", f"write --config 'modes=[{mode}]'")
    theirs = [word for word in words if word.partition("=")[0] not in known or _is_guidellms(word, words)]
    remedies = {word: remedy for word in theirs if (remedy := _foreign(word, words))}
    if remedies:
        first = next(iter(remedies))
        option = first.partition("=")[0]
        is_key = option.lstrip("-").replace("-", "_") in Config.model_fields
        problem = f"{option}: is a key of the config" if is_key else f"{option}: there is no such option"
        if _is_guidellms(first, words):
            problem = f"--profile {_value_after(first, words)}: is a profile of guidellm's"
        raise UserError(problem, _together([*remedies.values()]))


def _is_guidellms(word: str, words: Sequence[str]) -> bool:
    """Return whether an option of Snakemake has a value of guidellm's."""
    return word.partition("=")[0] == "--profile" and _value_after(word, words) in PROFILES


def _foreign(word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option of other programs; empty if it is none that is known."""
    option = word.partition("=")[0]
    if any(other.partition("=")[0] in _WITH.get(option, ()) for other in words):
        return ""  # a part of that one
    if option in (*_FORMS, "--endpoint") and "chat" in _value_after(word, words):
        return _load_with("api", "chat")
    if option == "--host" and not (_default().get("endpoints") or _address("host", _value_after(word, words), words)):
        return _A_SERVER
    is_named = option.startswith("--") or option == "-u"
    return _OF_OTHERS.get(option) or (_below(option, word, words) if is_named else "")


_WRITE = re.compile(r"(.*?(?:write|did you mean) `?)--config (.*?)(`?\??)", re.DOTALL)
"""A remedy that gives values: what stands before and after them."""


def _together(remedies: Sequence[str], kept: Sequence[str] = ()) -> str:
    """Return the first of `remedies`, with the values of the others if each is a value to write.

    `kept` has entries that stand after --config already; remedies go before them.
    """
    first = _WRITE.fullmatch(remedies[0])
    if first is None:
        return remedies[0]
    found = [shlex.split(each[2]) for one in dict.fromkeys(remedies) if (each := _WRITE.fullmatch(one))]
    if len(found) < 2 and not kept:
        return remedies[0]
    merged: dict[str, Any] = {}
    # those with more keys first: others may say what these only derive
    found.sort(key=lambda given: -sum(entry.count(":") for entry in given))
    try:
        for key, _, text in (entry.partition("=") for given in ([*kept], *found) for entry in given):
            update_config(merged, {key: yaml.safe_load(text)})
    except yaml.YAMLError:  # of another entry
        return remedies[0]
    for load in (merged.get("workload_settings") or {}).values():
        if isinstance(online := load.get("online"), dict) and online.get("duration_s") is not None:
            online["requests"] = None  # which its duration decides
    return f"{first[1]}--config {entries_of(merged)}{first[3]}"


def entries_of(config: Mapping[str, Any]) -> str:
    """Return the entries after --config that give `config`, as a shell takes them."""
    texts = (f"{key}={flow(value)}" for key, value in config.items())
    # in the shell's single quotes, double ones read best
    return shlex.join(text if '"' in text else text.replace("'", '"') for text in texts)


def _with_rest(remedy: str, words: Sequence[str], entries: Sequence[str]) -> str:
    """Return `remedy` with all else that `words` ask for, if it gives values; `entries` stand after --config."""
    found = _WRITE.fullmatch(remedy)
    given = {entry.partition("=")[0]: entry for entry in (shlex.split(found[2]) if found else ())}
    kept = []
    for entry in entries:
        name, _, text = entry.partition("=")
        key = name if name in Config.model_fields else None
        if key is None and text and _KEY.fullmatch(name):
            key = near_miss(name, Config.model_fields)
        text = _spaced(text) if text.startswith("{") else text
        # an entry of the same key is the one that the remedy mends, or it stands in the remedy
        if key and (key not in given or _agrees(text, given[key])):
            kept.append(f"{key}={text}")
    options = [word for word in words if word.startswith("-") and not _is_of_snakemake(word)]
    more = [one for word in options if (one := _foreign(word, words) or _of_close_key(word, words))]
    if found is None:
        has_more = remedy.startswith("write `rollout-bench init") and len({*more, *kept} - {remedy})
        return f"{remedy}; type the rest in its folder" if has_more else remedy
    return _together([remedy, *more], kept)


def _is_of_snakemake(word: str) -> bool:
    return word.partition("=")[0] in (*_LISTS["--config"], *_LISTS["--configfile"], "-n", "--dry-run", "--cores", "-c")


def _agrees(text: str, meant: str) -> bool:
    """Return whether a mapping in `text` has no key that the remedy's entry `meant` has not, or has otherwise."""
    before, after = (value_of(one) for one in (text, meant.partition("=")[2]))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return False
    return not {place for place, _ in flat(before)} & {place for place, _ in flat(after)}


def _check_known(others: Sequence[str], words: Sequence[str], known: Sequence[str]) -> None:
    """Refuse the first option of `others`, which is none of the `known`."""
    for word in others:
        option = word.partition("=")[0]
        if option.startswith("-"):
            close = near_miss(option.replace("_", "-"), [*known, *_OF_KEYS, "--deep"], _MISSPELT)
            listed = "`rollout-bench plan --help` lists the options; keys of a config stand after --config"
            remedy = f"did you mean '{close}'?" if close else listed
            value = _value_after(word, words)
            if close in _OF_KEYS:
                remedy = _of_close_key(word, words)
            elif value.endswith((".yaml", ".yml")) and close not in _LISTS["--configfile"]:
                remedy = f"write --configfile {shlex.quote(value)}"
            raise UserError(f"{option}: there is no such option", remedy)


_OF_KEYS = {f"--{key.replace('_', '-')}": key for key in Config.model_fields}
"""Options that each key of a config would be -> the key."""


def _of_close_key(word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option that is a misspelt key of the config; empty for others."""
    close = near_miss(word.partition("=")[0].replace("_", "-"), _OF_KEYS, _MISSPELT)
    if close is None:
        return ""
    return f"did you mean `--config {shlex.quote(f'{_OF_KEYS[close]}={_as_typed(_OF_KEYS[close], word, words)}')}`?"


def _selected(key: str, value: str, words: Sequence[str]) -> str:
    """Return the remedy for an option of other programs that names a model, quantization or load; empty for others."""
    if key in NOT_MEASURED:
        return NOT_MEASURED[key]
    if key in ("dtype", "quant", "quantization"):
        meant = (re.findall(r"'([\w-]+)'", OTHER_QUANTS.get(one.lower(), f"'{one}'")) for one in _NAME.findall(value))
        names = [name for found in meant for name in found]
        return f"write --config 'quants=[{', '.join(dict.fromkeys([*_beside(names[0]), *names]))}]'"
    servers = list(_default().get("endpoints") or ())
    if servers and key in {*Endpoint.model_fields} - {"url"}:
        return f"write --config {entries_of({'endpoints': {servers[0]: {key: value}}})}"
    if key == "model" and value in (_default().get("model_settings") or ()):
        return f"write --config 'models=[{value}]'"
    place = value if value.startswith(("/", "~", "./")) else f"hub:{path}" if (path := hub_name(value)) else ""
    if key in ("model", "models") and place and (name := name_made_of(place.removeprefix("hub:"))):
        return f"write --config 'models=[{name}]' 'model_settings={{{name}: {{weights: {{bf16: {place}}}}}}}'"
    if key in _DATA:
        lengths = _lengths(value, words)
        load = lengths or f"dataset: {{{_file(value, words)}}}"
        begin = "write" if lengths else "docs/loads.md has the formats: write"
        return f"{begin} --config 'workload_settings={{{_first_load()}: {{{load}}}}}'"
    if key in ("profile", "rate_type") and value in PROFILES:
        rate, (pacing, usual) = _value_after("--rate", words), next(iter(PROFILES[value].items()))
        is_usual = value == "sweep" or isinstance(_values(rate), str)  # a sweep's rate is the number of its loads
        remedy = _load_with(pacing, str(usual) if is_usual else rate)
        return _together([remedy, _load_with("burstiness", value)]) if value == "constant" else remedy
    return ""


def _lengths(value: str, words: Sequence[str]) -> str:
    """Return the lengths that guidellm's --data or vllm bench's random data set has; empty for another data set."""
    found = {str(name): str(count) for name, count in load_in(value).items()}
    if value == "random":
        for name, side, usual in (("prompt_tokens", "input", "1024"), ("output_tokens", "output", "128")):
            given = _value_after(f"--random-{side}-len", words)
            found[name] = usual if given == "VALUE" else given
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def _file(value: str, words: Sequence[str]) -> str:
    """Return the keys of a data set that options of vllm bench or guidellm name."""
    path = _value_after("--dataset-path", words)
    named = (form for form in get_args(get_args(DatasetFormat)[0]) if form in f"{value} {path}".lower())
    return f"format: {next(named, 'prompts')}, path: {path if path != 'VALUE' else value if '.' in value else 'FILE'}"


def _first_load() -> str:
    """Return the name of the first load of this folder's config."""
    return str(next(iter(_default().get("workloads") or ["demo"])))


def _below(option: str, word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option whose value a config has under another name or key; else nothing."""
    key, value = option.lstrip("-").replace("-", "_"), _value_after(word, words)
    meant = OTHER_KEYS.get(key, key)
    if selected := _selected(key, value, words):
        return selected
    if "slo" in (key, meant):
        limits = dict(re.findall(r"(ttft|tpot|e2el)\w*[:=]([0-9.]+)", " ".join(words)))
        return f"write --config 'slo={{{', '.join(f'{name}_ms: {limit}' for name, limit in limits.items())}}}'"
    if key in Config.model_fields:
        return f"write --config {shlex.quote(f'{key}={_as_typed(key, word, words)}')}"
    if url := _address(key, value, words):
        return _at_server(url, _value_after("--model", words))
    if meant == "seed":  # of vllm bench: of prompts and arrivals
        return _load_with(meant, value)
    meant = meant.removeprefix("no_")
    if meant in ENGINE_ARGS:
        return _engine_arg(meant, value, is_off=key.startswith("no_"))
    if meant == "lora" and not value.startswith("{"):
        ranks = (_value_after(word, words) for word in words if word.partition("=")[0] in _RANKS)
        return f"write --config 'lora={{rank: {next(ranks, 16)}}}'"
    if meant in Config.model_fields:
        return f"write --config {shlex.quote(f'{meant}={_as_typed(meant, word, words)}')}"
    paths = [key.path.split(".") for key in keys_of(Config) if key.path.endswith(f".{meant}") and "[" not in key.path]
    paths = [path for path in paths if not {*NAMED, "baseline"} & {*path}]
    if len(paths) == 1 and meant not in WorkloadSettings.model_fields:
        (top, *inner) = paths[0]
        nested = "".join(f"{{{part}: " for part in inner) + value + "}" * len(inner)
        return f"write --config {shlex.quote(f'{top}={nested}')}"
    return _load_with(meant, value)


def _engine_arg(name: str, value: str, *, is_off: bool) -> str:
    """Return the remedy for an argument of the engine, of which `is_off` switches a switch off."""
    if _default().get("endpoints") and not _default().get("models"):
        return "leave it out: a server has the engine arguments that it was started with"
    is_switch = re.match("enable_|disable_|enforce_|trust_|async_", name) and value == "VALUE"
    value = str(not is_off).lower() if is_switch else value
    if isinstance(several := _values(value), list):
        return f"write --config {shlex.quote(f'sweep={flow({name: several})}')}"
    return f"write --config {shlex.quote(f'engine_args={{{name}: {value}}}')}"


def _at_server(url: str, model: str) -> str:
    """Return the remedy that names a server and its model, which is VALUE if no option does."""
    server = {"url": url} if model == "VALUE" else {"url": url, "model": model}
    if known := list(_default().get("endpoints") or ()):
        return f"write --config {entries_of({'endpoints': {known[0]: server}})}"
    return f"write `rollout-bench init --from endpoint {shlex.join(server.values())}`, which writes config.yaml"


def _address(key: str, value: str, words: Sequence[str]) -> str:
    """Return the address of a server that an option of other programs names; empty for others."""
    if key == "host" and value != "VALUE":
        port = _value_after("--port", words)
        value = value if port == "VALUE" else f"{value}:{port}"
    is_address = re.match("https?://", value) or (key in _ADDRESSES and re.fullmatch(r"[\w.-]+:\d+(/.*)?", value))
    return api_meant(value if "://" in value else f"http://{value}") if is_address else ""


def _check_profile(option: str, name: str) -> None:
    """Refuse a profile that is nowhere; the package's are named by their folder."""
    from snakemake.cli import get_profile_dir

    places = [name, str(Path("profiles") / name)] if option == "--workflow-profile" else [name]
    if name == "none" or any(map(get_profile_dir, places)):
        return
    folders = {path.name: path for path in (home() / "profiles").iterdir()}
    close = near_miss(Path(name).name, folders)
    listed = "name a folder that has a config.yaml; docs/clusters.md shows one for Slurm"
    remedy = f"did you mean {option} {os.path.relpath(folders[close])}?" if close else listed
    raise UserError(f"{option} {name}: there is no such profile", remedy)


def _value_of(problem: str, words: Sequence[str]) -> str:
    """Return the value of the first option that `problem` names and `words` have."""
    named = re.findall(r"(?<![\w-])--?[\w-]+", problem)
    return next((_value_after(word, words) for word in words if word.partition("=")[0] in named), "")


def _as_typed(key: str, word: str, words: Sequence[str]) -> str:
    """Return the value after the option `word` as the config's `key` takes it: a list in brackets."""
    value = _value_after(word, words)
    annotation = Config.model_fields[key].annotation
    is_list = any(get_origin(one) is list for one in (annotation, *get_args(annotation)))
    if not is_list or value in ("VALUE", AUTO) or value.startswith("["):
        return value
    more = [] if "=" in word else words[words.index(word) + 2 :]
    return f"[{', '.join([value, *itertools.takewhile(lambda other: not other.startswith('-'), more)])}]"


def _value_after(word: str, words: Sequence[str]) -> str:
    """Return the value of an option, which `word` has or the next of `words` is; VALUE if there is none to repeat."""
    _, equals, value = word.partition("=")
    if not equals:
        value = next(iter(words[words.index(word) + 1 :]), "") if word in words else ""
    return "VALUE" if not value or value.startswith("-") or looks_secret(value) else value


def _open_brackets(text: str) -> bool:
    return sum(map(text.count, "[{")) > sum(map(text.count, "]}"))


def read_call(words: Sequence[str]) -> Call:
    """Return what the arguments `words` of a call give, as Snakemake reads them; raise what its parser raises.

    Raises:
        UserError: a config file is neither in this folder nor in the package.
    """
    words = with_shipped(words)
    return _plain_call(words) or _parsed(words)


def with_shipped(words: Sequence[str]) -> list[str]:
    """Return the arguments `words`, with the path of each config file that the package has and this folder lacks.

    Raises:
        UserError: a config file is in neither.
    """
    found: list[str] = []
    follows = False
    for place, word in enumerate(words):
        option, equals, file = word.partition("=")
        if word.startswith("-"):
            follows = option in ("--configfile", "--configfiles")
            found.append(f"{option}={config_file(file)}" if follows and equals else word)
        else:
            if follows and word.startswith("results/") and not os.path.exists(word):  # noqa: PTH110 (as typed)
                others = [*words[:place], *words[place + 1 :]]
                typed = shlex.join([word, *others])
                raise UserError(f"{word}: is a target, and stands among the config files", f"put it first: {typed}")
            found.append(str(config_file(word)) if follows else word)
    return found


def load(path: Path) -> dict[str, Any]:
    """Return the config in a file as Snakemake reads it; raise what it raises."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("{") and "__use_yte__" not in text:
            content = yaml.load(text, getattr(yaml, "CFullLoader", yaml.FullLoader))
            if isinstance(content, dict):
                return content
    from snakemake.common.configfile import load_configfile  # JSON, a template or no config; loads numpy

    return dict(load_configfile(str(path)))


def _plain_call(words: Sequence[str]) -> Call | None:
    """Return the call if it has no arguments but those of a config, and no profile changes them; None if unsure."""
    try:
        given, others = _parser().parse_known_args(words)
    except argparse.ArgumentError:
        return None
    if others or "SNAKEMAKE_PROFILE" in os.environ or any(map(_says_more, _PROFILES)):
        return None
    config: dict[str, Any] = {}
    for entry in given.config:
        key, equals, text = entry.partition("=")
        if not equals or not _KEY.fullmatch(key):
            return None
        update_config(config, {key: value_of(text.strip("'\""))})
    return Call(config, [path.absolute() for path in given.configfile], given.directory)


def _parser() -> argparse.ArgumentParser:
    """Return a parser of the arguments that give a config."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-C", nargs="*", default=[])
    parser.add_argument("--configfile", "--configfiles", nargs="+", type=Path, default=[])
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    return parser


def _says_more(profile: Path) -> bool:
    if not profile.exists():
        return False
    try:
        return not profile.is_dir() or any(_MORE.search(file.read_text()) for file in profile.glob("*.yaml"))
    except (OSError, ValueError):
        return True


def value_of(text: str) -> Any:
    """Return the value in `text` of an argument --config, as `snakemake.cli.parse_config` does."""
    if not text:
        return None
    for reader in (int, float, {"True": True, "False": False}.__getitem__, _yaml):
        with suppress(ValueError, KeyError, yaml.YAMLError, RecursionError):
            return reader(text)
    return text


def _yaml(text: str) -> Any:
    return yaml.load(text, yaml.BaseLoader)


def _parsed(words: Sequence[str]) -> Call:
    from snakemake.cli import parse_args, parse_config

    _, given = parse_args(list(words))
    files = [path.absolute() for path in given.configfile or []]
    folder = given.directory or Path()
    return Call(parse_config(given.config), files, folder, given.jobs is not None, bool(given.replace_workflow_config))
