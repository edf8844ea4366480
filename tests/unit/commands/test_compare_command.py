"""compare.py as a user runs it: two folders in, a table out, and a mistake told in two lines."""

import csv
import io
import math
from pathlib import Path

import pytest
import summarise
from comparing import BF16, NEW, OLD, OTHER_ENGINE, W8A8, cell, compared, launches, run
from synthetic_records import make_plan, make_record, save

from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS
from rollout_bench.plan.planfile import write_plan

INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def test_two_measurements_are_compared_over_all_their_launches(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr) == (0, "")
    assert cell(done) == ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"]
    assert "Engine and machine agree: two times of measuring." in done.flat
    assert "Nothing took turns: whatever drifted between A and B is part of each speed-up." in done.flat
    assert "Conclusion bf16 is 1.193x as fast as A [1.171, 1.215]." in done.flat
    assert "Warnings" not in done.stdout


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_damaged_record_is_reported_and_the_others_are_compared(tmp_path: Path, side: str) -> None:
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


@pytest.mark.parametrize(
    ("a", "problem", "remedy"),
    [
        ("nowhere", "nowhere: does not exist", "the one that holds offline/"),
        ("resluts", "resluts: does not exist", "did you mean 'results'?"),
        ("old/run/results", "old/run/results: does not exist", "did you mean 'old/runs/results'?"),
        ("results/offline", "results/offline: contains no record", "did you mean 'results'?"),
        ("old/runs", "old/runs: contains no record", "did you mean 'old/runs/results'?"),
        ("empty", "empty: contains no record", "the one that holds offline/"),
        ("file", "file: is not a folder", "the one that holds offline/"),
        ("old/../results", "are the same folder", "name two results folders"),
    ],
)
def test_an_error_for_a_wrong_folder_names_the_right_one(tmp_path: Path, a: str, problem: str, remedy: str) -> None:
    save(tmp_path / "results", *launches(BF16, OLD))
    save(tmp_path / "old" / "runs" / "results", *launches(BF16, OLD))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = run(tmp_path, a, "results")
    first, second = done.stderr.splitlines()
    assert problem in first
    assert remedy in second


def test_without_all_only_launches_that_the_summary_selects_count(tmp_path: Path) -> None:
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
