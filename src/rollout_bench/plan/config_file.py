"""Validate the config that Snakemake merged from files and command line, or raise a two-line error."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rollout_bench.contracts.load import DISTRIBUTIONS
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError, did_you_mean, near_miss, shown
from rollout_bench.core.secrets import looks_secret, secret_words
from rollout_bench.core.yaml_files import read_mapping
from rollout_bench.llmd.profiled import with_profiles
from rollout_bench.plan.checks import check_no_secret
from rollout_bench.plan.config import Config
from rollout_bench.plan.serving import PACING, OnlineLoad

_OTHER_NAMES = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "npu": "ascend",
    "x86": "cpu",
    "throughput": "output_tokens_per_s",
    "safetensors": "auto",
}
"""Common names of platforms, metrics and formats for which the nearest spelling misleads (gpu is nearer to cpu)."""


def check_folder(folder: Path) -> None:
    """Check that a folder of the workflow is a folder, if it exists.

    Raises:
        UserError: it is a file or a broken link.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{folder}: is a link to {folder.readlink()}, which does not exist",
            "make that folder (is its disk mounted?), or remove the link",
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, but the workflow needs a folder with this name", "move it away")


def check_metadata(folder: Path) -> None:
    """Check for damaged files on which Snakemake would end with a traceback.

    Raises:
        UserError: a file is damaged.
    """
    for path in folder.glob("*"):
        try:
            path.read_bytes().decode() if path.is_file() else None
        except OSError:  # removed meanwhile by another run
            continue
        except UnicodeDecodeError:
            remedy = (
                f"rm -r {folder}: Snakemake's notes on how files were made; results stay, nothing is measured again"
            )
            raise UserError(f"{path}: is damaged", remedy) from None


def check_config_file(path: Path) -> None:
    """Check that `path` is YAML with keys at its top, so that Snakemake can read it.

    Raises:
        UserError: it is not such YAML; the message names the file and, for a syntax error, line and column.
    """
    content = read_mapping(
        path,
        "config",
        "mend the file; docs/reference/config.csv shows how a config looks",
        "run snakemake in the clone, or put a config.yaml where you run it; docs/reference/config.csv shows one",
        " (models: ..., quants: ...)",
    )
    if "__use_yte__" in content:  # Snakemake would run Python code in such a file
        raise UserError(
            f"{path}: __use_yte__: a config contains only values, no code",
            "leave __use_yte__ out, and write the values",
        )


def read_config(merged: Mapping[str, Any], command_line: Mapping[str, Any] | None = None) -> Config:
    """Validate the merged config.

    Args:
        merged: the config.
        command_line: the part of it from the command line.

    Raises:
        UserError: a value is invalid; the message has the key's dotted path, and a suggestion for an unknown key.
    """
    # before any other check, so that no message repeats a secret; endpoints have a separate check
    elsewhere = {key: value for key, value in merged.items() if key != "endpoints"}
    check_no_secret("", elsewhere, lambda _, value: looks_secret(value))
    read = with_profiles(merged, command_line)
    try:
        return Config.model_validate(read)
    except ValidationError as error:
        raise _of_profile(_most_telling(error.errors()), read, merged) or told(error.errors()) from None


def _of_profile(error: ErrorDetails, read: Mapping[str, Any], written: Mapping[str, Any]) -> UserError | None:
    """Return the error for a value that a profile sets and the user did not write; None for other values."""
    if error["loc"][:1] != ("workload_settings",) or len(error["loc"]) < 3:
        return None
    _, name, *keys = error["loc"]
    profile = _at(read, ("workload_settings", name, "profile"))
    place = keys[:2] if keys[0] == "online" else keys[:1]
    if not isinstance(profile, Mapping) or keys[0] == "profile":
        return None
    if _at(written, ("workload_settings", name, *place)) is not None:
        return None
    own = f"config: workload_settings.{name}"
    problem = _told(error).problem.replace(f"{own}.", f"{own}.profile: {profile['path']}: comes to ", 1)
    of_time = " (of a load by time: rate x duration)" if place == ["prompts"] else ""
    return UserError(problem, f"correct what {'.'.join(map(str, place))} comes from{of_time}, there or in overrides")


def _at(content: Any, place: Sequence[Any]) -> Any:
    for part in place:
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def name_after(files: Sequence[Path]) -> str:
    """Return the name of a config from `files`, which are merged over the default one.

    The name does not depend on the folders of the files; without files it is `default`.
    """
    joined = re.sub(r"[^\w.+-]+", "-", "+".join(file.stem for file in files))
    return joined.lstrip("+.-")[:60] or "default"


def told(errors: list[ErrorDetails], place: tuple[str, ...] = ()) -> UserError:
    """Return the error for a part of a config that does not validate; `place` is its path in the config."""
    found = _most_telling(errors)
    return _told({**found, "loc": (*place, *found["loc"])})


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    # an unknown key explains a missing one, so it is reported first
    return next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])


def _told(error: ErrorDetails) -> UserError:
    # Without the alternatives of the value's type.
    parts = error["loc"][:1] if error["loc"][:1] in (("launches",), ("iterations",)) else _without_tags(error["loc"])
    where = ".".join(str(part) for part in parts if part != "[key]") or "config"
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        return UserError(f"config: {where}: there is no such key", _instead(error["loc"]))
    if error["type"] == "missing":
        return UserError(f"config: {where}: is missing", "set it in config.yaml, or in another --configfile")
    if error["type"] == "union_tag_invalid":
        said = f"{shown(error['ctx']['tag'])} is not known" if error["ctx"]["tag"] else "is missing"
        return UserError(f"config: {where}.distribution: {said}", did_you_mean(error["ctx"]["tag"], DISTRIBUTIONS))
    if error["loc"][-1] == "api_key_env":
        return UserError(
            f"config: {where}: is not the name of an environment variable",
            "put the key into a variable and write the variable's name: a config must not contain keys",
        )
    if error["type"] == "string_pattern_mismatch" and error["loc"][-1] == "[key]" and "environment" in error["loc"]:
        return UserError(f"config: {where} is not a variable name", "use letters, digits and '_', no digit first")
    if error["type"] == "string_pattern_mismatch" or error["type"] == "string_too_long":
        return UserError(
            f"config: {where}: {shown(value)} can't be a name",
            "use up to 60 letters, digits, '.', '+' and '-', the first a letter or digit: it becomes part of a path",
        )
    if error["type"] == "literal_error":
        return UserError(
            f"config: {where}: {shown(value)} is not known",
            did_you_mean(_OTHER_NAMES.get(str(value), str(value)), _choices(error)),
        )
    if error["type"] == "model_type":
        short = "write HARNESS/NAME of a profile of llm-d-benchmark, or " if error["loc"] == ("profile",) else ""
        return UserError(
            f"config: {where}: {'null' if value is None else shown(value)} is no mapping",
            f"{short}write keys below it, or leave it out: {_see_reference(where)}",
        )
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] == "string_too_short":
        return UserError(f"config: {where}: is empty", _see_reference(where))
    if error["type"] == "value_error":
        if where in ("launches", "interleave") and near_miss(str(value), ["auto"]):
            return UserError(f"config: {where}: {message}", did_you_mean(str(value), ["auto"]))
        return UserError(f"config: {where}: {message}", _see_reference(where))
    is_variable = parts[:2] == ("engine", "environment")
    is_secret = "headers" in parts or (is_variable and secret_words(str(parts[-1])))
    what = "what stands there" if is_secret else shown(value)
    return UserError(f"config: {where}: {what} {message}", _see_reference(where))


def _instead(location: tuple[int | str, ...]) -> str:
    """Return the remedy for an unknown key at `location`."""
    key = str(location[-1])
    if ":" in key:
        return "write a space after the colon: a word like this is one key to YAML"
    if location[0] == "endpoints" and secret_words(key):
        return "did you mean 'api_key_env'? It names an environment variable: a config must not contain keys"
    if location[-2:-1] != ("online",) and key in ("online", *OnlineLoad.model_fields):
        return f"write it below workload_settings.<name>{'' if key == 'online' else '.online'}"
    sections = [one.settings for one in MODES.values() if one.settings and key in _known_keys((one.settings,))]
    if location[:-1] == () and sections:
        return f"write it below {' or '.join(sections)}"
    # overrides are at the top beside profile: HARNESS/NAME, and are removed before validation
    return did_you_mean(key, [*_known_keys(location[:-1]), *(["overrides"] if len(location) == 1 else [])])


def _without_tags(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return `location` without pydantic's tags: the kind of a length, and the tried type of a union."""
    kinds = ("fixed", *DISTRIBUTIONS)
    return tuple(
        part
        for place, part in enumerate(location)
        if part != "constrained-float"
        and not (part in ("one", "several") and location[place - 1] in PACING)
        and not (part in kinds and place and str(location[place - 1]).endswith(("_tokens", "_ms", "count")))
    )


def _see_reference(where: str) -> str:
    return f"docs/reference/config.csv says what {where.split('.')[0]} takes"


def _choices(error: ErrorDetails) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model at `location`, from `Config` down."""
    annotation: Any = Config
    outer = {"sweep": 1, "setting_settings": 2}.get(str(next(iter(location), "")), 0)  # below are top-level keys
    for part in location[outer:]:
        models = list(_models(annotation))
        if part in DISTRIBUTIONS:
            annotation = next(model for model in models if model.__name__.lower() == part)
        elif models and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
        else:
            annotation = next((get_args(held)[-1] for held in _holders(annotation)), annotation)
    models = list(_models(annotation))
    return list(models[0].model_fields) if models else []


def _holders(annotation: Any) -> Iterator[Any]:
    """Yield all lists and mappings among the types of an annotation."""
    if get_origin(annotation) in (dict, list):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _holders(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _holders(option)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield all models among the types of an annotation."""
    if get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _models(option)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
