"""Simulate tables of mode drift: false verdicts, coverage of mean |d|, and which drift is found beyond the floor."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from block_tables import FOUND
from kept import SETTINGS, Share, keep
from noise import Array
from scipy import integrate

from rollout_bench.analysis.stats.divergence import divergence, excess_over_floor, mean_size
from rollout_bench.analysis.timed.experiments import ValidExperiment
from rollout_bench.contracts.fields import Strict
from rollout_bench.modes.drift.drifts import Drifted, with_verdicts

PROMISED = (1 - SETTINGS.confidence) / 2
"""Of tables without a difference at most so many may have a `drifts`: the interval is two-sided, the verdict is not."""

SEQUENCES = (4, 8, 16, 32, 64)
LINES = (1, 4, 10)
"""Of a table, without those of the reference."""

TOKENS = (4, 28, 128)
"""Of a sequence: how many at least, the mean of what is added (geometric, so 1 at least), and the maximum."""

HARDER = 0.5
"""Standard deviation of the logarithm of how hard a sequence is, which is the same for the floor and each line."""

TOUCHED = 3.0
"""Sequences of a table in which anything differs, on average, where only few differ."""

DETECTED_OF = (16, 64)
MOST = 8.0
"""The largest ratio of drift to floor that is tried."""

STEPS = 8

NORMAL = "normal"
HEAVY = "heavy tails: Student's t with 3 degrees of freedom"
HEAVY_FLOOR = "heavy tails in the floor only, mean |d| the same"
FEW = "few sequences differ at all, 3 of a table on average"

Noise = Callable[[np.random.Generator, int], Array]
Sequences = list[Array]
"""For each sequence d of its tokens [n_i]."""


def _normal(rng: np.random.Generator, count: int) -> Array:
    return rng.normal(size=count)


def _heavy(rng: np.random.Generator, count: int) -> Array:
    return rng.standard_t(3, count) / math.sqrt(3)


SIDES: dict[str, tuple[Noise, Noise]] = {
    NORMAL: (_normal, _normal),
    HEAVY: (_heavy, _heavy),
    HEAVY_FLOOR: (_heavy, _normal),
    FEW: (_normal, _normal),
}
"""Kind of noise -> that of the floor and that of a line, both of variance 1 before they are scaled to one mean |d|."""


def _heavy_size() -> float:
    """Return E|a + e| of two of `_heavy`, from their characteristic function (B. von Bahr, 1965)."""

    def lacking(s: float) -> float:
        return (1 - (1 + s) ** 2 * math.exp(-2 * s)) / s**2

    return 2 / math.pi * float(integrate.quad(lacking, 0, math.inf)[0])


SIZES: dict[Noise, float] = {_normal: 2 / math.sqrt(math.pi), _heavy: _heavy_size()}
"""Mean |a + e| of each noise."""


class FalseDrifts(Strict):
    """Tables without any true difference: `false` counts those with one `drifts` or more."""

    noise: str
    sequences: int
    lines: int
    false: Share


class SizeCovered(Strict):
    """How many intervals of mean |d| hold the true one, and how many are wholly below it, of those that are known."""

    noise: str
    sequences: int
    covered: Share
    below: Share
    unknown: Share


class Detected(Strict):
    """The ratio of drift to floor at which a line of a table is found in `found`; None: `MOST` is not enough."""

    noise: str
    sequences: int
    lines: int
    ratio: float | None
    found: Share


class EngineFloor(Strict):
    """Lines of the reference against itself in a result, and in how many of them mean |d| is exactly 0."""

    page: str
    lines: int
    nothing: int


FLOORS = [EngineFloor(page="h200-drift", lines=4, nothing=4)]


class DriftVerdicts(Strict):
    """Everything that was simulated, and what real engines have said."""

    seed: int
    comparisons: int
    confidence: float
    promised: float
    false: list[FalseDrifts]
    covered: list[SizeCovered]
    detected: list[Detected]
    floors: list[EngineFloor]


def table(rng: np.random.Generator, noise: str, sequences: int, lines: int) -> tuple[Sequences, list[Sequences]]:
    """Return the floor and the lines of a table in which mean |d| is truly 1 in all of them.

    The same tokens on all sides: as many, and as hard. Beyond that each side has an effect of its own in each
    sequence, as large as the noise of its tokens.
    """
    least, more, most = TOKENS
    lengths = np.minimum(least + rng.geometric(1 / more, sequences), most)
    hard = np.exp(HARDER * rng.normal(size=sequences) - HARDER**2 / 2)
    ends = np.cumsum(lengths)[:-1]

    def side(drawn: Noise) -> Sequences:
        scale = hard / SIZES[drawn]
        if noise == FEW:
            share = min(TOUCHED / sequences, 1.0)
            scale = scale * (rng.random(sequences) < share) / share
        d = np.repeat(drawn(rng, sequences), lengths) + drawn(rng, int(lengths.sum()))
        return np.split(np.repeat(scale, lengths) * d, ends)

    floor, line = SIDES[noise]
    return side(floor), [side(line) for _ in range(lines)]


ANY = divergence([[1.0]], SETTINGS.confidence)
"""Where verdicts are made, one floor needs no divergence."""


def _experiment(name: str) -> ValidExperiment:
    return ValidExperiment(cast(Any, SimpleNamespace(mode="drift", experiment=name)), name)


def drifts(floor: Sequences, lines: Sequence[Sequences]) -> list[bool | None]:
    """Return the verdict on each line, as the summary has it."""
    reference = _experiment("reference")
    itself = Drifted(reference, reference, 2, (0,), ANY, tuple(floor))
    others = [
        Drifted(_experiment(f"line-{number}"), reference, 1, (0,), ANY, tuple(line))
        for number, line in enumerate(lines)
    ]
    return [each.drifts for each in with_verdicts([itself, *others], SETTINGS.confidence)[1:]]


def false_drifts(noise: str, sequences: int, lines: int, tables: int, seed: int) -> FalseDrifts:
    """Judge so many tables without a difference. The same for the same arguments."""
    rng = np.random.default_rng([seed, 0, list(SIDES).index(noise), sequences, lines])
    count = sum(any(drifts(*table(rng, noise, sequences, lines))) for _ in range(tables))
    return FalseDrifts(noise=noise, sequences=sequences, lines=lines, false=Share(count=count, of=tables))


def size_covered(noise: str, sequences: int, tables: int, seed: int) -> SizeCovered:
    """Hold the interval of mean |d| to the truth."""
    rng = np.random.default_rng([seed, 1, list(SIDES).index(noise), sequences])
    found = [mean_size(table(rng, noise, sequences, 0)[0], SETTINGS.confidence) for _ in range(tables)]
    known = [one for one in found if not math.isnan(one.low)]
    return SizeCovered(
        noise=noise,
        sequences=sequences,
        covered=Share(count=sum(one.low <= 1 <= one.high for one in known), of=len(known)),
        below=Share(count=sum(one.high < 1 for one in known), of=len(known)),
        unknown=Share(count=tables - len(known), of=tables),
    )


def detected(noise: str, sequences: int, lines: int, tables: int, seed: int) -> Detected:
    """Return the ratio of drift to floor that is found in `FOUND` of tables, by bisection on the same ones."""
    rng = np.random.default_rng([seed, 2, list(SIDES).index(noise), sequences])
    drawn = [table(rng, noise, sequences, 1) for _ in range(tables)]
    confidence = 1 - (1 - SETTINGS.confidence) / lines

    def found(ratio: float) -> Share:
        hits = (excess_over_floor([ratio * d for d in line], floor, confidence).low > 0 for floor, (line,) in drawn)
        return Share(count=sum(hits), of=tables)

    low, high, best = 1.0, MOST, found(MOST)
    if best.value < FOUND:
        return Detected(noise=noise, sequences=sequences, lines=lines, ratio=None, found=best)
    for _ in range(STEPS):
        ratio = math.sqrt(low * high)
        share = found(ratio)
        if share.value < FOUND:
            low = ratio
        else:
            high, best = ratio, share
    return Detected(noise=noise, sequences=sequences, lines=lines, ratio=high, found=best)


def simulate(comparisons: int, seed: int) -> DriftVerdicts:
    """Return all kinds of noise with all sizes of tables; `comparisons` are tables times lines in each cell."""
    return DriftVerdicts(
        seed=seed,
        comparisons=comparisons,
        confidence=SETTINGS.confidence,
        promised=PROMISED,
        false=[
            false_drifts(noise, sequences, lines, comparisons // lines, seed)
            for noise in SIDES
            for lines in LINES
            for sequences in SEQUENCES
        ],
        covered=[
            size_covered(noise, sequences, comparisons, seed)
            for noise in (NORMAL, HEAVY, FEW)
            for sequences in SEQUENCES
        ],
        detected=[
            detected(noise, sequences, lines, comparisons // 8, seed)
            for noise in (NORMAL, HEAVY)
            for lines in LINES
            for sequences in DETECTED_OF
        ],
        floors=FLOORS,
    )


def main() -> None:
    """Simulate, print a line for each cell, keep the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--comparisons", type=int, default=2400, help="in each cell, tables times lines (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.comparisons, arguments.seed)
    for one in result.false:
        print(f"{one.noise}, {one.sequences} sequences, {one.lines} lines: {one.false} false")
    for cell in result.covered:
        print(f"{cell.noise}, {cell.sequences} sequences: {cell.covered} of mean |d| covered, {cell.below} below")
    for size in result.detected:
        print(f"{size.noise}, {size.sequences} sequences, {size.lines} lines: ratio {size.ratio} in {size.found}")
    print(keep("drift_verdicts", result))


if __name__ == "__main__":
    main()
