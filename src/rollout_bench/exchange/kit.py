"""A kit: all that a machine without a network needs to measure, in parts that are carried there.

The parts are one archive: this package with the workflow, the packages of the pins that the machine lacks, and configs.
`there.py` lies beside them, checks and unpacks them there. What was measured comes back as one file.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rollout_bench.contracts.store import FAILURES, find_results
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.places import PACKAGE, home
from rollout_bench.core.uv import as_pip
from rollout_bench.exchange import there

MACHINES = {"cpu": "x86_64", "cuda": "x86_64", "ascend": "aarch64"}
"""Platform -> machine of its wheels."""

WORKFLOW = ("Snakefile", "workflow", "profiles", "configs", "config.yaml", "environment.yml", "requirements")
"""Files and folders beside the package."""

GIVEN = "given"
"""Folder of a kit with the configs to measure; without any it is the evidence set."""


def packages_of(platform: str, there_already: Sequence[str]) -> list[str]:
    """Return the pinned packages of `platform` that a machine lacks, as `<name>==<version>`.

    Args:
        platform: names the file of pins.
        there_already: lines of `pip freeze` on that machine.

    Raises:
        UserError: the installed package has no pins for this platform.
    """
    pins = home() / "requirements" / f"{platform}.txt"
    if not pins.is_file():
        raise UserError(f"there are no pins for {platform}", "make the kit in a clone of the project")
    wanted = (line.split(";")[0].strip() for line in pins.read_text().splitlines() if re.match(r"[\w.-]+==", line))
    has = set(map(_plain, there_already))
    return [line for line in wanted if _plain(line) not in has]


def _plain(line: str) -> str:
    """Return `<name>==<version>` in one spelling, without the local part of the version."""
    name, _, version = line.strip().partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version.partition('+')[0]}"


def make(folder: Path, platform: str, python: str, packages: Sequence[str], configs: Sequence[Path], most: int) -> int:
    """Write a kit's parts of at most `most` bytes to `folder`; return their number.

    Args:
        folder: is made, and must be empty.
        platform: kind of device.
        python: version of Python on the machine, such as 3.12.
        packages: those that the machine lacks.
        configs: what is measured.
        most: size of a part.

    Raises:
        UserError: `folder` is not empty, or a package has no wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty", "name a new folder")
    with tempfile.TemporaryDirectory(prefix="rollout-bench-kit-") as work:
        tree = Path(work) / "tree"
        shutil.copytree(PACKAGE, tree / "src" / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "share"))
        for place in (home() / name for name in WORKFLOW):
            if place.is_dir():
                shutil.copytree(place, tree / place.name)
            elif place.exists():
                shutil.copy(place, tree)
        (tree / GIVEN).mkdir()
        for number, config in enumerate(configs):
            shutil.copy(config, tree / GIVEN / f"{number}-{config.name}")
        if packages:
            _install(tree / "site", packages, python, MACHINES[platform])
        return _write_parts(tree, folder, most)


def _install(site: Path, packages: Sequence[str], python: str, machine: str) -> None:
    # uv and not pip, which makes no wheel of a source for another Python
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    command += ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_39"]
    environment = as_pip(Path(sys.executable), os.environ)
    if subprocess.run([*command, *packages], env=environment, check=False).returncode:
        remedy = "see the lines above; without uv, install it: pip install uv"
        raise UserError(f"kit: {len(packages)} packages of the pins were not installed", remedy)


def _write_parts(tree: Path, folder: Path, most: int) -> int:
    archive = tree.with_name("kit.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=5) as file:
        file.add(tree, tree.name)
    sums = []
    with archive.open("rb") as whole:
        for number, content in enumerate(iter(lambda: whole.read(most), b"")):
            (folder / f"kit.{number:02d}").write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  kit.{number:02d}\n")
    (folder / there.SUMS).write_text("".join(sums))
    shutil.copy(there.__file__, folder / "kit.py")
    return len(sums)


def write_back(results: Path, out: Path) -> int:
    """Write all records of a results folder, what lies beside them, and failures to a tar.xz; return its records."""
    found = find_results(results)
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:xz") as file:
        for path in _files_of(results, [*found.records, *(f"{FAILURES}/{path}" for path in found.failures)]):
            member = tarfile.TarInfo(f"results/{path.relative_to(results)}")
            member.size = path.stat().st_size
            file.addfile(member, io.BytesIO(path.read_bytes()))
    write_whole(out, written.getvalue())
    return len(found.records)


def _files_of(results: Path, names: Sequence[str]) -> Iterator[Path]:
    for record in (results / name for name in sorted(names)):
        for beside in sorted(record.parent.glob(f"{record.stem}.*")):
            yield from sorted(path for path in (beside, *beside.rglob("*")) if path.is_file())
