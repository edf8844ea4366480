"""Which configurations may be the best: by property, and by simulated tables whose best one is known."""

import numpy as np
import pytest
from scipy import stats

from rollout_bench.analysis.stats.blocks import adjusted_p, contrasts, critical_value, may_be_best

TRIALS = 1_000


def spread_of(logs: np.ndarray) -> tuple[float, int]:
    """Return the spread of one value in a table [m, k - 1], and its degrees of freedom."""
    found = contrasts(logs)
    return float(found.pooled_error[0]) * float(np.sqrt(found.pairs[0] / 2)), int(found.freedom)


def tables(truths: list[float], blocks: int, seed: int) -> np.ndarray:
    """Return log ratios [trials, m, k - 1] to the first configuration, noise of spread 1."""
    noise = np.random.default_rng(seed).normal(size=(TRIALS, blocks, len(truths))) + truths
    return np.asarray(noise[..., 1:] - noise[..., :1])


@pytest.mark.parametrize("truths", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.9], [0.0, 2.0, 1.9, 0.0]])
@pytest.mark.parametrize("blocks", [3, 6])
def test_the_best_is_ruled_out_no_more_often_than_promised(truths: list[float], blocks: int) -> None:
    best = int(np.argmax(truths))
    missed = sum(not may_be_best(logs, *spread_of(logs), 0.05)[best] for logs in tables(truths, blocks, seed=blocks))
    assert stats.binomtest(missed, TRIALS).proportion_ci(0.999).low <= 0.05


def test_noise_rules_out_no_more_and_never_the_highest_mean() -> None:
    for logs in tables([0.0, 1.0, 2.0, 2.5], 4, seed=2)[:200]:
        spread, freedom = spread_of(logs)
        calm, noisy = (may_be_best(logs, spread * factor, freedom, 0.05) for factor in (1, 2))
        best = int(np.argmax([0.0, *logs.mean(axis=0)]))
        assert calm[best]
        assert all(there or not here for here, there in zip(calm, noisy, strict=True))


@pytest.mark.parametrize(("comparisons", "freedom"), [(1, 5), (2, 4), (4, 10)])
def test_the_largest_t_exceeds_the_one_sided_point_by_chance(comparisons: int, freedom: int) -> None:
    point = critical_value(comparisons, freedom, 0.05, one_sided=True)
    assert adjusted_p(point, comparisons, freedom, one_sided=True) == pytest.approx(0.05, abs=1e-6)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(200_000, comparisons + 1))
    t = (noise[:, 1:] - noise[:, :1]) / np.sqrt(2) / np.sqrt(rng.chisquare(freedom, size=(200_000, 1)) / freedom)
    assert np.mean(t.max(axis=1) > point) == pytest.approx(0.05, abs=0.002)
