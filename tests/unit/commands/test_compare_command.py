"""compare.py as a user runs it: what must agree, what is refused, a table out, and a mistake told in two lines."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from comparing import BF16, NEW, OLD, OTHER_ENGINE, OTHER_MACHINE, W8A8, cell, compared, launches, refused, run
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.commands import summarise
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS
from rollout_bench.plan.planfile import write_plan

INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def test_two_measurements_are_compared_over_all_their_launches(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr, cell(done)) == (
        0,
        "",
        ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"],
    )
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
    assert (rows[0]["launches_a"], rows[0]["launches_b"], float(rows[0]["value_a"])) == (
        "4",
        "4",
        pytest.approx(math.prod(OLD) ** 0.25),
    )
    assert (float(rows[0]["speedup"]), rows[2]["speedup_low"]) == (
        pytest.approx((math.prod(NEW) / math.prod(OLD)) ** 0.25),
        "",
    )


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--confidence", "95", "--confidence: 95"), ("--relevant-difference", "-1", "--relevant-difference: -1")],
)
def test_a_setting_that_can_not_be_is_two_lines(tmp_path: Path, option: str, value: str, told: str) -> None:
    done = run(tmp_path, "a", "b", f"{option}={value}")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(("environment", "group"), [(OTHER_ENGINE, "engine"), (OTHER_MACHINE, "machine")])
def test_either_engine_or_machine_may_differ_and_is_compared(
    tmp_path: Path, environment: dict[str, Any], group: str
) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW, environment))
    assert cell(done)[6] == "^"
    assert f"The {group}, and nothing else of engine and machine (A -> B):" in done.flat
    old = make_record().environment.model_dump()
    for fact, value in environment.items():
        assert f"{fact} {old[fact]} -> {value}" in done.flat


def test_engine_and_machine_together_are_refused_until_they_are_accepted(tmp_path: Path) -> None:
    problem, remedy = refused(
        tmp_path, launches(BF16, OLD), launches(BF16, NEW, OTHER_ENGINE | OTHER_MACHINE)
    ).splitlines()
    for word in ("a and b differ in engine and in machine", "engine_version 0.32.0 -> 0.33.0", "cpu_cores 2 -> 4"):
        assert word in problem
    assert "--differ engine machine" in remedy
    done = run(tmp_path, "a", "b", "--differ", "engine", "machine")
    assert cell(done)[6] == "^"
    assert "Engine and machine at once, as --differ allows: what either contributes can not be told" in done.flat
    for fact in ("engine_version 0.32.0 -> 0.33.0", "torch_version 2.13.0+cpu -> 2.14.0+cpu", "cpu_cores 2 -> 4"):
        assert fact in done.flat


def test_what_was_not_to_differ_is_refused_alone_too(tmp_path: Path) -> None:
    told = refused(tmp_path, launches(BF16, OLD), launches(BF16, NEW, OTHER_MACHINE), "--differ", "engine")
    assert "a and b differ in machine, which was not to differ: machine: device_model" in told
    assert run(tmp_path, "a", "b", "--differ", "machine").returncode == 0


@pytest.mark.parametrize("fact", [{"engine_version": "0.33.0"}, {"device_model": "AMD EPYC 7B13"}])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_mixed_folder_is_refused_with_its_launches_named(tmp_path: Path, side: str, fact: dict[str, str]) -> None:
    mixed = [*launches(BF16, (110.0, 111.0)), make_record(BF16, 2, [112.0], environment=fact)]
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: mixed}
    told = refused(tmp_path, sides["a"], sides["b"])
    (name, value), *_ = fact.items()
    assert f"{side}: its launches differ in {name}" in told
    assert "qwen3-90m bf16 small launch 0, qwen3-90m bf16 small launch 1)" in told
    assert f"{value} (qwen3-90m bf16 small launch 2)" in told


def test_a_launch_that_both_folders_hold_is_no_second_measurement(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, (*OLD[:2], *NEW)))
    assert cell(done)[3:] == ["-", "[1]"]
    assert "Engine and machine agree" not in done.flat
    assert "[1] a has the very same record of launch 0, 1, as a copy would." in done.flat


def test_another_load_is_never_a_ratio(tmp_path: Path) -> None:
    heavier = make_spec(quant="w8a8", prompts=4)
    done = compared(
        tmp_path, [*launches(BF16, OLD), *launches(W8A8, OLD)], [*launches(BF16, NEW), *launches(heavier, NEW)]
    )
    assert cell(done, "w8a8") == ["w8a8", "0", "4", "-", "-", "-", "[1]"]
    assert "[1] a measured another load: workload.prompts 8 -> 4." in done.flat
    assert cell(done)[5] == "1.194x"


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("workload", {"output_tokens": 64}, "workload.output_tokens 32 -> 64"),
        ("workload", {"temperature": 0.0}, "workload.temperature 1.0 -> 0.0"),
        ("workload", {"requests": "per_prompt"}, "workload.requests per_sequence -> per_prompt"),
        ("measuring", {"warmup_iterations": 0}, "measuring.warmup_iterations 1 -> 0"),
        ("model", {"synthetic": {"hidden_size": 1024}}, "synthetic.hidden_size 768 -> 1024"),
    ],
)
def test_every_part_of_the_load_counts(tmp_path: Path, part: str, change: dict[str, Any], told: str) -> None:
    other = BF16.model_copy(update={part: getattr(BF16, part).model_copy(update=change)})
    done = compared(tmp_path, launches(BF16, OLD), launches(other, NEW))
    assert told in done.flat
    assert cell(done)[3:] == ["-", "[1]"]
