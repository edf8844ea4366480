"""Settings: changes of engine and load that are compared, and the config under each of them."""

import functools
import itertools
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.fields import LONGEST_NAME, NAME_PATTERN
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.core.places import CONFIG, CONFIGS, home
from rollout_bench.core.secrets import of_config, without_secrets
from rollout_bench.core.yaml_files import flow, packaged
from rollout_bench.plan.checks import alike, check_engine_arg, check_no_secret
from rollout_bench.plan.config import SECTIONS, Config, Partial, WorkloadSettings
from rollout_bench.plan.config_file import NAMED, OTHER_KEYS, as_user_error, at_place
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.meant import KEY_OF
from rollout_bench.plan.serving import PACING, OnlineLoad

PARTS = ("engine_args", "engine.environment", "engine.before", "harness", "lora", "workload", *SECTIONS)
"""Parts that a setting may change: keys of the config, and `workload`, which applies to each measured workload."""

PLACES = ("engine_args", "workload", "lora", *SECTIONS)
"""Sections whose keys a setting changes, and possible prefixes of a sweep's keys."""

OWN_KEY = {"engine_args": "name the argument itself"}
"""Keys of a workload with a separate place in a setting -> remedy."""


def resolved(config: Config, engine: InstalledEngine) -> tuple[Config, dict[str, list[str]]]:
    """Return `config` with the settings of its sweep in `setting_settings`, and each mode's settings by their names.

    A sweep's key of a mode's section makes settings in that mode only. A selected setting that changes only sections
    of other modes is left out, and a mode without any setting has the default.

    Raises:
        UserError: a selected setting or the baseline's is undefined, a key exists neither in the engine nor in a
            workload, or a value cannot be part of a name.
    """
    defined = config.setting_settings
    swept: dict[str, Partial] = {}
    if DEFAULT_SETTING in defined:
        raise UserError(
            f"config: setting_settings.{DEFAULT_SETTING}: the name is reserved for the setting without changes",
            "give it another name",
        )
    others = {mode.name: {*SECTIONS} - {mode.settings} for mode in MODES.values()}
    made: dict[str, dict[str, Partial]] = {}
    for mode, sections in others.items():
        sweep = {key: values for key, values in config.sweep.items() if key.partition(".")[0] not in sections}
        made[mode] = {}
        for name, setting in _swept(config, sweep, engine):
            if name in defined or name in made[mode] or swept.get(name, setting) != setting:
                raise UserError(
                    f"config: sweep of {', '.join(sweep)}: makes a setting '{name}', and there is one already",
                    "rename or leave out one of them",
                )
            made[mode][name] = swept[name] = setting
    known: dict[str, Partial] = {DEFAULT_SETTING: {}, **defined, **swept}
    for name, setting in defined.items():
        _check(config, name, setting, engine)
    named = [*(("settings", name) for name in config.settings or []), ("baseline.setting", config.baseline.setting)]
    if config.settings is None and defined:
        raise UserError(
            f"config: setting_settings: {', '.join(defined)}: defined but not selected",
            f"write settings: [{', '.join([DEFAULT_SETTING, *defined, *swept])}]",
        )
    for where, setting_name in named:
        if setting_name is not None and setting_name not in known:
            problem = f"config: {where}: setting '{setting_name}' is not defined"
            define = f"or define it: setting_settings: {{{setting_name}: {{engine_args: {{KEY: VALUE}}}}}}"
            is_near = near_miss(setting_name, known) is not None
            is_of_less = any(setting_name in name.split("+") for name in swept)
            if where == "settings" and swept and (is_of_less or not is_near):
                raise UserError(problem, f"write settings: [{', '.join(swept)}]")  # of another sweep
            raise UserError(problem, did_you_mean(setting_name, known) + ("" if is_near else f"; {define}"))
    if config.settings is not None and swept and not swept.keys() & {*config.settings}:
        raise UserError(
            f"config: sweep of {', '.join(config.sweep)}: settings selects none of its settings",
            f"write settings: [{', '.join([*(config.settings or ()), *swept])}], or leave sweep out; sweep: null takes "
            "back that of a file below",
        )
    names = {
        mode: [
            name
            for name in config.settings or [DEFAULT_SETTING, *made[mode]]
            if not known[name] or known[name].keys() - sections
        ]
        or [DEFAULT_SETTING]
        for mode, sections in others.items()
    }
    return config.model_copy(update={"setting_settings": known}), names


def under_setting(config: Config, name: str) -> Config:
    """Return a `resolved` config under one of its settings.

    Raises:
        UserError: the config is not valid under it.
    """
    setting = config.setting_settings[name]
    if not setting:
        return config
    of_all = {key: value for key, value in setting.items() if key not in ("engine_args", "workload")}
    models = {model: {"engine_args": setting.get("engine_args", {})} for model in config.models}
    content = _merged_mappings(config.model_dump(exclude_unset=True), {**of_all, "model_settings": models})
    loads = content["workload_settings"]
    changed = {workload: {**loads[workload], **setting.get("workload", {})} for workload in config.workloads}
    # problems of other settings do not matter here
    return _valid({**content, "workload_settings": {**loads, **changed}, "setting_settings": {name: setting}})


def _check(config: Config, name: str, setting: Partial, engine: InstalledEngine) -> None:
    """Check that a setting can be merged over `config`.

    Raises:
        UserError: it cannot.
    """
    where, load = f"setting_settings.{name}", setting.get("workload", {})
    if not isinstance(load, Mapping):
        raise UserError(f"config: {where}.workload: {load!r} is no mapping", "write keys of workload_settings below it")
    for key in load:
        _check_key(f"{where}.workload", key)
    for key in (key for key in setting if key not in {part.partition(".")[0] for part in PARTS}):
        problem = "is the same under every setting" if key in Config.model_fields else "there is no such key"
        raise UserError(f"config: {where}.{key}: {problem}", _in_setting(config, name, key, setting[key], engine))
    changes = {key: value for key, value in setting.items() if key != "workload"}
    _valid(_merged_mappings(config.model_dump(exclude_unset=True), changes), ("setting_settings", name))
    for key in setting.get("engine", {}):
        if f"engine.{key}" not in PARTS:
            raise UserError(f"config: {where}.engine.{key}: is the same under every setting", did_you_mean(key, PARTS))


def _selection(key: str) -> str:
    """Return the key that selects what `key` names, as quants for quant; empty if it names nothing that is measured."""
    return next((name for name in (*NAMED.values(), "quants", "modes") if name and key in (name, name[:-1])), "")


def _mapping_with(key: str, engine: InstalledEngine) -> tuple[str, ...]:
    """Return the mapping of a setting that has `key`, as the path to it; empty if none has."""
    mappings: dict[tuple[str, ...], Iterable[str]] = {
        ("engine_args",): engine.arguments,
        ("workload",): WorkloadSettings.model_fields,
        ("workload", "online"): OnlineLoad.model_fields,
        ("lora",): Lora.model_fields,
        ("engine",): [part.removeprefix("engine.") for part in PARTS],
        **{(section,): type(Config.model_fields[section].default).model_fields for section in SECTIONS},
    }
    return next((place for place, keys in mappings.items() if key in keys), ())


def _nested(place: Sequence[str], value: Any) -> Any:
    return {place[0]: _nested(place[1:], value)} if place else value


def _in_setting(config: Config, name: str, key: str, value: Any, engine: InstalledEngine) -> str:
    """Return the remedy for the `key` of a setting, which is no part that a setting changes."""
    if selection := _selection(key):
        names = dict.fromkeys([*(getattr(config, selection) or ()), *(value if isinstance(value, list) else [value])])
        return f"write it at the top: {selection}: {flow([*names])}"
    place = _mapping_with(meant := _meant(key), engine)
    if place and key not in Config.model_fields:
        shown = "..." if without_secrets({key: value}, of_config)[1] else value
        return f"write {name}: {flow(_nested((*place, meant), shown))}"
    return did_you_mean(key, PARTS)


def _valid(content: dict[str, Any], place: tuple[str, ...] = ()) -> Config:
    """Return the config with this content.

    Raises:
        UserError: it is not valid; the message names `place`.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise as_user_error(error.errors(), place) from None


def _merged_mappings(below: Any, above: Any) -> Any:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merged_mappings(below.get(key), value) for key, value in above.items()}}


def _swept(config: Config, sweep: Mapping[str, list[Any]], engine: InstalledEngine) -> Iterator[tuple[str, Partial]]:
    """Yield the name and the changes of each combination of a sweep."""
    if not sweep:
        return
    for key, values in sweep.items():
        _check_swept(config, key, values, engine)
    keys = [(*_target(key, engine), key) for key in sweep]
    for place, other in itertools.combinations(keys, 2):
        if place[:2] == other[:2]:
            raise UserError(f"config: sweep.{other[2]}: is the same as sweep.{place[2]}", "leave one of them out")
    for (where, key, written), values in zip(keys, sweep.values(), strict=True):
        for value in values if where == "engine_args" else ():
            check_no_secret(".".join(("sweep", *written.split(".")[:-1])), {key: value})
            check_engine_arg(engine, f"sweep.{written}", key, value)
    for combination in itertools.product(*sweep.values()):
        changes: Partial = {}
        words = []
        for (where, key, written), value in zip(keys, combination, strict=True):
            changes.setdefault(where, {})[key] = value
            named = written if where == "lora" else key  # as its values are called in tables
            words.append(f"{named.replace('_', '-')}-{_word(written, value)}")
        name = "+".join(words)
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"config: sweep: the setting {name} has a name of {len(name)} characters, more than {LONGEST_NAME}",
                "write these settings in setting_settings, under shorter names",
            )
        yield name, changes


def _check_swept(config: Config, key: str, values: list[Any], engine: InstalledEngine) -> None:
    """Refuse a key of a sweep that is no single key of a setting; the remedy has its `values`."""
    last, selection = key.rpartition(".")[2], _selection(key)
    if selection and (key not in PLACES or all(isinstance(value, str) for value in values)):
        raise UserError(
            f"config: sweep.{key}: what is measured is no setting", f"write it at the top: {selection}: {flow(values)}"
        )
    if key in PLACES:
        lists = {f"{key}.{KEY_OF.get(key, 'KEY')}": values}
        if all(isinstance(value, Mapping) for value in values):
            lists = {f"{key}.{name}": [one[name] for one in values if name in one] for one in values for name in one}
        raise UserError(
            f"config: sweep.{key}: is a mapping, but a sweep needs a single key", f"write sweep: {flow(lists)}"
        )
    inner = KEY_OF[last] if last == "online" else last
    place = () if inner == "harness" else _mapping_with(inner, engine)
    if place == ("workload", "online") and inner in PACING:
        raise UserError(
            f"config: sweep.{key}: a server measures several loads after one start",
            f"write workload_settings: {flow({config.workloads[0]: {'online': {inner: values}}})}",
        )
    if inner == "harness" or place in (("workload", "online"), ("engine",)):
        shown = ["..."] if without_secrets({inner: values}, of_config)[1] else values
        named = zip(string.ascii_lowercase, shown, strict=False)
        settings = {name: _nested((*place, inner), value) for name, value in named}
        raise UserError(
            f"config: sweep.{key}: a sweep has engine arguments and keys of a workload",
            f"write settings: {flow([DEFAULT_SETTING, *settings])} and setting_settings: {flow(settings)}",
        )
    if key in Config.model_fields:
        raise UserError(
            f"config: sweep.{key}: is the same under every setting", f"leave it out, and write {key}: {flow(values[0])}"
        )


def _target(key: str, engine: InstalledEngine) -> tuple[str, str]:
    """Return the place of a sweep's key, one of `PLACES`, and its name there."""
    where, dot, inner = key.partition(".")
    if dot and where in PLACES:
        if where == "workload":
            _check_key("sweep", inner)
        return where, inner
    of_workload, of_engine = key in WorkloadSettings.model_fields, key in engine.arguments
    known = {*engine.arguments, *WorkloadSettings.model_fields}
    if of_workload and of_engine:
        raise UserError(
            f"config: sweep.{key}: is both an engine argument and a workload key",
            f"write engine_args.{key} or workload.{key}",
        )
    if key not in known and (place := _mapping_with(meant := _meant(key), engine)):
        if place[0] in ("lora", *SECTIONS):
            raise UserError(f"config: sweep.{key}: is a key of {place[0]}", f"write {place[0]}.{meant}")
        raise UserError(f"config: sweep.{key}: there is no such key", f"did you mean '{meant}'?")
    if engine.arguments and key not in known:
        raise UserError(
            f"config: sweep.{key}: neither {engine.name} {engine.version} nor a workload has it",
            did_you_mean(key.replace("-", "_"), known),
        )
    if of_workload:
        _check_key("sweep", key)
    return "workload" if of_workload else "engine_args", key


def _meant(key: str) -> str:
    """Return the name in a setting of what others call `key`."""
    meant = OTHER_KEYS.get(key, key)
    return key if meant in Config.model_fields else meant


def _check_key(where: str, key: str) -> None:
    known = WorkloadSettings.model_fields.keys() - OWN_KEY.keys()
    if key in OWN_KEY:
        raise UserError(f"config: {where}.{key}: does not belong below workload", OWN_KEY[key])
    if key not in known:
        raise UserError(f"config: {where}.{key}: a workload has no such key", did_you_mean(key, known))


def _word(key: str, value: Any) -> str:
    """Return a value as written in a setting's name."""
    words = {True: "true", False: "false", None: "null"}
    word = words[value] if isinstance(value, bool) or value is None else str(value).replace("_", "-")
    if isinstance(value, list | dict) or not re.fullmatch(NAME_PATTERN, word):
        raise UserError(
            f"config: sweep.{key}: cannot derive a setting name from {value!r}",
            "write it in setting_settings, under a name you choose",
        )
    return word


def idle_lines(config: Config) -> list[str]:
    """Return a line for each part of the config that probably was to change something, and changes nothing.

    That is a sweep, a selected setting or a section with keys of a mode that is not measured, an own quantization that
    is not selected, and another entry that is not selected, but whose name is close to a selected one. Names with other
    numbers are others: rollout-8k is no misspelt rollout-16k.
    """
    settings = {f"setting {name}": {*config.setting_settings.get(name, {})} for name in config.settings or []}
    written = {**settings, "sweep": {key.partition(".")[0] for key in config.sweep}}
    of_modes = [
        f"{where}: its keys of {mode.settings} change nothing, since mode {mode.name} is not measured; "
        "of several config files the last one decides the modes"
        for where, keys in written.items()
        for mode in MODES.values()
        if mode.settings in keys and mode.name not in config.modes
    ]
    defined: dict[str, tuple[Iterable[str], Sequence[str]]] = {
        "workload_settings": (config.workload_settings, config.workloads),
        "model_settings": (config.model_settings, config.models),
        "quant_settings": (config.quant_settings, config.quants),
        "setting_settings": (config.setting_settings, config.settings or []),
    }
    of_modes += [*_of_unmeasured_modes(config), *_unselected(config)]
    if config.endpoints and config.lora is not None and config.models:
        of_modes.append("lora: changes nothing at endpoints, whose servers have the adapters they were started with")
    of_modes += [
        f"workload_settings.{name}.online: {one.asked} stands twice in a row, and each is measured"
        for name in config.workloads
        for one, other in itertools.pairwise(config.workload_settings[name].online.points)
        if one.model_copy(update={"stage": None}) == other.model_copy(update={"stage": None})
    ]
    return of_modes + [
        f"{where}.{name}: changes nothing, since {name} is not selected; did you mean '{close}'?"
        for where, (names, selected) in defined.items()
        for name in names
        if name not in selected and (close := near_miss(name, selected)) is not None and alike(name, close)
        if not any(at_place(usual, (where, name)) for usual in _shipped_configs())
    ]


def _of_unmeasured_modes(config: Config) -> Iterator[str]:
    """Yield a line for each value that no measured mode uses.

    None for what a shipped config has: it may stand there for other modes.
    """
    written = config.model_dump(exclude_unset=True)
    idle: dict[tuple[str, ...], str] = {}
    for mode in (mode for mode in MODES.values() if mode.name not in config.modes):
        places = [("launches", mode.name), *([(mode.settings,)] if mode.settings else [])]
        if mode.has_loads:
            places += [("slo",), ("endpoints",), *(("workload_settings", name, "online") for name in config.workloads)]
        more = flow([*config.modes, mode.name])
        idle |= dict.fromkeys(places, f"mode {mode.name} is not measured; modes: {more} measures it")
        if mode.has_loads and config.endpoints:
            idle[("endpoints",)] += f"; models: [] and modes: [{mode.name}] measures the servers alone"
    if not config.models:
        idle |= dict.fromkeys([("engine_args",), ("lora",)], "a server that is up has its own: start it with them")
    for place, why in idle.items():
        value = at_place(written, place)
        if value and not any(at_place(usual, place) == value for usual in _shipped_configs()):
            yield f"{'.'.join(place)}: changes nothing, since {why}"


def _unselected(config: Config) -> Iterator[str]:
    """Yield a line for each entry of the user's that is not selected, and whose name is not close to one that is.

    None for settings: of many some are often selected.
    """
    written, shipped = config.model_dump(exclude_unset=True), _shipped_configs()
    demo = packaged(home() / CONFIGS / CONFIG)
    quants = [*config.quants, *(endpoint.quant for endpoint in config.endpoints.values())]
    selections = {"quants": quants, "models": config.models, "workloads": config.workloads}
    for key, used in selections.items():
        for name in getattr(config, where := f"{key[:-1]}_settings"):
            close, value = near_miss(name, used), at_place(written, (where, name))
            is_shipped = at_place(demo, (where, name)) or value in [at_place(one, (where, name)) for one in shipped]
            if name not in used and not is_shipped and not (close and alike(name, close)):
                selection = flow([*getattr(config, key), name])
                yield f"{where}.{name}: changes nothing, since {name} is not selected; {key}: {selection} measures it"


@functools.cache
def _shipped_configs() -> tuple[Any, ...]:
    return tuple(packaged(path) for path in (home() / CONFIGS).glob("*.yaml"))
