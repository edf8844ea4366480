"""Paths of results, and their listing, writing and reading: written atomically, validated in both directions.

This module is imported while the workflow is parsed, so it needs no large library.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.mode import SEQUENCES, TRACES
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Failure, Launched, Record, SequenceRow
from rollout_bench.contracts.side_files import write_rows
from rollout_bench.contracts.spec import MEASUREMENT_VERSION, Spec
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import (
    did_you_mean_folder,
    json_text,
    read_json,
    read_model,
    validated,
    write_json,
    write_whole,
)
from rollout_bench.core.numbers import several

_Launched = TypeVar("_Launched", bound=Launched)

RECORD_REMEDY: Final = "restore the file, or move it away to measure that launch again"


def record_path(results: Path, mode: str, experiment: str, launch: int) -> Path:
    """Return the path of a launch's record."""
    return results / mode / experiment / f"launch-{launch}.json"


STARTED = ".started"
"""Folder of the claims on running launches, inside the results folder; below it are the records' own paths."""


def claim_path(record: Path) -> Path:
    """Return the path of the claim on the launch that writes `record`."""
    return record.parents[2] / STARTED / record.relative_to(record.parents[2])


def failure_path(record: Path) -> Path:
    """Return the path of the failure of the launch that should have written `record`."""
    return record.parents[2] / FAILURES / record.relative_to(record.parents[2])


def sequences_path(record: Path) -> Path:
    """Return the side file of `record`."""
    return record.with_suffix(SEQUENCES)


def traces_path(record: Path) -> Path:
    """Return the folder of traces beside a profile's `record`."""
    return record.with_suffix(TRACES)


def reference_path(record: Path, spec: Spec) -> Path | None:
    """Return the record of the launch that must come before the one of `record`; None if there is none."""
    first = spec.mode_spec.follows(spec.experiment())
    path = record if first is None else record_path(record.parents[2], spec.mode, first, 0)
    return None if path == record else path


def write_record(path: Path, record: Record, sequences: Iterable[SequenceRow]) -> None:
    """Write the side file, then the record, both atomically, so that a record always has its side file."""
    write_with_rows(path, record, sequences_path(path), sequences)


def write_with_rows(path: Path, record: Launched, side_file: Path, rows: Iterable[Strict]) -> None:
    """Write `rows` to the side file, then the record with its checksum, both atomically."""
    sums = {side_file.name: write_rows(side_file, rows)}
    write_launched(path, record.model_copy(update={"side_files_sha256": sums}))


def write_launched(path: Path, record: Launched) -> None:
    """Write the record of a launch in any mode, validated and with its checksum."""
    assert record.key == record.spec.key(), "a record is named by its spec"
    content = json.loads(json_text(type(record).model_validate(record.model_dump())))
    content["sha256"] = checksum(content)
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex over a record's JSON with sorted keys and no spaces, without the checksum itself."""
    fields = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_failure(record: Path, failure: Failure) -> None:
    """Write the failure of the launch that should have written `record`."""
    write_json(failure_path(record), failure)


def read_record(path: Path) -> Record:
    """Read and validate a record.

    Raises:
        UserError: the file is unreadable, not JSON, of another schema version, invalid, or edited (its checksum
            differs); the message names file and field.
    """
    return read_as(path, Record)


def read_as(path: Path, model: type[_Launched]) -> _Launched:
    """Read and validate a record that is a `model`, as in `read_record`."""
    content = read_json(path, RECORD_REMEDY)
    record = validated(path, content, model, RECORD_REMEDY)
    if record.sha256 != checksum(content):
        raise UserError(f"{path}: sha256: does not match the record, so the record was edited", RECORD_REMEDY)
    versions = {record.measurement_version, record.spec.measurement_version}
    if other := versions - {MEASUREMENT_VERSION}:
        problem = f"is {min(other)}, and numbers of this version of rollout-bench are {MEASUREMENT_VERSION}"
        remedy = "read it with the version that measured it, or move it away to measure that launch again"
        raise UserError(f"{path}: measurement_version: {problem}", remedy)
    return record


def read_launched(path: Path, mode: str) -> Launched:
    """Read and validate the record of a launch in any mode, as in `read_record`."""
    return read_as(path, mode_of(mode).record.get())


def read_failure(path: Path) -> Failure:
    """Read and validate a failure.

    Raises:
        UserError: it is not valid; the message names file and field.
    """
    return read_model(path, Failure, RECORD_REMEDY)


FAILURES = "failures"
"""Folder of the failures inside the results folder; below it are the same paths as the records'."""

_FOLDER_REMEDY = "give the results folder, the one that holds offline/ or online/"

RECORD = ".json"
"""Ending of a record's name."""

_LAUNCH = re.compile(rf"launch-(0|[1-9][0-9]*)({re.escape(RECORD)}|{re.escape(SEQUENCES)})")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a launch from a listing: `<mode>/<experiment>/launch-<launch><ending>`."""

    mode: str
    experiment: str
    launch: int
    ending: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Path below the results folder, or below the failures folder for a failure."""
        return f"{self.mode}/{self.experiment}/launch-{self.launch}{self.ending}"


@dataclass(frozen=True)
class ResultsListing:
    """All records, side files and failures of a results folder, each by its `FoundFile.path`, sorted."""

    records: dict[str, FoundFile]
    sequences: dict[str, FoundFile]
    failures: dict[str, FoundFile]


def find_results(results: Path) -> ResultsListing:
    """List the files of launches in `results`; empty if the folder is missing."""
    files, failures = _launch_files(results), _launch_files(results / FAILURES)
    parts = ((files, RECORD), (files, SEQUENCES), (failures, RECORD))
    return ResultsListing(*({file.path: file for file in found if file.ending == ending} for found, ending in parts))


def check_results_folder(path: Path) -> None:
    """Check that `path` has records.

    Raises:
        UserError: it has none; the message suggests the most likely folder.
    """
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"{path}: {problem}", did_you_mean_folder(path) or _FOLDER_REMEDY)
    listing = find_results(path)
    if listing.failures and not listing.records:
        failed = several(len(listing.failures), "launch")
        raise UserError(
            f"{path}: contains no record: {failed} failed", "`rollout-bench plan` has the causes and remedies"
        )
    if not listing.records:
        near = next((other for other in (path / "results", path.parent) if find_results(other).records), None)
        raise UserError(
            f"{path}: contains no record of a launch", f"did you mean '{near}'?" if near else _FOLDER_REMEDY
        )


def _launch_files(root: Path) -> list[FoundFile]:
    files = []
    for path in root.glob("[!.]*/[!.]*/launch-*"):
        mode, experiment, name = path.parts[-3:]
        match = _LAUNCH.fullmatch(name)
        if match and f"{mode}{experiment}".isascii():  # ours are
            stat = path.stat(follow_symlinks=path.exists())  # reading a link to nowhere reports its name
            files.append(FoundFile(mode, experiment, int(match[1]), match[2], stat.st_size, stat.st_mtime_ns))
    return sorted(files, key=lambda file: (file.mode, file.experiment, file.launch))
