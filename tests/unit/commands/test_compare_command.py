"""compare.py as a user runs it: two folders in, a table out, and a mistake told in two lines."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
import summarise
from comparing import BF16, NEW, OLD, OTHER_ENGINE, W8A8, W8A16, cell, compared, launches, run
from synthetic_records import make_plan, make_record, save

from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS
from rollout_bench.plan.planfile import write_plan

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"
INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def test_two_times_of_measuring_are_compared_with_all_launches_of_both(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr) == (0, "")
    assert cell(done) == ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"]
    assert "Engine and machine agree: two times of measuring." in done.flat
    assert "Nothing took turns: whatever drifted between A and B is part of each speed-up." in done.flat
    assert "statistics cannot remove it" in done.flat
    assert "Warnings" not in done.stdout


def test_swapped_folders_mirror_the_verdict(tmp_path: Path) -> None:
    there = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    back = run(tmp_path, "b", "a")
    assert cell(there)[5:7] == ["1.194x", "^"]
    assert cell(back)[5:7] == ["0.838x", "v"]


@pytest.mark.parametrize("side", ["a", "b"])
def test_one_launch_on_a_side_is_a_ratio_without_verdict(tmp_path: Path, side: str) -> None:
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: launches(BF16, [110.0])}
    assert cell(compared(tmp_path, sides["a"], sides["b"]))[6:] == ["?", "(needs", "1", "more", "launch)"]


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_damaged_record_of_either_side_is_told_and_the_others_are_compared(tmp_path: Path, side: str) -> None:
    compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    path = record_path(Path(side), "offline", BF16.experiment(), 3)
    (tmp_path / path).write_text("{")
    done = run(tmp_path, "a", "b")
    assert done.returncode == LEFT_OUT_STATUS
    assert done.stderr.startswith(f"{path}: is not whole JSON")
    assert f"{path}: is not whole JSON" in done.flat
    assert sorted(cell(done)[1:3]) == ["3", "4"]
    for launch in range(3):
        (tmp_path / path).with_name(f"launch-{launch}.json").write_text("{")
    done = run(tmp_path, "a", "b")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)


def test_invalid_launches_take_no_part_and_are_counted(tmp_path: Path) -> None:
    wrong = make_record(BF16, 4, [900.0], flags=[INVALID], environment=OTHER_ENGINE)
    done = compared(tmp_path, [*launches(BF16, OLD), wrong], launches(BF16, NEW))
    assert cell(done)[1:5] == ["4", "4", "100.9", "120.4"]
    assert "1 launch flagged invalid and not used" in done.flat


def test_what_only_one_side_has_is_listed(tmp_path: Path) -> None:
    done = compared(
        tmp_path, [*launches(BF16, OLD), *launches(W8A16, OLD)], [*launches(BF16, NEW), *launches(W8A8, NEW)]
    )
    assert "1 experiment of B compared with A" in done.flat
    assert "Only in A, not compared - qwen3-90m w8a16 small" in done.flat
    assert "Only in B, not compared - qwen3-90m w8a8 small" in done.flat


@pytest.mark.parametrize(
    ("a", "problem", "remedy"),
    [
        ("nowhere", "nowhere: does not exist", "the one that holds offline/"),
        ("resluts", "resluts: does not exist", "did you mean 'results'?"),
        ("old/run/results", "old/run/results: does not exist", "did you mean 'old/runs/results'?"),
        ("results/offline", "results/offline: holds no record", "did you mean 'results'?"),
        ("old/runs", "old/runs: holds no record", "did you mean 'old/runs/results'?"),
        ("empty", "empty: holds no record", "the one that holds offline/"),
        ("file", "file: is not a folder", "the one that holds offline/"),
        ("old/../results", "are the same folder", "name two results folders"),
    ],
)
def test_a_wrong_folder_is_two_lines_with_the_one_that_was_meant(
    tmp_path: Path, a: str, problem: str, remedy: str
) -> None:
    save(tmp_path / "results", *launches(BF16, OLD))
    save(tmp_path / "old" / "runs" / "results", *launches(BF16, OLD))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = run(tmp_path, a, "results")
    first, second = done.stderr.splitlines()
    assert problem in first
    assert remedy in second


def test_each_folder_counts_as_its_summary_selects_it_unless_all_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "a", *launches(BF16, OLD), *launches(W8A8, OLD, OTHER_ENGINE))
    save(tmp_path / "b", *launches(BF16, NEW), *launches(W8A8, NEW))
    write_plan(tmp_path / "plan.json", make_plan([BF16], 3))
    assert run(tmp_path, "a", "--plan", "plan.json", main=summarise.main).returncode == 0
    done = run(tmp_path, "a", "b")
    assert cell(done)[1] == "3"
    assert "5 records that its summary does not select not read; --all takes all." in done.flat
    assert "a: its launches differ in engine_version" in run(tmp_path, "a", "b", "--all").stderr


def test_markdown_and_csv_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    compared(tmp_path, [*launches(BF16, OLD), *launches(W8A8, OLD)], [*launches(BF16, NEW), *launches(W8A8, [90.0])])
    done = run(tmp_path, "a", "b", "--out", "out", "--metric", "output_tokens_per_s", "--metric", "startup_s")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.csv", "compare.md"]
    assert "# Comparison of two results folders" in (tmp_path / "out" / "compare.md").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "compare.csv").read_text())))
    assert [(row["quant"], row["metric"], row["verdict"]) for row in rows] == [
        ("bf16", "output_tokens_per_s", "faster"),
        ("bf16", "startup_s", "unknown"),
        ("w8a8", "output_tokens_per_s", "unknown"),
        ("w8a8", "startup_s", "unknown"),
    ]
    assert (rows[0]["launches_a"], rows[0]["launches_b"]) == ("4", "4")
    assert float(rows[0]["value_a"]) == pytest.approx(math.prod(OLD) ** 0.25)
    assert float(rows[0]["speedup"]) == pytest.approx((math.prod(NEW) / math.prod(OLD)) ** 0.25)
    assert rows[2]["speedup_low"] == ""


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--confidence", "95", "--confidence: 95"), ("--relevant-difference", "-1", "--relevant-difference: -1")],
)
def test_a_setting_that_can_not_be_is_two_lines(tmp_path: Path, option: str, value: str, told: str) -> None:
    done = run(tmp_path, "a", "b", f"{option}={value}")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_settings_decide(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW), "--relevant-difference", "0.3")
    assert "~ (real, but below 30 %)" in done.flat
    assert cell(run(tmp_path, "a", "b"))[7:] == ["[1.178,", "1.210]"]
    assert cell(run(tmp_path, "a", "b", "--confidence", "0.9999"))[7:] == ["[1.134,", "1.257]"]


def test_the_command_runs_by_itself_and_help_loads_no_heavy_library(tmp_path: Path) -> None:
    save(tmp_path / "a", *launches(BF16, OLD))
    save(tmp_path / "b", *launches(BF16, NEW))
    command = [sys.executable, "-W", "error", str(SCRIPTS / "compare.py"), "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        "import sys; from rollout_bench.commands import compare; compare.parser(); "
        "heavy = ('jinja2', 'pandas', 'numpy', 'scipy', 'rich', 'vllm', 'torch', 'snakemake'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
