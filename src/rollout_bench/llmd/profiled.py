"""Expansion of a config's llm-d-benchmark profiles into workloads."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from rollout_bench.contracts.fields import AUTO, Args, Strict, Text, without_variable
from rollout_bench.contracts.modes import DEFAULT_MODE, MODES
from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.llmd.keys import SERVED, STARTED, Meaning
from rollout_bench.llmd.loads import HARNESSES, meaning_of, mode_of_harness
from rollout_bench.llmd.template import (
    MAX_MODEL_LEN,
    MODEL,
    OF_THE_LAUNCH,
    TOKENIZER,
    URL,
    filled,
    located,
    parsed,
    profile_keys,
    with_overrides,
)


class WorkloadProfile(Strict):
    """A workload profile of llm-d-benchmark that defines the load of a workload."""

    harness: Text = Field(description=f"Harness of the profile: {', '.join(HARNESSES)}.")
    path: Annotated[Text, AfterValidator(without_variable)] = Field(
        description=(
            "The file: a path, absolute or relative to snakemake's working folder, or the name of a file in "
            "config/llm-d/<harness>/, with or without its ending."
        )
    )
    overrides: Args = Field(
        {},
        description=(
            "Key of the profile -> new value; null removes the key. A key is a path such as load.stages[0].rate, or "
            "a name that only one key of the profile has."
        ),
    )


@dataclass(frozen=True)
class Found:
    """A profile that was read.

    Attributes:
        title: path of the profile, with its overrides.
        content: keys of the profile, with overrides; tokens that only a launch can fill in may remain.
        meaning: workload of the profile.
    """

    title: str
    content: dict[str, Any]
    meaning: Meaning


def with_profiles(merged: Mapping[str, Any], command_line: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a merged config in which each selected workload with a profile has the profile's load.

    `profile: HARNESS/NAME` and `overrides` at the top level (from a command line) become such a workload.

    Args:
        merged: the config.
        command_line: the part of the config that comes from the command line.

    Raises:
        UserError: if a profile can't be read, has an unsupported key, or sets a key that the config sets, too.
    """
    config = _with_short_form(dict(merged), command_line or {})
    workloads, settings = config.get("workloads"), config.get("workload_settings")
    if not isinstance(workloads, list) or not isinstance(settings, Mapping):
        return config
    limits: dict[str, dict[str, float]] = {}
    for name in map(str, workloads):
        workload, where = _mapping(settings.get(name)), f"config: workload_settings.{name}"
        profile = _mapping(workload.get("profile"))
        if not profile:
            continue
        overrides = parsed(profile.get("overrides"), f"{where}.profile.overrides")
        workload = {**workload, "profile": {**profile, "overrides": overrides}}
        settings = {**settings, name: workload}
        try:
            loaded = profile_of(WorkloadProfile.model_validate(workload["profile"]), config, f"{where}.profile")
        except ValidationError:  # the check of the config reports it
            continue
        _check_mode(config, loaded, where)
        settings[name], limits[name] = _with_profile_settings(workload, loaded, where), loaded.meaning.slo
    return {**config, "workload_settings": settings, **_slo(config, limits)}


def profile_of(
    profile: WorkloadProfile, config: Mapping[str, Any], where: str, of_the_launch: Mapping[str, str] | None = None
) -> Found:
    """Return the profile that a workload names.

    Args:
        profile: the workload's profile.
        config: the merged config, for models and endpoints.
        where: first words of error messages.
        of_the_launch: llm-d's variable -> value for one launch; None before a launch is known.

    Raises:
        UserError: if the profile is not found, can't be read, or has an unsupported key.
    """
    if profile.harness not in HARNESSES:
        raise UserError(f"{where}.harness: {profile.harness!r} is not known", did_you_mean(profile.harness, HARNESSES))
    file = located(profile.harness, profile.path, where)
    later = [name for name in OF_THE_LAUNCH if name != MAX_MODEL_LEN or of_the_launch or config.get("models")]
    content = profile_keys(file, {**_token_values(config), **(of_the_launch or {})}, where, later)
    changed = with_overrides(content, profile.overrides, f"{where}.overrides")
    measured = {kind: {*names, *(of_the_launch or {}).values()} for kind, names in _measured_names(config).items()}
    title = f"{file}, with {_flow(profile.overrides)}" if profile.overrides else f"{file}"
    return Found(title, changed, meaning_of(profile.harness, changed, f"{where}: {file}", measured))


def rendered(profile: WorkloadProfile, config: Mapping[str, Any], of_the_launch: Mapping[str, str]) -> str:
    """Return the text of a profile for a harness, with tokens filled in and overrides applied.

    Args:
        profile: a profile that was read before.
        config: the config, as for `profile_of`.
        of_the_launch: llm-d's variable -> value for one launch.

    Raises:
        UserError: if the file is missing now, or can't be read.
    """
    loaded = profile_of(profile, config, "config: profile", of_the_launch)
    comments = (
        f"{loaded.title}, as the launches of this experiment fill it in.",
        "PORT is picked by each server of ours: put in the port of a server to run the profile by hand.",
        *loaded.meaning.notes,
    )
    head = "".join(f"# {comment}\n" for comment in comments)
    return head + yaml.safe_dump(loaded.content, sort_keys=False, allow_unicode=True)


def with_profile_files(merged: Mapping[str, Any], folder: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a config whose selected profiles are files of `folder`, and the text of each file by its name.

    Tokens are filled from the config and this machine's environment, except those that only a launch knows.

    Args:
        merged: a config that was read before.
        folder: a folder of another machine, which will have the files.

    Raises:
        UserError: if a profile is missing now, or has a token without a value.
    """
    config = _with_short_form(dict(merged), {})
    settings, files = dict(_mapping(config["workload_settings"])), {}
    for name in config["workloads"]:
        workload = _mapping(settings.get(name))
        if profile := _mapping(workload.get("profile")):
            where = f"config: workload_settings.{name}.profile"
            file = located(profile["harness"], profile["path"], where)
            files[f"{name}.yaml"] = filled(file.read_text(), _token_values(config), f"{where}: {file}")
            settings[name] = {**workload, "profile": {**profile, "path": f"{folder}/{name}.yaml"}}
    return {**config, "workload_settings": settings}, files


def profile_lines(config: Mapping[str, Any]) -> list[str]:
    """Return lines with the resulting workload of each selected profile, and with its differences to the harness.

    Args:
        config: a config whose profiles were read before.
    """
    lines = []
    profiles = {name: config["workload_settings"].get(name, {}).get("profile") for name in config["workloads"]}
    for name, profile in ((name, profile) for name, profile in profiles.items() if profile is not None):
        loaded = profile_of(WorkloadProfile.model_validate(profile), config, "config: profile")
        parts = {key: part for key in ("online", "slo") if (part := getattr(loaded.meaning, key))}
        lines += [f"profile: {name} is {loaded.title}, read as {_flow(loaded.meaning.workload | parts)}"]
        lines += [f"profile: {name}: {note}" for note in loaded.meaning.notes]
    return lines


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True).strip()


def _token_values(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the values from the config for a profile's tokens: llm-d's variable -> value."""
    kubernetes = _mapping(config.get("kubernetes"))
    namespace = (kubernetes.get("namespace"), "default")
    value_and_default = {
        "LLMDBENCH_VLLM_COMMON_NAMESPACE": namespace,
        "LLMDBENCH_HARNESS_NAMESPACE": namespace,
        "LLMDBENCH_HARNESS_PVC_NAME": (kubernetes.get("results_claim"), "rollout-bench"),
    }
    return {
        name: str(configured or os.environ.get(name) or default)
        for name, (configured, default) in value_and_default.items()
    }


def _measured_names(config: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return names and places of the models and addresses of the servers that a merged config measures."""
    selected, settings = config.get("models"), _mapping(config.get("model_settings"))
    chosen = [*settings] if selected == AUTO else selected if isinstance(selected, list) else []
    names = [str(name) for name in chosen]
    weights = [_mapping(_mapping(settings.get(name)).get("weights")).values() for name in names]
    places = {str(place).removeprefix("hub:") for places in weights for place in places}
    endpoints = [one for one in map(_mapping, _mapping(config.get("endpoints")).values()) if one]
    urls = {str(one.get("url")).rstrip("/") for one in endpoints}
    return {
        "model": {
            *names,
            *places,
            *(str(one.get("model")) for one in endpoints),
            f"REPLACE_ENV_{MODEL}",
            f"REPLACE_ENV_{TOKENIZER}",
        },
        "url": {*urls, *(url.removesuffix("/v1") for url in urls), f"REPLACE_ENV_{URL}"},
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping; empty for another value, which the check of the config reports."""
    return value if isinstance(value, Mapping) else {}


def _with_short_form(config: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the top-level `profile` turned into a workload of that name, the only selected one.

    `profile` is HARNESS/NAME, or the longer form {harness: HARNESS, path: PATH}.
    """
    named, overrides = config.get("profile"), config.pop("overrides", None)
    if isinstance(named, str):
        profile = _named_shortly(named)
    elif isinstance(named, Mapping) and {"harness", "path"}.intersection(named):
        profile = dict(named)
    elif overrides is None:
        return config
    else:
        raise UserError(
            "config: overrides: needs a profile, but profile is missing",
            "add profile=guidellm/sanity_concurrent, or write overrides below a workload's profile",
        )
    if overrides is not None and profile.setdefault("overrides", overrides) is not overrides:
        raise UserError(
            "config: profile.overrides: is used together with overrides at the top",
            "write all overrides in one place",
        )
    file = PurePath(str(profile.get("path"))).name.removesuffix(".in")
    workload = file.removesuffix(".yaml").removesuffix(".yml").replace("_", "-")
    mode = mode_of_harness(str(profile.get("harness")))
    for key, meant in (("modes", mode), ("workloads", workload)):
        if key in command_line and command_line[key] != [meant]:
            raise UserError(
                f"config: {key}: {command_line[key]} conflicts with profile, which measures only {meant}",
                f"leave {key} out, or name the profile in a file: workload_settings.<name>.profile",
            )
    others = _mapping(config.get("workload_settings"))
    settings = {**others, workload: {**_mapping(others.get(workload)), "profile": profile}}
    kept = {key: value for key, value in config.items() if key != "profile"}
    return {**kept, "modes": [mode], "workloads": [workload], "workload_settings": settings}


def _named_shortly(named: str) -> dict[str, Any]:
    """Return harness and path from HARNESS/NAME, or from the path of a file in a folder with its harness's name."""
    path = PurePath(named)
    harness = path.parent.name
    if harness not in HARNESSES:
        raise UserError(
            f"config: profile: {named}: " + (f"{harness} is not a harness" if harness else "names no harness"),
            f"{did_you_mean(harness, HARNESSES)} (write HARNESS/NAME, or {{harness: HARNESS, path: {named}}})",
        )
    is_name = len(path.parts) == 2 and not Path(named).is_file()
    return {"harness": harness, "path": path.name if is_name else named}


def _with_profile_settings(workload: Mapping[str, Any], loaded: Found, where: str) -> dict[str, Any]:
    """Return a workload with the settings of its profile. The config may set only keys that the profile does not."""
    meaning, online = loaded.meaning, workload.get("online") or {}
    if not isinstance(online, Mapping):
        raise UserError(f"{where}.online: {online!r} is no mapping", "write keys below it, or leave it out")
    twice = [key for key in workload if key in meaning.workload]
    twice += [f"online.{key}" for key in online if key in meaning.online]
    if twice:
        raise UserError(
            f"{where}.{twice[0]}: the profile {loaded.title} also sets {twice[0]}",
            "leave it out here and write it into profile.overrides, or give the workload another name",
        )
    return {**meaning.otherwise, **workload, **meaning.workload, "online": {**online, **meaning.online}}


def _check_mode(config: Mapping[str, Any], loaded: Found, where: str) -> None:
    """Raise `UserError` if the config's modes do not fit the profile: a load needs mode online, nop mode startup."""
    modes, wanted = config.get("modes", [DEFAULT_MODE.name]), loaded.meaning.mode
    if not isinstance(modes, list) or not modes:
        return
    others = MODES.keys() - {SERVED}  # the check of modes reports a misspelt mode
    if modes != [STARTED] if wanted == STARTED else others.issuperset(map(str, modes)):
        does = "sends nothing" if wanted == STARTED else "sets how requests arrive at a server"
        raise UserError(
            f"{where}.profile: {does}, but modes has {', '.join(map(str, modes))}",
            f"write modes: [{wanted}]; other modes use only the profile's lengths and prompts",
        )


def _slo(config: Mapping[str, Any], limits: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Return `slo` from the goodput limits of profiles; empty if the config itself has limits.

    Raises:
        UserError: if profiles have different limits.
    """
    written, limits_of_profiles = (
        config.get("slo"),
        {name: limits_of for name, limits_of in limits.items() if limits_of},
    )
    is_written = written is not None and any(value is not None for value in _mapping(written).values())
    if not limits_of_profiles or is_written or not isinstance(written or {}, Mapping):
        return {}
    first = next(iter(limits_of_profiles.values()))
    if any(limits_of != first for limits_of in limits_of_profiles.values()):
        raise UserError(
            f"config: slo: the profiles have different goodput limits: {_flow(limits_of_profiles)}",
            "set slo for all of them, or measure them in two calls",
        )
    return {"slo": first}
