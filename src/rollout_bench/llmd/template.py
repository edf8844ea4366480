"""Profiles as llm-d-benchmark writes them: where they are found, and their REPLACE_ENV_ tokens filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.core.secrets import may_be_secret
from rollout_bench.core.yaml_files import mapping_in, read_text

HOME = Path("configs") / "llm-d"
"""Where a profile that is named without a folder is looked for, in a folder of its harness."""

CLONE = Path(__file__).parents[3]
"""The clone that this package belongs to: its profiles are found wherever snakemake runs."""

ENDINGS = ("", ".yaml.in", ".yaml", ".yml", ".in")
"""What a profile's name may lack: llm-d's own command line leaves it out."""

TOKEN = re.compile(r"REPLACE_ENV_(?P<name>\w+)")

MODEL = "LLMDBENCH_DEPLOY_CURRENT_MODEL"
TOKENIZER = "LLMDBENCH_DEPLOY_CURRENT_TOKENIZER"
MAX_MODEL_LEN = "LLMDBENCH_DEPLOY_CURRENT_MAX_MODEL_LEN"
URL = "LLMDBENCH_HARNESS_STACK_ENDPOINT_URL"

OF_THE_LAUNCH = (MODEL, TOKENIZER, MAX_MODEL_LEN, URL)
"""What each launch knows better than the environment, and fills in last."""

_REMEDY = "mend the profile; docs/llm-d.md shows how each harness writes its own"


def located(harness: str, path: str, where: str) -> Path:
    """Return the file of a profile: a path, absolute or below the current folder, or a name found in `HOME`.

    Args:
        harness: whose profile it is; the folder below `HOME` that a name is found in.
        path: as the user wrote it; the ending may be missing.
        where: what errors begin with.

    Raises:
        UserError: there is no such file, naming the nearest one.
    """
    named = Path(path).expanduser() if path.startswith("~/") else Path(path)
    file = found_at(harness, path)
    if file is not None:
        return file
    if _is(Path.is_dir, named):
        raise UserError(f"{where}.path: {path}: is a folder", "name a file in it")
    known = sorted({file.name for folder in _folders(harness, named)[1:] for file in _profiles(folder)})
    if len(named.parts) == 1 and known:
        raise UserError(
            f"{where}.path: there is no profile {path} in {HOME / harness}",
            (did_you_mean(named.name, known) if near_miss(named.name, known) else f"it holds: {', '.join(known)}")
            + f"; llm-d's own is given by its path: profile={{harness: {harness}, path: /path/to/{path}}}",
        )
    raise UserError(
        f"{where}.path: {path}: there is no such file", f"give its path, or the name of a file in {HOME / harness}"
    )


def found_at(harness: str, path: str) -> Path | None:
    """Return the file of a profile, as `located` does; None where there is none."""
    named = Path(path).expanduser() if path.startswith("~/") else Path(path)
    places = (folder / f"{named}{ending}" for folder in _folders(harness, named) for ending in ENDINGS)
    return next((place for place in places if _is(Path.is_file, place)), None)


def _folders(harness: str, named: Path) -> list[Path]:
    return [Path()] if named.is_absolute() else [Path(), HOME / harness, CLONE / HOME / harness]


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def _profiles(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.y*ml*") if path.is_file()] if folder.is_dir() else []


def filled(text: str, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH) -> str:
    """Return a template's text with its tokens filled in: with what is `known` first, then from the environment.

    Those that are filled in `later`, by the launch, stay as they are where they are not known. What stands in a
    template's comments need not be known.

    Raises:
        UserError: a token stays empty, or its value may be a secret, which would stand in the profile that is kept.
    """
    empty: dict[str, None] = {}
    filled_in = "".join(_filled_line(line, known, where, later, empty) for line in text.splitlines(keepends=True))
    if empty:
        tokens, names = " and ".join(f"REPLACE_ENV_{name}" for name in empty), " and ".join(empty)
        stay, them = ("stays", "it") if len(empty) == 1 else ("stay", "them")
        raise UserError(
            f"{where}: {tokens}: {stay} empty: no launch knows {them}, and the environment has no {names}",
            f"export {' '.join(f'{name}=...' for name in empty)}, or write the value into the profile",
        )
    return filled_in


def _filled_line(
    line: str, known: Mapping[str, str], where: str, later: Collection[str], empty: dict[str, None]
) -> str:
    code, hash_sign, comment = line.partition(" #") if not line.lstrip().startswith("#") else ("", "", line)

    def value(found: re.Match[str]) -> str:
        name = found["name"]
        said = known.get(name) or ("" if name in later else os.environ.get(name, ""))
        if not said and name in later:
            return found[0]
        if not said:
            empty[name] = None
            return ""
        if "\n" in said or may_be_secret(name, said):
            raise UserError(
                f"{where}: REPLACE_ENV_{name}: may be a secret, and the filled profile is kept beside the results",
                "take it out of the profile: keys of endpoints stand in api_key_env",
            )
        return said

    return TOKEN.sub(value, code) + hash_sign + comment


def content_of(
    path: Path, known: Mapping[str, str], where: str, later: Collection[str] = OF_THE_LAUNCH
) -> dict[str, Any]:
    """Return the keys of a profile, its tokens filled in as `filled` does.

    Raises:
        UserError: the file can't be read, is no YAML with keys at its top, or has a token that stays empty.
    """
    what = "profile of llm-d-benchmark"
    text = read_text(path, what, _REMEDY)
    return mapping_in(filled(text, known, f"{where}: {path}", later), path, what, _REMEDY, " (load: ..., data: ...)")


def is_of_the_launch(value: Any, *names: str) -> bool:
    """Return whether a value is nothing but one of the tokens `names`, which each launch fills in itself."""
    found = TOKEN.fullmatch(value) if isinstance(value, str) else None
    return found is not None and found["name"] in names
