"""`make bench` in small: what it generates is what it says, and its times mean what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from claims import Claim
from page import page
from projects import fill_bare, fill_ours, make_bare, make_ours, planned, size
from synthetic_records import make_record, make_spec
from timing import Command, Times, run, take_turns
from verdict_page import Verdict
from verdict_page import page as verdict_page
from workspace import REPOSITORY

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.plan.planfile import read_plan

FEWEST = size(1)


def test_the_matrix_has_the_launches_asked_for_or_the_few_more_that_whole_models_have(tmp_path: Path) -> None:
    assert size(5000) - FEWEST < 5000 <= size(5000)
    plan = planned(make_ours(tmp_path / "ours", FEWEST + 1))
    assert len(plan.launches) == len(plan.missing) == 2 * FEWEST
    assert not plan.matrix.skipped
    checkpoints = {e.checkpoint.folder for e in plan.matrix.experiments if e.checkpoint}
    assert len(checkpoints) == 4


def test_the_records_made_up_are_complete_results_of_that_matrix(tmp_path: Path) -> None:
    ours = make_ours(tmp_path / "ours", FEWEST)
    assert fill_ours(ours) == FEWEST
    collection = collect(ours.path / "results", read_plan(ours.path / "results" / "plan.json"))
    assert collection.complete
    assert sum(len(experiment.records) for experiment in collection.experiments) == FEWEST


def test_the_bare_workflow_has_as_many_jobs_and_none_once_its_results_are_there(tmp_path: Path) -> None:
    bare = make_bare(tmp_path / "bare", 7)
    command = [sys.executable, "-m", "snakemake", "-n"]

    def dry_run() -> str:
        done = subprocess.run(command, cwd=bare, capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split() + done.stderr.split())

    assert "job 7 summary 1 all 1 total 9" in dry_run()
    fill_bare(bare, 7)
    assert "Nothing to be done" in dry_run()


def test_commands_that_are_compared_take_turns(tmp_path: Path) -> None:
    script = "from pathlib import Path; Path('log').open('a').write({!r}); print('well done')"
    commands = [Command([sys.executable, "-c", script.format(name)], tmp_path, {}, "well done") for name in "ab"]
    first, second = take_turns(commands, 2)
    assert (tmp_path / "log").read_text() == "abab"
    assert len(first.wall_s) == len(second.processor_s) == 2
    assert 0 < first.median_processor_s < 5


@pytest.mark.parametrize("code", ["print('other words')", "print('well done'); raise SystemExit(1)"])
def test_a_command_that_did_something_else_is_not_timed(tmp_path: Path, code: str) -> None:
    with pytest.raises(SystemExit, match="without saying 'well done'"):
        run(Command([sys.executable, "-c", code], tmp_path, {}, "well done"))


def test_a_claim_compares_medians_and_the_page_tells_each() -> None:
    slow, fast = Times([9.0, 2.0, 4.0], [3.0]), Times([2.0, 2.0, 2.0], [1.0])
    kept, missed = Claim("dry run", 2.0, slow, fast), Claim("tables", 3.0, slow)
    assert kept.line() == (
        "dry run: 4.00 s (2.00 to 9.00), bare Snakemake 2.00 s (2.00 to 2.00), "
        "2.00 times (3.00 in processor time), at most 2 times: kept"
    )
    assert missed.line() == "tables: 4.00 s (2.00 to 9.00), under 3 s: NOT KEPT"
    written = page([kept, missed], FEWEST, 3, 0.5)
    assert "| 2.00 times (3.00 in processor time) | at most 2 times: kept |" in written
    assert "under 3 s: NOT KEPT" in written
    assert str(REPOSITORY) not in written


def test_the_command_says_what_it_does() -> None:
    script = REPOSITORY / "benchmarks" / "run.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("--launches", "--runs", "--write", "Exit status"))


@pytest.mark.parametrize(("ours_s", "kept"), [(30.0, "at most a third: kept"), (70.0, "NOT KEPT")])
def test_the_time_to_a_verdict_is_held_to_a_third_of_the_loops(ours_s: float, kept: str) -> None:
    records = [make_record(make_spec(quant=quant)) for quant in ("bf16", "w8a8")]
    verdict = Verdict([ours_s], records, [25.0] * 4, [2.0] * 4, launches=1, iterations=2, load=0.0)
    assert kept in verdict.promise()
    assert "| measured passes | 6 | 4 |" in verdict.table()
    assert verdict.table() in verdict_page(verdict)
    assert "Not run." in verdict_page(None)
