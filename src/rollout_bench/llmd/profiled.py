"""Expansion of a config's llm-d-benchmark profiles into workloads."""

import contextlib
import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import Field

from rollout_bench.contracts.fields import Args, Strict, Text
from rollout_bench.contracts.modes import DEFAULT_MODE, MODES
from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.llmd.harnesses import HARNESSES, meaning_of
from rollout_bench.llmd.meaning import SERVED, STARTED, Meaning, MeasuredHere
from rollout_bench.llmd.overrides import laid_over, parsed
from rollout_bench.llmd.template import ENDINGS, MAX_MODEL_LEN, OF_THE_LAUNCH, content_of, found_at, located


class WorkloadProfile(Strict):
    """A workload profile of llm-d-benchmark that defines the load of a workload."""

    harness: Text = Field(description=f"Harness of the profile: {', '.join(HARNESSES)}.")
    path: Text = Field(
        description=(
            "The file: a path, absolute or relative to snakemake's working folder, or the name of a file in "
            "configs/llm-d/<harness>/, with or without its ending."
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
        file: path of the profile.
        harness: name of the profile's harness.
        content: keys of the profile, with overrides; tokens that only a launch can fill in remain.
        meaning: workload of the profile.
    """

    file: Path
    harness: str
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
    for name in workloads:
        own = settings.get(name) if isinstance(name, str) else None
        if isinstance(own, Mapping) and own.get("profile") is not None:
            found = profile_of(own["profile"], config, f"config: workload_settings.{name}.profile")
            settings = {**settings, name: _merged(own, found, name)}
            _check_mode(config, found, name)
            limits[name] = found.meaning.slo
    return {**config, "workload_settings": settings, **_slo(config, limits)}


def profile_of(written: Any, config: Mapping[str, Any], where: str) -> Found:
    """Return the profile that a workload names.

    Args:
        written: `profile` of the workload.
        config: the merged config, for models and endpoints.
        where: first words of error messages.

    Raises:
        UserError: if the profile is not found, can't be read, or has an unsupported key.
    """
    if not isinstance(written, Mapping):
        raise UserError(f"{where}: {written!r} is no mapping", "write {harness: guidellm, path: sanity_concurrent}")
    for key in written:
        if key not in WorkloadProfile.model_fields:
            raise UserError(
                f"{where}.{key}: there is no such key", did_you_mean(str(key), WorkloadProfile.model_fields)
            )
    for key in ("harness", "path"):
        if not isinstance(written.get(key), str) or not written[key]:
            raise UserError(f"{where}.{key}: is missing", "write {harness: guidellm, path: sanity_concurrent}")
    harness = written["harness"]
    if harness not in HARNESSES:
        raise UserError(f"{where}.harness: {harness!r} is not known", did_you_mean(harness, HARNESSES))
    file = located(harness, written["path"], where)
    later = [name for name in OF_THE_LAUNCH if name != MAX_MODEL_LEN or config.get("models")]
    content, served = content_of(file, _known(config), where, later), served_by(config)

    def asked() -> dict[str, Any]:
        found: dict[str, Any] = {}
        with contextlib.suppress(UserError):  # the overrides may fix the error
            meaning_of(harness, content, where, served, found)
        return found

    changed = laid_over(content, parsed(written.get("overrides"), f"{where}.overrides"), where, asked)
    return Found(file, harness, changed, meaning_of(harness, changed, f"{where}: {file}", served))


def rendered(profile: WorkloadProfile, config: Mapping[str, Any], of_the_launch: Mapping[str, str]) -> str:
    """Return the text of a profile for a harness, with tokens filled in and overrides applied.

    Args:
        profile: a profile that was read before.
        config: the config, as for `profile_of`.
        of_the_launch: llm-d's variable -> value for one launch.

    Raises:
        UserError: if the file is missing now, or can't be read.
    """
    where = "config: profile"
    file = located(profile.harness, profile.path, where)
    known = {**_known(config), **of_the_launch}
    content = laid_over(content_of(file, known, where), parsed(profile.overrides, where), where)
    changed = f", with {_flow(profile.overrides)}" if profile.overrides else ""
    head = (
        f"# {profile.harness}/{file.name}{changed}, as the launches of this experiment fill it in.\n"
        "# PORT is picked by each server of ours: put in the port of a server to run the profile by hand.\n"
    )
    found = profile_of(profile.model_dump(), config, where)
    notes = "".join(f"# {note}\n" for note in found.meaning.notes)
    return head + notes + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def readings(config: Mapping[str, Any]) -> list[str]:
    """Return lines with the resulting workload of each selected profile, and with its differences to the harness.

    Args:
        config: a config whose profiles were read before.
    """
    lines = []
    for name in config["workloads"]:
        profile = config["workload_settings"].get(name, {}).get("profile")
        if profile is not None:
            found = profile_of(profile, config, "config: profile")
            meaning, overrides = found.meaning, profile.get("overrides")
            changed = f", with {_flow(overrides)}" if overrides else ""
            parts = {"online": meaning.online, "slo": meaning.slo}
            read = {**meaning.workload, **{key: part for key, part in parts.items() if part}}
            lines += [f"profile: {name} is {found.file}{changed}, read as {_flow(read)}"]
            lines += [f"profile: {name}: {note}" for note in meaning.notes]
    return lines


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True).strip()


def _known(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the values from the config for a profile's tokens: llm-d's variable -> value."""
    kubernetes = _mapping(config.get("kubernetes"))
    found = {
        "LLMDBENCH_VLLM_COMMON_NAMESPACE": (kubernetes.get("namespace"), "default"),
        "LLMDBENCH_HARNESS_NAMESPACE": (kubernetes.get("namespace"), "default"),
        "LLMDBENCH_HARNESS_PVC_NAME": (kubernetes.get("results_claim"), "rollout-bench"),
    }
    return {name: str(said or os.environ.get(name) or default) for name, (said, default) in found.items()}


def served_by(config: Mapping[str, Any]) -> MeasuredHere:
    """Return the models and servers that a merged config measures."""
    selected, settings = config.get("models"), _mapping(config.get("model_settings"))
    names = [str(name) for name in selected] if isinstance(selected, list) else []
    weights = [_mapping(_mapping(settings.get(name)).get("weights")).values() for name in names]
    endpoints = [one for one in map(_mapping, _mapping(config.get("endpoints")).values()) if one]
    urls = [str(one.get("url")).rstrip("/") for one in endpoints]
    return MeasuredHere(
        frozenset([*names, *(str(one.get("model")) for one in endpoints)])
        | {str(place).removeprefix("hub:") for places in weights for place in places},
        frozenset(urls) | {url.removesuffix("/v1") for url in urls},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping; empty for another value, which the check of the config reports."""
    return value if isinstance(value, Mapping) else {}


def _with_short_form(config: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the top-level `profile` turned into a workload of that name, the only selected one.

    `profile` is HARNESS/NAME, or the longer form {harness: HARNESS, path: PATH}.
    """
    named, overrides = config.get("profile"), config.pop("overrides", None)
    if isinstance(named, Mapping) and {"harness", "path"}.intersection(named):
        if overrides is not None and "overrides" in named:
            raise UserError(
                "config: profile.overrides: is used together with overrides at the top",
                "write all overrides in one place",
            )
        own = {**named, "overrides": named.get("overrides", overrides)}
    elif isinstance(named, str):
        own = {**_named_shortly(named), "overrides": overrides}
    elif overrides is not None:
        raise UserError(
            "config: overrides: needs a profile, but profile is missing",
            "add profile=guidellm/sanity_concurrent, or write overrides below a workload's profile",
        )
    else:
        return config
    config.pop("profile")
    harness = own.get("harness")
    workload = PurePath(str(own.get("path"))).name.replace("_", "-")
    for ending in sorted(ENDINGS, key=len, reverse=True):
        workload = workload.removesuffix(ending) if ending else workload
    others = _mapping(config.get("workload_settings"))
    further = {key: value for key, value in _mapping(others.get(workload)).items() if key != "profile"}
    mode = STARTED if harness == "nop" else SERVED
    for key, meant in (("modes", mode), ("workloads", workload)):
        if key in command_line and command_line[key] != [meant]:
            raise UserError(
                f"config: {key}: {command_line[key]} conflicts with profile, which measures only {meant}",
                f"leave {key} out, or name the profile in a file: workload_settings.<name>.profile",
            )
    return {
        **config,
        "modes": [mode],
        "workloads": [workload],
        "workload_settings": {**others, workload: {**further, "profile": own}},
    }


def _named_shortly(named: str) -> dict[str, str]:
    """Return harness and path from HARNESS/NAME, or from the path of a file in a folder with its harness's name."""
    path = PurePath(named)
    harness = path.parent.name
    if harness not in HARNESSES:
        having = [f"{known}/{named}" for known in HARNESSES if not harness and found_at(known, named)]
        near = near_miss(harness, HARNESSES)
        remedy = " or ".join(having) if having else f"HARNESS/NAME, or {{harness: HARNESS, path: {named}}}"
        raise UserError(
            f"config: profile: {named}: " + (f"{harness} is not a harness" if harness else "names no harness"),
            (f"did you mean '{near}'? Else " if near else "") + f"write {remedy}; harnesses are {', '.join(HARNESSES)}",
        )
    is_name = len(path.parts) == 2 and not Path(named).is_file()
    return {"harness": harness, "path": path.name if is_name else named}


def _merged(own: Mapping[str, Any], found: Found, name: str) -> dict[str, Any]:
    """Return a workload with the settings of its profile. The config may set only keys that the profile does not."""
    where, meaning = f"config: workload_settings.{name}", found.meaning
    online = own.get("online") or {}
    if not isinstance(online, Mapping):
        raise UserError(f"{where}.online: {online!r} is no mapping", "write keys below it, or leave it out")
    twice = [key for key in own if key in meaning.workload]
    twice += [f"online.{key}" for key in online if key in meaning.online]
    if twice:
        raise UserError(
            f"{where}.{twice[0]}: the profile {found.file} also sets {twice[0]}",
            "leave it out here and write it into profile.overrides, or give the workload another name",
        )
    profile = {
        "harness": found.harness,
        "path": own["profile"]["path"],
        "overrides": parsed(own["profile"].get("overrides"), where),
    }
    return {**meaning.otherwise, **own, **meaning.workload, "online": {**online, **meaning.online}, "profile": profile}


def _check_mode(config: Mapping[str, Any], found: Found, name: str) -> None:
    """Raise `UserError` if the config's modes do not fit the profile: a load needs mode online, nop mode startup."""
    modes = config.get("modes", [DEFAULT_MODE.name])
    if found.meaning.mode == STARTED and isinstance(modes, list) and modes != [STARTED]:
        raise UserError(
            f"config: workload_settings.{name}.profile: nop sends nothing, but modes has {', '.join(map(str, modes))}",
            "write modes: [startup]",
        )
    others = MODES.keys() - {SERVED}  # the check of modes reports a misspelt mode
    if found.meaning.mode == SERVED and isinstance(modes, list) and modes and others.issuperset(map(str, modes)):
        raise UserError(
            f"config: workload_settings.{name}.profile: sets how requests arrive at a server, but modes lacks online",
            "add online to modes; other modes use only the profile's lengths and prompts",
        )


def _slo(config: Mapping[str, Any], limits: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Return `slo` from the goodput limits of profiles; empty if the config itself has limits.

    Raises:
        UserError: if profiles have different limits.
    """
    written = config.get("slo")
    said = isinstance(written, Mapping) and any(value is not None for value in written.values())
    found = {name: own for name, own in limits.items() if own}
    if said or (written is not None and not isinstance(written, Mapping)) or not found:
        return {}
    for (one, first), (other, second) in itertools.pairwise(found.items()):
        if first != second:
            raise UserError(
                f"config: slo: the profiles of {one} and {other} have different goodput limits, {first} and {second}",
                "set slo for all of them, or measure them in two calls",
            )
    return {"slo": next(iter(found.values()))}
