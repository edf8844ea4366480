"""compare.py as a user runs it: what must agree, what is refused, a table out, and a mistake told in two lines."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from comparing import BF16, NEW, OLD, OTHER_ENGINE, OTHER_MACHINE, W8A8, cell, compared, launches, refused, run
from synthetic_records import INVALID, make_plan, make_record, make_spec, save

from rollout_bench.commands import summarise
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS
from rollout_bench.plan.planfile import write_plan


def test_two_measurements_are_compared_over_all_their_launches(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr, cell(done)) == (
        0,
        "",
        ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"],
    )
    assert "Engine and machine agree; the launches were measured at different times." in done.flat
    assert "They were not interleaved: whatever drifted between A and B is part of each speed-up." in done.flat
    assert "Conclusion bf16 is 1.193x as fast as A [1.171, 1.215]." in done.flat
    assert "Warnings" not in done.stdout


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_damaged_record_is_reported_and_the_others_are_compared(tmp_path: Path, side: str) -> None:
    compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    path = record_path(Path(side), "offline", BF16.experiment(), 3)
    (tmp_path / path).write_text("{")
    done = run(tmp_path, "a", "b")
    assert (done.returncode, sorted(cell(done)[1:3])) == (LEFT_OUT_STATUS, ["3", "4"])
    assert done.stderr.startswith(f"{path}: is not whole JSON")
    assert f"{path}: is not whole JSON" in done.flat
    for other in (tmp_path / path).parent.glob("launch-?.json"):
        other.write_text("{")
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
    first, second = run(tmp_path, a, "results").stderr.splitlines()
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
    numbers = {"launches_a": 4, "value_a": math.prod(OLD) ** 0.25, "speedup": (math.prod(NEW) / math.prod(OLD)) ** 0.25}
    assert {name: float(rows[0][name]) for name in numbers} == pytest.approx(numbers)
    assert rows[2]["speedup_low"] == ""


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--confidence", "95", "write 0.95"),
        ("--confidence", "97.5%", "write 0.975"),
        ("--confidence", "2", "compare --help"),
        ("--confidence", "high", "compare --help"),
        ("--relevant-difference", "3 %", "write 0.03"),
        ("--relevant-difference", "-1", "compare --help"),
    ],
)
def test_a_setting_that_can_not_be_is_two_lines(tmp_path: Path, option: str, value: str, remedy: str) -> None:
    done = run(tmp_path, "a", "b", f"{option}={value}")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{option}: {value}")
    assert remedy in second
    if "write" in remedy:
        typed = f"{option}={remedy.removeprefix('write ')}"
        assert option not in run(tmp_path, "a", "b", typed).stderr


BOTH = OTHER_ENGINE | OTHER_MACHINE
APART = "Engine and machine both differ, as --differ allows: the effect of each alone is unknown"


@pytest.mark.parametrize(
    ("environment", "allowed", "words"),
    [
        (OTHER_ENGINE, [], "The engine, and nothing else of engine and machine (A -> B):"),
        (OTHER_MACHINE, [], "The machine, and nothing else of engine and machine (A -> B):"),
        (OTHER_MACHINE, ["machine"], "The machine, and nothing else of engine and machine (A -> B):"),
        (BOTH, ["engine", "machine"], APART),
    ],
)
def test_engine_or_machine_may_differ_or_both_where_accepted(
    tmp_path: Path, environment: dict[str, Any], allowed: list[str], words: str
) -> None:
    options = ["--differ", *allowed] if allowed else []
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW, environment), *options)
    assert (cell(done)[6], words in done.flat) == ("^", True)
    old = make_record().environment.model_dump()
    assert [fact for fact, new in environment.items() if f"{fact} {old[fact]} -> {new}" not in done.flat] == []


MIXED = [*launches(BF16, (110.0, 111.0)), make_record(BF16, 2, [112.0], environment={"engine_version": "0.33.0"})]
WHICH = "its launches differ in engine_version: 0.32.0 (qwen3-90m bf16 small launch 0, qwen3-90m bf16 small launch 1)"


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        (
            launches(BF16, OLD),
            launches(BF16, NEW, BOTH),
            [],
            [
                "a and b differ in engine and in machine",
                "engine_version 0.32.0 -> 0.33.0",
                "cpu_cores 2 -> 4",
                "--differ engine machine",
            ],
        ),
        (
            launches(BF16, OLD),
            launches(BF16, NEW, OTHER_MACHINE),
            ["--differ", "engine"],
            ["a and b differ in machine, which was not to differ: machine: device_model"],
        ),
        (MIXED, launches(BF16, NEW), [], [f"a: {WHICH}", "0.33.0 (qwen3-90m bf16 small launch 2)"]),
        (launches(BF16, OLD), MIXED, [], [f"b: {WHICH}", "0.33.0 (qwen3-90m bf16 small launch 2)"]),
    ],
    ids=["both_differ", "the_other_differs", "mixed_a", "mixed_b"],
)
def test_what_is_not_to_differ_is_refused(
    tmp_path: Path, a: list[Record], b: list[Record], options: list[str], words: list[str]
) -> None:
    message = refused(tmp_path, a, b, *options)
    assert [word for word in words if word not in message] == []


def test_a_launch_that_both_folders_hold_is_no_second_measurement(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, (*OLD[:2], *NEW)))
    assert cell(done)[3:] == ["-", "[1]"]
    assert "Engine and machine agree" not in done.flat
    assert "[1] a has the very same record of launch 0, 1, as a copy would." in done.flat


def changed(part: str, **change: object) -> Spec:
    return BF16.model_copy(update={part: getattr(BF16, part).model_copy(update=change)})


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (make_spec(prompts=4), "workload.prompts 8 -> 4"),
        (changed("workload", output_tokens=64), "workload.output_tokens 32 -> 64"),
        (changed("workload", temperature=0.0), "workload.temperature 1.0 -> 0.0"),
        (changed("workload", requests="per_prompt"), "workload.requests per_sequence -> per_prompt"),
        (changed("measuring", warmup_iterations=0), "measuring.warmup_iterations 1 -> 0"),
        (changed("model", synthetic={"hidden_size": 1024}), "synthetic.hidden_size 768 -> 1024"),
    ],
)
def test_another_load_is_never_a_ratio_and_the_rest_is(tmp_path: Path, other: Spec, difference: str) -> None:
    a, b = ([*launches(spec, rates), *launches(W8A8, rates)] for spec, rates in ((BF16, OLD), (other, NEW)))
    done = compared(tmp_path, a, b)
    assert cell(done) == ["bf16", "0", "4", "-", "-", "-", "[1]"]
    assert f"[1] a measured another load: {difference}." in done.flat
    assert cell(done, "w8a8")[5] == "1.194x"
    alone = compared(tmp_path / "alone", launches(BF16, OLD), launches(other, NEW))
    assert f"Conclusion Nothing is compared. bf16: a measured another load: {difference}." in alone.flat
