"""The command `rollout-bench`: it finds its sub-commands, and is installed with the package."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from workspace import REPOSITORY

SOURCES = REPOSITORY / "src"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rollout_bench", *arguments]
    return subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)


def test_a_misspelt_sub_command_names_the_one_that_was_meant() -> None:
    done = run("comparre", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "there is no command 'comparre'\n  -> did you mean 'compare'?\n",
    )


def test_a_sub_command_reports_its_error_under_its_own_name(tmp_path: Path) -> None:
    assert run("summarise", "--device").returncode == 2
    done = run("summarise", str(tmp_path / "nowhere"), "--all")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert done.stderr.startswith(f"{tmp_path / 'nowhere'}: ")
    done = run("compare", "a", "b", "--confidence", "2")
    assert "rollout-bench compare --help" in done.stderr


@pytest.mark.parametrize("name", ["measure", "build", "check"])
def test_what_runs_in_an_engines_python_needs_nothing_installed(tmp_path: Path, name: str) -> None:
    bare = tmp_path / "engine"
    venv.create(bare, symlinks=True)
    # what vLLM installs, without the file by which this environment finds the package
    packages = next(bare.glob("lib/python3*/site-packages"))
    for path in Path(yaml.__file__).parents[1].iterdir():
        if path.suffix != ".pth" and path.name != "rollout_bench":  # an editable wheel has its folder share
            (packages / path.name).symlink_to(path)
    environment = {"PATH": ""}
    found = [str(bare / "bin" / "python"), "-c", "import pydantic, rollout_bench"]
    done = subprocess.run(found, env=environment, capture_output=True, text=True, check=False)
    assert "No module named 'rollout_bench'" in done.stderr
    command = [str(bare / "bin" / "python"), "-c", f"from rollout_bench.commands.{name} import main; main()", "--help"]
    environment["PYTHONPATH"] = str(SOURCES)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout
