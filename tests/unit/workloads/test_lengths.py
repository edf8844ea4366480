"""Drawn lengths have the distribution that is asked for, keep its bounds, and depend on their label alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.contracts.load import Length, LogNormal, Normal, Uniform, longest
from rollout_bench.workloads.lengths import drawn

bounds = st.tuples(st.integers(1, 5000), st.integers(1, 5000)).map(sorted)
lengths = st.one_of(
    st.integers(1, 10_000_000),
    bounds.map(lambda b: Uniform(distribution="uniform", low=b[0], high=b[1])),
    st.builds(
        lambda b, mean, std: Normal(distribution="normal", low=b[0], high=b[1], mean=mean, std=std),
        bounds,
        st.floats(1e-3, 1e7),
        st.floats(1e-3, 1e7),
    ),
    st.builds(
        lambda b, median, sigma: LogNormal(distribution="lognormal", low=b[0], high=b[1], median=median, sigma=sigma),
        bounds,
        st.floats(1e-3, 1e7),
        st.floats(1e-3, 10),
    ),
)

DRAWS = 20_000


@given(length=lengths, label=st.text(max_size=8), count=st.integers(0, 30))
def test_every_length_keeps_its_bounds_far_into_the_tail(length: Length, label: str, count: int):
    found = drawn(length, label, count)
    low = length if isinstance(length, int) else length.low
    assert len(found) == count
    assert all(type(tokens) is int and low <= tokens <= longest(length) for tokens in found)


@pytest.mark.parametrize(
    ("length", "pinned"),
    [
        (Uniform(distribution="uniform", low=10, high=99), [30, 92, 76, 33, 36, 11]),
        (Normal(distribution="normal", low=1, high=99, mean=20, std=10), [34, 14, 3, 24, 19, 32]),
        (LogNormal(distribution="lognormal", low=1, high=99, median=20, sigma=1), [60, 10, 3, 27, 17, 51]),
    ],
    ids=["uniform", "normal", "lognormal"],
)
def test_the_draws_stay_what_they_are(length: Length, pinned: list[int]):
    assert drawn(length, "pinned", 6) == pinned


@pytest.mark.parametrize(
    ("length", "cdf"),
    [
        (Uniform(distribution="uniform", low=3, high=40), stats.randint(3, 41).cdf),
        (
            Normal(distribution="normal", low=1, high=60, mean=20, std=12),
            lambda k: stats.truncnorm(-19.5 / 12, 40.5 / 12, 20, 12).cdf(k + 0.5),
        ),
        (
            Normal(distribution="normal", low=50, high=60, mean=20, std=12),
            lambda k: stats.truncnorm(29.5 / 12, 40.5 / 12, 20, 12).cdf(k + 0.5),
        ),
        (
            LogNormal(distribution="lognormal", low=1, high=100, median=12, sigma=1),
            lambda k: stats.truncnorm(np.log(0.5 / 12), np.log(100.5 / 12)).cdf(np.log((k + 0.5) / 12)),
        ),
    ],
    ids=["uniform", "normal", "normal_in_its_tail", "lognormal"],
)
def test_lengths_have_their_distribution(length: Length, cdf: stats.rv_continuous):
    counted = Counter(drawn(length, "fixed", DRAWS))
    values = np.arange(length.low, length.high + 1)
    chances = np.diff([0.0, *cdf(values)])
    expected = DRAWS * chances / chances.sum()
    seen = np.array([counted[value] for value in values])
    often = expected >= 5  # the rest together, as chi-square wants it
    seen = np.append(seen[often], seen[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    keep = expected > 0
    assert stats.chisquare(seen[keep], expected[keep]).pvalue > 0.001
