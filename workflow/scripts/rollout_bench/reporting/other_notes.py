"""What became of launches that look into the engine: failed, missing, doubted, left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.chosen import Chosen
from rollout_bench.analysis.experiments import Collection, Selected
from rollout_bench.records.record import Failure, Launched
from rollout_bench.reporting.numbers import sentence

_NAMED = 3
"""Experiments that a figure names as left out."""


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


def left_out_notes(left_out: Sequence[Chosen]) -> tuple[str, ...]:
    """A line for each experiment without a valid launch, and what that means; none where all have one."""
    if not left_out:
        return ()
    lines = [f"{_name(each.experiment, each.label)}: {each.reason}." for each in left_out]
    meaning = (
        "Nothing that these launches measured is in a table, a prediction or a figure; docs/how-to/troubleshoot.md "
        "says what to do about each flag."
    )
    return (*lines, meaning)


def left_out_alarm(left_out: Sequence[Chosen], mode: str) -> str:
    """The same of one mode in a line for its figures; empty where all have a valid launch."""
    own = [each for each in left_out if each.experiment.mode == mode]
    names = [f"{_name(each.experiment, each.label)}, {each.reason}" for each in own[:_NAMED]]
    more = [f"{len(own) - _NAMED} more"] if len(own) > _NAMED else []
    return f"Left out: {'; '.join([*names, *more])}." if names else ""


def _name(experiment: Selected[Launched], label: str = "") -> str:
    return f"{experiment.model} {label or experiment.quant} {experiment.workload} ({experiment.mode})"
