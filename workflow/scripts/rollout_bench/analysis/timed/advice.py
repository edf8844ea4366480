"""How many iterations a launch of an experiment should have, from the launches that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.stats.iterations import best_iterations, relative_time, variances
from rollout_bench.analysis.timed.launches import measure, parts_of
from rollout_bench.analysis.timed.points import points_of
from rollout_bench.contracts.record import Record

FEWEST, MOST = 4, 64
"""What is advised at least and at most. With fewer than 4 nothing tells whether a launch is steady; a best above `MOST`
is what a few short launches can't know, and drift inside a launch would weigh more."""


@dataclass(frozen=True)
class IterationAdvice:
    """Iterations per launch: `set`, `best` and the interval of `best`, all within `FEWEST` and `MOST`.

    `relative_time` is the time for the same precision with `best`, over that with `set`. `launches` were used.
    """

    launches: int
    set: int
    best: int
    low: int
    high: int
    relative_time: float


def advise_iterations(records: Sequence[Record]) -> IterationAdvice | None:
    """The advice for the valid launches in `records`, all of one experiment.

    None where there are fewer than two of them, fewer than two iterations, several loads, or no differences between
    iterations.
    Variances are those of the logarithm of output tokens per second, so they are relative.
    """
    if len(points_of(records)) > 1:
        return None  # iterations under different loads differ for another reason than chance
    valid = [record for record in records if record.valid]
    rates = [measure(record).iteration_output_tokens_per_s for record in valid]
    if len(rates) < 2 or len({len(launch) for launch in rates}) != 1 or len(rates[0]) < 2:
        return None
    if min(map(min, rates)) <= 0:
        return None
    try:
        found = variances([[math.log(rate) for rate in launch] for launch in rates])
    except ValueError:
        return None
    costs = [parts_of(record) for record in valid]
    now = len(rates[0])
    launch_s = mean([cost.wall_s - cost.measured_s for cost in costs])
    iteration_s = mean([cost.measured_s for cost in costs]) / now
    if launch_s <= 0:
        return None
    ratio = found.between / found.within

    def limited(of: float) -> int:
        return round(min(max(best_iterations(launch_s, iteration_s, of), FEWEST), MOST))

    best = limited(ratio)
    return IterationAdvice(
        launches=len(valid),
        set=now,
        best=best,
        low=limited(found.ratio_high),
        high=limited(found.ratio_low),
        relative_time=relative_time(best, now, launch_s, iteration_s, ratio),
    )
