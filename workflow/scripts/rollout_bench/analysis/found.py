"""Which results lie in a results folder, by directory listing alone: no file is opened.

Imported while the workflow is parsed, so no large library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.errors import UserError
from rollout_bench.files import did_you_mean_folder

FAILURES = "failures"
"""Folder of the failures inside the results folder; below it the same paths as the records'."""

_REMEDY = "give the results folder, the one that holds offline/"

_LAUNCH = re.compile(r"launch-(0|[1-9][0-9]*)\.json")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One record or failure as the file system tells of it: `<mode>/<experiment>/launch-<launch>.json`."""

    mode: str
    experiment: str
    launch: int
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Its path below the results folder, or below the failures folder for a failure."""
        return f"{self.mode}/{self.experiment}/launch-{self.launch}.json"


@dataclass(frozen=True)
class Found:
    """All records and failures of a results folder, each by its `FoundFile.path`, sorted."""

    records: dict[str, FoundFile]
    failures: dict[str, FoundFile]


def find_results(results: Path) -> Found:
    """Lists the records and failures in `results`; empty where the folder is missing."""
    records = {file.path: file for file in _launch_files(results)}
    failures = {file.path: file for file in _launch_files(results / FAILURES)}
    return Found(_sorted(records), _sorted(failures))


def check_results_folder(path: Path) -> None:
    """Raises `UserError` where `path` holds no record, with the folder that was most likely meant."""
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"{path}: {problem}", did_you_mean_folder(path) or _REMEDY)
    if not find_results(path).records:
        near = next((other for other in (path / "results", path.parent) if find_results(other).records), None)
        raise UserError(f"{path}: holds no record of a launch", f"did you mean '{near}'?" if near else _REMEDY)


def earlier_folder(results: Path, baseline: Mapping[str, str]) -> Path | None:
    """The earlier results folder that `baseline` (axis -> value) names for those in `results`, if it names one."""
    return results.parent / baseline["results"] if "results" in baseline else None


def _sorted(files: dict[str, FoundFile]) -> dict[str, FoundFile]:
    by_launch = sorted(files.values(), key=lambda file: (file.mode, file.experiment, file.launch))
    return {file.path: file for file in by_launch}


def _launch_files(root: Path) -> Iterator[FoundFile]:
    for mode in _folders(root):
        if mode.name == FAILURES:
            continue
        for experiment in _folders(mode.path):
            with os.scandir(experiment.path) as entries:
                for entry in entries:
                    match = _LAUNCH.fullmatch(entry.name)
                    if match:
                        stat = entry.stat(follow_symlinks=not _leads_nowhere(entry))
                        yield FoundFile(mode.name, experiment.name, int(match[1]), stat.st_size, stat.st_mtime_ns)


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to nothing, or to itself; reading it as a record then says so by name."""
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 (a loop is no error for this one)


def _folders(root: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
