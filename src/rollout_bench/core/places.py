"""Where the package and the workflow lie: in a clone, or installed from the wheel."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

_LINK = Path(".snakemake") / "rollout-bench"


def home() -> Path:
    """Return the folder of the workflow, its configs and profiles: the clone, or their copy in an installed package."""
    installed = PACKAGE / "share"
    return installed if installed.is_dir() else PACKAGE.parents[1]


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
