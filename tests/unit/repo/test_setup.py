"""`make setup`: what it leaves alone, and what it says where it can't install. No index is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from workspace import REPOSITORY

NOBODY = "http://127.0.0.1:9/simple"


def clone(folder: Path) -> Path:
    """Return a copy of what set-up reads."""
    shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
    shutil.copy(REPOSITORY / "Makefile", folder)
    return folder


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    without_pip = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment = {"PIP_INDEX_URL": NOBODY, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull, "TORCH_INDEX": NOBODY}
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=folder, env=without_pip | environment, capture_output=True, text=True)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the command says of an error, without what make adds."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


def test_an_environment_with_these_pins_is_left_alone(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv").mkdir()
    shutil.copy(folder / "requirements" / "cpu.txt", folder / ".venv" / "rollout-bench-setup")
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_somebody_else_put_into_venv_stays(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "mine").touch()
    done = run(folder)
    assert (done.returncode, done.stdout, len(told(done))) == (2, "", 2)
    assert [path.name for path in (folder / ".venv").iterdir()] == ["mine"]


def test_setup_without_an_index_fails_and_later_goes_on(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    for _ in range(2):
        done = run(folder)
        assert (done.returncode, len(told(done))) == (2, 2)
        assert "index" in done.stderr
        assert "uv==" in (folder / ".venv" / "setup.log").read_text()
