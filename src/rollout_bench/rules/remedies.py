"""What options and values of other programs mean here, as the entries after --config that have them."""

import itertools
import math
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from rollout_bench.contracts.fields import AUTO, flat, name_made_of, typed
from rollout_bench.contracts.load import DatasetFormat
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.mappings import laid_over
from rollout_bench.core.model_keys import keys_of
from rollout_bench.core.secrets import looks_secret
from rollout_bench.core.yaml_files import flow
from rollout_bench.plan.checks import SHORT, quants_meant
from rollout_bench.plan.config import Config, WorkloadSettings
from rollout_bench.plan.config_file import (
    ENGINE_ARGS,
    NAMED,
    NOT_MEASURED,
    OTHER_KEYS,
    PROFILES,
    RESULTS_ELSEWHERE,
    load_in,
    models_in,
)
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.meant import api_meant, hub_name
from rollout_bench.plan.quants import known_quants
from rollout_bench.plan.serving import Endpoint, OnlineLoad
from rollout_bench.rules.arguments import KEY, value_of
from rollout_bench.rules.entries import GIVES_VALUES, entries_of, folder_config, proven

LISTS = {"--config": ("--config", "-C"), "--configfile": ("--configfile", "--configfiles")}
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
    **dict.fromkeys(("--json", "--output-format"), _NUMBERS),
    "--served-model-name": _A_MODEL,
    "-o": RESULTS_ELSEWHERE,
    "--config-name": "leave it out: config files stand after --configfile",
    "--multirun": "leave it out: sweep={KEY: [VALUE, VALUE]} measures several values of a key",
    "--api-key": "name its variable: --config 'endpoints={mine: {api_key_env: MY_SERVER_KEY}}'",
}
"""Options of vllm bench, guidellm and pytest -> the remedy, where no key of a config has their value."""

_NAME = re.compile(r"[\w-]+")

_MODELS = ("model", "model_name_or_path", "model_path", "models")
"""Options of other programs for the model."""

_DATA = ("data", "dataset", "dataset_name", "dataset_path")
"""Options of other programs for prompts or their lengths."""


def is_value(word: str) -> bool:
    return "=" in word and word.partition("=")[0] in Config.model_fields


def of_target(word: str) -> str:
    """Return the remedy for a value among the targets; empty for others."""
    plain = word.lstrip("+")  # as hydra adds keys
    key, equals, value = plain.partition("=")
    if is_value(plain):
        return f"write --config {shlex.quote(f'{key}={spaced(value)}' if value.startswith('{') else plain)}"
    if key.startswith("-") or not equals:
        return ""
    name = "model" if key.endswith("model.path") else key.rpartition(".")[2]
    return of_option(f"--{name}", f"--x={value}", ())


def selecting(name: str, words: Sequence[str]) -> str:
    """Return the remedy for a target among `words` that is a key, or names something to measure; empty for others."""
    config = folder_config()
    if name in Config.model_fields:
        after = itertools.takewhile(lambda word: not word.startswith("-"), words[[*words].index(name) + 1 :])
        return f"write --config {name}={next(after, 'VALUE')}"
    quants = {*known_quants({}), *(config.get("quant_settings") or ())}
    names = {"modes": MODES, "quants": quants, "models": config.get("model_settings") or ()}
    names["workloads"] = config.get("workload_settings") or ()
    key = next((key for key, known in names.items() if name in known), "")
    return f"write --config '{key}=[{', '.join(_beside(name) if key == 'quants' else [name])}]'" if key else ""


def _beside(quant: str) -> list[str]:
    """Return a quantization after the one that it is compared with."""
    return list(dict.fromkeys([str((folder_config().get("baseline") or {}).get("quant") or "bf16"), quant]))


def spaced(text: str) -> str:
    """Return flow YAML with the space after each colon and comma that YAML or a reader wants."""
    key = r"(?<![\w.:/-])([A-Za-z_][\w.-]*|\"[^\"]*\"|'[^']*')"  # no part of a URL, or of hub:OWNER/NAME
    return re.sub(r",(?=\S)", ", ", re.sub(f"{key}:(?=[^\\s/])", r"\1: ", text))


def of_path(path: Sequence[str], value: str, entries: Sequence[str]) -> str:
    """Return the remedy for a path of keys, which begins with one of the config's; `entries` stand after --config.

    What the user names by it is selected, too.
    """
    top, *below = path
    nested: Any = typed(value)
    if value.startswith(("{", "[")):
        with suppress(yaml.YAMLError):
            nested = yaml.safe_load(spaced(value))
    for part in reversed(below):
        nested = {part: nested}
    config = {top: nested}
    if (key := NAMED.get(top)) and below and not any(entry.startswith(f"{key}=") for entry in entries):
        selected = folder_config().get(key) or []
        config |= {} if below[0] in selected or not isinstance(selected, list) else {key: [below[0]]}
    return f"write --config {entries_of(config)}"


def of_load(top: str, below: Sequence[str], value: str) -> str:
    """Return the remedy for a path of keys that means one of a load, as rollout.n does; empty if it means another."""
    field = Config.model_fields.get(top)
    known = {key for model in models_in(field.annotation) for key in model.model_fields} if field else set()
    meant = OTHER_KEYS.get(below[-1], below[-1]) if below else ""
    if top == "workload_settings" and below[:2] == [_first_load(), "online"] and len(below) == 3:
        return _load_with(below[2], value)
    if not below or top in NAMED or top == "sweep" or below[0] in known or below[0] in MODES:
        return ""
    return _load_with(meant, value)


def _load_with(key: str, value: str) -> str:
    """Return the remedy that sets `key` of a load to `value`; empty if no load has it."""
    config = folder_config()
    name = _first_load()
    settings = (config.get("workload_settings") or {}).get(name) or {}
    online = settings.get("online")
    if key == "prompts" and isinstance(online, Mapping) and "requests" in online:
        key = "requests"  # which decides how many are sent
    is_count = isinstance(values(value), int | float | list)
    is_online = key in OnlineLoad.model_fields and (is_count or key not in WorkloadSettings.model_fields)
    if not is_online and key not in WorkloadSettings.model_fields:
        return ""
    is_switch = value == "VALUE" and WorkloadSettings.model_fields.get(key, FieldInfo()).annotation is bool
    given = value_of(spaced(value)) if value.startswith("{") else value
    load = _online(settings, key, values(value)) if is_online else {key: True if is_switch else typed(given)}
    if key in ("prompt_tokens", "output_tokens"):
        load |= _longer(settings, load)
    mode = _mode_of_servers() if is_online else ""
    return f"write --config {shlex.quote(f'workload_settings={flow({name: load})}')}{mode}"


def _mode_of_servers() -> str:
    """Return the entry that measures servers; empty if this folder's config does."""
    config = folder_config()
    return "" if config.get("endpoints") or "online" in (config.get("modes") or ()) else " 'modes=[online]'"


def _longer(settings: Mapping[str, Any], load: Mapping[str, Any]) -> dict[str, Any]:
    """Return the max_model_len that a load with other lengths needs, if its settings have one that is shorter."""
    most = (settings.get("engine_args") or {}).get("max_model_len")
    lengths = [{**settings, **load}.get(key, 0) for key in ("prompt_tokens", "output_tokens")]
    tokens = [one.get("high", 0) if isinstance(one, Mapping) else one for one in lengths]
    if not isinstance(most, int) or not all(isinstance(one, int) for one in tokens) or sum(tokens) <= most:
        return {}
    return {"engine_args": {"max_model_len": sum(tokens)}}


def _online(load: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return what sets `key` of a load's requests to `value`, with what it then needs besides prompts."""
    online = load.get("online") or {}
    rates, sent = online.get("request_rate"), online.get("requests")
    with_it: dict[str, Any] = {key: value}
    if key == "duration_s" and isinstance(value, int | float):
        with_it |= {"requests": None} if sent else {}
        # a time needs requests that arrive in it
        with_it |= {} if rates or online.get("concurrency") else {"request_rate": 4}
    elif key == "request_rate" and isinstance(sent, list) and isinstance(value, list):
        longest_s = max((count / rate for count, rate in zip(sent, rates or (), strict=False)), default=0.0)
        with_it["requests"] = [math.ceil(rate * longest_s) for rate in value] if longest_s else max(sent)
    elif key in ("concurrency", "request_rate") and isinstance(sent, list):
        with_it["requests"] = max(sent)
    if key == "concurrency" and rates:
        with_it["request_rate"] = "inf"  # no longer when they arrive, but how many at once
    return {"online": with_it}


def values(text: str) -> Any:
    """Return the number or word in `text`, or the list of several numbers."""
    several = re.fullmatch(r"\[?([\d.]+(?:, ?[\d.]+)+)\]?", text)
    return [typed(one) for one in several[1].replace(" ", "").split(",")] if several else typed(text)


MISSPELT = 0.75
"""Similarity to an option from which on another is its misspelling."""


def is_guidellms(word: str, words: Sequence[str]) -> bool:
    """Return whether an option of Snakemake has a value of guidellm's."""
    return word.partition("=")[0] == "--profile" and value_after(word, words) in PROFILES


def is_part(word: str, words: Sequence[str]) -> bool:
    """Return whether the value of an option belongs to that of another of `words`."""
    return any(other.partition("=")[0] in _WITH.get(word.partition("=")[0], ()) for other in words)


def foreign(word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option of other programs; empty if it is none that is known."""
    option = word.partition("=")[0]
    if is_part(word, words):
        return ""
    if option.startswith("-") and option[1:] in SHORT:
        return of_option(f"-{option}", word, words)
    if "." in option and option.startswith("--"):
        return of_target(f"{option[2:]}={value_after(word, words)}")
    if option in (*_FORMS, "--endpoint") and "chat" in value_after(word, words):
        return _load_with("api", "chat")
    if option == "--host" and not (
        _address("host", value_after(word, words), words) or folder_config().get("endpoints")
    ):
        return _A_SERVER
    is_named = option.startswith("--") or option == "-u"
    return _OF_OTHERS.get(option) or (of_option(option, word, words) if is_named else "")


def together(remedies: Sequence[str], kept: Sequence[str] = ()) -> str:
    """Return the first of `remedies`, with the values of the others if each is a value to write.

    `kept` has entries that stand after --config already; remedies go before them.
    """
    first = GIVES_VALUES.fullmatch(remedies[0])
    if first is None:
        return remedies[0]
    found = [shlex.split(each[2]) for one in dict.fromkeys(remedies) if (each := GIVES_VALUES.fullmatch(one))]
    if len(found) < 2 and not kept:
        return remedies[0]
    merged: dict[str, Any] = {}
    # those with more keys first: others may say what these only derive
    found.sort(key=lambda given: -sum(entry.count(":") for entry in given))
    try:
        for key, _, text in (entry.partition("=") for given in ([*kept], *found) for entry in given):
            value = yaml.safe_load(text)
            is_bare = takes_list(key) and isinstance(value, str) and value != AUTO
            merged = laid_over(merged, {key: value.split(",") if is_bare else value})
    except yaml.YAMLError:  # of another entry
        return remedies[0]
    asks_rate = any("request_rate" in one and "duration_s" not in one for one in remedies)
    for settings in (merged.get("workload_settings") or {}).values():
        if (
            isinstance(settings, Mapping)
            and isinstance(online := settings.get("online"), dict)
            and online.get("duration_s") is not None
        ):
            online["requests"] = None  # which its duration decides
            if "concurrency" in online and not asks_rate:
                online.pop("request_rate", None)  # which only a duration alone needs
    return f"{first[1]}--config {entries_of(merged)}{first[3]}"


def gives_values(remedy: str) -> bool:
    """Return whether a remedy gives values to write after --config."""
    return GIVES_VALUES.fullmatch(remedy) is not None


def with_rest(
    remedy: str, words: Sequence[str], entries: Sequence[str], others: Sequence[str], files: Sequence[Path]
) -> str:
    """Return `remedy` with all else that `words` ask for, if it gives values.

    `entries` stand after --config; `others` are words that stand before them, among them the config `files`.
    """
    found = GIVES_VALUES.fullmatch(remedy)
    given = {entry.partition("=")[0]: entry for entry in (shlex.split(found[2]) if found else ())}
    kept, more = list[str](), list[str]()
    for entry in entries:
        name, _, text = entry.partition("=")
        key = name if name in Config.model_fields else None
        if "." in name and name.partition(".")[0] in Config.model_fields:
            more.append(of_path(name.split("."), text, entries))
            continue
        if key is None and text and KEY.fullmatch(name) and not of_target(entry):
            key = near_miss(name, Config.model_fields, MISSPELT)
        text = spaced(text) if text.startswith("{") else text
        text += missing_brackets(text)
        # an entry of the same key is the one that the remedy mends, or it stands in the remedy
        if key and (key not in given or _agrees(text, given[key])):
            kept.append(f"{key}={text}")
    options = [word for word in words if word.startswith("-") and not is_of_snakemake(word)]
    more += [one for word in options if (one := foreign(word, words) or of_close_key(word, words))]
    if remedy.startswith("write --configfile ") and (more or kept):
        return f"{remedy} {together(['write --config ', *more], kept).removeprefix('write ')}"
    if found is None:
        has_more = remedy.startswith("write `rollout-bench init") and len({*more, *kept} - {remedy})
        return f"{remedy}; type the rest in its folder" if has_more else remedy
    remedy = together([remedy, *more], kept)
    whole = proven(remedy, files)
    is_call = others and gives_values(whole)
    return whole.replace("--config ", f"{shlex.join(others)} --config ", 1) if is_call else whole


def missing_brackets(text: str) -> str:
    """Return the closing brackets that `text` lacks at its end."""
    lacking = list[str]()
    for letter in text:
        if letter in "{[":
            lacking.append("}" if letter == "{" else "]")
        elif lacking and letter == lacking[-1]:
            lacking.pop()
    return "".join(reversed(lacking))


def is_of_snakemake(word: str) -> bool:
    return word.partition("=")[0] in (*LISTS["--config"], *LISTS["--configfile"], "-n", "--dry-run", "--cores", "-c")


def _agrees(text: str, meant: str) -> bool:
    """Return whether a mapping in `text` has no key that the remedy's entry `meant` has not, or has otherwise."""
    before, after = (value_of(one) for one in (text, meant.partition("=")[2]))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return False
    places, others = ({place for place, _ in flat(one)} for one in (before, after))
    return not (places & others or any("=" in key for key in map(str, places)))


OF_KEYS = {f"--{key.replace('_', '-')}": key for key in Config.model_fields}
"""Options that each key of a config would be -> the key."""


def of_close_key(word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option that is a misspelt key of the config; empty for others."""
    close = near_miss(word.partition("=")[0].replace("_", "-"), OF_KEYS, MISSPELT)
    if close is None:
        return ""
    return f"did you mean `--config {shlex.quote(f'{OF_KEYS[close]}={_as_typed(OF_KEYS[close], word, words)}')}`?"


def _selected(key: str, value: str, words: Sequence[str]) -> str:
    """Return the remedy for an option of other programs that names a model, quantization or load; empty for others."""
    if key in NOT_MEASURED:
        return NOT_MEASURED[key]
    if key in ("dtype", "quant", "quantization"):
        names = [name for one in _NAME.findall(value) for name in quants_meant(one)]
        return f"write --config 'quants=[{', '.join(dict.fromkeys([*_beside(names[0]), *names]))}]'"
    if remedy := _of_server(key, value):
        return remedy
    if key in _MODELS and value in (folder_config().get("model_settings") or ()):
        return f"write --config 'models=[{value}]'"
    if key in ("environment", "env") and "=" in value:
        variable, _, text = value.partition("=")
        return f"write --config {entries_of({'engine': {'environment': {variable: text}}})}"
    place = value if value.startswith(("/", "~", "./")) else f"hub:{path}" if (path := hub_name(value)) else ""
    if key in _MODELS and place and (name := name_made_of(place.removeprefix("hub:"))):
        return f"write --config 'models=[{name}]' 'model_settings={{{name}: {{weights: {{bf16: {place}}}}}}}'"
    if key in _DATA:
        lengths = _lengths(value, words)
        load = lengths or f"dataset: {{{_file(value, words)}}}"
        begin = "write" if lengths else "docs/loads.md has the formats: write"
        return f"{begin} --config 'workload_settings={{{_first_load()}: {{{load}}}}}'"
    if key in ("profile", "rate_type") and value in PROFILES:
        rate, (pacing, usual) = value_after("--rate", words), next(iter(PROFILES[value].items()))
        is_usual = value == "sweep" or isinstance(values(rate), str)  # a sweep's rate is the number of its loads
        remedy = _load_with(pacing, str(usual) if is_usual else rate)
        return together([remedy, _load_with("burstiness", value)]) if value == "constant" else remedy
    return ""


def _of_server(key: str, value: str) -> str:
    """Return the remedy for an option that only a running server has; empty for others."""
    servers = list(folder_config().get("endpoints") or ())
    if key == "header" and not servers:
        return "leave it out: headers go to a server, which endpoints names: docs/serving.md"
    if not servers:
        return ""
    if key in ("num_warmups", "warmup"):
        return "leave it out: --config warmup_iterations=1 leaves a whole pass of each load out of the numbers"
    if key == "header" and value == "VALUE":  # a secret
        return "export the header's value, and name it: endpoints: {NAME: {headers: {Authorization: '${VARIABLE}'}}}"
    if key == "header":
        name, _, text = value.partition(":" if ":" in value else "=")
        return f"write --config {entries_of({'endpoints': {servers[0]: {'headers': {name: text.strip()}}}})}"
    if key in {*Endpoint.model_fields} - {"url"}:
        return f"write --config {entries_of({'endpoints': {servers[0]: {key: value}}})}"
    return ""


def _lengths(value: str, words: Sequence[str]) -> str:
    """Return the lengths that guidellm's --data or vllm bench's random data set has; empty for another data set."""
    more = [word for word in words if re.fullmatch(r"\w+:\d+", word)]  # of braces that the shell took apart
    found = {str(name): str(count) for name, count in load_in(",".join([value, *more])).items()}
    if value == "random":
        for name, side, usual in (("prompt_tokens", "input", "1024"), ("output_tokens", "output", "128")):
            given = value_after(f"--random-{side}-len", words)
            found[name] = usual if given == "VALUE" else given
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def _file(value: str, words: Sequence[str]) -> str:
    """Return the keys of a data set that options of vllm bench or guidellm name."""
    path = value_after("--dataset-path", words)
    named = (form for form in get_args(get_args(DatasetFormat)[0]) if form in f"{value} {path}".lower())
    return f"format: {next(named, 'prompts')}, path: {path if path != 'VALUE' else value if '.' in value else 'FILE'}"


def _first_load() -> str:
    """Return the name of the first load of this folder's config."""
    return str(next(iter(folder_config().get("workloads") or ["demo"])))


def of_option(option: str, word: str, words: Sequence[str]) -> str:
    """Return the remedy for an option whose value a config has under another name or key; else nothing."""
    key, value = option.lstrip("-").replace("-", "_"), value_after(word, words)
    meant = OTHER_KEYS.get(key, key)
    if selected := _selected(key, value, words):
        return selected
    if "slo" in (key, meant):
        limits = dict(re.findall(r"(ttft|tpot|e2el)\w*[:=]([0-9.]+)", " ".join([word, *words])))
        slo = ", ".join(f"{name}_ms: {limit}" for name, limit in limits.items())
        return f"write --config 'slo={{{slo}}}'{_mode_of_servers()}"
    if meant == "lora" and not value.startswith("{"):
        ranks = (value_after(word, words) for word in words if word.partition("=")[0] in _RANKS)
        return f"write --config 'lora={{rank: {next(ranks, 16)}}}'"
    if key in Config.model_fields:
        return f"write --config {shlex.quote(f'{key}={_as_typed(key, word, words)}')}"
    if url := _address(key, value, words):
        return _at_server(url, value_after("--model", words))
    if meant == "seed":  # of vllm bench: of prompts and arrivals
        return _load_with(meant, value)
    meant = meant.removeprefix("no_")
    if meant in ENGINE_ARGS:
        return _engine_arg(meant, value, is_off=key.startswith("no_"))
    if meant in Config.model_fields:
        return f"write --config {shlex.quote(f'{meant}={_as_typed(meant, word, words)}')}"
    if key in _MODELS and value != "VALUE":
        return f"name a folder or OWNER/NAME in place of {value}: --model OWNER/NAME"
    return _below(meant, value, is_off=key.startswith("no_"))


def _below(meant: str, value: str, *, is_off: bool) -> str:
    """Return the remedy for what is a key below one at the top, or an argument of the engine that is installed here."""
    paths = [key.path.split(".") for key in keys_of(Config) if key.path.endswith(f".{meant}") and "[" not in key.path]
    paths = [path for path in paths if not {*NAMED, "baseline"} & {*path}]
    if not paths and meant in _arguments_here():
        return _engine_arg(meant, value, is_off=is_off)
    if len(paths) == 1 and meant not in WorkloadSettings.model_fields:
        (top, *inner) = paths[0]
        given = spaced(value) if value.startswith("{") else value
        nested = "".join(f"{{{part}: " for part in inner) + given + "}" * len(inner)
        return f"write --config {shlex.quote(f'{top}={nested}')}"
    return _load_with(meant, value)


def _arguments_here() -> Collection[str]:
    """Return the arguments of the engine that is installed here; empty without one."""
    with suppress(UserError):
        return probe_engine(None, is_needed=False).arguments
    return ()


def _engine_arg(name: str, value: str, *, is_off: bool) -> str:
    """Return the remedy for an argument of the engine, of which `is_off` switches a switch off."""
    if folder_config().get("endpoints") and not folder_config().get("models"):
        return "leave it out: a server has the engine arguments that it was started with"
    is_switch = re.match("enable_|disable_|enforce_|trust_|async_", name) and value == "VALUE"
    value = str(not is_off).lower() if is_switch else value
    if isinstance(several := values(value), list):
        return f"write --config {shlex.quote(f'sweep={flow({name: several})}')}"
    return f"write --config {shlex.quote(f'engine_args={{{name}: {value}}}')}"


def _at_server(url: str, model: str) -> str:
    """Return the remedy that names a server and its model, which is VALUE if no option does."""
    server = {"url": url} if model == "VALUE" else {"url": url, "model": model}
    if known := list(folder_config().get("endpoints") or ()):
        return f"write --config {entries_of({'endpoints': {known[0]: server}})}"
    return f"write `rollout-bench init --from endpoint {shlex.join(server.values())}`, which writes config.yaml"


def _address(key: str, value: str, words: Sequence[str]) -> str:
    """Return the address of a server that an option of other programs names; empty for others."""
    if key == "host" and value != "VALUE":
        port = value_after("--port", words)
        value = value if port == "VALUE" else f"{value}:{port}"
    is_address = re.match("https?://", value) or (key in _ADDRESSES and re.fullmatch(r"[\w.-]+:\d+(/.*)?", value))
    return api_meant(value if "://" in value else f"http://{value}") if is_address else ""


def takes_list(key: str) -> bool:
    """Return whether the config has a `key` that takes a list."""
    field = Config.model_fields.get(key)
    return field is not None and any(get_origin(one) is list for one in (field.annotation, *get_args(field.annotation)))


def _as_typed(key: str, word: str, words: Sequence[str]) -> str:
    """Return the value after the option `word` as the config's `key` takes it: a list in brackets."""
    value = value_after(word, words)
    if value.startswith("[") and "]" not in value and word in words:
        after = words[words.index(word) + 1 :]
        ends = next((place for place, other in enumerate(after, 1) if "]" in other), len(after))
        return " ".join(after[:ends])
    if not takes_list(key) or value in ("VALUE", AUTO) or value.startswith("["):
        return value
    more = [] if "=" in word else words[words.index(word) + 2 :]
    return f"[{', '.join([value, *itertools.takewhile(lambda other: not other.startswith('-'), more)])}]"


def value_after(word: str, words: Sequence[str]) -> str:
    """Return the value of an option, which `word` has or the next of `words` is; VALUE if there is none to repeat.

    Several numbers stand after one option, or each after its own, as in guidellm's --rate 1 --rate 2.
    """
    option, equals, value = word.partition("=")
    if not equals:
        places = [place for place, other in enumerate(words) if other == option]
        given = [words[place + 1 :] for place in places]
        numbers = [one for after in given for one in itertools.takewhile(str.isdecimal, after)]
        value = ",".join(numbers) if len(numbers) > 1 else next(iter(given[0]), "") if given else ""
    if re.fullmatch(r"\d{1,3}(,\d{3})*,000", value):  # a thousand, and no list of numbers
        value = value.replace(",", "")
    return "VALUE" if not value or value.startswith("-") or looks_secret(value) else value
