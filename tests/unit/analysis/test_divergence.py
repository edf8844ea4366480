"""Divergence of policies: what has a closed form comes out at it, nothing is nothing, and intervals hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollout_bench.analysis.stats.divergence import Bounded, divergence, effective_share, excess, mean_size

TEMPERATURE = 1.02


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sampled(sequences: int = 400, tokens: int = 250) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return two policies, and d of tokens that a softmax at temperature 1 samples, scored at 1.02."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 3, 50)
    p, q = log_softmax(logits), log_softmax(logits / TEMPERATURE)
    drawn = generator.choice(50, size=(sequences, tokens), p=np.exp(p))
    return p, q, list((q - p)[drawn])


def test_both_estimates_and_their_intervals_hold_a_known_kl():
    p, q, ratios = sampled()
    exact = float((np.exp(p) * (p - q)).sum())
    found = divergence(ratios, 0.99)
    assert found.k3.value == pytest.approx(exact, rel=0.05)
    assert found.k3.low < exact < found.k3.high
    assert found.k1.low < exact < found.k1.high
    assert found.k3.high - found.k3.low < found.k1.high - found.k1.low  # what k3 is for


def test_other_moments_are_those_of_a_known_distribution():
    p, q, ratios = sampled()
    weights, d = np.exp(p), q - p
    found = divergence(ratios, 0.95)
    assert found.size.value == pytest.approx(float((weights * abs(d)).sum()), rel=0.02)
    assert found.sd.value == pytest.approx(float(np.sqrt((weights * d**2).sum() - (weights * d).sum() ** 2)), rel=0.02)
    # E_p[w] = 1, so the effective share of very many tokens is 1 / E_p[w^2]
    assert found.token_ess.value == pytest.approx(1 / float((np.exp(p) * np.exp(2 * d)).sum()), rel=1e-3)
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
    missed = dict.fromkeys(truth, 0)
    for seed in range(100):
        found = divergence(sequences(np.random.default_rng([2, seed]), 64), 0.9)
        for name, value in truth.items():
            bounded = getattr(found, name)
            missed[name] += not bounded.low <= value <= bounded.high
    assert all(1 <= times <= 20 for times in missed.values()), missed


def test_equal_policies_diverge_by_exactly_nothing():
    found = divergence([[0.0] * 5, [0.0] * 3], 0.95, [[True] * 5, [True] * 3])
    for bounded in (found.k1, found.k3, found.outside, found.sd, found.p95, found.clipped):
        assert (bounded.value, bounded.low, bounded.high) == (0, 0, 0)
    for bounded in (found.token_ess, found.agreement, found.perplexity_ratio):
        assert (bounded.value, bounded.low, bounded.high) == (1, 1, 1)
    assert (found.largest, found.sequence_ess, found.size.value) == (0, 1, 0)
    assert math.isnan(found.size.low)  # how often something would differ is not seen


@pytest.mark.parametrize("sequences", [2, 4, 8, 32])
def test_noise_exceeds_the_floor_no_more_often_than_promised(sequences: int):
    generator = np.random.default_rng(11)

    def noise() -> list[np.ndarray]:
        scale = generator.gamma(2, 0.01, sequences)  # some sequences are harder
        return [generator.normal(0, each, 40) for each in scale]

    found = sum(excess(noise(), noise(), 0.95).low > 0 for _ in range(400))
    assert found <= 0.05 * 400  # of a two-sided interval half of 5 % are on this side


def test_any_difference_in_each_sequence_exceeds_a_floor_of_zero():
    assert excess([[0.01], [0.2], [0.05]], [[0.0]] * 3, 0.99).low > 0


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
    for bounded in vars(found).values():
        if isinstance(bounded, Bounded):
            assert not bounded.low > bounded.value  # NaN where it is not known
            assert not bounded.high < bounded.value


@given(RATIOS, st.integers(2, 4))
def test_what_was_scored_several_times_alike_is_no_further_off(ratios: list[list[float]], times: int):
    once, often = divergence(ratios, 0.9), divergence([each * times for each in ratios], 0.9, times=times)
    for name in ("mean", "largest", "sequence_ess"):
        assert getattr(often, name) == pytest.approx(getattr(once, name)), name
    for name in ("size", "k1", "k3", "token_ess"):
        assert getattr(often, name).value == pytest.approx(getattr(once, name).value), name


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=20), st.floats(-1000, 1000))
def test_weights_count_by_their_ratios(logs: list[float], shift: float):
    assert effective_share([each + shift for each in logs]) == pytest.approx(effective_share(logs), rel=1e-6)


def test_shares_are_of_ratios_that_are_far_from_one():
    found = divergence([[0.0, math.log(0.89), math.log(1.09), math.log(2.1)]], 0.95)
    assert (found.outside.value, found.clipped.value) == (0.5, 0.25)


def test_sides_of_other_sequences_are_refused():
    with pytest.raises(ValueError, match="2 sequences can't be held against 1"):
        excess([[0.1], [0.1]], [[0.1]], 0.95)


def test_few_sequences_give_students_interval_within_the_values_seen():
    each = [np.full(8, -size) for size in (0.1, 0.2, 0.3, 0.4)]
    low, high = stats.t.interval(0.95, 3, 0.25, stats.sem([0.1, 0.2, 0.3, 0.4]))
    size = divergence(each, 0.95).k1
    assert (size.value, size.low, size.high) == pytest.approx((0.25, max(low, 0.1), min(high, 0.4)))
    wide = divergence([*each, *each, *each], 0.95).k1
    low, high = stats.t.interval(0.95, 11, 0.25, stats.sem([0.1, 0.2, 0.3, 0.4] * 3))
    assert wide.low <= low + 1e-12
    assert wide.high >= high - 1e-12


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


def test_every_sequence_weighs_the_same_in_size_and_excess():
    own, floor = [[0.1] * 9, [0.4]], [[0.05] * 9, [0.1]]
    assert (divergence(own, 0.95).size.value, excess(own, floor, 0.95).value) == (
        pytest.approx(0.25),
        pytest.approx(0.25 - 0.075),
    )
    assert math.isnan(mean_size([[0.0], [0.0], [0.1]], 0.95).high)
    assert mean_size([[0.0], [0.1], [0.9]], 0.95).high == math.inf
