"""Rounds of launches: where precision says how many are enough, what is wanted next depends on what was measured."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.analysis.collection import collect
from rollout_bench.errors import UserError
from rollout_bench.plan.planfile import PlannedExperiment
from rollout_bench.plan.schedule import RESULTS, Schedule, cell_of
from rollout_bench.records.store import record_path

LOGS_OF_ROUNDS = Path("logs") / "rounds"

ROUNDS = RESULTS / "rounds"
"""Empty files, one for each number of launches of an experiment that was looked at; gone when the run ends."""


def next_round(plan: Schedule) -> list[str]:
    """The records that are wanted now and missing, in the order they run, and the rounds that wait for them.

    Once the file of a round is there, this is to be asked again. An experiment whose launch fails gets no further
    round in this run; the others do.

    Raises:
        UserError: a record that is there can't be read, so that nobody can say whether more are wanted.
    """
    wanted = _wanted(plan)
    missing = set(plan.missing_now())
    records = [
        launch.record
        for launch in plan.launches
        if launch.record in missing and launch.index < wanted[launch.experiment.name]
    ]
    rounds = [
        str(round_file(experiment.mode, experiment.experiment, launches))
        for experiment in plan.experiments
        for launches in (wanted[experiment.experiment],)
        if launches < plan.config.launches_of(experiment.mode)
        and _baselines(plan, experiment)
        and missing_of_round(plan, experiment.mode, experiment.experiment, launches)
    ]
    return records + rounds


def round_file(mode: str, experiment: str, launches: int) -> Path:
    """Marks that so many launches of an experiment, and of its baseline, were there to be looked at."""
    return ROUNDS / mode / experiment / str(launches)


def missing_of_round(plan: Schedule, mode: str, experiment: str, launches: int) -> list[str]:
    """Records among the first `launches` of an experiment and of its baseline that are missing.

    Raises:
        UserError: nothing of that name is selected.
    """
    own = plan.by_name.get((mode, experiment))
    if own is None:
        raise UserError(f"{experiment}: the config selects no such experiment", "see `snakemake plan`")
    records = [
        record_path(RESULTS, e.mode, e.experiment, index)
        for index in range(launches)
        for e in (own, *_baselines(plan, own))
    ]
    return [str(record) for record in records if not record.exists()]


def _baselines(plan: Schedule, own: PlannedExperiment) -> list[PlannedExperiment]:
    """The experiments that `own` may be compared with: one, as a rule; none for a baseline."""
    wanted = cell_of(own, plan.config.baseline.named)
    return [] if wanted == cell_of(own) else plan.by_cell.get(wanted, [])


def _wanted(plan: Schedule) -> dict[str, int]:
    """Launches that are wanted of each experiment, by its folder name."""
    least = plan.config.precision.min_launches
    first = {e.name: min(least, plan.config.launches_of(e.spec.mode)) for e in plan.matrix.experiments}
    if not RESULTS.is_dir():
        return first
    found = collect(RESULTS, plan.plan_file(estimate=False)).launched
    return {e.experiment: e.planned or first[e.experiment] for e in found}
