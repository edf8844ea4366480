"""The command summarise as a user runs it, by hand and without Snakemake; and when a summary is stale."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing import BF16, W8A8, Done
from comparing import run as run_in
from synthetic_records import make_failure, make_plan, make_record, save

from rollout_bench.commands import show, summarise
from rollout_bench.contracts.forecasts import FORECASTS
from rollout_bench.contracts.store import record_path, sequences_path
from rollout_bench.core.errors import LEFT_OUT_STATUS, UserError
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile, PlannedLaunch, write_plan
from rollout_bench.plan.serving import Slo
from rollout_bench.report.state import STATE_FILE, SUMMARY_FILES, is_stale, limits_of_all, plan_of_summary

PLAN = make_plan([BF16, W8A8], launches=1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a plan and complete results."""
    write_plan(tmp_path / "plan.json", PLAN)
    save(tmp_path / "results", make_record(BF16), make_record(W8A8, rates=[500.0]))
    return tmp_path


def run(*arguments: str, cwd: Path) -> Done:
    return run_in(cwd, *arguments, main=summarise.main)


def summarised(project: Path, *arguments: str) -> Path:
    done = run("results", "--plan", "plan.json", *arguments, cwd=project)
    assert done.returncode == 0, done.stderr
    return project / "results"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return such a folder with its summary, which nobody changes."""
    folder = tmp_path_factory.mktemp("kept")
    write_plan(folder / "plan.json", PLAN)
    save(folder / "results", make_record(BF16), make_record(W8A8, rates=[500.0]))
    summarised(folder)
    return folder


def test_a_complete_summary_is_written_and_passes_the_check(project: Path) -> None:
    results = summarised(project, "--check")
    assert all((results / name).stat().st_size for name in (*SUMMARY_FILES, STATE_FILE))


@pytest.mark.parametrize(("others_ms", "limit_ms"), [(500.0, 500.0), (200.0, None)])
def test_everything_has_the_limits_that_all_kept_summaries_have(
    project: Path, others_ms: float, limit_ms: float | None
) -> None:
    results = project / "results"
    for place, ttft_ms in (("results", 500.0), ("results/summaries/other", others_ms)):
        write_plan(project / "plan.json", PLAN.model_copy(update={"slo": Slo(ttft_ms=ttft_ms)}))
        (project / place).mkdir(parents=True, exist_ok=True)
        assert run("results", "--plan", "plan.json", "--out", place, cwd=project).returncode == 0
    assert limits_of_all(results).ttft_ms == limit_ms


def test_where_no_summary_can_be_written_another_folder_is_proposed(project: Path) -> None:
    (project / "results" / "figures").touch()
    done = run("results", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "results/figures: cannot be written: File exists\n"
        "  -> check owner and permissions, or name another folder: --out DIR\n"
    )


@pytest.mark.parametrize("main", [summarise.main, show.main])
def test_a_summary_without_its_records_is_not_replaced_by_an_empty_one(project: Path, main: Callable[[], int]) -> None:
    summarised(project, "--out", "S")
    before = (project / "S" / "summary.md").read_bytes()
    done = run_in(project, "S", main=main)
    assert (done.returncode, done.stdout) == (1, "")
    assert "S: has a summary, but not the records that it was made from\n  -> open summary.html there" in done.stderr
    assert (project / "S" / "summary.md").read_bytes() == before


def test_an_incomplete_summary_is_written_and_only_the_check_fails(project: Path) -> None:
    record_path(project / "results", "offline", W8A8.experiment(), 0).unlink()
    for arguments, status in ((["--check"], 1), ([], 0)):
        assert run("results", "--plan", "plan.json", *arguments, cwd=project).returncode == status
        assert "INCOMPLETE" in (project / "results" / "summary.md").read_text()


def test_summary_and_runs_name_a_damaged_record_until_its_repair(project: Path) -> None:
    results = project / "results"
    path = record_path(results, "offline", W8A8.experiment(), 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert run("results", "--plan", "plan.json", cwd=project).returncode == LEFT_OUT_STATUS
    assert run("results", "--plan", "plan.json", "--check", cwd=project).returncode == 1
    text = " ".join((results / "summary.txt").read_text().split())
    assert "INCOMPLETE: 1 of 2 planned launches measured, 2 experiments; 1 damaged." in text
    assert "launch-0.json: is not whole JSON" in text
    assert is_stale(results, PLAN)
    path.write_bytes(whole)
    summarised(project, "--check")
    assert not is_stale(results, PLAN)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: does not exist"),
        (["plan.json", "--all"], "plan.json: is not a folder"),
        (["results", "--plan", "missing.json"], "missing.json: cannot be read"),
        (["results", "--plan", "results"], "results: cannot be read"),
        (["results", "--plan", "bad.json"], "bad.json: schema_version: "),
    ],
)
def test_a_wrong_argument_is_a_two_line_error(project: Path, arguments: list[str], words: str) -> None:
    (project / "bad.json").write_text("{}")
    done = run(*arguments, cwd=project)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 2


def changed(**changes: Any) -> PlanFile:
    return make_plan([BF16, W8A8], launches=1, comparison=ComparisonSettings(**changes))


@pytest.mark.parametrize(
    ("plan", "stale"),
    [
        (PLAN, False),
        (PLAN.model_copy(update={"launches": [PlannedLaunch(record="x", expected_s=9)]}), False),
        (
            PLAN.model_copy(
                update={"experiments": [e.model_copy(update={"weights": "elsewhere"}) for e in PLAN.experiments]}
            ),
            False,
        ),
        (make_plan([BF16], launches=1), True),
        (make_plan([W8A8, BF16], launches=1), True),
        (make_plan([BF16, W8A8], launches=2), True),
        (make_plan([BF16, W8A8], launches=1, baseline={"quant": "w8a8"}), True),
        (changed(confidence=0.9), True),
        (changed(relevant_difference=0.02), True),
        (changed(metrics={"offline": ["startup_s"]}), True),
        (None, True),
    ],
)
def test_a_summary_is_stale_for_another_plan(project: Path, kept: Path, plan: PlanFile | None, stale: bool) -> None:
    assert is_stale(project / "results", plan)
    assert is_stale(kept / "results", plan) == stale


RECORD = record_path(Path("results"), "offline", BF16.experiment(), 0)


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def write_again(path: Path) -> None:
    content, stat = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "change", "stale"),
    [
        (RECORD, Path.unlink, True),
        (RECORD, touch, True),
        (RECORD, write_again, False),
        (sequences_path(RECORD), Path.unlink, True),
        (Path("results", FORECASTS), Path.touch, True),
        (RECORD, lambda path: save(path.parents[2], make_failure(BF16, 1)), True),
        *((Path("results", name), Path.unlink, True) for name in (*SUMMARY_FILES, STATE_FILE)),
    ],
)
def test_a_summary_is_fresh_until_something_it_shows_changes(
    kept: Path, name: Path, change: Callable[[Path], object], stale: bool, tmp_path: Path
) -> None:
    project = shutil.copytree(kept, tmp_path / "project")
    assert not is_stale(project / "results", PLAN)
    change(project / name)
    assert is_stale(project / "results", PLAN) == stale


@pytest.mark.parametrize("content", ["{", "[]", '{"plan": {"schema_version": 99}}', '{"schema_version": 1}'])
def test_a_broken_state_is_stale_and_by_hand_an_error(project: Path, content: str) -> None:
    (project / "results" / STATE_FILE).write_text(content)
    assert is_stale(project / "results", PLAN)
    with pytest.raises(UserError, match=STATE_FILE):
        plan_of_summary(project / "results")


def test_show_prints_the_answer_or_a_table_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        assert show.main([str(project / "results"), "--all", *arguments]) == 0
        return capsys.readouterr().out

    assert shown().splitlines()[2] == "Conclusion"
    assert "Throughput: offline" in shown()
    assert shown("--table", "launch COSTS").startswith("What a launch costs: offline")
    assert shown("--table", "tok/S").startswith("Throughput: offline")
    with pytest.raises(
        UserError, match=r"has 'sleep' in its title, nor a table in its columns\n  -> choose of Throughput; "
    ):
        shown("--table", "sleep")


def test_show_prints_what_is_kept_until_something_changes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown() -> str:
        assert show.main([str(project / "results")]) == 0
        return capsys.readouterr().out

    state = summarised(project) / STATE_FILE
    answer = shown()
    state.write_text(state.read_text().replace("Conclusion", "Kept"))
    assert shown() == answer.replace("Conclusion", "Kept")
    os.utime(state, (0, 0))  # older than the code
    assert shown() == answer
    os.utime(state)
    save(project / "results", make_record(W8A8, rates=[600.0]))
    assert shown() not in (answer, answer.replace("Conclusion", "Kept"))


def test_show_says_what_an_interrupted_run_still_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(tmp_path / "plan.json", PLAN)
    show.main([str(tmp_path)])
    assert "0 of 2 planned launches measured, 2 experiments; 2 missing" in capsys.readouterr().out
