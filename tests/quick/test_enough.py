"""`launches: auto` on records, looking at the interval after each launch: how many are wanted, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Flag
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.summary import summarise

BASE, NARROW, WIDE = make_spec(quant="bf16"), make_spec(quant="w8a8"), make_spec(quant="w8a16")
NOISE = [0.0, 0.001, -0.001, 0.0005, -0.0005, 0.001, 0.0, -0.001]
INVALID = Flag(code="token_count", severity="invalid", sentence="16 tokens, 32 were asked for.")


def plan(*specs, half_width: float = 0.01, least: int = 3, most: int = 8, stop: str = "interval") -> PlanFile:
    precision = Precision(half_width=half_width, min_launches=least, max_launches=most, stop=stop)
    return make_plan(specs or (BASE, NARROW, WIDE), most).model_copy(update={"precision": precision})


def put(results: Path, spec, launches: range, factor: float, spread: float, flags: tuple[Flag, ...] = ()) -> None:
    for launch in launches:
        rate = 400 * factor * (1 + spread * NOISE[launch])
        save(results, make_record(spec, launch, [rate] * 3, flags=flags))


def wanted(results: Path, selected: PlanFile) -> dict[str, int | None]:
    return {e.quant: e.planned for e in collect(results, selected).experiments}


def test_nothing_measured_asks_for_the_least(tmp_path: Path):
    (tmp_path / "offline").mkdir()
    assert wanted(tmp_path, plan()) == {"bf16": 3, "w8a8": 3, "w8a16": 3}


def test_a_narrow_comparison_stops_and_a_wide_one_goes_on_with_its_baseline(tmp_path: Path):
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    put(tmp_path, NARROW, range(3), 1.2, 1.0)
    put(tmp_path, WIDE, range(3), 0.9, 40.0)
    assert wanted(tmp_path, plan()) == {"bf16": 4, "w8a8": 3, "w8a16": 4}
    collection = collect(tmp_path, plan())
    assert {e.quant: e.missing for e in collection.experiments} == {"bf16": (3,), "w8a8": (), "w8a16": (3,)}


def test_the_limit_ends_it_and_the_summary_says_that_the_precision_was_not_reached(tmp_path: Path):
    put(tmp_path, BASE, range(8), 1.0, 0.0)
    put(tmp_path, NARROW, range(3), 1.2, 1.0)
    put(tmp_path, WIDE, range(8), 0.9, 40.0)
    assert wanted(tmp_path, plan()) == {"bf16": 8, "w8a8": 3, "w8a16": 8}
    text = " ".join(summarise(collect(tmp_path, plan())).text.split())
    assert text.startswith("19 of 19 planned launches measured")
    assert "w8a16 small: the limit of 8 launches was reached before the precision" in text
    assert "w8a8 small: the limit" not in text
    assert "w8a8 small: 5 launches of its baseline's" not in text


def test_more_precision_wants_more_and_keeps_what_is_there(tmp_path: Path):
    put(tmp_path, BASE, range(5), 1.0, 0.0)
    put(tmp_path, WIDE, range(5), 0.9, 12.0)
    loose, strict = plan(BASE, WIDE, half_width=0.1), plan(BASE, WIDE, half_width=0.005)
    assert wanted(tmp_path, loose) == {"bf16": 3, "w8a16": 3}
    assert collect(tmp_path, loose).beyond_planned == 4
    assert wanted(tmp_path, strict) == {"bf16": 6, "w8a16": 6}
    assert {e.missing for e in collect(tmp_path, strict).experiments} == {(5,)}


def test_a_deleted_record_is_wanted_again_before_any_further_one(tmp_path: Path):
    put(tmp_path, BASE, range(5), 1.0, 0.0)
    put(tmp_path, WIDE, range(5), 0.9, 40.0)
    next((tmp_path / "offline").glob("*_w8a16_*/launch-1.json")).unlink()
    experiments = collect(tmp_path, plan(BASE, WIDE)).experiments
    assert {e.quant: (e.planned, e.missing) for e in experiments} == {"bf16": (3, ()), "w8a16": (3, (1,))}


def test_a_launch_that_failed_is_waited_for(tmp_path: Path):
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    put(tmp_path, WIDE, range(2), 0.9, 40.0)
    save(tmp_path, make_failure(WIDE, 2))
    collection = collect(tmp_path, plan(BASE, WIDE))
    assert {e.quant: e.planned for e in collection.experiments} == {"bf16": 3, "w8a16": 3}
    assert not collection.complete


def test_a_baseline_whose_launch_failed_is_not_taken_for_the_limit(tmp_path: Path):
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    save(tmp_path, make_failure(BASE, 3))
    put(tmp_path, WIDE, range(4), 0.9, 40.0)
    assert wanted(tmp_path, plan(BASE, WIDE)) == {"bf16": 4, "w8a16": 4}
    assert "was reached before the precision" not in summarise(collect(tmp_path, plan(BASE, WIDE))).text


def test_an_invalid_launch_is_made_up_for_by_another(tmp_path: Path):
    put(tmp_path, BASE, range(4), 1.0, 0.0)
    put(tmp_path, NARROW, range(1), 1.2, 1.0, flags=(INVALID,))
    put(tmp_path, NARROW, range(1, 3), 1.2, 1.0)
    assert wanted(tmp_path, plan(BASE, NARROW)) == {"bf16": 4, "w8a8": 4}
    put(tmp_path, NARROW, range(3, 4), 1.2, 1.0)
    assert wanted(tmp_path, plan(BASE, NARROW)) == {"bf16": 4, "w8a8": 4}


def test_nothing_is_launched_again_that_can_not_count(tmp_path: Path):
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    put(tmp_path, NARROW, range(3), 1.2, 40.0, flags=(INVALID,))
    assert wanted(tmp_path, plan(BASE, NARROW)) == {"bf16": 3, "w8a8": 3}


def test_launches_that_the_machine_spoilt_are_made_up_for(tmp_path: Path):
    busy = Flag(code="cpu_shared", severity="invalid", sentence="Others used the cores.")
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    put(tmp_path, NARROW, range(3), 1.2, 40.0, flags=(busy,))
    assert wanted(tmp_path, plan(BASE, NARROW)) == {"bf16": 4, "w8a8": 4}


def test_without_its_baseline_an_experiment_is_launched_the_least_times(tmp_path: Path):
    put(tmp_path, NARROW, range(3), 1.2, 40.0)
    assert wanted(tmp_path, plan(NARROW)) == {"w8a8": 3}


def test_the_interval_of_a_run_that_looked_often_is_wider_and_its_p_value_larger(tmp_path: Path):
    put(tmp_path, BASE, range(8), 1.0, 0.0)
    put(tmp_path, WIDE, range(8), 1.02, 15.0)
    fixed = rows_of(collect(tmp_path, make_plan([BASE, WIDE], 8)))[1].comparison
    auto = rows_of(collect(tmp_path, plan(BASE, WIDE, half_width=0.0001)))[1].comparison
    assert fixed.pairs == auto.pairs
    assert fixed.p_value is not None
    assert auto.p_value is not None
    assert auto.p_value > 1.5 * fixed.p_value
    assert auto.low is not None
    assert fixed.low is not None
    assert auto.low < fixed.low
    assert auto.minimal_detectable_difference > 1.1 * fixed.minimal_detectable_difference


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_summary_says_which_rule_ended_the_launching(tmp_path: Path, confidence: float):
    put(tmp_path, BASE, range(3), 1.0, 0.0)
    put(tmp_path, NARROW, range(3), 1.2, 1.0)
    selected = plan(BASE, NARROW, half_width=0.02).model_copy(
        update={"comparison": ComparisonSettings(confidence=confidence)}
    )
    text = " ".join(summarise(collect(tmp_path, selected)).markdown.split())
    assert "no further than 2 % from it, at least 3 and at most 8 times" in text
    assert f"hold together at {100 * confidence:g} %" in text
    assert "Pocock 1977" in text
