"""The command `rollout-bench`: it finds its sub-commands, and set-up puts it and the package into .venv."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import setup_environment
import yaml
from workspace import REPOSITORY

from rollout_bench import __version__
from rollout_bench.__main__ import COMMANDS, main
from rollout_bench.commands import collect

SCRIPTS = REPOSITORY / "workflow" / "scripts"
SCRIPT_OF = {name: f"{name}.py" for name in COMMANDS} | {"trace": "read_trace.py"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rollout_bench", *arguments]
    return subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_sub_command(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in COMMANDS if f"\n    {name} " not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_sub_command_has_the_arguments_of_its_script(name: str) -> None:
    script = subprocess.run([sys.executable, SCRIPTS / SCRIPT_OF[name], "-h"], capture_output=True, text=True)
    done = run(name, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: rollout-bench {name} ")
    options = done.stdout.split("\n\n", 1)[1]
    assert options == script.stdout.split("\n\n", 1)[1]


def test_a_misspelt_sub_command_is_two_lines_with_the_one_that_was_meant() -> None:
    done = run("comparre", "a", "b")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "there is no command 'comparre'\n  -> did you mean 'compare'?\n"


@pytest.mark.parametrize("status", [0, 3])
def test_the_exit_status_is_that_of_the_sub_command(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rollout-bench", "collect", "there", "--results", "here"])
    monkeypatch.setattr(collect, "main", lambda: status)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == status
    assert sys.argv[1:] == ["there", "--results", "here"]


def test_an_error_of_a_sub_command_is_told_as_its_own(tmp_path: Path) -> None:
    assert run("bounds").returncode == 2
    done = run("plan", str(tmp_path / "plan.json"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith(f"{tmp_path / 'plan.json'}: ")
    done = run("compare", "a", "b", "--confidence", "2")
    assert "rollout-bench compare --help" in done.stderr


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from rollout_bench.__main__ import parser; parser().format_help(); "
        "print([m for m in ('pydantic', 'jinja2', 'pandas', 'numpy', 'rich', 'vllm', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_set_up_links_the_package_and_the_command_into_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "a clone"
    venv.create(clone / ".venv", symlinks=True)
    (clone / "workflow").symlink_to(REPOSITORY / "workflow")
    monkeypatch.setattr(setup_environment, "VENV", clone / ".venv")
    setup_environment.link_package()
    (tmp_path / "rollout_bench.py").write_text("raise SystemExit('not this one')")
    command = [str(clone / ".venv" / "bin" / "rollout-bench"), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"rollout-bench {__version__}\n", "")
    (clone / "workflow").unlink()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named rollout_bench" in done.stderr, "the package is this clone's, not a copy"


def test_an_environment_without_the_links_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = setup_environment.wanted_stamp()
    monkeypatch.setattr(setup_environment, "COMMAND", "")
    assert setup_environment.wanted_stamp() != stamp


def test_an_installed_package_has_the_same_command_and_every_file() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"rollout-bench": "rollout_bench.__main__:main"}
    package = SCRIPTS / "rollout_bench"
    data = {path.suffix for path in package.rglob("*.*") if path.is_file()} - {".py", ".pyc"}
    assert {f"*{suffix}" for suffix in data} == set(project["tool"]["setuptools"]["package-data"]["*"])
    folders = {path.parent for path in package.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("script", ["run_launch.py", "build_checkpoint.py", "check.py", "calibrate.py"])
def test_what_runs_in_an_engines_python_needs_nothing_installed(tmp_path: Path, script: str) -> None:
    bare = tmp_path / "engine"
    venv.create(bare, symlinks=True)
    # what vLLM installs, without the file by which this environment finds the package
    packages = next(bare.glob("lib/python3*/site-packages"))
    for path in Path(yaml.__file__).parents[1].iterdir():
        if path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    environment = {"PATH": ""}
    found = [str(bare / "bin" / "python"), "-c", "import pydantic, rollout_bench"]
    done = subprocess.run(found, env=environment, capture_output=True, text=True, check=False)
    assert "No module named 'rollout_bench'" in done.stderr
    command = [str(bare / "bin" / "python"), str(SCRIPTS / script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {script}" in done.stdout
