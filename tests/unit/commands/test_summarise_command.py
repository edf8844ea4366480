"""The command summarise as a user runs it, by hand and without Snakemake; and when a summary is stale."""

import os
import sys
from pathlib import Path
from unittest import mock

import pytest
from comparing import Done
from comparing import run as run_in
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.commands import show, summarise
from rollout_bench.contracts.store import record_path, sequences_path
from rollout_bench.core.errors import LEFT_OUT_STATUS, UserError
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlannedLaunch, write_plan
from rollout_bench.report.state import STATE_FILE, SUMMARY_FILES, is_stale, plan_of_summary

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")
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


def test_a_complete_summary_is_written_and_passes_the_check(project: Path) -> None:
    results = summarised(project, "--check")
    assert all((results / name).stat().st_size for name in (*SUMMARY_FILES, STATE_FILE))


def test_an_incomplete_summary_is_written_and_only_the_check_fails(project: Path) -> None:
    record_path(project / "results", "offline", W8A8.experiment(), 0).unlink()
    save(project / "results", make_failure(W8A8))
    assert "INCOMPLETE" in (summarised(project) / "summary.md").read_text()
    (project / "results" / "summary.md").unlink()
    assert run("results", "--plan", "plan.json", "--check", cwd=project).returncode == 1
    assert (project / "results" / "summary.md").exists()


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


def test_a_summary_is_fresh_until_something_it_shows_changes(project: Path) -> None:
    results = project / "results"
    record = record_path(results, "offline", BF16.experiment(), 0)
    assert is_stale(results, PLAN)
    summarised(project)
    assert not is_stale(results, PLAN)
    assert not is_stale(results, PLAN.model_copy(update={"launches": [PlannedLaunch(record="x", expected_s=9)]}))
    changes = ({"confidence": 0.9}, {"relevant_difference": 0.02}, {"metrics": {"offline": ["startup_s"]}})
    others = [
        make_plan([BF16], launches=1),
        make_plan([W8A8, BF16], launches=1),
        make_plan([BF16, W8A8], launches=2),
        make_plan([BF16, W8A8], launches=1, baseline={"quant": "w8a8"}),
        *(make_plan([BF16, W8A8], launches=1, comparison=ComparisonSettings(**each)) for each in changes),  # type: ignore[arg-type]
        None,
    ]
    assert [plan for plan in others if not is_stale(results, plan)] == []

    content, stat = record.read_bytes(), record.stat()
    record.unlink()
    assert is_stale(results, PLAN)
    record.write_bytes(content)
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not is_stale(results, PLAN)
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert is_stale(results, PLAN)
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not is_stale(results, PLAN)
    sequences = sequences_path(record)
    sequences.rename(sequences.with_suffix(".away"))
    assert is_stale(results, PLAN)
    sequences.with_suffix(".away").rename(sequences)
    assert not is_stale(results, PLAN)
    elsewhere = [e.model_copy(update={"weights": "elsewhere"}) for e in PLAN.experiments]
    assert not is_stale(results, PLAN.model_copy(update={"experiments": elsewhere}))
    save(results, make_failure(BF16, 1))
    assert is_stale(results, PLAN)


@pytest.mark.parametrize("name", [*SUMMARY_FILES, STATE_FILE])
def test_a_summary_that_lacks_a_file_is_stale(project: Path, name: str) -> None:
    results = summarised(project)
    (results / name).unlink()
    assert is_stale(results, PLAN)


def test_a_broken_state_is_stale_and_by_hand_an_error(project: Path) -> None:
    results = summarised(project)
    for content in ("{", "[]", '{"plan": {"schema_version": 99}}', '{"schema_version": 1}'):
        (results / STATE_FILE).write_text(content)
        assert is_stale(results, PLAN)
        with pytest.raises(UserError, match=STATE_FILE):
            plan_of_summary(results)


def test_show_prints_the_answer_or_a_table_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        with mock.patch.object(sys, "argv", ["show", str(project / "results"), "--all", *arguments]):
            assert show.main() == 0
        return capsys.readouterr().out

    assert shown().splitlines()[2] == "Conclusion"
    assert "Throughput: offline" in shown()
    assert shown("--table", "launch COSTS").startswith("What a launch costs: offline")
    with pytest.raises(UserError, match=r"no table has 'sleep' in its title\n  -> choose of Throughput, "):
        shown("--table", "sleep")
