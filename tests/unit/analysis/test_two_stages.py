"""The two stages of `launches: auto`: what the first blocks ask for, and that the truth is covered as often as said."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_records import INVALID, make_block, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.blocks import contrasts, critical_value
from rollout_bench.analysis.stats.two_stages import TwoStages, blocks_needed, two_stage_contrasts
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import Precision
from rollout_bench.plan.planfile import PlanFile

RULE = TwoStages(half_width=0.06, max_blocks=24, confidence=0.95)

logs = st.floats(-0.1, 0.1)


def judged(d: np.ndarray, rule: TwoStages, together: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return distance and half width [count, k - 1] of whole tables `d` that the rule ended."""
    k = d.shape[-1] + 1
    first = rule.first(k - 1)
    critical = critical_value(k - 1, (first - 1) * (k - 1), 1 - rule.confidence)
    stage = contrasts(d[:, :first])
    spread = stage.error * np.sqrt(first)
    blocks = np.clip(blocks_needed(spread, critical, rule.half_width), first, rule.max_blocks)
    if together:
        blocks = np.broadcast_to(blocks.max(axis=-1, keepdims=True), blocks.shape)
    mean = np.take_along_axis(np.cumsum(d, axis=1), (blocks - 1)[:, None, :], axis=1)[:, 0] / blocks
    return np.abs(mean), critical * spread / np.sqrt(blocks)


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.2], ids=["first_stage", "both_stages", "limit"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_intervals_hold_the_truth_as_promised_whatever_the_spread(k: int, together: bool, sd: float):
    values = sd * np.random.default_rng(1).normal(size=(20_000, 24, k))
    distance, half = judged(values[..., 1:] - values[..., :1], RULE, together)
    # four standard errors of the simulation; the guard makes tables of several comparisons miss less
    assert 0.030 < (distance > half).any(axis=-1).mean() < 0.0562


@given(st.lists(st.lists(logs, min_size=2, max_size=2), min_size=8, max_size=8), st.integers(2, 5), logs, logs)
def test_only_the_first_stage_sets_spread_freedom_and_blocks(
    rows: list[list[float]], first: int, scale: float, shift: float
):
    d = np.array(rows)
    other = d.copy()
    other[first:] = 7 * scale * other[first:] + shift
    one, two = (two_stage_contrasts(each, first)[0] for each in (d, other))
    for name in ("error", "pooled_error", "freedom", "correlation", "pairs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    other[:3], other[3:] = d[:3], 7 * scale * d[3:] + shift
    needed = [[stage and stage.needed for stage in RULE.of(each)[1]] for each in (d, other, d[:3])]
    assert needed[0] == needed[1] == needed[2]


BASE, ONE, TWO = make_spec(quant="bf16"), make_spec(quant="w8a8"), make_spec(quant="w8a16")
NOISE = np.array([0.3, -1.1, 0.9, 0.2, -0.6, 1.2, 0.1, -1.4, 0.7, -0.2, 0.5, -0.9])
"""Of the launches of `ONE`, those of `TWO` have it backwards."""


def plan(*specs, half_width: float = 0.02, most: int = 12) -> PlanFile:
    precision = Precision(half_width=half_width, max_launches=most)
    return make_plan(specs or (BASE, ONE, TWO), most).model_copy(update={"precision": precision})


def put(results: Path, spec, launches, factor: float = 1.0, spread: float = 0.0, **more) -> None:
    noise = NOISE[::-1] if spec is TWO else NOISE
    for launch in launches:
        record = make_record(spec, launch, [400 * factor * math.exp(spread * noise[launch])] * 3, **more)
        save(results, record)


def apart(specs: Sequence[Spec], launch: int, rates: Sequence[Sequence[float]]) -> list[Record]:
    return [make_record(spec, launch, own) for spec, own in zip(specs, rates, strict=True)]


def wanted(results: Path, selected: PlanFile) -> dict[str, int | None]:
    return {e.quant: e.planned for e in collect(results, selected).experiments}


def compared(results: Path, selected: PlanFile) -> dict[str, Comparison]:
    return {row.experiment.quant: row.comparison for row in rows_of(collect(results, selected))}


def asked(*series: np.ndarray, half_width: float = 0.02) -> list[int]:
    """Return the blocks that the first stage of whole blocks asks for, reckoned another way: residuals by hand."""
    d = np.stack(series, axis=-1)
    m, k = len(d), d.shape[1] + 1
    y = np.concatenate([np.zeros((m, 1)), d], axis=1)
    residuals = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    pooled = 2 * (residuals**2).sum() / ((m - 1) * (k - 1))
    critical = stats.t.ppf(0.975, m - 1) if k == 2 else critical_value(k - 1, (m - 1) * (k - 1), 0.05)
    own = d.var(axis=0, ddof=1)
    # Of two, one is compared with the other; above this it is judged by its own spread.
    more = (k == 3) & (own > stats.f.ppf(0.9, m - 1, m - 1) * own[::-1])
    alone = np.where(more, stats.t.ppf(1 - 0.05 / 2 / (k - 1), m - 1) * np.sqrt(own), 0)
    reach = np.maximum(critical * np.sqrt(np.maximum(pooled, own)), alone)
    return [math.ceil((each / math.log1p(half_width)) ** 2) for each in reach]


@pytest.mark.parametrize(
    ("specs", "most", "launches"),
    [((BASE, ONE, TWO), 12, 3), ((BASE, ONE), 12, 4), ((BASE, ONE), 3, 3), ((ONE,), 12, 3)],
)
def test_the_first_stage_is_longer_for_a_single_comparison(
    tmp_path: Path, specs: Sequence[Spec], most: int, launches: int
):
    (tmp_path / "offline").mkdir()
    assert wanted(tmp_path, plan(*specs, most=most)) == {spec.quant.name: launches for spec in specs}


def test_the_spread_of_the_first_stage_sets_all_further_launches(tmp_path: Path):
    put(tmp_path, BASE, range(4))
    put(tmp_path, ONE, range(4), 1.2, 0.015)
    (number,) = asked(0.015 * NOISE[:4])
    assert 4 < number < 12
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": number, "w8a8": number}
    missing = {e.missing for e in collect(tmp_path, plan(BASE, ONE)).experiments}
    assert missing == {tuple(range(4, number))}


@pytest.mark.parametrize("in_blocks", [False, True])
def test_each_has_its_own_number_unless_they_share_blocks(tmp_path: Path, in_blocks: bool):
    one, two = asked(0.001 * NOISE[:3], 0.025 * NOISE[::-1][:3])
    assert 3 < one < two < 48
    for launch in range(3):
        rates = [[400 * math.exp(noise[launch])] * 3 for noise in (0 * NOISE, 0.001 * NOISE, 0.025 * NOISE[::-1])]
        save(tmp_path, *(make_block if in_blocks else apart)((BASE, ONE, TWO), launch, rates))
    numbers = {"bf16": two, "w8a8": two if in_blocks else one, "w8a16": two}
    assert wanted(tmp_path, plan(most=48)) == numbers
    save(tmp_path, make_failure(ONE, one))
    assert wanted(tmp_path, plan(most=48)) == numbers


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_later_launches_widen_an_interval_and_change_no_number(tmp_path: Path, spread: float):
    put(tmp_path, BASE, range(12))
    put(tmp_path, ONE, range(4), 1.2, 0.015)
    put(tmp_path, ONE, range(4, 12), 1.2, spread)
    (number,) = asked(0.015 * NOISE[:4])
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": number, "w8a8": number}
    assert collect(tmp_path, plan(BASE, ONE)).beyond_planned == 2 * (12 - number)
    found = compared(tmp_path, plan(BASE, ONE))["w8a8"]
    if spread == 0:
        half = stats.t.ppf(0.975, 3) * np.std(0.015 * NOISE[:4], ddof=1) / math.sqrt(number)
        assert math.log(found.high / found.speedup) == pytest.approx(half)
        assert found.p_value == pytest.approx(2 * stats.t.sf(math.log(found.speedup) / half * stats.t.ppf(0.975, 3), 3))
        assert found.high / found.speedup <= 1.02
    else:
        later = np.concatenate([0.015 * NOISE[:4], 0.05 * NOISE[4:number]])
        fixed = stats.ttest_1samp(later + math.log(1.2), 0)
        assert found.low == pytest.approx(math.exp(fixed.confidence_interval(0.95).low))
        assert found.p_value >= fixed.pvalue


def test_an_invalid_launch_of_the_first_stage_is_replaced(tmp_path: Path):
    put(tmp_path, BASE, range(4))
    put(tmp_path, ONE, range(1), 1.2, 0.015, flags=(INVALID,))
    put(tmp_path, ONE, range(1, 4), 1.2, 0.015)
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": 5, "w8a8": 5}
    put(tmp_path, BASE, range(4, 5))
    put(tmp_path, ONE, range(4, 5), 1.2, 0.015)
    (number,) = asked(0.015 * NOISE[1:5])
    assert 4 < number < 11
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": number + 1, "w8a8": number + 1}
