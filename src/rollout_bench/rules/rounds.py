"""Rounds of `launches: auto`: how many launches each experiment needs so far, and which are tried in this run."""

from collections.abc import Sequence
from typing import Any

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.failures import failed_by_itself
from rollout_bench.contracts.store import record_path
from rollout_bench.plan.config import DEFAULT_LAUNCHES
from rollout_bench.plan.planfile import PLAN, PlannedExperiment
from rollout_bench.plan.remeasuring import moved_in_this_run
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import RESULTS, Schedule, cell_of, selected
from rollout_bench.rules.call import has_begun, results_now, stopping

ROUNDS = RESULTS / "rounds"
"""Folder of empty marks: a mark for each round of an experiment that has ended. The end of the run deletes them."""


def next_round(state: ResultsState) -> list[str]:
    """Return the missing records that are needed now, in the order of their launches, and the marks of their rounds.

    The caller asks again when the mark of a round exists. An experiment with a failed launch in this run gets no
    further launches in this run.

    Raises:
        UserError: if a record can't be read, because the number of needed launches is then unknown.
    """
    plan = state.schedule
    wanted = wanted_launches(state)
    moved = moved_in_this_run(state.folder) if has_begun() else set()  # measured again in this run in any case
    records = [
        launch.record
        for launch in plan.launches
        if state.is_missing(launch.record)
        and (launch.index < wanted[launch.experiment.name] or launch.record in moved)
        and not _given_up(state, launch.record)
    ]
    rounds = []
    for experiment in plan.experiments:
        mode, name, launches = experiment.mode, experiment.experiment, wanted[experiment.experiment]
        if (
            launches < experiment.launches
            and _baselines(plan, experiment)
            and not _given_up(state, str(record_path(RESULTS, mode, name, launches - 1)))
            and missing_of_round(state, mode, name, launches)
        ):
            rounds.append(str(ROUNDS / mode / name / str(launches)))
    return records + rounds


def missing_of_round(state: ResultsState, mode: str, experiment: str, launches: int) -> list[str]:
    """Return the missing records among the first `launches` of an experiment and its baseline, except given-up ones.

    Raises:
        UserError: if the config does not select the experiment.
    """
    plan = state.schedule
    experiment_of_round = selected(
        {e.experiment: e for e in plan.experiments if e.mode == mode}, experiment, "experiment"
    )
    records = [
        str(record_path(RESULTS, e.mode, e.experiment, index))
        for index in range(launches)
        for e in (experiment_of_round, *_baselines(plan, experiment_of_round))
    ]
    return [record for record in records if state.is_missing(record) and not _given_up(state, record)]


@stopping()
def inputs_of_round(at_start: ResultsState, wildcards: Any) -> list[str]:
    """Return the outputs that a round waits for: missing launches of one experiment and its baseline."""
    launches = int(wildcards.launches)
    missing = missing_of_round(results_now(at_start), wildcards.mode, wildcards.experiment, launches)
    return at_start.schedule.outputs_for(missing)


def wanted_launches(state: ResultsState) -> dict[str, int]:
    """Return the number of launches that each experiment needs so far, by its folder name."""
    plan = state.schedule
    first = {e.name: min(DEFAULT_LAUNCHES, plan.config.launches_of(e.spec.mode)) for e in plan.matrix.experiments}
    if not state.folder.is_dir():
        return first
    found = collect(state.folder, plan.plan_file(), warned=False).launched
    return {e.experiment: e.planned or first[e.experiment] for e in found}


def first_failed(state: ResultsState, mode: str, experiment: str, launches: int) -> int | None:
    """Return the first of the `launches` that failed in this run and would fail again."""
    records = (record_path(state.folder, mode, experiment, index) for index in range(launches))
    plan = state.folder / PLAN
    failed = (failed_by_itself(record, plan, on_cluster=state.schedule.on_cluster) for record in records)
    return next((index for index, has_failed in enumerate(failed) if has_failed), None)


def _baselines(plan: Schedule, experiment: PlannedExperiment) -> Sequence[PlannedExperiment]:
    """Return the baselines of `experiment`: usually one, and none if it is a baseline itself."""
    wanted = cell_of(experiment, plan.config.baseline.axes)
    return [] if wanted == cell_of(experiment) else plan.by_cell.get(wanted, [])


def _given_up(state: ResultsState, record: str) -> bool:
    """Return whether a launch is not tried again in this run, because it or an earlier launch failed."""
    if not has_begun():
        return False
    launch = state.schedule.by_record[record][1]
    return first_failed(state, launch.experiment.spec.mode, launch.experiment.name, launch.index + 1) is not None
