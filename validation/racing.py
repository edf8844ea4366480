"""Simulate `precision.race`: how often the best is lost, how often intervals miss, and how many launches it saves."""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np
from block_tables import log_ratios, with_spread
from kept import SETTINGS, Share, keep
from noise import Array
from numpy.typing import NDArray
from scipy import special
from stopping import ALPHA, RULE, SPREAD
from table_noise import TABLE_NOISES

from rollout_bench.contracts.fields import Strict

CONFIGURATIONS = (4, 12)
"""The baseline among them."""

HALF_WIDTH = 0.02

NOTHING = "nothing differs"

NORMAL = "normal"


def _truths(k: int) -> dict[str, Array]:
    """Return true log ratios over the baseline [k], that of the baseline first, for each kind of table."""
    return {
        NOTHING: np.zeros(k),
        "one is 10 % better": np.log(np.where(np.arange(k) == k - 1, 1.10, 1.0)),
        "spread over 30 %": np.log(np.linspace(1.0, 1.30, k)),
        "half are 20 % worse": np.log(np.where(np.arange(k) % 2, 0.80, 1.0)),
    }


class Raced(Strict):
    """Tables of `configurations` whose truths are of one `kind`, run to their end with a race and without.

    `lost_best` counts tables in which some configuration was lost that is as good as the best, `missed` those in which
    some interval that the race goes by misses the truth where its launches end. `launches` and `without` are the mean
    launches of a table, of all configurations together.
    """

    noise: str
    configurations: int
    kind: str
    lost_best: Share
    missed: Share
    launches: float
    without: float


class Racing(Strict):
    """Everything that was simulated."""

    seed: int
    tables: int
    confidence: float
    half_width: float
    first: int
    most: int
    spread: float
    raced: list[Raced]


def race(
    d: Array, *, half_width: float = HALF_WIDTH, racing: bool = True
) -> tuple[Array, NDArray[np.bool_], Array, Array]:
    """Return launches, whether it was lost, and the ends of the interval of each comparison: [tables, k - 1] each.

    Args:
        d: log ratios over the baseline [tables, launches, k - 1].
        half_width: which is asked for, as a fraction.
        racing: whether what is surely not the best gets no further launch, as `precision._lost` has it.
    """
    most = d.shape[1]
    rule = dataclasses.replace(RULE, half_width=half_width, max_pairs=most)
    level = rule.looks.each(ALPHA / d.shape[2])
    narrow = rule.narrow(np.moveaxis(d, 1, -1))
    shape = d.shape[0], d.shape[2]
    taken, lost, going = np.full(shape, float(most)), np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    low, high = np.full(shape, -math.inf), np.full(shape, math.inf)
    for launches in range(rule.min_pairs, most + 1):
        part = d[:, :launches]
        half = special.stdtrit(launches - 1, 1 - level / 2) * part.std(axis=1, ddof=1) / math.sqrt(launches)
        low, high = (np.where(going, part.mean(axis=1) + side * half, end) for side, end in ((-1, low), (1, high)))
        if launches == most:
            break
        bar = np.maximum(0.0, low.max(axis=1, keepdims=True))
        out = going & (high < bar) if racing else np.zeros(shape, dtype=bool)
        lost |= out
        ended = going & (out | narrow[..., launches - 1])
        taken[ended] = launches
        going &= ~ended
    return taken, lost, low, high


def raced(noise: str, kind: str, values: Array) -> Raced:
    """Judge tables of log values [tables, launches, k] under the truths of one kind."""
    k = values.shape[-1]
    truths = _truths(k)[kind]
    d = log_ratios(values + truths)
    taken, lost, low, high = race(d)
    without, *_ = race(d, racing=False)
    as_good = truths[1:] >= truths.max()
    missed = ((low > truths[1:]) | (high < truths[1:])).any(axis=-1)
    return Raced(
        noise=noise,
        configurations=k,
        kind=kind,
        lost_best=Share(count=int((lost & as_good).any(axis=-1).sum()), of=len(d)),
        missed=Share(count=int(missed.sum()), of=len(d)),
        # the baseline is launched as often as whatever goes on longest
        launches=float((taken.sum(axis=-1) + taken.max(axis=-1)).mean()),
        without=float((without.sum(axis=-1) + without.max(axis=-1)).mean()),
    )


def simulate(tables: int, seed: int) -> Racing:
    """Return normal noise with both sizes of tables, and each other noise without missing values with four."""
    found = []
    for number, (noise, draw) in enumerate(TABLE_NOISES.items()):
        for k in CONFIGURATIONS if noise == NORMAL else CONFIGURATIONS[:1]:
            values = draw(np.random.default_rng([seed, number, k]), tables, RULE.max_pairs, k)
            if not np.isfinite(values).all():
                continue
            found += [raced(noise, kind, with_spread(values, SPREAD)) for kind in _truths(k)]
    return Racing(
        seed=seed,
        tables=tables,
        confidence=SETTINGS.confidence,
        half_width=HALF_WIDTH,
        first=RULE.min_pairs,
        most=RULE.max_pairs,
        spread=SPREAD,
        raced=found,
    )


def main() -> None:
    """Simulate, print a line for each kind of table, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=20_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.tables, arguments.seed)
    for one in result.raced:
        shares = f"best lost {one.lost_best}, missed {one.missed}"
        print(f"{one.noise}, k {one.configurations}, {one.kind}: {shares}, {one.launches:.1f} of {one.without:.1f}")
    print(keep("racing", result))


if __name__ == "__main__":
    main()
