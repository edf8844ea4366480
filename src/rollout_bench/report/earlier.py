"""Reads the earlier results that others are compared with: another folder, or another engine in the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rollout_bench.analysis.timed.collection import collect, collect_unselected
from rollout_bench.analysis.timed.experiments import Collection, Earlier
from rollout_bench.contracts.store import check_results_folder, earlier_folder
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.state import plan_of_summary, results_of


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


def collect_two(
    a: Path, b: Path, comparison: ComparisonSettings, everything: bool = False
) -> tuple[Collection, Collection]:
    """Read the earlier results `a` and those that are compared with them, `b`, each as its summary selects.

    Args:
        a: their folder.
        b: that of the others.
        comparison: what is compared.
        everything: read all there is, whatever the summaries select.

    Raises:
        UserError: a folder holds no record of a launch, or both are the same.
    """
    return _of_folder(a, b, comparison, everything), _of_folder(b, None, comparison, everything)


def _earlier(results: Path, collection: Collection) -> Earlier | None:
    folder = earlier_folder(results, collection.baseline)
    if folder is not None:
        found = _of_folder(folder, results, collection.comparison)
        return Earlier(str(folder), found.experiments, found.others, results_of(folder))
    version = collection.baseline.get("engine")
    return None if version is None else _of_engine(results, collection, version)


def _of_folder(
    folder: Path, other: Path | None, comparison: ComparisonSettings, everything: bool = False
) -> Collection:
    """Return what the summary in `folder`, which must not be `other`, selects; all there is without a summary.

    `folder` is a results folder, or that of a summary which is kept in one.
    """
    results = results_of(folder)
    check_results_folder(results)
    if other is not None and folder.resolve() == other.resolve():
        raise UserError(f"{folder} and {other} are the same folder", "name two results folders, the earlier one first")
    return collect(results, None if everything else plan_of_summary(folder), comparison)


def _of_engine(results: Path, collection: Collection, version: str) -> Earlier:
    unselected = collect_unselected(results, collection)
    measured = [e for e in (*unselected.launched, *collection.launched) if e.records]
    earlier = Earlier(
        f"engine {version}",
        tuple(e for e in unselected.experiments if e.records and e.records[0].spec.engine.version == version),
        tuple(e for e in unselected.others if e.records and e.records[0].spec.engine.version == version),
        results,
        engine=version,
    )
    if earlier.experiments or earlier.others or any(earlier.is_own(e) for e in measured):
        return earlier
    found = sorted({e.records[0].spec.engine.version for e in measured})
    return replace(earlier, problem=f"no launch of engine {version} lies in {results}, only of {', '.join(found)}")
