"""Where the package and the workflow lie: in a clone, or installed from the wheel."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError, closest

PACKAGE = Path(__file__).resolve().parents[1]

_LINK = Path(".snakemake") / "rollout-bench"


CONFIG = Path("config.yaml")
"""Default config, in the folder of a run."""

CONFIGS = Path("config")
"""Folder of the workflow's configs, the default one among them."""


def home() -> Path:
    """Return the folder of the workflow, its configs and profiles: the clone, or their copy in an installed package."""
    installed = PACKAGE / "share"
    return installed if installed.is_dir() else PACKAGE.parents[1]


def shipped(path: Path) -> Path:
    """Return a file of the workflow by its name here: this folder's, else the one that the package has."""
    local = home() / (CONFIGS / path if path == CONFIG else path)
    is_ours = not path.is_absolute() and local.is_relative_to(home() / CONFIGS) and local.is_file()
    return local if is_ours and not path.exists() else path


def config_file(name: str) -> Path:
    """Return the config file that an argument names.

    Raises:
        UserError: there is none of this name, neither here nor in the package.
    """
    path = shipped(Path(name))
    if not os.path.exists(path):  # noqa: PTH110 (a name that is too long is none)
        examples = (str(CONFIGS / example.name) for example in (home() / CONFIGS).glob("*.yaml"))
        beside = (str(other) for other in path.parent.glob("*.y*ml"))
        files = name.split(",")
        listed = f"separate files by spaces: {' '.join(files)}" if all(map(os.path.exists, files)) else ""
        stems = {Path(one).stem: one for one in (*beside, *examples)}
        close = closest(Path(name).stem, stems, 0.75)
        remedy = f"did you mean '{stems[close]}'?" if close else "name one that is there, or one of config/README.md"
        raise UserError(f"{name}: there is no such config file", listed or remedy)
    return path


def name_of(config: Path) -> str:
    """Return the name by which an argument names a config file: `shipped`, without the package's folder."""
    name = os.path.relpath(config, home())
    return name if shipped(Path(name)) == config else os.path.relpath(config)


def newest_source(*parts: str) -> Path:
    """Return the newest source file among the given packages and modules."""
    paths = [PACKAGE / part for part in parts]
    sources = [path for part in paths for path in (part, *part.rglob("*")) if path.suffix in (".py", ".j2", ".yaml")]
    return max(sources, key=lambda path: path.stat().st_mtime_ns)


def python_path() -> str:
    """Return PYTHONPATH with this package in front, so that any Python imports it without installing it.

    Beside an installed package lie others, which would take the place of those of an engine's Python. So the path then
    has a folder with a link to the package alone, in the folder of the run, which nodes of a cluster share.
    """
    folder = PACKAGE.parent
    if folder != home() / "src":
        folder = _LINK.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / PACKAGE.name
        if link.resolve() != PACKAGE:  # none yet, or of another installation
            link.unlink(missing_ok=True)
            link.symlink_to(PACKAGE)
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


_FOLDERS = re.compile(r"(?<![\w./~])/(?:[^\s/:,;'\"]+/)+")
"""The folders of an absolute path. The path of a URL does not match."""


def with_short_paths(content: Any) -> Any:
    """Return nested `content` with each absolute path shortened to `.../name`."""
    if isinstance(content, str):
        return _FOLDERS.sub(".../", content)
    if isinstance(content, Mapping):
        return {name: with_short_paths(value) for name, value in content.items()}
    return [with_short_paths(value) for value in content] if isinstance(content, list | tuple) else content
