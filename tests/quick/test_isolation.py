"""No test depends on what the clone or its user holds: what touches it is refused, noted, and fails the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keep_out
import pytest
from docs_pages import REPOSITORY

from rollout_bench.measure.machine.leases import DEFAULT, VARIABLE

TOUCHES = [
    "open('{held}/summary.md')",
    "open('{held}/new', 'w')",
    "pathlib.Path('{held}/summary.md').write_text('')",
    "os.listdir('{held}')",
    "list(pathlib.Path('{clone}').rglob('*.md'))",
    "shutil.rmtree('{held}')",
    "shutil.copytree('{held}', 'copy')",
    "os.remove('{held}/summary.md')",
    "os.rename('{held}/summary.md', 'x')",
    "os.rename('x', '{held}/summary.md')",
    "os.link('x', '{held}/y')",
    "os.symlink('x', '{held}/y')",
    "os.makedirs('{held}/a/b')",
    "os.utime('{held}')",
    "os.chdir('{held}')",
    "os.chdir('{clone}')",
    "subprocess.run(['true'], cwd='{clone}')",
    "subprocess.run([sys.executable, '-c', 'open(\"{held}/summary.md\")'], check=True)",
    "sqlite3.connect('{held}/summary.md')",
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder that holds results as a clone does; the working folder lies beside it."""
    for folder in ("clone/results", "work"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("clone/results/summary.md", "clone/config.yaml", "work/x"):
        (tmp_path / file).write_text("as it was")
    return tmp_path / "clone"


def guarded(clone: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python of its own that is to keep out of the results of `clone`."""
    said = "\n".join(map(str, (clone.parent / "refused", clone, clone / "results")))
    return subprocess.run(
        [sys.executable, "-c", f"import os, pathlib, shutil, sqlite3, subprocess, sys\n{code}"],
        cwd=clone.parent / "work",
        env={**os.environ, keep_out.VARIABLE: said},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("touch", TOUCHES)
def test_what_touches_results_of_the_clone_is_refused_and_noted(clone: Path, touch: str):
    done = guarded(clone, touch.format(clone=clone, held=clone / "results"))
    assert done.returncode == 1
    assert "KeptOutError" in done.stderr
    assert "test_what_touches_results_of_the_clone" in (clone.parent / "refused").read_text()
    assert [path.name for path in (clone / "results").iterdir()] == ["summary.md"]
    assert (clone / "results" / "summary.md").read_text() == "as it was"


def test_what_git_holds_and_folders_with_like_names_are_free(clone: Path):
    done = guarded(clone, f"open('{clone}/config.yaml'); os.mkdir('{clone}/results-of-mine'); open(0); os.listdir()")
    assert done.returncode == 0, done.stderr
    assert not (clone.parent / "refused").exists()


@pytest.mark.parametrize("held", [REPOSITORY / "results", REPOSITORY / ".snakemake" / "log", DEFAULT])
def test_a_test_that_swallows_the_refusal_fails_all_the_same(tmp_path: Path, held: Path):
    done = made_test(tmp_path, f"with contextlib.suppress(Exception): os.listdir({str(held)!r})")
    assert done.returncode == 1, done.stdout
    assert f"os.listdir {held} by " in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_what_a_test_leaves_in_the_folder_of_all_fails_it(tmp_path: Path):
    done = made_test(tmp_path, "os.mkdir('results')")
    assert "left behind in the working folder" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_variables_of_the_user_that_change_where_and_what_is_measured_are_taken_away(tmp_path: Path):
    names = ("XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "SLURM_JOB_ID", VARIABLE)
    code = f"assert [os.environ.get(name) for name in {names}] == [None, None, None, str(elsewhere / 'leases')]"
    done = made_test(tmp_path, code, **dict.fromkeys(names, "mine"))
    assert done.returncode == 0, done.stdout


def made_test(folder: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a test that does `code`, as one of this suite."""
    (folder / "test_made.py").write_text(f"import contextlib, os\n\ndef test_it(elsewhere):\n    {code}\n")
    return pytest_on(folder, "-p", "conftest", str(folder), PYTHONPATH=str(REPOSITORY / "tests"), **variables)


def test_home_leases_and_working_folder_are_of_this_session(tmp_path_factory: pytest.TempPathFactory):
    own = tmp_path_factory.getbasetemp().parent
    for path in (Path.home(), Path.cwd(), Path(os.environ[VARIABLE])):
        assert own in path.parents
    assert not Path("results").exists()


def test_the_last_line_says_what_was_skipped_for_want_of_slurm_and_how_to_have_it_run(tmp_path: Path):
    file = REPOSITORY / "tests" / "cluster" / "test_slurm_allocations.py"
    done = pytest_on(tmp_path, str(file), PATH=str(Path(sys.executable).parent), ROLLOUT_BENCH_TESTS_NEED_SLURM=None)
    last = done.stdout.splitlines()[-1]
    assert last.endswith("skipped: no Slurm here; to run them: apt-get install slurm-wlm, then make test")
    assert last[0].isdigit()


def pytest_on(cache: Path, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process and with a cache of its own, with these variables; None takes one away."""
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(REPOSITORY / "pyproject.toml"),
            "-o",
            f"cache_dir={cache}",
            *arguments,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
