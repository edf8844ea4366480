"""Several configurations against one baseline, measured in blocks: one spread, one critical value. Pure functions.

A block is a round: one launch of each configuration. y_ij is the logarithm of configuration j in block i, and
d_ij = y_ij - y_i0 is its log ratio to the baseline. The model is y_ij = block_i + configuration_j + noise. The spread
of the noise is estimated from all configurations of the table. So a table of three configurations and three blocks has
four degrees of freedom, and a single pair has two. All comparisons share one critical value that holds for all of them
together (Dunnett, "A multiple comparison procedure for comparing several treatments with a control", JASA 50, 1955).
With one comparison, this is Student's paired t test.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

BALANCED = 0.5
"""Correlation of two log ratios to the same baseline if every block has all configurations."""

_SCALES = 64
"""Integration points for the estimated spread; p values are then exact to a few millionths."""

_BASELINES = np.linspace(-8.5, 8.5, 40)
"""Integration points for the shared noise of the comparisons, in standard deviations."""

_NEGLIGIBLE = 1e-15
"""Chance of an estimated spread outside the integration points, on either side."""

_VISIBLE = 0.9
"""Quantile of F above which one configuration visibly scatters more than the others."""


@dataclass(frozen=True)
class Contrasts:
    """Estimates of configurations against their baseline from blocks, as log ratios without a unit.

    `log_ratio`, `error` (its standard error), `pairs` and `pooled_error` are [..., k - 1]. `pooled_error` is the
    standard error from the spread of the whole table only. `freedom`, `comparisons` and `correlation` are [...].
    Values are NaN if a configuration has fewer than two pairs. `own_error` [..., k - 1] is the standard error from a
    configuration's own pairs if it or the baseline visibly scatters more than the others, else 0. `own_freedom` are
    its degrees of freedom.
    """

    log_ratio: Array
    error: Array
    pooled_error: Array
    pairs: NDArray[np.int_]
    freedom: NDArray[np.int_]
    comparisons: NDArray[np.int_]
    correlation: Array
    own_error: Array
    own_freedom: NDArray[np.int_]


def contrasts(log_ratios: ArrayLike) -> Contrasts:
    """Estimate the log ratio of each of k - 1 configurations to the baseline from `log_ratios` [..., m, k - 1].

    `log_ratios` holds d_ij, NaN if block i has no pair of configuration j. The estimate d_j is the mean of its own m_j
    pairs. s^2 is the residual variance of the least-squares fit of blocks and configurations, with
    nu = sum_j (m_j - 1) degrees of freedom: (m - 1)(k - 1) if nothing is missing. The standard error is
    se_j^2 = max(2 s^2, s_j^2) / m_j, with s_j^2 the sample variance of the configuration's own pairs. The maximum
    guards against a configuration with larger scatter than the others. With one configuration both variances are
    equal, and nu = m - 1. s_j has fewer degrees of freedom than s. So if one side visibly scatters more, `half_widths`
    also uses `own_error`.

    A block with a missing launch keeps its other pairs. Leaving out whole blocks would cost more than it gains:
    studies/block_tables.py compares both with least squares. Configurations with fewer than two pairs are left out.
    `correlation` is the smallest correlation of two estimates in the table, n_jl / (2 sqrt(m_j m_l)) with n_jl shared
    blocks. The smallest errs on the safe side; it is `BALANCED` if nothing is missing.

    Raises:
        ValueError: fewer than two dimensions.
    """
    d = np.asarray(log_ratios, dtype=float)
    if d.ndim < 2:
        raise ValueError("blocks need two dimensions: blocks and configurations")
    finite = np.isfinite(d)
    finite &= (finite.sum(axis=-2) >= 2)[..., None, :]
    pairs = finite.sum(axis=-2)
    judged = pairs > 0
    m = np.where(judged, pairs, 1)
    d = np.where(finite, d, 0.0)
    mean = d.sum(axis=-2) / m
    # Centre each configuration first, so that large ratios do not cost digits in the sums below.
    centred = np.where(finite, d - mean[..., None, :], 0.0)
    separate = (centred**2).sum(axis=-2) / np.maximum(m - 1, 1)
    s2, freedom = _residual_variance(centred, finite), (pairs - judged).sum(axis=-1)
    pooled = np.broadcast_to(2 * s2[..., None], separate.shape)
    shared = np.einsum("...ij,...il->...jl", finite.astype(float), finite.astype(float))
    overlap = shared / (2 * np.sqrt(m[..., :, None] * m[..., None, :]))
    others = judged[..., :, None] & judged[..., None, :] & ~np.eye(d.shape[-1], dtype=bool)
    return Contrasts(
        log_ratio=np.where(judged, mean, np.nan),
        error=np.where(judged, np.sqrt(np.maximum(pooled, separate) / m), np.nan),
        pooled_error=np.where(judged, np.sqrt(pooled / m), np.nan),
        pairs=pairs,
        freedom=freedom,
        comparisons=judged.sum(axis=-1),
        correlation=np.where(others, overlap, BALANCED).min(axis=(-2, -1)),
        own_error=np.where(judged & _scatters_more(centred, finite), np.sqrt(separate / m), 0.0),
        own_freedom=np.maximum(pairs - 1, 1),
    )


def _scatters_more(d: Array, finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each configuration [..., k - 1] whether it or the baseline visibly scatters more than the others.

    Only blocks without a missing pair in log ratios `d` [..., m, k - 1] count; missing values are 0. Each
    configuration is compared with all the others: s_j^2 / (2 s_-j^2) against F with m - 1 and (m - 1)(k - 2) degrees
    of freedom. For the baseline, s_j^2 is replaced by the variance of its distance from the mean of the others. With k
    = 3 the baseline is not tested, because too few configurations remain.
    """
    judged = np.asarray(finite.any(axis=-2))
    k = judged.sum(axis=-1)[..., None] + 1
    whole = np.asarray((finite | ~judged[..., None, :]).all(axis=-1))
    m = np.maximum(whole.sum(axis=-1), 2)[..., None]
    sides = np.concatenate([np.ones_like(judged[..., :1]), judged], axis=-1)[..., None, :] & whole[..., None]
    y = np.where(sides, np.concatenate([np.zeros_like(d[..., :1]), d], axis=-1), 0.0)
    from_block = np.where(sides, y - y.sum(axis=-1, keepdims=True) / k[..., None], 0.0)
    squares, scatter = (
        (np.where(sides, part - part.sum(axis=-2, keepdims=True) / m[..., None], 0.0) ** 2).sum(axis=-2)
        for part in (from_block, y)
    )
    alone = squares * k / np.maximum(k - 1, 1)
    left = np.maximum(squares.sum(axis=-1, keepdims=True) - alone, 0.0)
    scatter = np.where(np.arange(scatter.shape[-1]) > 0, scatter / 2, np.where(k > 3, alone, 0.0))
    limit = special.fdtri(m - 1, (m - 1) * np.maximum(k - 2, 1), _VISIBLE)
    more = (k > 2) & ((k - 2) * scatter > limit * left)
    return np.asarray(more[..., 1:] | more[..., :1])


def _residual_variance(d: Array, finite: NDArray[np.bool_]) -> Array:
    """Return s^2 [...] of the least-squares fit to log ratios `d` [..., m, k - 1], with 0 for missing values.

    The fit is of blocks and configurations. The ratios in a block share the baseline's noise, so their covariance is
    s^2 (I + J). Its inverse is I - J / n_i, with n_i the number of ratios plus the baseline. Generalised least squares
    with this inverse equals the ordinary fit of all y_ij.
    """
    present = finite.astype(float)
    cells = present.sum(axis=-1) + 1
    pairs = present.sum(axis=-2)
    information = -np.einsum("...ij,...il->...jl", present / cells[..., None], present)
    places = np.arange(d.shape[-1])
    information[..., places, places] += np.where(pairs > 0, pairs, 1.0)
    weighted = d - present * (d.sum(axis=-1) / cells)[..., None]
    score = weighted.sum(axis=-2)
    fitted = np.linalg.solve(information, score[..., None])[..., 0]
    residual = (d * weighted).sum(axis=(-2, -1)) - (fitted * score).sum(axis=-1)
    freedom = (pairs - (pairs > 0)).sum(axis=-1)
    return np.asarray(np.maximum(residual, 0.0) / np.maximum(freedom, 1))


@lru_cache(maxsize=256)
def _scales(freedom: int) -> tuple[Array, Array]:
    """Return estimated over true spread, sqrt(chi^2_nu / nu), at `_SCALES` points, and the weight of each point.

    The trapezoidal rule is used in the logarithm, where the density is smooth and falls off on both sides.
    """
    half = freedom / 2
    ends = special.gammaincinv(half, _NEGLIGIBLE), special.gammainccinv(half, _NEGLIGIBLE)
    logs = np.linspace(np.log(ends[0]), np.log(ends[1]), _SCALES)
    weights = np.exp(half * logs - np.exp(logs) - special.gammaln(half))
    return np.sqrt(np.exp(logs) / half), weights / weights.sum()


def adjusted_p(
    t: float, comparisons: int, freedom: int, correlation: float = BALANCED, *, one_sided: bool = False
) -> float:
    """Return the chance that the largest of `comparisons` |t| is at least `t` >= 0 if nothing differs.

    The t values share one estimate of the spread with `freedom` degrees of freedom. Any two have the `correlation`,
    below 1. The integral over the spread and over the shared noise is computed by quadrature (Dunnett 1955). One
    comparison is Student's t. With `one_sided`, the chance is of the largest t instead of the largest |t|.
    """
    if comparisons == 1:
        return float((1 if one_sided else 2) * special.stdtr(freedom, -t))
    scales, weights = _scales(freedom)
    shared = np.exp(-(_BASELINES**2) / 2)
    middle = np.sqrt(correlation) * _BASELINES / np.sqrt(1 - correlation)
    edge = (t * scales / np.sqrt(1 - correlation))[:, None]
    one = special.ndtr(middle - edge) + (0.0 if one_sided else special.ndtr(-middle - edge))
    with np.errstate(divide="ignore"):
        some = -np.expm1(comparisons * np.log1p(-np.minimum(one, 1.0)))
    return min(1.0, float(weights @ (some @ (shared / shared.sum()))))


@lru_cache(maxsize=4096)
def critical_value(
    comparisons: int, freedom: int, level: float, correlation: float = BALANCED, *, one_sided: bool = False
) -> float:
    """Return the |t| that the largest of `comparisons` exceeds with chance `level` if nothing differs.

    This is Dunnett's two-sided point, or the one-sided point; the arguments are as in `adjusted_p`. It lies between
    Student's t at `level` and at `level` / `comparisons` (Bonferroni).
    """
    sides = 1 if one_sided else 2
    low, high = (float(-special.stdtrit(freedom, level / (sides * share))) for share in (1, comparisons))
    if comparisons == 1:
        return low
    from scipy import optimize  # not at the top: it takes 0.2 s, and one comparison needs none

    def excess(t: float) -> float:
        return float(np.log(adjusted_p(t, comparisons, freedom, correlation, one_sided=one_sided) / level))

    return float(optimize.brentq(excess, low * (1 - 1e-9), high * (1 + 1e-9), xtol=1e-9, rtol=1e-9))


def half_widths(contrasts_of: Contrasts, level: float) -> Array:
    """Return the half width of each log ratio's interval [..., k - 1]; with chance `level`, any interval misses.

    The half width is the critical value times the error. If one side visibly scatters more, it is at least `own_error`
    times Student's t at `level` / comparisons (Bonferroni).
    """
    comparisons = np.maximum(contrasts_of.comparisons, 1)
    points = np.vectorize(critical_value, otypes=[float])
    shared = points(comparisons, np.maximum(contrasts_of.freedom, 1), level, np.round(contrasts_of.correlation, 9))
    separate = -special.stdtrit(contrasts_of.own_freedom, level / 2 / comparisons[..., None])
    return np.asarray(np.maximum(shared[..., None] * contrasts_of.error, separate * contrasts_of.own_error))


def p_value(contrasts_of: Contrasts, place: int) -> float:
    """Return the adjusted p value of configuration `place` within its table, consistent with `half_widths`."""
    comparisons, distance = int(contrasts_of.comparisons), abs(float(contrasts_of.log_ratio[place]))
    shared = adjusted_p(
        distance / float(contrasts_of.error[place]),
        comparisons,
        int(contrasts_of.freedom),
        float(contrasts_of.correlation),
    )
    if not contrasts_of.own_error[place]:
        return shared
    separate = 2 * special.stdtr(contrasts_of.own_freedom[place], -distance / contrasts_of.own_error[place])
    return max(shared, min(1.0, comparisons * float(separate)))


def step_down(p_values: ArrayLike, groups: ArrayLike) -> Array:
    """Adjust p values [n], which hold within each of `groups` [n] (labels), for all groups together: [n].

    In ascending order, each p value is multiplied by the number of groups that still have a p value at least as large.
    It is at most 1 and never below the previous one. The chance of any false rejection is then at most the level: when
    the first true hypothesis is reached, every group with true hypotheses is still counted. With groups of one this is
    Holm's method (1979); with one group nothing changes.
    """
    p, labels = np.asarray(p_values, dtype=float), np.asarray(groups)
    order = np.argsort(p, kind="stable")
    left = [len(set(labels[order[place:]].tolist())) for place in range(p.size)]
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.array(left) * p[order]))
    return adjusted


MIN_SHARED = 2
"""Minimum number of blocks that two configurations must share for one to rule out the other."""


def may_be_best(
    log_ratios: ArrayLike, spread: float, freedom: int, level: float, correlation: float = BALANCED
) -> list[bool]:
    """Return for the baseline and for each of k - 1 configurations whether it may be the best one: [k].

    The set of configurations that are not significantly worse than another holds the true best with the requested
    confidence (Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 7, 1965; Hsu,
    "Constrained simultaneous confidence intervals for multiple comparisons with the best", Annals of Statistics 12,
    1984). Naming only the highest mean would often name the wrong one by chance.

    Configuration i is ruled out if some j is significantly better: its mean over the shared blocks is ahead by more
    than c se_ij, with se_ij^2 = max(2 s^2, s_ij^2) / m_ij. s_ij^2 is the sample variance of the differences; it guards
    against a pair with larger scatter than the table. c is Dunnett's one-sided point for k - 1 comparisons. The true
    best is ruled out with a chance of at most `level`, because no other configuration is truly better.

    Args:
        log_ratios: logarithms of the ratio to the baseline [m, k - 1], above 0 is better; NaN if a block has none.
        spread: standard deviation s > 0 of the logarithm of one value, from the whole table.
        freedom: its degrees of freedom.
        level: chance to rule out the best one.
        correlation: of two means of ratios to one configuration; less than `BALANCED` if blocks are missing.

    Raises:
        ValueError: `log_ratios` is not two-dimensional.
    """
    ratios = np.asarray(log_ratios, dtype=float)
    if ratios.ndim != 2:
        raise ValueError("blocks need two dimensions: blocks and configurations")
    values = np.column_stack([np.zeros(len(ratios)), ratios])
    count = values.shape[1]
    critical = critical_value(max(1, count - 1), freedom, level, correlation, one_sided=True)
    may_be = [True] * count
    for one, other in itertools.permutations(range(count), 2):
        ahead = values[:, one] - values[:, other]
        ahead = ahead[np.isfinite(ahead)]
        if len(ahead) >= MIN_SHARED:
            variance = max(2 * spread**2, float(ahead.var(ddof=1)))
            may_be[other] &= not ahead.mean() > critical * np.sqrt(variance / len(ahead))
    return may_be
