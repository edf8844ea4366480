"""The folder of manifests: what is wanted is in it, what was wanted before is not, other people's files stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.errors import UserError
from rollout_bench.files import write_whole
from rollout_bench.kubernetes.manifests import HEADER


@dataclass(frozen=True)
class Changes:
    """Names of the files that were written since they were missing or said something else, and that were removed."""

    written: list[str]
    removed: list[str]


def put(folder: Path, files: Mapping[str, str]) -> Changes:
    """Makes `folder` hold `files` (path in it -> content); a file that says this already is not touched.

    Files there that begin with our header and are not among `files` are removed, and nothing else is.

    Raises:
        UserError: the folder can't be written, or somebody else's file has the name of one of ours.
    """
    removed = []
    try:
        present = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.yaml"))}
        foreign = next((name for name in files if not present.get(name, HEADER).startswith(HEADER)), None)
        if foreign is not None:
            raise UserError(f"{folder / foreign}: was changed or is not of this workflow", "move it away")
        for name, text in present.items():
            if name not in files and text.startswith(HEADER):
                (folder / name).unlink()
                removed.append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}: cannot be read or written: {error}", "check owner and permissions") from None
    written = [name for name, text in files.items() if present.get(name) != text]
    for name in written:
        write_whole(folder / name, files[name].encode())
    return Changes(written, removed)
