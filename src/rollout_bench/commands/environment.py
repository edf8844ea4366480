"""Make a virtual environment with the CPU engine, as pinned: `make setup`, and `rollout-bench demo` without a clone.

Only the standard library is imported, since nothing else is installed when this runs.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rollout_bench.core.errors import UserError, run_command
from rollout_bench.core.places import home
from rollout_bench.core.uv import as_pip

STAMP = "rollout-bench-setup"
"""File of a finished environment: a copy of the pins."""

_IMPORTS = (
    "import vllm, torchao, vllm.v1.worker.cpu_worker; from vllm import LLM; "
    "import snakemake.cli, snakemake.workflow, pandas, scipy.stats, matplotlib, pydantic"
)
"""Of launches and jobs. They prove the installation and compile bytecode."""


def make(folder: Path, *packages: str) -> None:
    """Make the environment in `folder`, with `packages` besides the pins, unless it is there as pinned.

    Raises:
        UserError: `folder` holds something else, or an installation failed.
    """
    uv, cpu = (home() / "requirements" / name for name in ("uv.txt", "cpu.txt"))
    wanted, stamp, python = uv.read_text() + cpu.read_text(), folder / STAMP, folder / "bin" / "python"
    with _alone():
        if python.exists() and stamp.exists() and stamp.read_text() == wanted:
            return
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            problem = f"setup: {folder} cannot be made in {Path.cwd()}: {error.strerror}"
            raise UserError(problem, "work in a folder that you may write to") from None
        if any(folder.iterdir()) and not stamp.exists():
            raise UserError(f"setup: {folder} is not one that this command made", "move it away and run it again")
        stamp.write_text("unfinished\n")
        for left in folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left != stamp:
                left.unlink()
        _fill(folder, uv, cpu, packages)
        stamp.write_text(wanted)
        print(f"setup: ready in {folder}", flush=True)


def _fill(folder: Path, uv: Path, pins: Path, packages: Sequence[str]) -> None:
    python = folder / "bin" / "python"
    environment = {**os.environ, "PIP_USER": "0"}
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        environment["HOME"] = str(folder.absolute())
    print("setup: virtual environment and uv", flush=True)
    # `folder` may be the environment that runs this, if it is activated: its own Python is gone by now
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    if not _runs(environment, base if base.is_file() else sys.executable, "-I", "-m", "venv", folder):
        raise UserError("setup: venv failed", "Debian and Ubuntu keep it apart: apt install python3-venv")
    if not _runs(environment, python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", uv):
        raise UserError("setup: uv was not installed", "check the network and pip's index (pip config list)")
    print("setup: pinned packages", flush=True)
    environment = as_pip(python, environment)
    install = (python.with_name("uv"), "pip", "install", "--quiet", "--python", python, "--no-deps", "-r", pins)
    # PyTorch's own index comes second, because uv takes 12 s to notice that it cannot be reached.
    if not any(_runs(environment, *install, *packages, *index) for index in ((), ("--torch-backend", "cpu"))):
        remedy = "check network and space; PIP_FIND_LINKS may name a folder with PyTorch's CPU wheel"
        raise UserError("setup: packages were not installed", remedy)
    print("setup: first import of the engine and the workflow", flush=True)
    with (folder / "setup.log").open("w") as log:
        if not _runs(environment, python, "-I", "-c", _IMPORTS, log=log):
            remedy = f"{log.name} has the reason; vLLM needs x86_64"
            raise UserError("setup: the engine cannot be imported", remedy)


@contextmanager
def _alone() -> Iterator[None]:
    lock = os.open(".", os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another set-up is at work in this folder; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _runs(environment: Mapping[str, str], *command: str | Path, log: IO[str] | None = None) -> bool:
    return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode == 0


def main() -> int:
    """Make the environment `FOLDER [PACKAGE ...]`, or run its uv as pip is configured: `FOLDER uv WORD ...`."""
    folder, *words = sys.argv[1:]
    if words[:1] == ["uv"]:
        uv = Path(folder) / "bin" / "uv"
        os.execve(uv, words, as_pip(uv.with_name("python"), os.environ))
    make(Path(folder), *words)
    return 0


if __name__ == "__main__":
    run_command(main)
