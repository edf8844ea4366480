"""Reads the earlier results that a baseline names: another results folder, or another engine in the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection, Earlier
from rollout_bench.contracts.store import check_results_folder, earlier_folder, find_results
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PLAN_SCHEMA_VERSION, PlanFile, PlannedExperiment
from rollout_bench.report.state import plan_of_summary


def collect_with_earlier(results: Path, plan: PlanFile | None) -> Collection:
    """As `collect`, with the earlier results where the baseline of `plan` names some.

    What is wrong with those is no error: the summary says it where the speed-ups would be.
    """
    collection = collect(results, plan)
    try:
        earlier = _earlier(results, collection)
    except UserError as error:
        name = ", ".join(f"{axis} {value}" for axis, value in collection.baseline.items())
        earlier = Earlier(name, problem=error.problem)
    return replace(collection, earlier=earlier)


def _earlier(results: Path, collection: Collection) -> Earlier | None:
    folder = earlier_folder(results, collection.baseline)
    if folder is not None:
        if folder.resolve() == results.resolve():
            raise UserError(f"{folder}: is the folder of these results", "name an earlier one in baseline.results")
        check_results_folder(folder)
        return Earlier(str(folder), collect(folder, plan_of_summary(folder)).experiments)
    version = collection.baseline.get("engine")
    return None if version is None else _of_engine(results, collection, version)


def _of_engine(results: Path, collection: Collection, version: str) -> Earlier:
    """The experiments with the names of the selected ones that `version` of the engine measured."""
    others = collect(results, _unselected(results, collection)).experiments
    measured = [e for e in (*others, *collection.experiments) if e.records]
    earlier = Earlier(
        f"engine {version}",
        tuple(e for e in others if e.records and e.records[0].spec.engine.version == version),
        engine=version,
    )
    if earlier.experiments or any(earlier.is_own(e) for e in measured):
        return earlier
    found = sorted({e.records[0].spec.engine.version for e in measured})
    return replace(earlier, problem=f"no launch of engine {version} lies in {results}, only of {', '.join(found)}")


def _unselected(results: Path, collection: Collection) -> PlanFile:
    """A plan of what lies in `results` under the names of selected experiments and is not selected."""
    selected = {(e.mode, e.experiment) for e in collection.experiments}
    by_names = {(e.mode, _names(e.experiment)): e for e in collection.experiments}
    launches: dict[tuple[str, str], int] = {}
    for file in find_results(results).records.values():
        place = (file.mode, file.experiment)
        if place not in selected and (file.mode, _names(file.experiment)) in by_names:
            launches[place] = max(file.launch + 1, launches.get(place, 0))
    return PlanFile(
        schema_version=PLAN_SCHEMA_VERSION,
        results=str(results),
        fingerprint="",
        baseline={},
        comparison=ComparisonSettings(),
        experiments=[
            PlannedExperiment(
                mode=mode,
                experiment=experiment,
                key=experiment.rpartition("-")[2],
                platform=like.platform,
                model=like.model,
                quant=like.quant,
                workload=like.workload,
                launches=amount,
            )
            for (mode, experiment), amount in launches.items()
            for like in (by_names[mode, _names(experiment)],)
        ],
        skipped=[],
        launches=[],
    )


def _names(experiment: str) -> str:
    """The part of an experiment's folder name that says model, quant and workload."""
    return experiment.rpartition("-")[0]
