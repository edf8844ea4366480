"""`make setup`: whose packages it takes, when it starts afresh, and what it says where it can't. No index is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import REPOSITORY

from rollout_bench.commands import environment
from rollout_bench.core.errors import UserError
from rollout_bench.core.uv import as_pip

NOBODY = "http://127.0.0.1:9/simple"
PINS = ("requirements/uv.txt", "requirements/cpu.txt")
STAMP = ".venv/rollout-bench-setup"


def clone(folder: Path) -> Path:
    """Return a copy of what set-up reads."""
    for part in ("requirements", "src/rollout_bench/core", "src/rollout_bench/commands"):
        shutil.copytree(REPOSITORY / part, folder / part)
    for file in ("Makefile", "src/rollout_bench/__init__.py"):
        shutil.copy(REPOSITORY / file, folder / file)
    return folder


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "SSL_", "MAKE"))
    }
    # nothing is installed when set-up begins: -I -S would leave out PYTHONPATH, which names the clone
    command = ["make", f"PYTHON={sys.executable} -S", *arguments]
    return subprocess.run(command, cwd=folder, env=inherited | environment, capture_output=True, text=True, check=False)


def test_uv_follows_pips_configuration_and_variables_win_over_files(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://first/simple\nextra-index-url = https://more\n    https://most\n"
        "trusted-host = more\n[install]\nfind-links = /wheels /more-wheels\n"
    )
    configured = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_CERT": "/certificate.pem"}

    def settings_of_uv(**environment: str) -> dict[str, str]:
        return as_pip(Path(sys.executable), configured | environment)

    found = settings_of_uv()
    assert found["UV_DEFAULT_INDEX"] == "https://first/simple"
    assert found["UV_INDEX"].split() == ["https://more", "https://most"]
    assert found["UV_FIND_LINKS"].split(",") == ["/wheels", "/more-wheels"]
    assert (found["UV_INSECURE_HOST"], found["SSL_CERT_FILE"]) == ("more", "/certificate.pem")
    assert settings_of_uv(PIP_INDEX_URL="https://second/simple")["UV_DEFAULT_INDEX"] == "https://second/simple"
    assert settings_of_uv(UV_DEFAULT_INDEX="https://third/simple")["UV_DEFAULT_INDEX"] == "https://third/simple"


def begun(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Begin to set up a copy in this process, where no command runs: an environment to throw away takes 4 s."""
    patch.setattr(environment.subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, 1))
    patch.setattr(environment, "home", lambda: folder)
    with pytest.raises(UserError, match="setup: venv failed"):
        environment.make(folder / ".venv")


@pytest.mark.parametrize("changed", PINS)
def test_an_environment_of_other_pins_is_not_ready(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / STAMP).write_text("".join((folder / path).read_text() for path in PINS))
    done = make(folder, "setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with (folder / changed).open("a") as file:
        file.write("# changed\n")
    begun(folder, monkeypatch)


def test_what_somebody_else_put_into_venv_stays(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "mine").touch()
    done = make(folder, "setup")
    assert (done.returncode, done.stdout) == (2, "")
    assert ".venv is not one that this command made\n  -> move it away" in done.stderr
    assert [path.name for path in (folder / ".venv").iterdir()] == ["mine"]


def test_setup_without_an_index_fails_and_later_starts_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clone(tmp_path / "clone")
    done = make(folder, "setup", PIP_INDEX_URL=NOBODY, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull, HOME="")
    assert done.returncode == 2
    assert "setup: uv was not installed\n  -> check the network and pip's index" in done.stderr
    assert (folder / STAMP).read_text() == "unfinished\n"
    (folder / ".venv" / "left").touch()
    begun(folder, monkeypatch)
    assert [path.name for path in (folder / ".venv").iterdir()] == ["rollout-bench-setup"]
    assert (folder / STAMP).read_text() == "unfinished\n"
