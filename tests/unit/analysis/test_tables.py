"""From records to the table: what counts, over what it is averaged, and what is an error."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import OUTPUT_TOKENS, SEQUENCES, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.intervals import cv_percent, pooled_cv_percent
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import table
from rollout_bench.analysis.timed.launches import measure
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Failure, Record
from rollout_bench.contracts.store import record_path
from rollout_bench.numbers.launch import COST
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.plan.planfile import PlanFile

RATES = st.lists(st.floats(1, 1e6), min_size=2, max_size=6)
BF16, W8A8 = make_spec(), make_spec(quant="w8a8")


def tabled(results: Path, plan: PlanFile | None, *entries: Record | Failure) -> pd.DataFrame:
    save(results, *entries)
    return table(rows_of(collect(results, plan)))


@given(RATES, RATES)
def test_warmup_never_counts(rates: list[float], warmup: list[float]) -> None:
    cold, warm = make_record(rates=rates, warmup_rates=warmup), make_record(rates=rates, warmup_rates=())
    with_warmup, without = measure(cold), measure(warm)
    assert with_warmup.warmup_output_tokens_per_s == pytest.approx(warmup)
    of_launch = {name for name, number in NUMBERS.items() if number.table == COST}
    assert {n: v for n, v in with_warmup.values.items() if n not in of_launch} == {
        n: v for n, v in without.values.items() if n not in of_launch
    }
    assert with_warmup.iteration_output_tokens_per_s == without.iteration_output_tokens_per_s


@pytest.mark.parametrize(("tokens", "sequences"), [(9600, 100), (9599, 99), (10, 0), (None, None)])
def test_the_kv_cache_holds_whole_sequences(tokens: int | None, sequences: int | None) -> None:
    assert measure(make_record(kv_cache_tokens=tokens)).values.get("kv_cache_sequences") == sequences


@given(st.lists(RATES, min_size=1, max_size=4), st.floats(0.1, 10))
def test_the_spread_inside_launches_ignores_that_between_them(groups: list[list[float]], factor: float) -> None:
    moved = [[factor**place * value for value in group] for place, group in enumerate(groups)]
    assert pooled_cv_percent(moved) == pytest.approx(pooled_cv_percent(groups), abs=1e-6)


def test_spread_is_the_sample_deviation_over_the_mean() -> None:
    assert cv_percent([9.0, 11.0]) == pytest.approx(100 * 2**0.5 / 10)
    assert pooled_cv_percent([[9.0, 11.0], [5.0, 5.0]]) == pytest.approx(10.0)


def test_the_mean_is_over_launches_not_over_iterations(tmp_path: Path) -> None:
    frame = tabled(tmp_path, None, make_record(rates=[100.0]), make_record(launch=1, rates=[300.0, 600.0]))
    expected = {"": 250, "_min": 100, "_max": 400}  # a launch is its tokens over its time
    assert {name: frame[f"output_tokens_per_s{name}"][0] for name in expected} == pytest.approx(expected)
    assert frame["step_time_s"][0] == pytest.approx(SEQUENCES * OUTPUT_TOKENS * (1 / 100 + 1 / 400) / 2)


def test_rows_follow_the_plan_even_without_a_record(tmp_path: Path) -> None:
    late, early = make_spec("zeta"), make_spec("alpha")
    plan = make_plan([late, W8A8, early], launches=2)
    frame = tabled(tmp_path, plan, make_record(early), make_failure(early, 1), make_record(late))
    names = ["model", "launches_measured", "launches_failed"]
    assert frame[names].to_numpy().tolist() == [["zeta", 1, 0], ["qwen3-90m", 0, 0], ["alpha", 1, 1]]
    assert frame["output_tokens_per_s"].isna().tolist() == [False, True, False]


def test_launches_and_experiments_outside_the_plan_are_counted_not_read(tmp_path: Path) -> None:
    save(tmp_path, make_record(BF16, 0), make_record(BF16, 1), make_record(W8A8, 0))
    record_path(tmp_path, "offline", W8A8.experiment(), 0).write_text("broken")
    found = collect(tmp_path, make_plan([BF16], launches=1))
    assert (found.beyond_planned, found.not_selected, found.complete) == (1, 1, True)
    assert [len(e.records) for e in found.experiments] == [1]


def test_a_failure_alone_has_its_row_without_a_plan(tmp_path: Path) -> None:
    save(tmp_path, make_failure(BF16, 0))
    collection = collect(tmp_path, None)
    assert ([len(e.failures) for e in collection.experiments], collection.complete) == ([1], False)


def test_experiments_that_differ_in_the_key_alone_are_told_apart(tmp_path: Path) -> None:
    eager = make_spec(args={"enforce_eager": True})
    frame = tabled(tmp_path, None, make_record(BF16), make_record(eager))
    assert sorted(frame["quant"]) == sorted([f"bf16 ({BF16.key()})", f"bf16 ({eager.key()})"])
