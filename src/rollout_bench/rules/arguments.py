"""The config that Snakemake's arguments give, where possible without its parser, whose imports take a second."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from rollout_bench.core.errors import UserError
from rollout_bench.core.places import config_file

_PROFILES = Path("default"), Path("profiles", "default"), Path("workflow", "profiles", "default")
"""Where Snakemake looks for the profile of a workflow in this folder."""


_MORE = re.compile(r"config|directory|jobs|__|[?\\]")
"""Part of a profile that may change what is read here, also by a template."""


KEY = re.compile(r"[a-zA-Z_][\w-]*\w")
"""Name before the = of a value, as Snakemake demands it."""


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
        given, others = parser().parse_known_args(words)
    except argparse.ArgumentError:
        return None
    if others or "SNAKEMAKE_PROFILE" in os.environ or any(map(_says_more, _PROFILES)):
        return None
    config: dict[str, Any] = {}
    for entry in given.config:
        key, equals, text = entry.partition("=")
        if not equals or not KEY.fullmatch(key):
            return None
        update_config(config, {key: value_of(text.strip("'\""))})
    return Call(config, [path.absolute() for path in given.configfile], given.directory)


def parser() -> argparse.ArgumentParser:
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
