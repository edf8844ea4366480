"""What single runs can claim: the speed-ups of verl-rollout-bench against the spread between launches measured here.

Reads validation/results/launches.json (CPU) and the tables of docs/platforms.md (H200). Measures nothing.
"""

from __future__ import annotations

import argparse
import math
import re

from false_verdict_shares import ALPHA
from kept import REPOSITORY, keep, kept
from repeats import Launches
from scipy import special, stats

from rollout_bench.analysis.stats.intervals import mean, pooled_cv_percent
from rollout_bench.contracts.fields import Strict

CLAIMS = (0.89, 1.16, 1.19, 1.28)
"""The least and the largest speed-up among its results, then the two in the example of its README; one run each."""

PLATFORMS = REPOSITORY / "docs" / "platforms.md"


class Source(Strict):
    """A spread between launches and what follows from it for single runs.

    `sd` is the standard deviation of a launch, as a fraction, with `freedom` degrees of freedom; `sd_low` and `sd_high`
    its 95 % interval. `claimable`, `claimable_low` and `claimable_high` are the ratios of two single runs that differ
    from 1 at 95 %, were `sd`, `sd_low` or `sd_high` the truth.
    """

    name: str
    sd: float
    freedom: int
    sd_low: float
    sd_high: float
    claimable: float
    claimable_low: float
    claimable_high: float


class FirstPass(Strict):
    """What one launch's first pass would have shown instead of the passes after it, in output tokens per second."""

    quant: str
    first: float
    later: float


class Predecessor(Strict):
    """The sources of spread, and the first passes of single launches on an H200; the first is the baseline."""

    claims: list[float]
    sources: list[Source]
    first_passes: list[FirstPass]


def source(name: str, groups: list[list[float]]) -> Source:
    """Return the spread inside `groups`, each the values of the launches of one side.

    Two launches in some group at least.
    """
    groups = [group for group in groups if len(group) > 1]
    sd = (pooled_cv_percent(groups) or 0.0) / 100
    freedom = sum(len(group) - 1 for group in groups)
    low, high = (sd * math.sqrt(freedom / stats.chi2.ppf(q, freedom)) for q in (1 - ALPHA / 2, ALPHA / 2))
    # A coefficient of variation this small is the standard deviation of the logarithm; two sides add up.
    reach = float(special.ndtri(1 - ALPHA / 2)) * math.sqrt(2)
    return Source(
        name=name,
        sd=sd,
        freedom=freedom,
        sd_low=low,
        sd_high=high,
        claimable=math.exp(reach * sd),
        claimable_low=math.exp(reach * low),
        claimable_high=math.exp(reach * high),
    )


def cpu_sources(launches: Launches) -> list[Source]:
    """Return the repeats on the CPU: means of a launch's measured iterations, and its first pass alone."""
    sides: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for launch in launches.launches:
        if launch.valid and launch.warmup_s:
            values = (launch.output_tokens_per_s, 1 / launch.warmup_s[0])
            sides.setdefault((launch.quant, launch.workload), []).append(values)
    if not any(len(side) > 1 for side in sides.values()):
        return []
    iterations = max(len(launch.iterations_s) for launch in launches.launches)
    return [
        source(
            f"CPU, tiny model, mean of {iterations} iterations",
            [[value for value, _ in side] for side in sides.values()],
        ),
        source("CPU, tiny model, first pass alone", [[value for _, value in side] for side in sides.values()]),
    ]


def h200_sources(page: str) -> list[Source]:
    """Return the H200's launches in the tables of `page`: means of the iterations, and the first measured one alone."""
    launches: dict[str, list[list[float]]] = {}
    for quant, numbers in re.findall(r"^\| (\w+) \| \d+ \| (\d{4,}(?:, \d{4,})+) \|", page, re.MULTILINE):
        launches.setdefault(quant, []).append([float(number) for number in numbers.split(", ")])
    if not any(len(one) > 1 for one in launches.values()):
        return []
    return [
        source("H200, Qwen3-1.7B shape, mean of 5 iterations", [[mean(x) for x in one] for one in launches.values()]),
        source("H200, Qwen3-1.7B shape, one iteration", [[x[0] for x in one] for one in launches.values()]),
    ]


def first_passes(page: str) -> list[FirstPass]:
    """Return the H200's warm-up iterations beside the measured ones, from the table of single launches in `page`."""
    rows = re.findall(r"^\| ([\w, ]+) \| (\d{4,}(?:, \d{4,})+) \| (\d{4,}) \|", page, re.MULTILINE)
    return [
        FirstPass(quant=quant, first=float(first), later=mean([float(number) for number in numbers.split(", ")]))
        for quant, numbers, first in rows
    ]


def main() -> None:
    """Calculate and print a line for each source."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    launches = kept("launches", Launches)
    page = PLATFORMS.read_text()
    sources = [*(cpu_sources(launches) if launches else []), *h200_sources(page)]
    for one in sources:
        print(f"{one.name}: sd {100 * one.sd:.2f} %, single runs can claim {one.claimable:.3f}x")
    print(keep("predecessor", Predecessor(claims=list(CLAIMS), sources=sources, first_passes=first_passes(page))))


if __name__ == "__main__":
    main()
