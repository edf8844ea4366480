"""Which results lie in a results folder, by directory listing alone: no file is opened.

Imported while the workflow is parsed, so no large library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.errors import UserError
from rollout_bench.files import did_you_mean_folder

FAILURES = "failures"
"""Folder of the failures inside the results folder; below it the same paths as the records'."""

_REMEDY = "give the results folder, the one that holds offline/ or online/"

RECORD, SEQUENCES = ".json", ".sequences.jsonl.gz"
"""How the names of a record and of its side file end."""

_LAUNCH = re.compile(rf"launch-(0|[1-9][0-9]*)({re.escape(RECORD)}|{re.escape(SEQUENCES)})")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a launch as the file system tells of it: `<mode>/<experiment>/launch-<launch><ending>`."""

    mode: str
    experiment: str
    launch: int
    ending: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Its path below the results folder, or below the failures folder for a failure."""
        return f"{self.mode}/{self.experiment}/launch-{self.launch}{self.ending}"


@dataclass(frozen=True)
class Found:
    """All records, side files and failures of a results folder, each by its `FoundFile.path`, sorted."""

    records: dict[str, FoundFile]
    sequences: dict[str, FoundFile]
    failures: dict[str, FoundFile]


def find_results(results: Path) -> Found:
    """Lists the files of launches in `results`; empty where the folder is missing."""
    files, failures = _sorted(_launch_files(results)), _sorted(_launch_files(results / FAILURES))
    return Found(_ending(files, RECORD), _ending(files, SEQUENCES), _ending(failures, RECORD))


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


def _sorted(files: Iterable[FoundFile]) -> list[FoundFile]:
    return sorted(files, key=lambda file: (file.mode, file.experiment, file.launch))


def _ending(files: Iterable[FoundFile], ending: str) -> dict[str, FoundFile]:
    return {file.path: file for file in files if file.ending == ending}


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
                        yield FoundFile(
                            mode.name, experiment.name, int(match[1]), match[2], stat.st_size, stat.st_mtime_ns
                        )


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to nothing, or to itself; reading it as a record then says so by name."""
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110 (a loop is no error for this one)


def _folders(root: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
