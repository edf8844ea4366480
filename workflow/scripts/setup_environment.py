"""Make .venv: the workflow, the analysis and the CPU engine, exactly as requirements/cpu.txt pins them.

Needs Python 3.11 or newer with venv, and a package index. A .venv that already holds these pins is left
alone; anything else, an interrupted set-up too, is made again. It writes to .venv and to uv's cache alone.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Dict, List

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / "rollout-bench-setup"
UNFINISHED = "unfinished\n"
PINS = ROOT / "requirements" / "cpu.txt"
UV_PIN = ROOT / "requirements" / "uv.txt"
# The package is linked by hand, not installed: that needs no build, and none of its files, which an image copies later.
PATH_FILE = "../../../../workflow/scripts\n"  # from site-packages
COMMAND = '#!/bin/sh\nexec "$(dirname "$0")/python" -P -m rollout_bench "$@"\n'
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST_PYTHON = (3, 11)
# What a launch and a job import. Importing it here proves the install, and leaves compiled bytecode behind:
# each `import vllm` takes 17 s without and 8.5 s with it; to compile all 26,000 files would take 45 s.
ENGINE_IMPORTS = "import vllm, torchao; from vllm import LLM; import vllm.v1.worker.cpu_worker"
WORKFLOW_IMPORTS = "import snakemake.cli, snakemake.workflow, pandas, scipy.stats, matplotlib, pydantic"


class SetupError(Exception):
    """A step failed; two lines, what is wrong and what to do."""


def wanted_stamp() -> str:
    """What the stamp file of a finished .venv says: a digest of everything that decides what is in it."""
    links = (PATH_FILE + COMMAND).encode()
    return hashlib.sha256(PINS.read_bytes() + UV_PIN.read_bytes() + links).hexdigest() + "\n"


def pip_settings(environment: Dict[str, str]) -> Dict[str, str]:
    """pip's own configuration as `name: value`, files and PIP_ variables together, the strongest winning."""
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "pip", "config", "list"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {}
    for section in ("global", "install", ":env:"):
        for line in done.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section + "."):
                with contextlib.suppress(SyntaxError, ValueError):
                    found[key[len(section) + 1 :]] = str(ast.literal_eval(value))
    return found


def uv_variables(pip: Dict[str, str]) -> Dict[str, str]:
    """The part of pip's configuration that uv can follow, as uv's variables (uv does not read pip's)."""
    variables = {}
    if "index-url" in pip:
        variables["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "find-links" in pip:
        variables["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if "cert" in pip:
        variables["SSL_CERT_FILE"] = pip["cert"]
    return variables


def step_environment() -> Dict[str, str]:
    """The caller's environment without what sends an install elsewhere or stops bytecode."""
    dropped = ("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", VLLM_TARGET_DEVICE="cpu")
    home = Path(environment.get("HOME") or "/nonexistent")
    if not os.access(home, os.W_OK):
        environment["HOME"] = str(VENV / "home")
    return environment


def attempt(log: Path, commands: Sequence[Sequence[str]], environment: Dict[str, str]) -> bool:
    """Run all commands at once, their output in one log; true if each succeeded."""
    options: Dict[str, Any] = {"env": environment, "cwd": VENV, "close_fds": False}
    with log.open("a", encoding="utf-8") as out:
        for command in commands:
            out.write("$ " + " ".join(command) + "\n")
        out.flush()
        running: List[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                running.append(subprocess.Popen(command, stdout=out, stderr=out, **options))
            statuses = [process.wait() for process in running]
            return not any(statuses)
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
                    process.wait()


@contextlib.contextmanager
def step(number: int, title: str) -> Iterator[Path]:
    """Say what runs and how long it took; yields the step's log."""
    print(f"setup {number}/5: {title} ...", end="", flush=True)
    start = time.monotonic()
    try:
        yield VENV / f"setup-{number}.log"
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - start:.0f} s", flush=True)


def failed(what: str, log: Path, advice: str) -> SetupError:
    return SetupError(f"setup: {what} failed, see {log.relative_to(ROOT)}\n{advice}")


def empty_venv() -> None:
    """Leave .venv as a folder that holds only the stamp of an unfinished set-up."""
    foreign = VENV.is_symlink() or VENV.is_file()
    foreign = foreign or (VENV.is_dir() and not STAMP.exists() and any(VENV.iterdir()))
    if foreign:
        raise SetupError("setup: .venv is not one that this command made\nMove it away and run it again.")
    VENV.mkdir(exist_ok=True)
    STAMP.write_text(UNFINISHED)
    for entry in VENV.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != STAMP:
            entry.unlink()


def link_package() -> None:
    """Make the package importable in .venv, and `rollout-bench` a command there."""
    packages = next(VENV.glob("lib/python3*/site-packages"))
    (packages / "rollout-bench.pth").write_text(PATH_FILE)
    command = VENV / "bin" / "rollout-bench"
    command.write_text(COMMAND)
    command.chmod(0o755)


def install() -> None:
    """Make .venv from nothing, in five steps.

    Raises SetupError for a step that failed.
    """
    empty_venv()
    environment = step_environment()
    # The interpreter behind an activated .venv: the one that runs this may be about to be replaced.
    base_python = getattr(sys, "_base_executable", None) or sys.executable
    python = str(VENV / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--progress-bar", "off", "--no-deps"]
    lines = [line.strip() for line in PINS.read_text().splitlines()]
    torch_pin = next(line for line in lines if line.startswith("torch=="))
    network = "Check the network and pip's index (pip config list), then run `make setup` again."

    with step(1, f"virtual environment, Python {sys.version.split()[0]}") as log:
        if not attempt(log, [[base_python, "-m", "venv", str(VENV)]], environment):
            raise failed("making .venv", log, "Debian and Ubuntu keep venv apart: apt install python3-venv.")
    with step(2, "uv, the installer") as log:
        if not attempt(log, [[*pip, "-r", str(UV_PIN)]], environment):
            raise failed("installing uv with pip", log, network)
    with step(3, f"{torch_pin}, PyTorch's CPU wheel") as log:
        # pip warns and goes on where an extra index is out of reach, but after 8 s of retries.
        torch = [*pip, "--no-compile", "--retries", "0", torch_pin]
        if not (
            attempt(log, [torch], environment) or attempt(log, [[*torch, "--index-url", TORCH_CPU_INDEX]], environment)
        ):
            raise failed(
                f"installing {torch_pin}",
                log,
                f"Make {TORCH_CPU_INDEX} reachable, or point PIP_FIND_LINKS at a folder with that wheel.",
            )
    with step(4, f"{sum('==' in line for line in lines) - 1} pinned packages") as log:
        uv = [str(VENV / "bin" / "uv"), "pip", "install", "--no-progress", "--python", python, "--no-deps"]
        with_pip_settings = {**uv_variables(pip_settings(environment)), **environment}
        if not (
            attempt(log, [[*uv, "-r", str(PINS)]], with_pip_settings)
            or attempt(log, [[*pip, "--no-compile", "-r", str(PINS)]], environment)
        ):
            raise failed("installing the packages with uv and then with pip", log, network)
    link_package()
    with step(5, "first import of the engine and the workflow") as log:
        if not attempt(log, [[python, "-c", ENGINE_IMPORTS], [python, "-c", WORKFLOW_IMPORTS]], environment):
            raise failed("importing vLLM or Snakemake", log, "The log's last lines say why; vLLM needs x86_64.")
    shutil.rmtree(VENV / "home", ignore_errors=True)
    STAMP.write_text(wanted_stamp())


def is_ready() -> bool:
    """Whether .venv is finished, holds these pins, and its interpreter is still there."""
    finished = STAMP.exists() and STAMP.read_text() == wanted_stamp()
    return finished and os.access(VENV / "bin" / "python", os.X_OK)


def main() -> int:
    description, _, details = (__doc__ or "").partition("\n\n")
    argparse.ArgumentParser(description=description, epilog=details).parse_args()
    if is_ready():
        return 0
    if sys.version_info < OLDEST_PYTHON:
        version = sys.version.split()[0]
        print(f"setup: Python 3.11 or newer is needed, {sys.executable} is {version}", file=sys.stderr)
        print("Name another one: make setup PYTHON=python3.11", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock = os.open(ROOT, os.O_RDONLY)
    # Inherited, so that an installer which outlives a killed set-up keeps the next one waiting.
    os.set_inheritable(lock, True)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another set-up is at work in this folder; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready():
            install()
            print(f"setup: ready in {VENV.name}")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error}\nCheck space and permissions, then run `make setup` again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted\nRun `make setup` again; it starts afresh.", file=sys.stderr)
        return 130
    finally:
        os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
