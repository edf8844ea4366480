"""Speed-ups: their value, their verdict, and what they are measured against."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.collection import collect
from rollout_bench.analysis.comparison import Comparison, compare, verdict
from rollout_bench.analysis.rows import rows_of
from rollout_bench.errors import UserError
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.spec import Spec
from rollout_bench.records.record import Flag, Record

THROUGHPUTS = st.lists(st.floats(1, 1e6), min_size=1, max_size=6)
BY_LAUNCH = st.dictionaries(st.integers(0, 9), st.floats(1, 1e6), min_size=1, max_size=6)
MIRROR = {"faster": "slower", "slower": "faster", "unclear": "unclear"}
INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def comparisons(results: Path, plan: PlanFile | None, *records: Record) -> list[Comparison]:
    save(results, *records)
    return [row.comparison for row in rows_of(collect(results, plan))]


def launches(spec: Spec, *rates: float) -> list[Record]:
    return [make_record(spec, launch, [rate]) for launch, rate in enumerate(rates)]


@settings(deadline=None)
@given(BY_LAUNCH, BY_LAUNCH)
def test_swapping_the_sides_inverts_the_ratio_and_mirrors_the_verdict(a: dict[int, float], b: dict[int, float]) -> None:
    there, back = compare(a, b), compare(b, a)
    assert there.speedup is not None
    assert back.speedup is not None
    assert there.speedup * back.speedup == pytest.approx(1)
    assert {i: 1 / ratio for i, ratio in there.pairs.items()} == pytest.approx(dict(back.pairs))
    # At the very edge of the relevant difference rounding may decide.
    assume(abs(max(there.speedup, back.speedup) - 1.01) > 1e-9)
    assert there.verdict is not None
    assert back.verdict == MIRROR[there.verdict]


@settings(deadline=None)
@given(BY_LAUNCH, BY_LAUNCH, st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
@example({0: 110.0, 1: 111.0}, {0: 100.0, 1: 101.0}, 1024.0)
def test_a_common_factor_changes_nothing(a: dict[int, float], b: dict[int, float], factor: float) -> None:
    def scaled(side: dict[int, float]) -> dict[int, float]:
        return {launch: factor * value for launch, value in side.items()}

    assert compare(scaled(a), scaled(b)) == compare(a, b)


@settings(deadline=None)
@given(THROUGHPUTS, THROUGHPUTS, st.randoms())
def test_the_order_of_launches_does_not_change_the_verdict(a: list[float], b: list[float], random: object) -> None:
    random.shuffle(shuffled := list(a))  # type: ignore[attr-defined]
    assume(abs(max(sum(a) / len(a) / sum(b) * len(b), sum(b) / len(b) / sum(a) * len(a)) - 1.01) > 1e-9)
    assert verdict(shuffled, b) == verdict(a, b)


@settings(deadline=None)
@given(BY_LAUNCH, st.floats(0.1, 10))
def test_a_constant_factor_is_the_speedup_of_every_pair(a: dict[int, float], factor: float) -> None:
    comparison = compare({launch: factor * value for launch, value in a.items()}, a)
    assert comparison.speedup == pytest.approx(factor)
    assert list(comparison.pairs.values()) == pytest.approx([factor] * len(a))


@settings(deadline=None)
@given(BY_LAUNCH)
def test_nothing_differs_from_itself(a: dict[int, float]) -> None:
    assert compare(a, a).speedup == pytest.approx(1)
    assert compare(a, a).verdict == "unclear"


@pytest.mark.parametrize(
    ("values", "baseline", "expected"),
    [
        ([110, 111, 112], [100, 101, 102], "faster"),
        ([100, 101, 102], [110, 111, 112], "slower"),
        ([100, 111, 112], [100, 101, 102], "unclear"),
        ([110, 111], [100, 101, 102], "unclear"),
        ([110, 111, 112], [100, 101], "unclear"),
        ([100.6, 100.7, 100.7], [100, 100.1, 100.1], "unclear"),
    ],
)
def test_a_clear_difference_takes_three_launches_a_side_no_overlap_and_one_percent(
    values: list[float], baseline: list[float], expected: str
) -> None:
    assert verdict(values, baseline) == expected


def test_all_launches_enter_the_ratio_and_pairs_take_only_those_of_both_sides() -> None:
    comparison = compare({0: 200.0, 1: 220.0, 2: 240.0}, {1: 100.0, 2: 100.0, 5: 130.0})
    assert comparison.speedup == pytest.approx(220 / 110)
    assert comparison.pairs == pytest.approx({1: 2.2, 2: 2.4})
    assert comparison.spread == pytest.approx((2.2, 2.4))
    assert (comparison.launches, comparison.baseline_launches) == (3, 3)


def test_a_throughput_of_zero_gives_no_speedup() -> None:
    for values, baseline in (({0: 1.0}, {0: 0.0}), ({0: 0.0}, {0: 1.0})):
        comparison = compare(values, baseline)
        assert comparison.speedup is None
        assert "zero" in comparison.reason


def test_each_model_and_workload_has_its_own_baseline(tmp_path: Path) -> None:
    specs = [make_spec(m, q, w) for m in ("a", "b") for w in ("x", "y") for q in ("bf16", "w8a8")]
    rates = [100.0, 110.0, 200.0, 180.0, 300.0, 600.0, 400.0, 400.0]
    records = [record for spec, rate in zip(specs, rates, strict=True) for record in launches(spec, rate, rate, rate)]
    found = comparisons(tmp_path, make_plan(specs, launches=3), *records)
    assert [c.is_baseline for c in found] == [True, False] * 4
    assert [c.speedup for c in found[1::2]] == pytest.approx([1.1, 0.9, 2.0, 1.0])
    assert [c.verdict for c in found[1::2]] == ["faster", "slower", "faster", "unclear"]


def test_any_axis_can_be_the_baseline(tmp_path: Path) -> None:
    specs = [make_spec("a"), make_spec("b")]
    plan = make_plan(specs, launches=1, baseline={"model": "b"})
    found = comparisons(tmp_path, plan, *launches(specs[0], 100.0), *launches(specs[1], 50.0))
    assert found[0].speedup == pytest.approx(2)
    assert found[1].is_baseline


def test_an_unknown_baseline_axis_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'quant'"):
        comparisons(tmp_path, make_plan([make_spec()], baseline={"qaunt": "bf16"}))


def test_without_a_measured_baseline_the_reason_is_given(tmp_path: Path) -> None:
    bf16, w8a8 = make_spec(), make_spec(quant="w8a8")
    alone = comparisons(tmp_path, make_plan([w8a8], launches=1), *launches(w8a8, 100.0))
    assert "not selected" in alone[0].reason
    both = comparisons(tmp_path, make_plan([bf16, w8a8], launches=1))
    assert [c.reason for c in both] == ["", "the baseline (quant bf16) is not measured"]


def test_invalid_launches_take_no_part(tmp_path: Path) -> None:
    bf16, w8a8, w8a16 = make_spec(), make_spec(quant="w8a8"), make_spec(quant="w8a16")
    found = comparisons(
        tmp_path,
        make_plan([bf16, w8a8, w8a16], launches=2),
        *launches(bf16, 100.0),
        make_record(bf16, 1, [900.0], flags=[INVALID]),
        *launches(w8a8, 120.0, 130.0),
        make_record(w8a16, 0, [150.0], flags=[INVALID]),
    )
    assert found[1].speedup == pytest.approx(1.25)
    assert found[1].baseline_launches == 1
    assert found[2].speedup is None
    assert found[2].reason == "no valid launch"


@pytest.mark.parametrize(
    ("baseline", "word"),
    [(make_spec(engine_version="0.31.0"), "another engine"), (make_spec(prompts=4), "other settings of the workload")],
)
def test_unlike_experiments_are_not_compared(tmp_path: Path, baseline: Spec, word: str) -> None:
    w8a8 = make_spec(quant="w8a8")
    found = comparisons(tmp_path, None, *launches(baseline, 100.0), *launches(w8a8, 120.0))
    assert found[1].speedup is None
    assert word in found[1].reason


def test_among_several_baselines_the_one_with_the_same_settings_is_taken(tmp_path: Path) -> None:
    eager = {"enforce_eager": True}
    records = [*launches(make_spec(), 100.0), *launches(make_spec(args=eager), 50.0)]
    records += launches(make_spec(quant="w8a8", args=eager), 75.0)
    found = comparisons(tmp_path, None, *records)
    assert [c.speedup for c in found if not c.is_baseline] == pytest.approx([1.5])
    other = comparisons(tmp_path, None, *launches(make_spec(quant="w8a16", args={"seed": 1}), 75.0))
    assert any("2 experiments could be the baseline" in c.reason for c in other)
