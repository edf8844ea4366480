"""Divergence of policies: what has a closed form comes out at it, nothing is nothing, and intervals hold."""

import math
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from rollout_bench.analysis.stats.divergence import Bounded, divergence, effective_share, excess_over_floor, mean_size

pytestmark = pytest.mark.slow


def test_all_moments_and_intervals_hold_those_of_known_policies():
    """A softmax samples tokens at temperature 1, which another scores at 1.02."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 3, 50)
    p, q = (special.log_softmax(logits / temperature) for temperature in (1.0, 1.02))
    weights, d = np.exp(p), q - p
    found = divergence(list(d[generator.choice(50, size=(400, 250), p=weights)]), 0.99)
    exact = float(weights @ -d)
    assert found.k3.value == pytest.approx(exact, rel=0.05)
    assert found.k3.low < exact < found.k3.high
    assert found.k1.low < exact < found.k1.high
    assert found.k3.high - found.k3.low < found.k1.high - found.k1.low  # what k3 is for
    assert found.size.value == pytest.approx(weights @ abs(d), rel=0.02)
    assert found.sd.value == pytest.approx(np.sqrt(weights @ d**2 - (weights @ d) ** 2), rel=0.02)
    # E_p[w] = 1, so the effective share of very many tokens is 1 / E_p[w^2]
    assert found.token_ess.value == pytest.approx(1 / (weights @ np.exp(2 * d)), rel=1e-3)
    assert found.perplexity_ratio.value == pytest.approx(math.exp(found.k1.value))


def sequences(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    """Return d of sequences that differ in their spread and in their length."""
    scales, sizes = generator.uniform(0.01, 0.1, count), generator.integers(10, 40, count)
    return [generator.normal(-(s**2) / 2, s, n) for s, n in zip(scales, sizes, strict=True)]


def test_intervals_hold_what_many_sequences_come_out_at():
    d = np.concatenate(sequences(np.random.default_rng(1), 20_000))
    truth = {
        "sd": d.std(),
        "p95": np.quantile(abs(d), 0.95),
        "token_ess": effective_share(d),
        "perplexity_ratio": np.exp(-d.mean()),
    }
    found = [divergence(sequences(np.random.default_rng([2, seed]), 64), 0.9) for seed in range(100)]
    for name, value in truth.items():
        held = sum(getattr(each, name).low <= value <= getattr(each, name).high for each in found)
        assert 80 <= held <= 99, name


def test_equal_policies_diverge_by_exactly_nothing():
    found = divergence([[0.0] * 5, [0.0] * 3], 0.95, [[True] * 5, [True] * 3])
    nothing, all_of_it = Bounded(0, 0, 0), Bounded(1, 1, 1)
    assert found.agreement is not None
    assert (found.k1, found.k3, found.sd, found.p95) == (nothing,) * 4
    for share in (found.outside, found.clipped):  # tokens that were not drawn may differ
        assert (share.value, share.low) == (0.0, 0.0)
        assert 0.0 < share.high < 1.0
    assert (found.token_ess, found.perplexity_ratio) == (all_of_it,) * 2
    assert (found.agreement.value, found.agreement.high) == (1.0, 1.0)
    assert (found.largest, found.sequence_ess, found.size.value) == (0, 1, 0)
    assert math.isnan(found.size.low)  # how often something would differ is not seen


@pytest.mark.parametrize(
    ("own", "floor", "size", "more"),
    [
        ([[0.1] * 9, [0.4]], [[0.05] * 9, [0.1]], 0.25, 0.25 - 0.075),  # every sequence weighs the same
        ([[0.01], [-0.2], [0.05]], [[0.0]] * 3, 0.26 / 3, 0.26 / 3),
    ],
)
def test_size_and_excess_are_means_over_sequences(own: Any, floor: Any, size: float, more: float):
    found = excess_over_floor(own, floor, 0.9)
    assert (divergence(own, 0.95).size.value, found.value) == (pytest.approx(size), pytest.approx(more))
    assert (found.low > 0) == (floor[0][0] == 0)
    with pytest.raises(ValueError, match="sequences can't be held against 1"):
        excess_over_floor(own, floor[:1], 0.95)


@pytest.mark.parametrize(("sizes", "high"), [([0.0, 0.0, 0.1], math.nan), ([0.0, 0.1, 0.9], math.inf)])
def test_too_few_differences_leave_the_upper_end_open(sizes: list[float], high: float):
    assert mean_size([[size] for size in sizes], 0.95).high == pytest.approx(high, nan_ok=True)


@pytest.mark.parametrize("outside", [0, 1, 5])
def test_a_share_of_independent_tokens_is_bounded_as_a_binomial(outside: int):
    d = np.full((16, 64), 0.001)
    d[:outside, 0] = 0.3
    d[:, 1] = np.linspace(0.002, 0.003, 16)  # the largest of the others are spread over all sequences
    found = divergence(list(d), 0.95).outside
    exact = stats.binomtest(outside, d.size).proportion_ci(0.95)
    assert found.low <= exact.low
    assert exact.high * (1 - 1e-9) <= found.high < 2 * exact.high


def test_rare_tokens_that_gather_in_a_sequence_count_as_fewer():
    spread, gathered = np.full((2, 16, 64), 0.001)
    spread[:, 0], gathered[0, :16] = 0.3, 0.3
    assert divergence(list(gathered), 0.95).outside.high > 1.5 * divergence(list(spread), 0.95).outside.high


def test_where_none_is_outside_the_largest_say_how_tokens_gather():
    spread, gathered = np.full((2, 16, 64), 0.001)
    spread[:, 0], gathered[0, :16] = 0.05, 0.05  # inside of [0.9, 1.1]
    found = [divergence(list(d), 0.95).outside for d in (spread, gathered)]
    assert [each.value for each in found] == [0.0, 0.0]
    assert found[1].high > 1.5 * found[0].high


def test_shares_are_of_ratios_that_are_far_from_one():
    found = divergence([[0.0, math.log(0.89), math.log(1.09), math.log(2.1)]], 0.95)
    assert (found.outside.value, found.clipped.value) == (0.5, 0.25)


@pytest.mark.parametrize("sequences", [2, 4, 8, 32])
def test_noise_exceeds_the_floor_no_more_often_than_promised(sequences: int):
    generator = np.random.default_rng(11)

    def noise() -> list[np.ndarray]:
        scale = generator.gamma(2, 0.01, sequences)  # some sequences are harder
        return [generator.normal(0, each, 40) for each in scale]

    found = sum(excess_over_floor(noise(), noise(), 0.95).low > 0 for _ in range(400))
    assert found <= 0.05 * 400  # of a two-sided interval half of 5 % are on this side


RATIOS = st.lists(st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=8), min_size=1, max_size=8)


@given(RATIOS)
def test_every_value_is_where_it_can_be(ratios: list[list[float]]):
    found = divergence(ratios, 0.9)
    assert found.k3.low >= 0
    assert 0 <= found.size.value <= found.largest
    assert found.p95.high <= found.largest
    assert 1 / found.tokens - 1e-12 <= found.token_ess.value <= 1 + 1e-12
    assert 1 / found.sequences - 1e-12 <= found.sequence_ess <= 1 + 1e-12
    assert 0 <= found.clipped.value <= found.outside.value <= 1
    for bounded in (each for each in vars(found).values() if isinstance(each, Bounded)):
        assert not bounded.low > bounded.value  # NaN where it is not known
        assert not bounded.high < bounded.value


@given(RATIOS, st.integers(2, 4))
def test_what_was_scored_several_times_alike_is_no_further_off(ratios: list[list[float]], times: int):
    once, often = divergence(ratios, 0.9), divergence([each * times for each in ratios], 0.9, times=times)
    for of in (attrgetter(name) for name in ("mean", "largest", "sequence_ess", "size.value", "k3.value")):
        assert of(often) == pytest.approx(of(once))


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=20), st.floats(-1000, 1000))
def test_weights_count_by_their_ratios(logs: list[float], shift: float):
    assert effective_share([each + shift for each in logs]) == pytest.approx(effective_share(logs), rel=1e-6)


@pytest.mark.parametrize(("sequences", "share"), [(8, 1.0), (32, 1.0), (32, 0.15)])
def test_the_mean_interval_holds_for_long_tails_and_few_differences(sequences: int, share: float):
    generator = np.random.default_rng(5)
    found = []
    for _ in range(600):
        means = generator.lognormal(0, 0.8, sequences) * (generator.random(sequences) < share)
        found.append(mean_size([np.full(generator.integers(1, 9), mean) for mean in means], 0.95))
    known = [one for one in found if not math.isnan(one.low)]
    truth = share * math.exp(0.8**2 / 2)
    assert (
        stats.binomtest(sum(one.low <= truth <= one.high for one in known), len(known)).proportion_ci(0.99).high > 0.95
    )
    assert len(known) == 600 or share < 1
