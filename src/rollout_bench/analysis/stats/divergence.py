"""Divergence between two policies on tokens that one of them sampled: KL, weights, choices, with intervals.

Pure functions on arrays. For each token, d = log q - log p. p is the policy that sampled the token. Both policies have
temperature 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rollout_bench.analysis.stats.percentiles import effective_samples

Array = NDArray[np.float64]

NEAR = (0.9, 1.1)
"""Ratios q / p in this range are near 1."""

CLIP = 2.0
"""Cap of the weights in truncated importance sampling: the usual value in verl's and TRL's corrections."""

REPLICATES = 4000
"""Bootstrap samples."""

PIVOTS = 1500
"""Draws of the true mean of |d|."""

TELLING = 2
"""Minimum number of sequences with any difference for an interval of the mean of |d|."""

FARTHEST = 1000.0
"""The interval of the mean of |d| has no upper end beyond this multiple of the mean."""

TAIL = 0.01
"""Share of the tokens, those with the largest |d|, that shows how rare tokens cluster in sequences."""

LARGEST = 700.0
"""The largest k1 for which e^k1 is a double."""

GRID = 1000
"""Number of values among which a sample's percentile is searched."""

SEED = 20
"""Seed of the bootstrap, so that the same data always give the same interval."""


@dataclass(frozen=True)
class Bounded:
    """A value with its interval; both ends are NaN if unknown, and `high` is infinite without an upper end."""

    value: float
    low: float
    high: float

    @property
    def has_ends(self) -> bool:
        """Whether both ends of the interval are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Divergence:
    """Divergence of q from p over all tokens that p sampled.

    Attributes:
        sequences: number of sequences.
        tokens: tokens of all sequences.
        mean: mean of d, in nats; `k1` is its negative.
        sd: standard deviation of d about its mean, in nats.
        p95: smallest value of |d| that 95 % of the tokens do not exceed.
        largest: largest |d|.
        size: mean over sequences of the mean of |d| of their tokens; each sequence counts equally, whatever its length.
        k1: estimate of KL(p || q) in nats per token, mean of -d: unbiased, of either sign.
        k3: estimate of KL(p || q) in nats per token, mean of e^d - 1 - d: unbiased, never negative, and with less
            variance if q is near p.
        outside: share of tokens whose ratio e^d is outside `NEAR`.
        clipped: share of tokens whose ratio is above `CLIP`.
        token_ess: effective sample size of tokens weighted by e^d, as a share of the tokens: (sum w)^2 / (n sum w^2).
        sequence_ess: effective sample size of sequences, weighted by the product of their tokens' ratios. Each scoring
            counts separately; the product over all scorings would be a power of the weight. It has no interval, because
            few sequences hardly show the rarest weights: 90 % intervals missed in 32 of 100 tries.
        agreement: share of tokens at which both policies have the same most likely token; None if unknown.
        perplexity_ratio: perplexity of the tokens under q over perplexity under p: e^k1, with k1 at most `LARGEST`.
    """

    sequences: int
    tokens: int
    mean: float
    sd: Bounded
    p95: Bounded
    largest: float
    size: Bounded
    k1: Bounded
    k3: Bounded
    outside: Bounded
    clipped: Bounded
    token_ess: Bounded
    sequence_ess: float
    agreement: Bounded | None
    perplexity_ratio: Bounded


def divergence(
    log_ratios: Sequence[ArrayLike],
    confidence: float,
    same_first: Sequence[ArrayLike] | None = None,
    times: int = 1,
) -> Divergence:
    """Return the divergence of q from p.

    k1 and k3 are from J. Schulman, "Approximating KL Divergence" (2020, joschu.net/blog/kl-approx.html). There x ~ q,
    r = p(x) / q(x), and KL[q, p] is estimated by -log r and (r - 1) - log r. Here p sampled the tokens, so p and q
    change places. Intervals are percentiles of a bootstrap of whole sequences, because tokens of a sequence depend on
    each other (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). Intervals of
    means are at least as wide as Student's, as in `excess_over_floor`. The interval of `size` is computed by
    `mean_size`, those of shares by `_Drawn.share`. That of k3 does not hold what tokens carry that are too rare to be
    drawn.

    Args:
        log_ratios: for each sequence d of its tokens [n_i >= 1], in nats; p sampled them.
        confidence: of each interval on its own.
        same_first: for each sequence and token whether both policies have the same most likely token [n_i].
        times: number of times that q scored each sequence; each n_i consists of that many consecutive parts.

    Raises:
        ValueError: there is no sequence, a sequence has no token, a value is not finite, or n_i is not divisible by
            `times`.
    """
    each = [np.asarray(values, dtype=float) for values in log_ratios]
    if not each or any(values.size == 0 for values in each):
        raise ValueError("a sequence without tokens has no ratios")
    d = np.concatenate(each)
    if not np.isfinite(d).all():
        raise ValueError("a log ratio is not finite")
    ratio = np.exp(d)
    far = (ratio < NEAR[0]) | (ratio > NEAR[1])
    drawn = _Drawn(each, confidence)
    k1 = drawn.mean(-d)
    agreed = None if same_first is None else np.concatenate([np.asarray(x, dtype=float) for x in same_first])
    return Divergence(
        sequences=len(each),
        tokens=d.size,
        mean=float(d.mean()),
        sd=drawn.deviation(d),
        p95=drawn.percentile(np.abs(d), 0.95),
        largest=float(np.abs(d).max()),
        size=mean_size(each, confidence),
        k1=k1,
        k3=drawn.mean(np.expm1(d) - d),
        outside=drawn.share(far, np.abs(d)),
        clipped=drawn.share(ratio > CLIP, np.abs(d)),
        token_ess=drawn.effective(d),
        sequence_ess=effective_share([part.sum() for values in each for part in np.split(values, times)]),
        agreement=None if agreed is None else drawn.share(agreed > 0.5, np.abs(d)),
        perplexity_ratio=Bounded(*(math.exp(min(end, LARGEST)) for end in (k1.value, k1.low, k1.high))),
    )


def mean_size(log_ratios: Sequence[ArrayLike], confidence: float) -> Bounded:
    """Return the mean over sequences of their mean |d|, with its interval.

    |d| has a long upper tail. Bootstrap and Student's intervals are too low, because they miss rare large values that
    the run did not draw. So the mean of a sequence is modelled as zero or lognormal. Let n1 of n sequences be nonzero,
    and m and s^2 the mean and variance of their logarithms. The true mean is p exp(mu + v / 2) with
    p ~ Beta(n1 + 1/2, n - n1 + 1/2), v ~ (n1 - 1) s^2 / chi^2_(n1 - 1) and mu ~ m + Normal(0, v / n1). The ends are
    quantiles of `PIVOTS` draws (K. Krishnamoorthy and T. Mathew, "Inferences on the means of lognormal distributions
    using generalized p-values and generalized confidence intervals", J. Stat. Plan. Inference 115, 2003; zeros:
    J. Aitchison, J. Am. Stat. Assoc. 50, 1955). The interval is unknown for n1 below `TELLING`, and has no upper end
    beyond `FARTHEST`.

    Args:
        log_ratios: for each sequence d of its tokens [n_i >= 1], in nats.
        confidence: of the interval.
    """
    means = _sequence_means(log_ratios)
    value, logs = float(means.mean()), np.log(means[means > 0])
    if logs.size < TELLING:
        return Bounded(value, math.nan, math.nan)
    generator = np.random.default_rng(SEED)
    share = generator.beta(logs.size + 0.5, means.size - logs.size + 0.5, PIVOTS)
    variance = (logs.size - 1) * logs.var(ddof=1) / generator.chisquare(logs.size - 1, PIVOTS)
    middle = logs.mean() + generator.standard_normal(PIVOTS) * np.sqrt(variance / logs.size)
    bounded = _bounded(value, share * np.exp(np.minimum(middle + variance / 2, LARGEST)), confidence)
    return bounded if bounded.high <= FARTHEST * value else Bounded(value, bounded.low, math.inf)


def _sequence_means(log_ratios: Sequence[ArrayLike]) -> Array:
    """Return the mean |d| of each sequence [n]."""
    return np.array([np.abs(np.asarray(values, dtype=float)).mean() for values in log_ratios])


def effective_share(log_weights: ArrayLike) -> float:
    """Return the effective sample size of weights e^`log_weights` [n >= 1], as a share of n: 1 for equal weights.

    The formula is (sum w)^2 / (n sum w^2) (Kish, Survey Sampling, 1965). Only differences of the logarithms matter, so
    no weight overflows.
    """
    logs = np.asarray(log_weights, dtype=float)
    weights = np.exp(logs - logs.max())
    return float(weights.sum() ** 2 / (weights.size * (weights**2).sum()))


def excess_over_floor(log_ratios: Sequence[ArrayLike], floor: Sequence[ArrayLike], confidence: float) -> Bounded:
    """Return the mean of |d| minus the mean of |d| of a noise floor, over the same sequences, with its interval.

    Each sequence counts equally, as in `mean_size`. Both sides of a sequence are drawn together, so its difficulty
    affects both. The interval is the wider of the bootstrap's and Student's. With 4 sequences, the bootstrap alone
    excludes 0 too often: in 11 % of cases instead of 2.5 %. If the noise floor is exactly 0, it has no noise, so only
    the bootstrap is used.

    Args:
        log_ratios: for each sequence d of its tokens [n_i], in nats.
        floor: for each sequence d of the noise floor [m_i], in nats.
        confidence: of the interval.

    Raises:
        ValueError: the sides have different numbers of sequences.
    """
    if len(log_ratios) != len(floor):
        raise ValueError(f"{len(log_ratios)} sequences can't be held against {len(floor)}")
    own, other = _sequence_means(log_ratios), _sequence_means(floor)
    beyond = own - other
    bounded = _bounded(float(beyond.mean()), _draws(beyond.size) @ beyond / beyond.size, confidence)
    return _widened(bounded, beyond, confidence) if other.any() else bounded


def _widened(
    bounded: Bounded, off: Array, confidence: float, least: float = -math.inf, most: float = math.inf
) -> Bounded:
    """Return an interval that is at least as wide as Student's, with ends between `least` and `most`.

    Args:
        bounded: value and interval of a bootstrap.
        off: shift of the value by each sequence, times the number of sequences [n].
        confidence: of the interval.
        least: smallest possible value.
        most: largest possible value.
    """
    if off.size < 2:
        return bounded
    margin = float(special.stdtrit(off.size - 1, (1 + confidence) / 2) * off.std(ddof=1) / math.sqrt(off.size))
    low, high = max(bounded.value - margin, least), min(bounded.value + margin, most)
    return Bounded(bounded.value, min(bounded.low, low), max(bounded.high, high))


class _Drawn:
    """Bootstrap samples of whole sequences, and intervals of statistics of their tokens.

    Args:
        each: the tokens of each sequence [n_i]; only their number is used.
        confidence: of each interval.
    """

    def __init__(self, each: Sequence[Array], confidence: float) -> None:
        self._counts = np.array([one.size for one in each])
        self._times = _draws(len(each))
        self._tokens = self._times @ self._counts
        self._confidence = confidence

    def mean(self, values: Array) -> Bounded:
        """Return the mean of `values` [tokens] with its interval.

        The mean is a ratio of two sums over sequences. Student's interval is for the linearised ratio (W. G. Cochran,
        Sampling Techniques, 1977, section 6.3).
        """
        sums = self._of_each(values)
        bounded = _bounded(float(values.mean()), self._times @ sums / self._tokens, self._confidence)
        off = (sums - sums.sum() / self._counts.sum() * self._counts) / self._counts.mean()
        return _widened(bounded, off, self._confidence, float(values.min()), float(values.max()))

    def share(self, is_so: NDArray[np.bool_], sizes: Array) -> Bounded:
        """Return the share of the tokens for which `is_so` [tokens], with its interval.

        Bootstrap and Student's interval know only values that were drawn: where no token is so, both end at 0. The
        interval is at least that of Clopper and Pearson for as many independent tokens as these are worth (E. L. Korn
        and B. I. Graubard, "Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data", Survey Methodology 24, 1998). The worth is the smaller one of two: of `is_so` where
        it varies, and of being among the `TAIL` largest of `sizes` [tokens], since rare tokens do not show how they
        cluster.
        """
        bounded, sequence = self.mean(is_so.astype(float)), np.repeat(np.arange(self._counts.size), self._counts)
        tail = sizes >= np.quantile(sizes, 1 - TAIL)
        varying = [each for each in (is_so, tail) if each.any() and not each.all()]
        n = min((effective_samples(each, sequence) for each in varying), default=float(is_so.size))
        k, tail_chance = bounded.value * n, (1 - self._confidence) / 2
        low = special.betaincinv(k, n - k + 1, tail_chance) if k > 0 else 0.0
        high = special.betaincinv(k + 1, n - k, 1 - tail_chance) if k < n else 1.0
        return Bounded(bounded.value, min(bounded.low, float(low)), max(bounded.high, float(high)))

    def deviation(self, values: Array) -> Bounded:
        """Return the standard deviation of `values` [tokens] about their mean."""
        centred = values - values.mean()
        squares, means = self._sums(centred**2) / self._tokens, self._sums(centred) / self._tokens
        return _bounded(float(values.std()), np.sqrt(np.maximum(squares - means**2, 0.0)), self._confidence)

    def effective(self, log_weights: Array) -> Bounded:
        """Return `effective_share` of `log_weights` [tokens]; samples whose weights are all nearly 0 are left out."""
        weights = np.exp(log_weights - log_weights.max())
        squares = self._sums(weights**2)
        drawn = squares > np.finfo(float).tiny
        shares = self._sums(weights)[drawn] ** 2 / (self._tokens[drawn] * squares[drawn])
        return _bounded(effective_share(log_weights), np.minimum(shares, 1.0), self._confidence)

    def percentile(self, values: Array, share: float) -> Bounded:
        """Return the smallest of `values` [tokens] that this `share` of them does not exceed.

        In a bootstrap sample, the percentile is searched among `GRID` of the values, so that the time does not grow
        with the number of tokens.
        """
        ordered = np.sort(values)
        value = float(ordered[int(np.ceil(round(share * values.size, 9))) - 1])
        grid = np.unique(ordered[np.linspace(0, values.size - 1, min(values.size, GRID)).round().astype(int)])
        ends = np.cumsum(self._counts)[:-1]
        below = np.array([np.searchsorted(np.sort(one), grid, side="right") for one in np.split(values, ends)])
        reached = self._times @ below >= (share * self._tokens - 1e-9)[:, None]
        return _bounded(value, grid[reached.argmax(axis=1)], self._confidence)

    def _of_each(self, values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, np.cumsum(self._counts) - self._counts))

    def _sums(self, values: Array) -> Array:
        return self._times @ self._of_each(values)


@lru_cache(maxsize=1)
def _draws(sequences: int) -> Array:
    """Return the number of times that each sequence is drawn in each sample [REPLICATES, sequences]."""
    generator = np.random.default_rng(SEED)
    return generator.multinomial(sequences, np.full(sequences, 1 / sequences), size=REPLICATES).astype(float)


def _bounded(value: float, replicates: Array, confidence: float) -> Bounded:
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Bounded(value, float(min(low, value)), float(max(high, value)))
