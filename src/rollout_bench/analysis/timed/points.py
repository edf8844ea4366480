"""Loads of a sweep as separate experiments, each with its means, baseline and verdict."""

from collections.abc import Sequence
from dataclasses import replace

from rollout_bench.analysis.timed.experiments import LoadPart, TimedExperiment
from rollout_bench.contracts.axes import table_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped


def split(experiments: Sequence[TimedExperiment]) -> tuple[TimedExperiment, ...]:
    """Return `experiments` with one for each load of a sweep; quantizations under one load are neighbours.

    An experiment with one load or none is unchanged.
    """
    parts_of = [_parts(experiment) for experiment in experiments]
    if all(len(parts) == 1 for parts in parts_of):
        return tuple(experiments)
    swept = {_names(parts[0].whole) for parts in parts_of if len(parts) > 1}
    groups = grouped(
        (_names(part.whole) if _names(part.whole) in swept else number, part)
        for number, parts in enumerate(parts_of)
        for part in parts
    )
    return tuple(
        part
        for group in groups.values()
        for part in sorted(group, key=lambda part: _order(part.part.point if part.part else None))
    )


def _names(experiment: TimedExperiment) -> tuple[str, ...]:
    return experiment.mode, *table_of(experiment)


def _parts(experiment: TimedExperiment) -> list[TimedExperiment]:
    # Records of modes without loads are skipped: there may be thousands.
    records = experiment.records if mode_of(experiment.mode).has_loads else ()
    points = dict.fromkeys(i.point for record in records for i in record.iterations if i.point is not None)
    if len(points) < 2:
        return [experiment]
    return [_part(experiment, point, number) for number, point in enumerate(sorted(points, key=_order))]


def _part(whole: TimedExperiment, point: LoadPoint, number: int) -> TimedExperiment:
    # they are not validated again
    records = [
        record.model_copy(
            update={
                "iterations": [i for i in record.iterations if i.point == point],
                "validity": [
                    flag.model_copy(update={"load": None})
                    for flag in record.validity
                    if flag.load in (None, point.label)
                ],
            }
        )
        for record in whole.records
    ]
    records = [record for record in records if any(not iteration.warmup for iteration in record.iterations)]
    return replace(
        whole,
        workload=f"{whole.workload} @ {point.label}",
        records=tuple(records),
        failures=whole.failures if number == 0 else (),
        missing=whole.missing if number == 0 else (),
        damaged=whole.damaged if number == 0 else (),
        part=LoadPart(whole, point, number),
    )


def _order(point: LoadPoint | None) -> tuple[float, float]:
    """Return the sort key of a load: from the lightest on, or in their own order for stages."""
    if point is None:
        return (-1.0, 0.0)
    return point.weight if point.stage is None else (float(point.stage), 0.0)
