"""Make .venv with the workflow, the analysis and the CPU engine, in the versions that requirements/cpu.txt pins.

This needs Python 3.11 or newer with venv, and a package index. A .venv with these versions is left unchanged. Any other
.venv of this command is made again, also after an interrupted set-up. Only .venv and uv's cache are written.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP, LOG = VENV / "rollout-bench-setup", VENV / "setup.log"
PINS, UV_PIN = ROOT / "requirements" / "cpu.txt", ROOT / "requirements" / "uv.txt"
# uv does not read pip's configuration. These are its names for the options that choose the package index.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_OFFLINE",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
# Imports of launches and jobs. They prove the installation and compile the bytecode: `import vllm` takes 17 s without
# bytecode and 8.5 s with it, and compiling all 26,000 files would take 45 s.
IMPORTS = """import vllm, torchao; from vllm import LLM; import vllm.v1.worker.cpu_worker
import snakemake.cli, snakemake.workflow, pandas, scipy.stats, matplotlib, pydantic, rollout_bench"""


def wanted_stamp() -> str:
    """Return the stamp of a finished .venv: a digest of the pins and of this file."""
    inputs = (PINS, UV_PIN, Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest() + "\n"


def is_ready() -> bool:
    """Return whether .venv is finished, has these pins and still has its interpreter."""
    finished = STAMP.exists() and STAMP.read_text() == wanted_stamp()
    return finished and os.access(VENV / "bin" / "python", os.X_OK)


def empty_venv() -> None:
    """Empty .venv, except for the stamp of an unfinished set-up."""
    if VENV.is_symlink() or VENV.is_file() or (VENV.is_dir() and not STAMP.exists() and any(VENV.iterdir())):
        sys.exit("setup: .venv is not one that this command made\nMove it away and run it again.")
    VENV.mkdir(exist_ok=True)
    STAMP.write_text("unfinished\n")
    for entry in VENV.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != STAMP:
            entry.unlink()


def uv_variables(python: str) -> Dict[str, str]:
    """Return the configuration of pip, from its files and PIP_ variables, as variables for uv."""
    command = [python, "-I", "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    settings = {}
    for section in ("global.", "install.", ":env:."):  # the strongest last
        for name, _, value in (line.partition("=") for line in lines):
            if name.startswith(section):
                settings[name[len(section) :]] = ast.literal_eval(value).split()
    separators = {"find-links": ","}
    found = {UV_NAMES[name]: separators.get(name, " ").join(settings[name]) for name in UV_NAMES if name in settings}
    # Like pip: use any index with the version, not only the first index with the package.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **found}


def step(title: str, advice: str, *tries: List[str], **variables: str) -> None:
    """Run the first command of `tries`, or the next one if it fails, with the output in the log; exit if all fail."""
    environment = {**variables, **os.environ, "PIP_USER": "0", "VLLM_TARGET_DEVICE": "cpu"}
    if not os.access(environment.get("HOME") or "/nonexistent", os.W_OK):
        environment["HOME"] = str(VENV / "home")
    print(f"setup: {title} ...", end="", flush=True)
    begin = time.monotonic()
    with LOG.open("a", encoding="utf-8") as log:
        for command in tries:
            print("$", *command, file=log, flush=True)
            # The installer inherits the lock: if it outlives a killed set-up, the next set-up waits for it.
            running = subprocess.Popen(
                command, env=environment, cwd=str(VENV), stdout=log, stderr=log, close_fds=False, start_new_session=True
            )
            try:
                running.wait()
            except BaseException:
                # venv and pip start further processes, which would continue without the lock
                os.killpg(running.pid, signal.SIGKILL)
                raise
            if running.returncode == 0:
                print(f" {time.monotonic() - begin:.0f} s", flush=True)
                return
    print(flush=True)
    sys.exit(f"setup: {title} failed, see {LOG.relative_to(ROOT)}\n{advice}")


def install() -> None:
    """Make .venv from nothing."""
    empty_venv()
    # The interpreter behind an activated .venv, because the running interpreter may be replaced.
    base_python = getattr(sys, "_base_executable", None) or sys.executable
    python = str(VENV / "bin" / "python")
    # -I: the caller's PYTHON variables do not change the module path or disable bytecode.
    step(
        f"virtual environment, Python {sys.version.split()[0]}",
        "Debian and Ubuntu keep venv apart: apt install python3-venv.",
        [base_python, "-I", "-m", "venv", str(VENV)],
    )
    step(
        "uv, the installer",
        "Check the network and pip's index (pip config list), then run `make setup` again.",
        [python, "-I", "-m", "pip", "install", "--progress-bar", "off", "--no-deps", "-r", str(UV_PIN)],
    )
    # uv links rollout-bench itself, without an index and without files in the clone.
    what = ["--python", python, "--no-deps", "-r", str(PINS), "--editable", str(ROOT)]
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--no-config", "--no-progress", *what]
    step(
        "pinned packages and rollout-bench",
        "Check network, space and pip's index. PyTorch's CPU wheel may also lie in a folder that PIP_FIND_LINKS names.",
        uv,
        # PyTorch's own index comes second: if it cannot be reached, uv tries for 12 s.
        [*uv, "--torch-backend", "cpu"],
        **uv_variables(python),
    )
    step(
        "first import of the engine and the workflow",
        "The log's last lines say why; vLLM needs x86_64.",
        [python, "-I", "-c", IMPORTS],
    )
    shutil.rmtree(VENV / "home", ignore_errors=True)
    STAMP.write_text(wanted_stamp())
    print(f"setup: ready in {VENV.name}")


def main() -> None:
    description, _, details = (__doc__ or "").partition("\n\n")
    argparse.ArgumentParser(description=description, epilog=details).parse_args()
    if is_ready():
        return
    if sys.version_info < (3, 11):
        version = f"{sys.executable} is {sys.version.split()[0]}"
        sys.exit(f"setup: Python 3.11 or newer is needed, {version}\nName another one: make setup PYTHON=python3.11")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lock = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(lock, True)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another set-up is at work in this folder; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready():
            install()
    except OSError as error:
        sys.exit(f"setup: {error}\nCheck space and permissions, then run `make setup` again.")
    except KeyboardInterrupt:
        print("\nsetup: interrupted\nRun `make setup` again; it starts afresh.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
