"""A copy of the project in a folder that stays, so that a measurement can be continued where it was ended."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import kept  # noqa: F401 (puts the tests and the package on the path)
from workspace import Workspace

TEMPORARY = Path(tempfile.gettempdir()) / "rollout-bench-validation"
"""Where the copies are made when no folder is named."""


class Copy(Workspace):
    """A workspace that is made once: where the folder holds one already, it is used as it is, code and results."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        if not path.exists():
            # Made beside it and renamed, so that none is ever used that was half made.
            half = path.with_name(f"{path.name}.part")
            subprocess.run(["rm", "-rf", half], check=True)
            super().__init__(half, settings)
            half.rename(path)
        self.path = path

    def run(self, *arguments: str) -> bool:
        """Runs `snakemake` with its output on the terminal; True if all went well."""
        done = subprocess.run(self.command(*arguments), cwd=self.path, env=self.environment, check=False)
        return done.returncode == 0
