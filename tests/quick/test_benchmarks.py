"""`make bench` in small: what it generates is what it says, and its times mean what it says."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from claims import Claim
from measured_rounds import MeasuredBlock
from page import page
from projects import fill_bare, fill_ours, make_bare, make_ours, planned, size
from scipy import stats
from timing import Command, Times, run, take_turns
from verdict_page import Evidence, Sample, Verdict
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


def made_verdict(block_seconds: float, block_sd: float) -> Verdict:
    """Return six blocks of two engines beside twelve pairs of the loop, 36 s each, whose ratios scatter by 10 %."""
    rng = np.random.default_rng(3)
    blocks = []
    for launch in range(6):
        passes = {"bf16": [1.3] * 8, "w8a8": [float(np.exp(block_sd * rng.normal()))] * 8}
        blocks.append(
            MeasuredBlock(
                launch=launch,
                seconds=block_seconds,
                interleaved=True,
                invalid=[],
                startup_s={"bf16": 10.0, "w8a8": 10.0},
                passes_s=passes,
            )
        )
    loop = [
        [Sample("w8a8", 18.0, 1.0), Sample("bf16", 18.0, 1.3 * float(np.exp(0.1 * rng.normal())))] for _ in range(12)
    ]
    return Verdict([block_seconds + 10] * 6, blocks, loop, load=0.0)


@pytest.mark.parametrize(("block_sd", "kept"), [(0.02, "at most 0.25: kept"), (0.1, "NOT KEPT")])
def test_the_time_to_a_verdict_is_held_to_a_quarter_of_the_loops_at_equal_precision(block_sd: float, kept: str) -> None:
    verdict = made_verdict(30.0, block_sd)
    assert kept in verdict.promise()
    assert verdict.table() in verdict_page(verdict)
    assert verdict.parts() in verdict_page(verdict)


def test_as_many_blocks_are_counted_as_the_interval_needs() -> None:
    evidence = Evidence(sd=0.05, freedom=9, each_s=20.0, once_s=7.0, least=3)
    for half_width in (0.2, 0.05, 0.02):
        count = evidence.count(half_width)
        reach = {n: stats.t.ppf(0.975, n - 1) * 0.05 / n**0.5 for n in (count - 1, count)}
        assert reach[count] <= math.log1p(half_width)
        assert count == 3 or reach[count - 1] > math.log1p(half_width)
        assert evidence.seconds(half_width) == 7 + 20 * count


def test_the_ratio_at_high_precision_is_cost_times_variance_and_its_interval_holds_it() -> None:
    verdict = made_verdict(30.0, 0.05)
    middle, low, high = verdict.limit
    assert low < middle < high
    assert middle == pytest.approx(verdict.ratio(0.001), rel=0.01)


def test_a_page_that_was_not_measured_anew_takes_back_what_was_said_of_equal_numbers_of_passes() -> None:
    text = " ".join(verdict_page(None).split())
    assert "Not run" in text
    assert "equal numbers of passes" in text
