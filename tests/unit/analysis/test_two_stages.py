"""The two stages of `launches: auto`: what the first blocks ask for, and that the truth is covered as often as said."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollout_bench.analysis.stats.blocks import contrasts, critical_value, half_widths
from rollout_bench.analysis.stats.two_stages import TwoStages, blocks_asked, two_stage_contrasts

RULE = TwoStages(half_width=0.06, max_blocks=24, confidence=0.95)

logs = st.floats(-0.1, 0.1)


def tables(k: int, count: int = 20_000, sd: float = 0.05, seed: int = 1, blocks: int = 24) -> np.ndarray:
    """Return log ratios [count, blocks, k - 1] of normal noise; nothing differs."""
    values = sd * np.random.default_rng(seed).normal(size=(count, blocks, k))
    return values[..., 1:] - values[..., :1]


def judged(d: np.ndarray, rule: TwoStages, together: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance, half width and blocks [count, k - 1] of whole tables `d` that the rule ended."""
    k = d.shape[-1] + 1
    first = rule.first(k - 1)
    critical = critical_value(k - 1, (first - 1) * (k - 1), 1 - rule.confidence)
    stage = contrasts(d[:, :first])
    spread = stage.error * np.sqrt(first)
    blocks = np.clip(blocks_asked(spread, critical, rule.half_width), first, rule.max_blocks)
    if together:
        blocks = np.broadcast_to(blocks.max(axis=-1, keepdims=True), blocks.shape)
    mean = np.take_along_axis(np.cumsum(d, axis=1), (blocks - 1)[:, None, :], axis=1)[:, 0] / blocks
    return np.abs(mean), critical * spread / np.sqrt(blocks), blocks


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_intervals_hold_the_truth_as_promised_whatever_the_spread(k: int, together: bool):
    for sd in (0.01, 0.05, 0.2):  # the first stage is enough, a second one follows, the limit cuts it
        distance, half, _ = judged(tables(k, sd=sd), RULE, together)
        missed = (distance > half).any(axis=-1).mean()
        # four standard errors of the simulation; the guard makes tables of several comparisons miss less
        assert 0.030 < missed < 0.0562


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


@given(st.lists(st.lists(logs, min_size=2, max_size=2), min_size=3, max_size=3), st.floats(-3, 3), st.integers(0, 1))
def test_the_size_of_a_difference_never_sets_the_blocks(rows: list[list[float]], shift: float, place: int):
    d = np.array(rows)
    moved = d.copy()
    moved[:, place] += shift
    one, two = (two_stage_contrasts(each, 3)[0] for each in (d, moved))
    np.testing.assert_allclose(one.error, two.error, rtol=1e-9, atol=1e-12)


@given(st.lists(st.lists(logs, min_size=2, max_size=2), min_size=3, max_size=3), st.floats(0.002, 0.5))
def test_no_fewer_blocks_than_asked_for_reach_the_half_width(rows: list[list[float]], half_width: float):
    d = np.array(rows)
    rule = replace(RULE, half_width=half_width)
    (found, _), said = rule.of(d)
    for stage, half in zip(said, half_widths(found, 0.05), strict=True):
        assert stage is not None
        assume(stage.spread > 1e-9)
        reach = half * np.sqrt(stage.blocks)
        assert reach / np.sqrt(stage.needed) <= np.log1p(half_width) * (1 + 1e-9)
        assert stage.needed == 1 or reach / np.sqrt(stage.needed - 1) > np.log1p(half_width)


def test_each_configurations_first_stage_is_its_own_first_pairs():
    d = np.random.default_rng(4).normal(0, 0.02, (7, 2))
    d[1, 0] = np.nan  # its second launch is not valid
    (found, _), said = replace(RULE, max_blocks=7).of(d)
    assert [stage and stage.blocks for stage in said] == [3, 3]
    assert found.pairs.tolist() == [6, 7]
    taken = d.copy()
    taken[4:, 0] = taken[3:, 1] = np.nan
    stage = contrasts(taken)
    np.testing.assert_allclose(found.error, stage.error * np.sqrt([3 / 6, 3 / 7]))
    assert found.log_ratio[0] == pytest.approx(np.nanmean(d[:, 0]))


def test_missing_launches_cost_no_coverage():
    values = np.random.default_rng(6).normal(0, 0.05, (4000, 10, 3))
    values[np.random.default_rng(7).random(values.shape) < 0.1] = np.nan
    missed = 0
    for table in values:
        d = table[:, 1:] - table[:, :1]
        said = RULE.of(d)[1]
        asked = [RULE.within(stage.needed, 2) if stage else 3 for stage in said]
        rank = np.cumsum(np.isfinite(d), axis=0)
        (found, _), _ = RULE.of(np.where(rank <= asked, d, np.nan))
        critical = critical_value(int(found.comparisons), int(found.freedom), 0.05, round(float(found.correlation), 6))
        missed += bool((np.abs(found.log_ratio) > critical * found.error).any())
    assert missed / len(values) < 0.064
