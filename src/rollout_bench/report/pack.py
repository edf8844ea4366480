"""A pack: one small file with the parts of a results folder that a comparison reads."""

import argparse
import atexit
import json
import lzma
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.store import FAILURES, RECORD_REMEDY, check_results_folder, checksum, find_results
from rollout_bench.core.errors import UserError, value_text
from rollout_bench.core.files import read_json, write_archive, write_whole
from rollout_bench.core.places import with_short_paths
from rollout_bench.report.state import STATE_FILE, plan_of_summary, results_of

MOST_BYTES = 1 << 30
"""Maximum size of an unpacked pack; those of this project have less than 10 MiB."""

DEEPEST = 20
"""Maximum number of folders around a file in a pack, and the file itself."""


_PLACE = re.compile(r"(^|_)(ADDR|ADDRESS|HOST|HOSTNAME|IP|URL)(_|$)").search
"""What finds the name of a variable that says where a machine is."""


def write_pack(folder: Path, out: Path, *, sequences: bool = False, anonymous: bool = False) -> None:
    """Write a results folder, or a summary kept in one, as a pack: a tar.xz without owners and times.

    It has all records and failures, the plan of the summary, and the sequences of modes with loads; with `sequences`
    those of all modes. An `anonymous` one has numbers for machines, no folders, and no failures.

    Raises:
        UserError: `folder` has no record, or a file cannot be read or written; or it is to be anonymous, and an
            experiment names a server or a folder.
    """
    results, plan = results_of(folder), plan_of_summary(folder)
    check_results_folder(results)
    found = find_results(results)
    timed = [path for path, file in found.sequences.items() if sequences or mode_of(file.mode).has_loads]
    contents = {STATE_FILE: json.dumps({"plan": plan and plan.model_dump(mode="json")}).encode()}
    failures = () if anonymous else (f"{FAILURES}/{path}" for path in found.failures)
    try:
        for name in (*found.records, *timed, *failures):
            contents[name] = (results / name).read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}", RECORD_REMEDY) from None
    if anonymous:
        records = {name: _sealed(results / name) for name in found.records}
        hosts = sorted({host for record in records.values() for host in _hosts(record)})
        numbered = {host: f"machine-{number}" for number, host in enumerate(hosts, 1)}
        for name, record in records.items():
            _check_nameless(results / name, record["spec"])
            hidden = _without_names(record, numbered)
            variables = hidden["environment"]["variables"]
            hidden["environment"]["variables"] = {key: text for key, text in variables.items() if not _PLACE(key)}
            contents[name] = json.dumps(hidden | {"sha256": checksum(hidden)}, indent=1).encode()
        contents[STATE_FILE] = json.dumps(_without_names(json.loads(contents[STATE_FILE]), numbered)).encode()
    write_archive(out, contents)


def _sealed(path: Path) -> dict[str, Any]:
    """Return the content of a record; raise `UserError` if it was edited."""
    content: dict[str, Any] = read_json(path, RECORD_REMEDY)
    if content.get("sha256") != checksum(content):
        raise UserError(f"{path}: sha256: does not match the record, so the record was edited", RECORD_REMEDY)
    return content


def _hosts(record: Mapping[str, Any]) -> set[str]:
    return {record["environment"]["hostname"], (record.get("placement") or {}).get("node")} - {None, ""}


def _check_nameless(path: Path, spec: Mapping[str, Any]) -> None:
    """Refuse an experiment that names a server or a folder, since its key is made of all that it names."""
    named = "a server" if spec.get("endpoint") else "a folder" if with_short_paths(spec) != spec else ""
    if named:
        raise UserError(
            f"{path}: its experiment names {named}, and has its key by that",
            "share the CSV of `rollout-bench table`, which names none, or write the pack without --anonymous",
        )


def _without_names(content: Any, machines: Mapping[str, str]) -> Any:
    """Return nested `content` without folders, and with the numbers of `machines` in place of their names."""
    if isinstance(content, Mapping):
        return {name: _without_names(value, machines) for name, value in content.items()}
    if isinstance(content, list):
        return [_without_names(value, machines) for value in content]
    if not isinstance(content, str):
        return content
    names = "|".join(map(re.escape, machines)) or "(?!)"
    return re.sub(rf"(?<![\w.-])({names})(?![\w.-])", lambda found: machines[found[1]], with_short_paths(content))


def opened(path: Path) -> Path:
    """Return a folder with the files of the pack at `path`; it is removed when the program ends.

    Raises:
        UserError: it is another file, is truncated, or has anything but files below the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="rollout-bench-")) / path.name
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    try:
        left = MOST_BYTES
        with lzma.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as file:
            for member in file:
                parts = member.name.split("/")
                is_inside = not member.name.startswith("/") and ".." not in parts and len(parts) <= DEEPEST
                is_plain = member.isreg() and not member.issparse()
                left -= member.size + tarfile.BLOCKSIZE
                if left < 0:
                    raise tarfile.TarError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
                content = file.extractfile(member) if is_plain and is_inside else None
                if content is None:
                    raise tarfile.TarError(f"it has {value_text(member.name)}")
                write_whole(folder / member.name, content.read())
            while left > 0 and (rest := stream.read(1 << 20)):  # to its end, or a cut file would pass for a whole one
                left -= len(rest)
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError) as error:
        raise UserError(
            f"{path}: is not a folder, and not a whole pack: {error}",
            "give the results folder, the one that holds offline/ or online/, or a file that rollout-bench pack wrote",
        ) from None
    return folder


def opened_pack(path: Path) -> Path:
    """Return a folder as `opened` does; raise `UserError` also for the file of a kit, which has folders to collect."""
    folder = opened(path)
    if find_results(folder / "results").records:
        remedy = f"put its records into results/ here: rollout-bench collect {shlex.quote(str(path))}"
        raise UserError(f"{path}: is the file of a kit, not a pack", remedy)
    return folder


def unpacked(arguments: argparse.Namespace) -> Path:
    """Return RESULTS_DIR as given; of a pack, its files in a folder of their own take its place in `arguments`."""
    given: Path = arguments.results
    if given.is_file():
        arguments.results = opened_pack(given)
    return given
