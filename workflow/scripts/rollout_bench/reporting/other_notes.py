"""What became of launches that look into the engine: failed, missing, doubted."""

from __future__ import annotations

from collections.abc import Iterator

from rollout_bench.analysis.experiments import Collection, Selected
from rollout_bench.records.record import Failure, Launched
from rollout_bench.reporting.numbers import sentence


def failure_line(name: str, failure: Failure) -> str:
    """What is said of a failed launch of the experiment that is called `name`."""
    return (
        f"{name}, launch {failure.launch} ({failure.category} while {failure.phase}): "
        f"{sentence(failure.cause)} Fix: {sentence(failure.fix)} Log: {failure.log}"
    )


def failed_others(collection: Collection) -> Iterator[str]:
    """A line for each failed launch."""
    for experiment in collection.others:
        for failure in experiment.failures:
            yield failure_line(_name(experiment), failure)


def missing_others(collection: Collection) -> Iterator[str]:
    """A line for each experiment that lacks launches."""
    for experiment in collection.others:
        if experiment.missing:
            yield f"{_name(experiment)}: {len(experiment.missing)} of {experiment.planned} launches"


def flags_of_others(collection: Collection) -> Iterator[str]:
    """A line for each doubt."""
    for experiment in collection.others:
        for record in experiment.records:
            for flag in record.validity:
                where = f"{_name(experiment)}, launch {record.launch}"
                yield f"{where}: {flag.code} ({flag.severity}): {sentence(flag.sentence)}"


def _name(experiment: Selected[Launched]) -> str:
    return f"{experiment.model} {experiment.quant} {experiment.workload} ({experiment.mode})"
