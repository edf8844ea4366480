"""One spread and one critical value for a table: against textbooks and scipy, by property, by simulated truths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike
from scipy import stats

from rollout_bench.analysis.stats.blocks import (
    BALANCED,
    Contrasts,
    adjusted_p,
    contrasts,
    critical_value,
    half_widths,
    may_be_best,
    step_down,
)
from rollout_bench.analysis.stats.intervals import Array, ratio_interval, standard_deviation

pytestmark = pytest.mark.slow

TRIALS = 20_000
LOGS = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=12).filter(lambda logs: np.std(logs) > 1e-3)


@st.composite
def tables(draw: st.DrawFn) -> Array:
    """Log ratios of a table [m, k - 1], some of them missing, each configuration with two pairs or more."""
    m, others = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    logs: Array = draw(arrays(float, (m, others), elements=st.floats(-0.5, 0.5)))
    missing = draw(arrays(bool, (m, others)))
    missing[:2] = False
    return np.where(missing, np.nan, logs + 0.01 * np.arange(m)[:, None] ** 2)


def simulated(
    m: int, others: int, seed: int = 1, trials: int = TRIALS, truths: ArrayLike = 0.0, spreads: ArrayLike = 1.0
) -> Array:
    """Log ratios [trials, m, others], launches with these means and spreads, one of each configuration."""
    noise = np.random.default_rng([seed, m, others]).normal(truths, spreads, size=(trials, m, others + 1))
    return np.asarray(noise[..., 1:] - noise[..., :1])


def is_about(hits: ArrayLike, chance: float) -> bool:
    """Whether the share of `hits` can be `chance`: inside its own binomial interval at 99.99 %."""
    interval = stats.binomtest(int(np.sum(hits)), np.size(hits)).proportion_ci(0.9999)
    return bool(interval.low <= chance <= interval.high)


def missed(found: Contrasts) -> float:
    """Share of many tables without any difference of which some interval misses that."""
    return float((np.abs(found.log_ratio) > half_widths(found, 0.05)).any(axis=-1).mean())


def held(found: Contrasts, error: Array) -> Array:
    """Return of many tables without any difference whether all intervals of this error hold that."""
    critical = critical_value(found.log_ratio.shape[-1], int(found.freedom[0]), 0.05, float(found.correlation[0]))
    return np.asarray((np.abs(found.log_ratio) <= critical * error).all(axis=-1))


def of_all_cells(table: Array) -> tuple[float, int]:
    """Residual variance and degrees of freedom of the plain fit of blocks and configurations to every cell."""
    cells = np.hstack([np.where(np.isfinite(table).any(axis=1), 0.0, np.nan)[:, None], table])
    m, k = cells.shape
    rows, values = [], []
    for block, configuration in zip(*np.nonzero(np.isfinite(cells)), strict=True):
        rows.append([*np.eye(m)[block], *np.eye(k)[configuration]])
        values.append(cells[block, configuration])
    design, y = np.array(rows), np.array(values)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    freedom = len(y) - int(np.linalg.matrix_rank(design))
    return float(residual @ residual) / freedom, freedom


@given(LOGS, st.floats(0.5, 0.999))
def test_one_comparison_is_the_paired_t_test(logs: list[float], confidence: float) -> None:
    one, t = contrasts(np.array(logs)[:, None]), ratio_interval(logs, confidence)
    critical = critical_value(1, int(one.freedom), 1 - confidence)
    assert one.log_ratio[0] == pytest.approx(np.log(t.ratio), abs=1e-12)
    assert one.error[0] == one.pooled_error[0] == pytest.approx(standard_deviation(logs) / np.sqrt(len(logs)))
    assert one.log_ratio[0] + critical * one.error[0] == pytest.approx(np.log(t.high), abs=1e-9)
    p = adjusted_p(abs(float(one.log_ratio[0] / one.error[0])), 1, int(one.freedom))
    assert p == pytest.approx(float(t.p_value), rel=1e-6, abs=1e-15)


@given(tables())
def test_the_spread_is_that_of_the_two_way_fit(table: Array) -> None:
    found = contrasts(table)
    variance, freedom = of_all_cells(table)
    assert (found.freedom, found.pooled_error**2 * found.pairs) == (
        freedom,
        pytest.approx(2 * variance, rel=1e-6, abs=1e-12),
    )
    assert found.log_ratio == pytest.approx(np.nanmean(table, axis=0), abs=1e-12)
    own = np.nanvar(table, axis=0, ddof=1)
    assert found.error**2 * found.pairs == pytest.approx(np.maximum(2 * variance, own), rel=1e-6, abs=1e-12)


@given(tables(), st.randoms(), st.floats(-1, 1))
def test_neither_order_nor_size_of_a_difference_changes_the_error(table: Array, random: object, shift: float) -> None:
    blocks, others = list(range(table.shape[0])), list(range(table.shape[1]))
    random.shuffle(blocks)  # type: ignore[attr-defined]
    random.shuffle(others)  # type: ignore[attr-defined]
    one, other = contrasts(table), contrasts(table[blocks][:, others] + shift)
    assert other.error == pytest.approx(one.error[others], rel=1e-6, abs=1e-9)
    assert (other.log_ratio, other.freedom) == (pytest.approx(one.log_ratio[others] + shift, abs=1e-9), one.freedom)
    assert other.correlation == pytest.approx(one.correlation)


def test_a_configuration_with_fewer_than_two_pairs_takes_no_part() -> None:
    table = np.array([[0.1, 1.0], [0.12, np.nan], [0.17, np.nan]])
    one, alone = contrasts(table), contrasts(table[:, :1])
    assert one.comparisons == alone.comparisons == 1
    assert one.freedom == alone.freedom == 2
    assert one.error[0] == alone.error[0]
    assert np.isnan([one.error[1], one.log_ratio[1]]).all()


def test_estimates_are_correlated_by_the_blocks_that_they_share() -> None:
    logs = simulated(4, 2)
    assert contrasts(logs).correlation[0] == BALANCED
    logs[:, 0, 0] = logs[:, 3, 1] = np.nan
    found = contrasts(logs)
    assert np.corrcoef(found.log_ratio.T)[0, 1] == pytest.approx(found.correlation[0], abs=0.02)
    assert found.correlation[0] == pytest.approx(2 / (2 * 3))


@pytest.mark.parametrize(("comparisons", "freedom"), [(2, 4), (2, 22), (3, 6), (3, 9), (5, 10)])
@pytest.mark.parametrize("correlation", [0.25, BALANCED])
def test_critical_values_are_those_of_the_multivariate_t(comparisons: int, freedom: int, correlation: float) -> None:
    critical = critical_value(comparisons, freedom, 0.05, correlation)
    shape = np.full((comparisons, comparisons), correlation) + (1 - correlation) * np.eye(comparisons)
    inside = stats.multivariate_t(shape=shape, df=freedom, seed=1).cdf(
        np.full(comparisons, critical), lower_limit=np.full(comparisons, -critical), maxpts=200_000
    )
    assert inside == pytest.approx(0.95, abs=3e-4)


@pytest.mark.parametrize(("m", "others"), [(2, 2), (3, 2), (3, 3), (6, 2), (12, 5)])
def test_intervals_of_a_table_cover_together_as_often_as_promised(m: int, others: int) -> None:
    found = contrasts(simulated(m, others))
    assert is_about(held(found, found.pooled_error), 0.95)
    assert 0.025 < missed(found) < 0.05  # the guard costs a little where nobody scatters more than the others


@pytest.mark.parametrize(("configurations", "lost"), [(0, 1), (slice(None), 3)], ids=["its_own", "the_baselines"])
def test_missing_launches_leave_the_promise_and_the_other_pairs(configurations: int | slice, lost: int) -> None:
    logs = simulated(4, 3)
    whole = contrasts(logs).freedom[0]
    logs[:, 1, configurations] = np.nan
    found = contrasts(logs)
    assert (whole - found.freedom[0], found.pairs[0].sum()) == (lost, 12 - lost)
    assert is_about(held(found, found.pooled_error), 0.95)


@pytest.mark.parametrize(("m", "others", "which", "most"), [(3, 2, 1, 0.055), (5, 5, 0, 0.04), (3, 5, 0, 0.08)])
def test_a_side_that_scatters_more_is_judged_by_its_spread(m: int, others: int, which: int, most: float) -> None:
    found = contrasts(simulated(m, others, spreads=1 + 3 * np.eye(others + 1)[which]))  # 0 is the baseline
    by_error, by_table = (1 - held(found, error).mean() for error in (found.error, found.pooled_error))
    assert missed(found) < most < by_error < by_table


def test_holm_adjusts_groups_of_one_and_leaves_a_single_group() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert (step_down(p, range(4)), step_down(p, [0] * len(p))) == (
        pytest.approx([0.03, 0.06, 0.06, 0.02]),
        pytest.approx(p),
    )


@pytest.mark.parametrize("truths", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.9], [0.0, 2.0, 1.9, 0.0]])
@pytest.mark.parametrize("blocks", [3, 6])
def test_the_best_is_ruled_out_no_more_often_than_promised(truths: list[float], blocks: int) -> None:
    ruled_out = []
    for logs in simulated(blocks, len(truths) - 1, blocks, 1000, truths):
        found = contrasts(logs)
        spread = float(found.pooled_error[0]) * float(np.sqrt(found.pairs[0] / 2))
        calm, noisy = (may_be_best(logs, spread * factor, int(found.freedom), 0.05) for factor in (1, 2))
        assert calm[int(np.argmax([0.0, *logs.mean(axis=0)]))]
        assert all(
            noisy_rejects or not calm_rejects for calm_rejects, noisy_rejects in zip(calm, noisy, strict=True)
        )  # noise rules out no more
        ruled_out.append(not calm[int(np.argmax(truths))])
    assert stats.binomtest(sum(ruled_out), 1000).proportion_ci(0.999).low <= 0.05


@pytest.mark.parametrize(("comparisons", "freedom"), [(1, 5), (2, 4), (4, 10)])
def test_one_sided_points_are_exceeded_by_the_chance_asked(comparisons: int, freedom: int) -> None:
    point = critical_value(comparisons, freedom, 0.05, one_sided=True)
    assert adjusted_p(point, comparisons, freedom, one_sided=True) == pytest.approx(0.05, abs=1e-6)
