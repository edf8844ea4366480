"""Checks of the arguments of a call, on whose mistakes Snakemake ends with a traceback or its whole usage."""

import argparse
import itertools
import os
import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, get_origin

import yaml

from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.places import config_file, home
from rollout_bench.core.yaml_files import TWICE, flow, value_in
from rollout_bench.plan.checks import SHORT
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import (
    OF_TRAINERS,
    OTHER_KEYS,
    RESULTS_ELSEWHERE,
    RESULTS_FOLDERS,
    check_config_file,
    check_selection,
    read_config,
)
from rollout_bench.plan.quants import known_quants
from rollout_bench.rules.arguments import KEY, parser, value_of, with_shipped
from rollout_bench.rules.entries import entries_of, folder_config
from rollout_bench.rules.remedies import (
    LISTS,
    MISSPELT,
    OF_KEYS,
    foreign,
    gives_values,
    is_guidellms,
    is_of_snakemake,
    is_part,
    is_value,
    missing_brackets,
    of_close_key,
    of_load,
    of_option,
    of_path,
    of_target,
    selecting,
    spaced,
    takes_list,
    together,
    value_after,
    values,
    with_rest,
)

_RULES = ("all", "measure", "checkpoint", "round", "summary")
"""Rules of the workflow, of which Snakemake says itself if they have no name to make."""


_SUMMARIES = [f"results/summary.{end}" for end in ("csv", "html", "json", "md", "txt")]
"""Files that are made for whoever calls; what else a run makes is below the folders of `_MADE`."""


_MADE = ("results/figures", "results/summaries/", "results/blocks/")


_LONG = re.compile(r"-[A-Za-z]\w[\w-]+(=.*)?")
"""One dash before what may be the name of a long option."""


def _check_target(word: str, words: Sequence[str]) -> None:
    if remedy := of_target(word):
        kind = "a value of the config" if is_value(word.lstrip("+")) else "a value"
        values = [other for other in words if "=" in other and not other.startswith("-")]
        raise UserError(
            f"{word}: is {kind}, not a target{_without_key(values)}", together([remedy, *map(of_target, words)])
        )
    if word.endswith((".yaml", ".yml")) and not word.startswith("results/"):
        config_file(word)
        raise UserError(f"{word}: is no target", f"write --configfile {shlex.quote(word)}")


def _without_key(values: Sequence[str]) -> str:
    """Return in words which of `values`, as NAME=VALUE, no key has; empty if each has one."""
    lost = [value for value in values if not of_target(value)]
    return f", and no key has {', '.join(lost)}" if lost else ""


def _check_made(target: str, words: Sequence[str]) -> None:
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
    remedy = f"did you mean {close}?" if close else selecting(target, words) or known
    raise UserError(f"{target}: is no target", remedy)


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
    _check_files(words)
    try:
        given, others = parser().parse_known_args(with_shipped(words))
    except argparse.ArgumentError as error:
        raise UserError(str(error), "give a value, or leave the option out") from None
    try:
        _check_words(words, given, others)
    except UserError as error:
        files = ["--configfile", *map(str, given.configfile)] if given.configfile else []
        dry = [word for word in words if word in ("-n", "--dry-run")]
        before = [*dry, *(word for word in others if word.startswith("results/")), *files]
        entries = [one for one in (*given.config, *filter(is_value, others)) if not _is_told(one, error.problem)]
        remedy = with_rest(error.remedy, words, entries, before, given.configfile)
        raise UserError(error.problem, remedy, error.status) from None


def _is_told(entry: str, problem: str) -> bool:
    """Return whether a problem is that of an entry, or of several with its path of keys."""
    name = entry.partition("=")[0]
    return f" {entry}:" in problem or ("." in name and f" {name}=" in problem)


def _check_words(words: Sequence[str], given: argparse.Namespace, others: Sequence[str]) -> None:
    _check_results(words)
    for option, forms in LISTS.items():
        if sum(word.partition("=")[0] in forms for word in words) > 1:
            raise UserError(
                f"{option}: stands twice, and Snakemake takes the last only", f"write all after one {option}"
            )
    of_vllm = (word for word in words if word.partition("=")[0][1:] in SHORT)  # of which -dp is -d p
    options = {word for word in (*others, *of_vllm, *filter(_LONG.fullmatch, words)) if word.startswith("-")}
    targets = _check_options(words) if options - {"-n", "--dry-run"} else others
    _check_folder(given.directory)
    for word in others:
        _check_target(word, others)
    for target in targets if _is_our_workflow(words) else ():
        if not target.startswith("-"):
            _check_made(target, words)
    for file in given.configfile:
        check_config_file(file)
    ends = (entry for entry in given.config if entry.endswith(",") and "=" in entry and not _open_brackets(entry))
    if listed := next(ends, ""):
        if whole := _unbracketed(listed, given.config):
            raise UserError(f"--config {listed}: a list stands in brackets", f"write --config {shlex.quote(whole)}")
        plain = shlex.join(entry.rstrip(",") if "=" in entry else entry for entry in given.config)
        raise UserError(f"--config {listed}: ends with a comma", f"write --config {plain}")
    _check_shell(given.config)
    for place in range(len(given.config)):
        _check_entry(place, given.config)


def _unbracketed(begin: str, entries: Sequence[str]) -> str:
    """Return the list that the entry `begin` and those after it are without brackets; empty if there are none."""
    key, _, first = begin.partition("=")
    after = itertools.takewhile(lambda entry: "=" not in entry, entries[[*entries].index(begin) + 1 :])
    several = [one for entry in (first, *after) for one in entry.split(",") if one]
    is_list = takes_list(key) and len(several) > 1 and not first.startswith("[")
    return f"{key}=[{', '.join(several)}]" if is_list else ""


def _check_files(words: Sequence[str]) -> None:
    """Refuse values among the files after --configfile."""
    first = next((place for place, word in enumerate(words, 1) if word in LISTS["--configfile"]), len(words))
    after = list(itertools.takewhile(lambda word: not word.startswith("-"), words[first:]))
    if entries := list(filter(is_value, after)):
        files = shlex.join(word for word in after if word not in entries)
        raise UserError(
            f"{entries[0]}: is a value of the config, and stands among the config files",
            f"write --configfile {files} --config {shlex.join(entries)}",
        )


def _check_shell(entries: Sequence[str]) -> None:
    """Check that the shell left the entries after --config as they were typed, and that each names another key."""
    joined = _joined(entries)
    for whole in joined:
        if whole not in entries and whole.count("=") == 1 and not _open_brackets(whole):
            _check_separators(*whole.split("=", 1))
            remedy = f"quote it: --config {shlex.join(joined)}"
            raise UserError(f"--config {whole}: the shell splits it at its spaces", remedy)
    names = [entry.partition("=")[0] for entry in entries if "=" in entry]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is None:
        return
    values = [entry.partition("=")[2] for entry in entries if entry.startswith(f"{twice}=")]
    if typed_text := _in_braces(values):
        raise UserError(
            f"--config {twice}={{...}}: the shell makes several words of braces that are not quoted",
            of_path(twice.split("."), typed_text, entries),
        )
    raise UserError(f"--config {twice}: stands twice, and Snakemake takes the last only", "write it once")


def _joined(entries: Sequence[str]) -> list[str]:
    """Return `entries` with those put together that the shell has split at the spaces in their brackets."""
    joined = list[str]()
    for entry in entries:
        if joined and _open_brackets(joined[-1]):
            joined[-1] += f" {entry}"
        else:
            joined.append(entry)
    return joined


def _in_braces(values: Sequence[str]) -> str:
    """Return the YAML of which the shell's brace expansion made `values`; empty if it is none."""
    begin = os.path.commonprefix(values)  # noqa: RUF071 (of texts)
    begin = begin[: max(map(begin.rfind, ":{[")) + 1]
    ends = [re.search(r"[\]}]*$", value) for value in values] if "{" in begin else []
    end = min((found[0] for found in ends if found), key=len, default="")
    inner = ",".join(value.removeprefix(begin).removesuffix(end) for value in values)
    whole = f"{begin}{{{inner}}}{end}" if ":" in inner else f"{begin}[{inner}]{end}"
    meant = spaced(whole)
    try:
        content = yaml.safe_load(meant)
    except yaml.YAMLError:
        return ""
    is_list = isinstance(content, list) and not any(map(str.isdecimal, values))
    return flow(content) if is_list or (isinstance(content, dict) and None not in content.values()) else ""


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
    if key != key.strip():
        raise UserError(
            f"--config {entry!r}: has spaces around =", f"write --config {shlex.quote(f'{key.strip()}={text.strip()}')}"
        )
    if key.endswith("+") and takes_list(key[:-1]):  # as a shell adds to a variable
        whole = [*(folder_config().get(key[:-1]) or ()), *text.strip("[]").split(",")]
        raise UserError(f"--config {entry}: += adds nothing here", f"write --config {entries_of({key[:-1]: whole})}")
    if key.startswith("+"):  # as hydra adds keys
        raise UserError(f"--config {entry}: a key has no + here", f"write --config {shlex.quote(entry.lstrip('+'))}")
    name, value = (key[1:], text.removesuffix("}")) if key.startswith("{") else (key, text)  # the first as in a file
    _check_name(name, text, entries, entry)
    if len(key) == 1 or (name != key and name not in Config.model_fields):  # to Snakemake no name of a value
        read_config({name: value_of(value)}, {name: value})
    if not KEY.fullmatch(key):
        top, *below = name.split(".")
        if remedy := of_load(top, below, value):
            raise UserError(f"--config {entry}: {key!r} is no key", remedy)
        listed = "`rollout-bench keys` lists the keys"
        if OF_TRAINERS.get(top) == "verl":
            listed = (
                f"in an empty folder, `rollout-bench init --from verl {shlex.join(entries)}` makes config.yaml of them"
            )
        remedy = of_path([top, *below], value, entries) if top in Config.model_fields else listed
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
    _check_separators(key, text)
    check_selection("--config ", key, value_of(text))


def _check_brackets(key: str, text: str) -> None:
    """Refuse a mapping or list that YAML cannot read, or in which a key stands twice."""
    if not text.startswith(("{", "[")):
        return
    if isinstance(value_of(text), dict | list):
        try:
            value_in(text)
        except yaml.MarkedYAMLError as error:
            if str(error.problem).endswith(TWICE):
                raise UserError(f"--config {key}={text}: {error.problem}", "leave one of the two out") from None
        return
    missing = missing_brackets(text)
    repaired = (
        text + missing,
        spaced(text) + missing,
        re.sub(r"(?<=\w) (?=\{)", ": ", text) + missing,
        re.sub(r"(: *)(\w+: *[^{},]+)", r"\1{\2}", text) + missing,
    )
    meant = next((one for one in repaired if isinstance(value_of(one), dict | list)), "")
    problem = f"--config {key}={text}: " + ("a bracket is not closed" if missing else "YAML can't read it")
    remedy = f"write --config {shlex.quote(f'{key}={meant}')}" if meant else "write {KEY: VALUE, KEY: {KEY: VALUE}}"
    raise UserError(problem, remedy)


def _check_separators(key: str, text: str) -> None:
    """Refuse a list without commas, and a mapping with = in place of colons, which YAML reads as one text."""
    if not text.startswith(("{", "[")):
        return
    content = value_of(text)
    if isinstance(content, dict) and any(":" in name and not value for name, value in flat(content)):
        remedy = f"write --config {shlex.quote(f'{key}={spaced(text)}')}"
        raise UserError(f"--config {key}={text}: a space follows a colon", remedy)
    meant = re.sub(r"\[([\w.-]+(?: +[\w.-]+)+)\]", lambda found: f"[{', '.join(found[1].split())}]", text)
    meant = re.sub(r"([{,] *\w+)=(?=[\w\[{.-])", r"\1: ", meant)
    problem = "has = in place of a colon" if "=" in text else "a list has commas"
    if takes_list(key) and re.fullmatch(r"\{[\w, .-]+\}", meant):
        meant, problem = f"[{meant[1:-1]}]", "is no list"
    if meant != text and isinstance(value_of(meant), dict | list):
        raise UserError(f"--config {key}={text}: {problem}", f"write --config {shlex.quote(f'{key}={meant}')}")


def _check_name(name: str, text: str, entries: Sequence[str], entry: str) -> None:
    """Refuse the `entry` of `entries` whose name is none of a key, or that has a key below it and no braces."""
    if name.partition(".")[0] not in Config.model_fields and (remedy := of_target(entry)):
        others = [
            one for one in entries if "=" in one and one.partition("=")[0].partition(".")[0] not in Config.model_fields
        ]
        problem = f"--config {entry}: {name!r} is no key{_without_key(others)}"
        raise UserError(problem, together([remedy, *map(of_target, entries)]))
    field = Config.model_fields.get(name)
    if field and get_origin(field.annotation) is dict and (inner := re.fullmatch(r"([\w.]+)=([^=]+)", text)):
        meant = shlex.quote(f"{name}={flow({inner[1]: values(inner[2])})}")
        raise UserError(f"--config {entry}: has a value below {name}", f"write --config {meant}")


def _meant(place: int, entries: Sequence[str]) -> str:
    """Return the remedy for the entry at `place` of those after --config, which has no =."""
    before, (entry, *later) = ["", *entries[:place]], entries[place:]
    if before[-1].endswith("=") or (later and later[0].startswith("=")):
        return "write name=value without spaces around ="
    if entry.startswith("~"):  # as hydra removes keys
        return "leave it out: no key is removed here, and KEY=null takes the value of some back"
    key, colon, value = entry.partition(":")
    if colon and value and KEY.fullmatch(key):
        return f"did you mean {shlex.quote(f'{key}={value}')}?"
    if later and key in Config.model_fields and not later[0].startswith(("[", "{")) and "=" not in "".join(later):
        return f"write --config {shlex.quote(_unbracketed(f'{key}=', [f'{key}=', *later]) or f'{key}={later[0]}')}"
    if later and key in Config.model_fields and "=" not in later[0]:
        ends = (" ".join(later[:end]) for end in range(1, len(later) + 1))
        whole = next((text for text in ends if not _open_brackets(text)), later[0])
        return f"did you mean {shlex.quote(f'{key}={whole}')}?"
    if entry.endswith((".yaml", ".yml")):
        return f"write --configfile {shlex.quote(entry)}"
    if "=" in before[-1] and (whole := _unbracketed(before[-1], entries)):
        return f"write --config {shlex.quote(whole)}"
    return "write name=value, and a target before --config"


def _refuse_option(problem: str, words: Sequence[str]) -> NoReturn:
    """Raise `UserError` for an unknown option of `words`; suggest --config if its value has the form KEY=VALUE."""
    ambiguous = re.fullmatch(r"ambiguous option: (\S+) could match (.*)", problem)
    close = near_miss(ambiguous[1], ambiguous[2].split(", ")) if ambiguous else None
    remedy = f"did you mean '{close}'?" if close else "`snakemake --help` lists the options"
    value = _value_of(problem, words)
    if value.endswith((".yaml", ".yml")):
        remedy = f"write --configfile {shlex.quote(value)}"
    raise UserError(problem, f"write --config {shlex.quote(value)}" if is_value(value) else remedy) from None


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


def _check_short(words: Sequence[str]) -> None:
    """Refuse short options of other programs, which Snakemake has with another meaning, and --mode."""
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("-") and option[1:] in SHORT:  # vLLM's; to Snakemake -tp is -t -p
            raise UserError(f"{word}: there is no such option", of_option(f"-{option}", word, words))
        if (level := re.fullmatch(r"-O([0-3]?)", option)) and (level[1] or value_after(word, words) in "0123"):
            number = level[1] or value_after(word, words)
            remedy = f"write --config 'engine_args={{optimization_level: {number}}}'"
            raise UserError(f"{word}: is --omit-from to Snakemake, not vLLM's level of optimization", remedy)
        if word == "-t" and "://" in value_after(word, words):
            raise UserError("-t: is --touch to Snakemake", of_option("--target", word, words))
        if word == "-q" and value_after(word, words) in known_quants({}):
            raise UserError("-q: is --quiet to Snakemake", of_option("--quants", word, words))
        if option == "--mode" and (mode := value_after(word, words)) in MODES:
            raise UserError("--mode: to Snakemake it is how a process was started", f"write --config 'modes=[{mode}]'")


def _check_spelling(words: Sequence[str], known: Sequence[str]) -> None:
    """Refuse options with one dash, and those of other programs, some of which are also Snakemake's."""
    for word in filter(_LONG.fullmatch, words):
        option = word.partition("=")[0]
        if f"-{option}" in known:
            raise UserError(f"{option}: there is no such option", f"write two dashes: -{option}")
    _check_short(words)
    theirs = [word for word in words if word.partition("=")[0] not in known or is_guidellms(word, words)]
    remedies = {word: remedy for word in theirs if (remedy := foreign(word, words))}
    if remedies:
        first = next(iter(remedies))
        option = first.partition("=")[0]
        is_key = option.lstrip("-").replace("-", "_") in Config.model_fields
        problem = f"{option}: is a key of the config" if is_key else f"{option}: there is no such option"
        if is_guidellms(first, words):
            problem = f"--profile {value_after(first, words)}: is a profile of guidellm's"
        names = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in remedies}
        meant = {OTHER_KEYS.get(name, name) for name in names}
        if "duration_s" in meant and meant & {"prompts", "requests"}:
            raise UserError(f"{problem}; a load ends after its time or its requests", "leave one of the two out")
        options = (word for word in theirs if word.startswith("-") and not is_of_snakemake(word))
        if lost := [word.partition("=")[0] for word in options if not (word in remedies or is_part(word, words))]:
            problem += f", and no key has the value of {', '.join(lost)}"
        values = [remedy for remedy in remedies.values() if gives_values(remedy)]
        if servers := [remedy for remedy in remedies.values() if remedy.startswith("write `rollout-bench init")]:
            raise UserError(problem, servers[0])
        if values and len(values) < len(remedies):
            apart = {word.partition("=")[0]: remedy for word, remedy in remedies.items() if remedy not in values}
            problem += "".join(f"; {other}: {remedy}" for other, remedy in apart.items())
        raise UserError(problem, together(values or [*remedies.values()]))


def _check_known(others: Sequence[str], words: Sequence[str], known: Sequence[str]) -> None:
    """Refuse the first option of `others`, which is none of the `known`."""
    for word in others:
        option = word.partition("=")[0]
        if option.startswith("-"):
            near = near_miss(option.replace("_", "-"), [*known, *OF_KEYS, "--deep"], MISSPELT)
            close = near if option.startswith("--") else None  # of one letter any other is near
            listed = "`rollout-bench keys` lists the keys of a config, and `snakemake --help` the options"
            remedy = f"did you mean '{close}'?" if close else listed
            value = value_after(word, words)
            if close in OF_KEYS:
                remedy = of_close_key(word, words)
            elif value.endswith((".yaml", ".yml")) and close not in LISTS["--configfile"]:
                remedy = f"write --configfile {shlex.quote(value)}"
            raise UserError(f"{option}: there is no such option", remedy)


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
    return next((value_after(word, words) for word in words if word.partition("=")[0] in named), "")


def _open_brackets(text: str) -> bool:
    return sum(map(text.count, "[{")) > sum(map(text.count, "]}"))
