"""Pack a kit: everything that a machine without a network needs to measure, in parts that a user carries there.

The parts are one archive: this package with the workflow, the packages of the pins that the machine lacks, and configs.
`kit_bootstrap.py` lies beside them, checks and unpacks them there. What was measured comes back as one file.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout_bench.contracts.store import FAILURES, find_results
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_archive
from rollout_bench.core.places import PACKAGE, home
from rollout_bench.core.uv import as_pip
from rollout_bench.exchange import kit_bootstrap

MACHINES = {"cpu": "x86_64", "cuda": "x86_64", "ascend": "aarch64"}
"""Platform -> machine of its wheels."""

WORKFLOW = ("Snakefile", "workflow", "profiles", "config", "environment.yml", "requirements")
"""Files and folders beside the package."""

GIVEN = "given"
"""Folder of a kit with <plan>/<layer>/<config>, later layers over earlier ones; empty for the evidence set."""

FILES = "files"
"""Folder of a kit with the files that its configs name, by their paths."""

UNREAD = re.compile(r"_ascend_pt/(?!ASCEND_PROFILER_OUTPUT/(kernel_details\.csv|trace_view\.json)$)")
"""Files of torch_npu's traces that nothing here reads: the raw data, which is large and may name the host."""


def packages_of(platform: str, python: str, there_already: Sequence[str], vllm: str | None) -> list[str]:
    """Return the packages that a machine lacks, as `<name>==<version>`.

    They are the pins of `platform`. For another vLLM, or for a machine that has packages, they are resolved anew:
    a version that the machine has is kept where the requirements allow it.

    Args:
        platform: names the files of requirements.
        python: version of Python on the machine.
        there_already: lines of `pip freeze` on that machine.
        vllm: version of the engine; None for the one of the pins.

    Raises:
        UserError: the installed package has no pins for this platform, or no versions fit together.
    """
    folder = home() / "requirements"
    if not (folder / f"{platform}.txt").is_file():
        raise UserError(f"there are no pins for {platform}", "make the kit in a clone of the project")
    pins = _pins((folder / f"{platform}.txt").read_text().splitlines(), platform)
    has = _pins(there_already, platform)
    if vllm is not None or has:
        with tempfile.TemporaryDirectory(prefix="rollout-bench-kit-") as work:
            resolved, overrides = Path(work) / "resolved.txt", Path(work) / "overrides.txt"
            # uv prefers the versions of the file that it overwrites
            resolved.write_text("\n".join(f"{name}=={version}" for name, version in {**pins, **has}.items()))
            asked = "" if vllm is None else f"vllm=={vllm}\n"
            overrides.write_text((folder / f"{platform}.overrides").read_text() + asked)
            command = ["compile", "--no-header", "--no-annotate", "--override", str(overrides), "-o", str(resolved)]
            _uv([*command, str(folder / f"{platform}.in")], python, platform, "the packages were not resolved")
            pins = _pins(resolved.read_text().splitlines(), platform)
    return [f"{name}=={version}" for name, version in pins.items() if has.get(name) != version]


def _pins(lines: Sequence[str], platform: str) -> dict[str, str]:
    """Return name -> version, names in one spelling, versions without the local part, except a CPU's: torch has one."""
    matches = (re.match(rf"([\w.-]+)==([^\s;{'' if platform == 'cpu' else '+'}]+)", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in matches if match}


def _uv(words: Sequence[str], python: str, platform: str, problem: str) -> None:
    # uv and not pip, which makes no wheel of a source for another Python
    target = ["--python-version", python, "--python-platform", f"{MACHINES[platform]}-manylinux_2_39"]
    command = [sys.executable, "-m", "uv", "pip", *words, "--quiet", *target]
    # an additional index of pip's may have files for this machine only, and uv takes all files of a version from one
    environment = as_pip(Path(sys.executable), {"UV_INDEX": "", **os.environ})
    # as in commands/environment.py, PyTorch's own index comes second
    calls = [command, [*command, "--torch-backend", "cpu"]] if platform == "cpu" else [command]
    if all(subprocess.run(c, env=environment, stdout=subprocess.DEVNULL, check=False).returncode for c in calls):
        raise UserError(f"kit: {problem}", "see the lines above; without uv, install it: pip install uv")


def files_named(config: Mapping[str, Any], inside: str = "") -> Iterator[Path]:
    """Yield the data sets and profiles of a config or its part `inside` that have relative paths, without ours.

    Raises:
        UserError: one is no file below the current folder.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from files_named(value, key)
        elif key == "profile" or (key == "path" and inside in ("dataset", "profile")):
            path = Path(str(value))
            # a profile that is no file here may be one of ours
            if not path.is_absolute() and (inside == "dataset" or path.is_file()):
                if ".." in path.parts or not path.is_file():
                    raise UserError(
                        f"config: {key}: {path}: is no file below this folder",
                        "pack in a folder with it, or write its absolute path on the kit's machine",
                    )
                yield path


def make(
    folder: Path,
    platform: str,
    python: str,
    packages: Sequence[str],
    plans: Sequence[Sequence[Path]],
    most: int,
    files: Sequence[Path] = (),
) -> int:
    """Write a kit's parts of at most `most` bytes to `folder`; return their number.

    Args:
        folder: is made, and must be empty.
        platform: kind of device.
        python: version of Python on the machine, such as 3.12.
        packages: those that the machine lacks.
        plans: the configs of each plan, of which later ones win.
        most: size of a part.
        files: those that the configs name, by relative paths.

    Raises:
        UserError: `folder` is not empty, or a package has no wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty", "name a new folder")
    with tempfile.TemporaryDirectory(prefix="rollout-bench-kit-") as work:
        tree = Path(work) / "tree"
        shutil.copytree(PACKAGE, tree / "src" / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "share"))
        for path in (home() / name for name in WORKFLOW):
            if path.is_dir():
                shutil.copytree(path, tree / path.name)
            elif path.exists():
                shutil.copy(path, tree)
        (tree / GIVEN).mkdir()
        (tree / FILES).mkdir()
        for number, plan in enumerate(plans):
            for layer, config in enumerate(plan):
                place = tree / GIVEN / f"{number:02d}" / f"{layer:02d}"
                place.mkdir(parents=True)
                shutil.copy(config, place)
        for path in files:
            (tree / FILES / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tree / FILES / path)
        if packages:
            site = kit_bootstrap.site_of(python, MACHINES[platform])
            words = ["install", "--no-deps", "--target", str(tree / site), *packages]
            _uv(words, python, platform, f"{len(packages)} packages were not installed")
        return _write_parts(tree, folder, most)


def _write_parts(tree: Path, folder: Path, most: int) -> int:
    archive = tree.with_name("kit.tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=5) as file:
        file.add(tree, tree.name)
    sums = []
    with archive.open("rb") as whole:
        for number, content in enumerate(iter(lambda: whole.read(most), b"")):
            (folder / f"kit.{number:02d}").write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  kit.{number:02d}\n")
    (folder / kit_bootstrap.SUMS).write_text("".join(sums))
    shutil.copy(kit_bootstrap.__file__, folder / "kit.py")
    return len(sums)


def write_back(results: Path, plans: Mapping[str, bytes], out: Path) -> int:
    """Write what came of a kit to a tar.xz; return its number of records.

    It has all records, what lies beside them, failures, and `plans`, by their paths in the results folder.
    """
    listing = find_results(results)
    paths = _files_of(results, [*listing.records, *(f"{FAILURES}/{path}" for path in listing.failures)])
    contents = {str(path.relative_to(results)): path.read_bytes() for path in paths}
    write_archive(out, {f"results/{name}": content for name, content in {**contents, **plans}.items()})
    return len(listing.records)


def _files_of(results: Path, names: Sequence[str]) -> Iterator[Path]:
    for record in (results / name for name in sorted(names)):
        for beside in sorted(record.parent.glob(f"{record.stem}.*")):
            inside = (path for path in (beside, *beside.rglob("*")) if not UNREAD.search(path.as_posix()))
            yield from sorted(path for path in inside if path.is_file())
