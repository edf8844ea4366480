"""How often mode cycle names a length at which a quantization pays, or does not, and is wrong: simulated launches."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
from kept import SETTINGS, Share, keep

from rollout_bench.analysis.cycles.net_gains import TokenRange, net_gain
from rollout_bench.analysis.cycles.step_costs import LaunchSteps, MemoryCosts, StepCosts, UpdateCosts
from rollout_bench.analysis.stats.intervals import Array
from rollout_bench.analysis.stats.lines import crossing
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.contracts.fields import Strict

LAUNCHES = (2, 3, 5)

OTHERS = (1, 2)
"""Configurations that are compared with one baseline."""

TOKENS = 256
"""Output tokens of a sequence, as measured."""

GENERATION_S, TRANSITION_S = 2.0, 0.6

SPREADS = (0.02, 0.05)
"""Of generation and of transition from launch to launch, as fractions: those of the smaller shape on an H200."""

TRUTHS = {
    "nothing differs": (0.0, 0.0),
    "pays from 128 tokens on": (0.1, -0.2 / TOKENS),
    "pays from 1,024 tokens on": (0.8, -0.2 / TOKENS),
    "pays up to 128 tokens": (-0.1, 0.2 / TOKENS),
    "pays up to 1,024 tokens": (-0.8, 0.2 / TOKENS),
}
"""What is true of each configuration -> seconds by which its transition and each token's generation take longer."""

NOWHERE = "nothing differs"

NOTHING = UpdateCosts(None, None, 0.0, None, None), MemoryCosts(None, None, None, None, None, None, None)


class Claims(Strict):
    """Tables of one kind: how many say something false, had every length been searched, and something right."""

    truth: str
    others: int
    launches: int
    false: Share
    false_by_search: Share
    right: Share


class CycleClaims(Strict):
    """All kinds."""

    seed: int
    tables: int
    confidence: float
    measured: int
    spreads: tuple[float, float]
    claims: list[Claims]


def costs(generation_s: Array, transition_s: Array) -> StepCosts:
    """Return what a step costs whose launches take these seconds [launches]."""
    launches = tuple(
        LaunchSteps(number, float(generated), float(changed), TOKENS)
        for number, (generated, changed) in enumerate(zip(generation_s, transition_s, strict=True))
    )
    update, memory = NOTHING
    return StepCosts(launches, {}, {}, update, memory, updates=0, changing=True)


def is_false(lengths: TokenRange | None, sign: int, truth: tuple[float, float]) -> bool:
    """Return whether the true difference of two steps has not this sign at all of `lengths`."""
    if lengths is None:
        return False
    transition_s, token_s = truth
    last = token_s or transition_s if lengths.last is None else transition_s + token_s * lengths.last
    return min(sign * last, sign * (transition_s + token_s * lengths.first)) <= 0


def claims(truth: str, others: int, launches: int, tables: int, seed: Sequence[int]) -> Claims:
    """Simulate tables of one kind."""
    random, off = np.random.default_rng(seed), TRUTHS[truth]
    confidence = 1 - (1 - SETTINGS.confidence) / others
    counts = dict.fromkeys(("false", "false_by_search", "right"), 0)
    noise = 1 + np.array(SPREADS) * random.standard_normal((tables, others + 1, launches, 2))
    # an answer needs a verdict, which is validated elsewhere: without it there are as many answers as there can be
    found = Comparison(verdict="faster", pairs=dict.fromkeys(range(launches), 1.0))
    for each in noise:
        base = costs(GENERATION_S * each[0, :, 0], TRANSITION_S * each[0, :, 1])
        told = dict.fromkeys(counts, False)
        for own in each[1:]:
            here = costs((GENERATION_S + TOKENS * off[1]) * own[:, 0], (TRANSITION_S + off[0]) * own[:, 1])
            gain = net_gain(here, base, found, confidence)
            assert gain is not None
            wrong = is_false(gain.pays, -1, off) or is_false(gain.loses, 1, off)
            told["false"] |= wrong
            told["right"] |= gain.found is not None and not wrong
            told["false_by_search"] |= _false_by_search(here, base, off)
        for name, happened in told.items():
            counts[name] += happened
    shares = {name: Share(count=count, of=tables) for name, count in counts.items()}
    return Claims(truth=truth, others=others, launches=launches, **shares)


def _false_by_search(own: StepCosts, other: StepCosts, off: tuple[float, float]) -> bool:
    """Return whether the stretches that a search over all lengths finds, each taken alone, say something false."""
    pairs = list(zip(own.launches, other.launches, strict=True))
    found = crossing(
        [mine.transition_s - theirs.transition_s for mine, theirs in pairs],
        [mine.token_s - theirs.token_s for mine, theirs in pairs],
        SETTINGS.confidence,
    )
    return any(
        stretch is not None
        and is_false(TokenRange(round(stretch[0]), None if math.isinf(stretch[1]) else round(stretch[1])), sign, off)
        for stretch, sign in ((found.below, -1), (found.above, 1))
    )


def simulate(tables: int, seed: int) -> CycleClaims:
    """Return all kinds of tables."""
    return CycleClaims(
        seed=seed,
        tables=tables,
        confidence=SETTINGS.confidence,
        measured=TOKENS,
        spreads=SPREADS,
        claims=[
            claims(truth, others, launches, tables, [seed, number, others, launches])
            for number, truth in enumerate(TRUTHS)
            for others in OTHERS
            for launches in LAUNCHES
        ],
    )


def main() -> None:
    """Simulate, print a line for each kind of table, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=10_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.tables, arguments.seed)
    for one in result.claims:
        told = f"false {one.false}, by search {one.false_by_search}, right {one.right}"
        print(f"{one.truth}, {one.others} compared, {one.launches} launches: {told}")
    print(keep("cycle_claims", result))


if __name__ == "__main__":
    main()
