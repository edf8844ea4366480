"""Launches that did not take turns are told, and are no pairs."""

from __future__ import annotations

from pathlib import Path

from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.report.summary import summarise

BASE, OTHER = make_spec(), make_spec(quant="w8a8")


def record(spec, launch: int, rate: float, started_at: str):
    return make_record(spec, launch, [rate] * 3).model_copy(update={"started_at": started_at})


def put(results: Path, spec, rate: float, *started_at: str) -> None:
    save(results, *(record(spec, i, rate + i * i / 10, at) for i, at in enumerate(started_at)))


def row(results: Path) -> Row:
    return rows_of(collect(results, make_plan([BASE, OTHER])))[1]


def codes(results: Path) -> list[list[str]]:
    return [[flag.code for flag in launch.flags] for launch in row(results).launches]


def test_launches_of_one_run_take_turns(tmp_path: Path):
    put(tmp_path, BASE, 400, "2026-01-01T00:00:00Z", "2026-01-01T00:03:00Z", "2026-01-01T00:04:00Z")
    put(tmp_path, OTHER, 500, "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z", "2026-01-01T00:05:00Z")
    assert codes(tmp_path) == [[], [], []]


def test_rounds_on_different_days_are_rounds(tmp_path: Path):
    days = [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
    put(tmp_path, BASE, 400, *days)
    put(tmp_path, OTHER, 500, *days)
    assert codes(tmp_path) == [[], [], []]


def test_a_quant_that_was_added_later_is_marked_and_gets_no_verdict(tmp_path: Path):
    put(tmp_path, BASE, 400, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z")
    put(tmp_path, OTHER, 500, "2026-01-08T00:00:00Z", "2026-01-08T00:01:00Z", "2026-01-08T00:02:00Z")
    assert codes(tmp_path) == [["not_in_turn"]] * 3
    comparison = row(tmp_path).comparison
    assert (comparison.verdict, comparison.speedup) == ("unknown", None)
    assert comparison.reason.startswith("3 of its 3 launches did not take turns with the baseline's; raise launches")
    text = " ".join(summarise(collect(tmp_path, make_plan([BASE, OTHER]))).text.split())
    assert "not_in_turn 3/3" in text
    assert "launch 0, 1, 2: not_in_turn (warning): It and its partner in the baseline started 168.0 h apart" in text


def test_one_record_that_was_measured_again_is_marked_alone(tmp_path: Path):
    put(tmp_path, BASE, 400, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z")
    put(tmp_path, OTHER, 500, "2026-01-01T00:00:30Z", "2026-01-02T00:00:00Z", "2026-01-01T00:02:30Z")
    assert codes(tmp_path) == [[], ["not_in_turn"], []]
    assert list(row(tmp_path).comparison.pairs) == [0, 2]
    assert row(tmp_path).comparison.verdict == "faster"


def test_a_launch_of_a_far_future_is_marked(tmp_path: Path):
    put(tmp_path, BASE, 400, *[f"2026-01-01T00:0{i}:00Z" for i in range(3)])
    put(tmp_path, OTHER, 500, "2026-01-01T00:00:00Z", "2999-12-31T23:59:59Z", "2026-01-01T00:02:00Z")
    assert codes(tmp_path) == [[], ["not_in_turn"], []]


def test_launches_that_are_added_take_turns_again(tmp_path: Path):
    first, later = [f"2026-01-01T00:0{i}:00Z" for i in range(2)], [f"2026-01-08T00:0{i}:00Z" for i in range(4)]
    put(tmp_path, BASE, 400, *first, *later[2:])
    put(tmp_path, OTHER, 500, *later)
    comparison = rows_of(collect(tmp_path, make_plan([BASE, OTHER], 4)))[1].comparison
    assert (list(comparison.pairs), comparison.verdict) == ([2, 3], "faster")
