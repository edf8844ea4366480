"""Files of llm-d-benchmark's profiles: search for a file, and replacement of its REPLACE_ENV_ tokens."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.core.yaml_files import mapping_in, read_text

HOME = Path("configs") / "llm-d"
"""Folder of the profiles that are given by name, with a folder for each harness."""

CLONE = Path(__file__).parents[3]
"""The clone of this package. Its profiles are found from any working folder of snakemake."""

ENDINGS = ("", ".yaml.in", ".yaml", ".yml", ".in")
"""Endings that may be missing in a profile's name, as on llm-d's own command line."""

TOKEN = re.compile(r"REPLACE_ENV_(?P<name>\w+)")

MODEL = "LLMDBENCH_DEPLOY_CURRENT_MODEL"
TOKENIZER = "LLMDBENCH_DEPLOY_CURRENT_TOKENIZER"
MAX_MODEL_LEN = "LLMDBENCH_DEPLOY_CURRENT_MAX_MODEL_LEN"
URL = "LLMDBENCH_HARNESS_STACK_ENDPOINT_URL"

OF_THE_LAUNCH = (MODEL, TOKENIZER, MAX_MODEL_LEN, URL)
"""Variables that each launch fills in, instead of the environment."""

_REMEDY = "mend the profile; docs/llm-d.md shows how each harness writes its own"


def located(harness: str, path: str, where: str) -> Path:
    """Return the file of a profile.

    Args:
        harness: harness of the profile, and name of its folder below `HOME`.
        path: the user's path, absolute or relative to the current folder, or a name in `HOME`. The ending may be
            missing.
        where: first words of error messages.

    Raises:
        UserError: if there is no such file. The error suggests a similar name.
    """
    named = Path(path).expanduser() if path.startswith("~/") else Path(path)
    folders = [Path()] if named.is_absolute() else [Path(), HOME / harness, CLONE / HOME / harness]
    for place in (f"{folder / named}{ending}" for folder in folders for ending in ENDINGS):
        if os.path.isfile(place):  # noqa: PTH113 (a name that is too long is none)
            return Path(place)
    if os.path.isdir(named):  # noqa: PTH112 (as above)
        raise UserError(f"{where}.path: {path}: is a folder", "name a file in it")
    known = sorted({file.name for folder in folders[1:] for file in folder.glob("*.y*ml*")})
    holds = did_you_mean(named.name, known) if near_miss(named.name, known) else f"it holds: {', '.join(known)}"
    raise UserError(
        f"{where}.path: there is no profile {path} in {HOME / harness}"
        if len(named.parts) == 1
        else f"{where}.path: {path}: there is no such file",
        f"write its path, or the name of a file in {HOME / harness}; {holds}",
    )


def filled(text: str, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH) -> str:
    """Return a template's text with its tokens replaced by values from `known`, else from the environment.

    A token of `later` without a known value stays, and the launch fills it in. Tokens in comments are ignored.

    Raises:
        UserError: if a token has no value, or if its value may be a secret, because the filled profile is kept.
    """
    lines = [
        ("", "", line) if line.lstrip().startswith("#") else line.partition(" #")
        for line in text.splitlines(keepends=True)
    ]
    names = [found["name"] for code, *_ in lines for found in TOKEN.finditer(code)]
    values = {name: known.get(name) or ("" if name in later else os.environ.get(name, "")) for name in names}
    empty = [name for name, value in values.items() if not value and name not in later]
    if empty:
        tokens = " and ".join(f"REPLACE_ENV_{name}" for name in empty)
        raise UserError(
            f"{where}: {tokens}: empty, because neither a launch nor the environment has {' and '.join(empty)}",
            f"export {' '.join(f'{name}=...' for name in empty)}, or write the value into the profile",
        )
    for name, value in values.items():
        if value and ("\n" in value or may_be_secret(name, value)):
            raise UserError(
                f"{where}: REPLACE_ENV_{name}: may be a secret, but the filled profile is saved with the results",
                "remove it from the profile, and set api_key_env of the endpoint",
            )
    return "".join(
        TOKEN.sub(lambda found: values[found["name"]] or found[0], code) + hash_sign + comment
        for code, hash_sign, comment in lines
    )


def content_of(
    path: Path, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH
) -> dict[str, Any]:
    """Return the keys of a profile, with tokens replaced as in `filled`.

    Raises:
        UserError: if the file can't be read, is no YAML mapping, or has a token without a value.
    """
    what = "profile of llm-d-benchmark"
    text = read_text(path, what, _REMEDY)
    return mapping_in(filled(text, known, f"{where}: {path}", later), path, what, _REMEDY, " (load: ..., data: ...)")
