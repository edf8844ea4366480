"""What `snakemake plan` says about iterations: how many per launch would give the same precision in less time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rollout_bench.analysis.timed.advice import FEWEST, MOST, IterationAdvice, advise_iterations
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.store import read_record, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.plan.planfile import PlanFile, PlannedExperiment

ROUGH = 10
"""Launches below which a variance between them is no more than a hint: of 9, its 95 % interval spans a factor of 8."""


def iteration_lines(plan: PlanFile, results: Path) -> Iterator[str]:
    """A line for each planned experiment with two launches or more in `results`, then what the numbers mean."""
    told = False
    for experiment in plan.experiments:
        advice = advise_iterations(list(_records(experiment, results)))
        if advice is None:
            continue
        told = True
        yield f"iterations: {experiment.model} {experiment.quant} {experiment.workload}: {sentence(advice)}"
    if told:
        yield (
            "  best: for the mean output tok/s of one experiment, not for a speed-up, in the least time (Kalibera and"
            f" Jones, 2013), within {FEWEST} to {MOST}; in brackets its 95 % interval, as far as so few launches tell"
        )
        yield (
            "  to change it: `iterations` in the config, one number for all experiments. It is part of the key, so"
            " everything is measured anew; the old results stay"
        )


def sentence(advice: IterationAdvice) -> str:
    """`4 set, 9 [5, 40] best: same precision in 62 % of the time (rough: 3 launches)`."""
    high = f"{MOST} or more" if advice.high == MOST else advice.high
    text = f"{advice.set} set, {advice.best} [{advice.low}, {high}] best: "
    percent = round(100 * advice.relative_time)
    # Without any spread between launches the best may lie beyond the limits, and what is set, too.
    text += f"same precision in {percent} % of the time" if percent < 100 else "saves no time"
    if percent < 100 and advice.low <= advice.set <= advice.high:
        text += f", but {advice.set} may be the best too"
    return f"{text} ({'rough: ' if advice.launches < ROUGH else ''}{advice.launches} launches)"


def _records(experiment: PlannedExperiment, results: Path) -> Iterator[Record]:
    for launch in range(experiment.launches):
        path = record_path(results, experiment.mode, experiment.experiment, launch)
        if path.is_file():
            try:
                yield read_record(path)
            except UserError:
                continue  # the summary tells of it; here it is only a launch less
