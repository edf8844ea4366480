"""`make setup`: whose packages it takes, when it starts afresh, and what it says where it can't. No index is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setup_environment
from workspace import REPOSITORY

NOBODY = "http://127.0.0.1:9/simple"


def clone(folder: Path) -> Path:
    """Return a copy of what set-up reads."""
    shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
    (folder / "workflow" / "scripts").mkdir(parents=True)
    shutil.copy(setup_environment.__file__, folder / "workflow" / "scripts")
    return folder


def command(folder: Path) -> list[str]:
    return [sys.executable, str(folder / "workflow" / "scripts" / "setup_environment.py")]


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    without_pip = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(command(folder), env=without_pip | environment, capture_output=True, text=True, check=False)


def test_uv_follows_pips_configuration_and_variables_win_over_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://first/simple\nextra-index-url = https://more\n    https://most\n"
        "[install]\nindex-url = https://second/simple\nfind-links = /wheels /more wheels\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_CERT", "/certificate.pem")
    told = setup_environment.uv_variables(sys.executable)
    assert told["UV_DEFAULT_INDEX"] == "https://second/simple"
    assert told["UV_INDEX"].split() == ["https://more", "https://most"]
    assert told["UV_FIND_LINKS"].split(",") == ["/wheels", "/more", "wheels"]
    assert told["SSL_CERT_FILE"] == "/certificate.pem"
    monkeypatch.setenv("PIP_INDEX_URL", "https://third/simple")
    assert setup_environment.uv_variables(sys.executable)["UV_DEFAULT_INDEX"] == "https://third/simple"


@pytest.mark.parametrize(
    "changed", ["requirements/cpu.txt", "requirements/uv.txt", "workflow/scripts/setup_environment.py"]
)
def test_an_environment_of_another_setup_is_not_ready(tmp_path: Path, changed: str) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / ".venv" / "rollout-bench-setup").write_text(setup_environment.wanted_stamp())
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with (folder / changed).open("a") as file:
        file.write("# changed\n")
    asked = [sys.executable, "-c", "import setup_environment; print(setup_environment.is_ready())"]
    assert subprocess.check_output(asked, cwd=folder / "workflow" / "scripts", env={}) == b"False\n"


def test_what_somebody_else_put_into_venv_stays(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "mine").touch()
    done = run(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    assert [path.name for path in (folder / ".venv").iterdir()] == ["mine"]


def test_setup_without_an_index_fails_and_later_starts_afresh(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    for _ in range(2):
        done = run(folder, PIP_INDEX_URL=NOBODY, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull, HOME="")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 2
        assert "index" in done.stderr
        assert "127.0.0.1" in (folder / ".venv" / "setup.log").read_text()
