"""How many launches of each experiment are wanted where the precision of its comparison decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rollout_bench.analysis.stats.sequential import StoppingRule
from rollout_bench.analysis.timed.comparison import compare_launches
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.analysis.timed.launches import LaunchMeasures, fell_behind, measure
from rollout_bench.analysis.timed.partners import (
    Names,
    against_baseline,
    find_baseline,
    index_by_names,
    is_baseline,
    marked_out_of_turn,
    round_s,
    valid_records,
)
from rollout_bench.analysis.timed.points import split
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.plan.config import ComparisonSettings, Precision

OF_THE_MOMENT = {"cpu_steal", "cpu_shared", "memory_pressure"}
"""Flags that make a launch invalid because of what else the machine did; the next may be spared."""


def with_enough(
    experiments: Sequence[TimedExperiment],
    baseline: Mapping[str, str],
    comparison: ComparisonSettings,
    precision: Precision,
) -> tuple[TimedExperiment, ...]:
    """Return `experiments` cut down to the launches that are wanted now, given the records that are there.

    An experiment is wanted until its comparison in the first metric is narrow enough; while one of the launches up to
    then is missing on either side, no further one is. Of a sweep the load counts that wants most. The baseline is
    wanted as often as anything compared with it, and what is compared with nothing as often as the least. Records
    beyond are left out, although they are there: which launches count is for the rule to say, not for what somebody
    measured besides.
    """
    rule = StoppingRule(precision.half_width, precision.min_launches, precision.max_launches, comparison.confidence)
    parts = split(experiments)
    index = index_by_names(parts)
    wanted = {id(experiment): rule.min_pairs for experiment in experiments}
    limit_s = round_s(experiments)
    for part in parts:
        other = _partner(part, index, baseline)
        if other is None or not (_in_all_launches(part) and _in_all_launches(other)):
            continue
        launches = _launches(part, other, rule, comparison, limit_s)
        for side in (part.whole, other.whole):
            wanted[id(side)] = max(wanted[id(side)], launches)
    return tuple(_first(experiment, wanted[id(experiment)]) for experiment in experiments)


def _in_all_launches(part: TimedExperiment) -> bool:
    """Return whether every valid launch came to this load.

    Of one that a search finds now and then, no more are asked for.
    """
    return len(valid_records(part)) == len(valid_records(part.whole))


def _partner(
    experiment: TimedExperiment, index: Mapping[Names, Sequence[TimedExperiment]], baseline: Mapping[str, str]
) -> TimedExperiment | None:
    if is_baseline(experiment, baseline) or not experiment.records:
        return None
    other, _ = find_baseline(experiment, index, baseline)
    if other is None or not (valid_records(experiment) and valid_records(other)):
        return other
    return against_baseline(experiment, index, baseline).other  # none where no verdict could come of it


def _launches(
    experiment: TimedExperiment,
    other: TimedExperiment,
    rule: StoppingRule,
    comparison: ComparisonSettings,
    limit_s: float,
) -> int:
    """Return launches that `experiment` wants beside its baseline `other`.

    `limit_s` as in `turns.marked_out_of_turn`.
    """
    sides = marked_out_of_turn(_measured(experiment), experiment, other, limit_s)
    base = _measured(other)
    valid, others = ([launch for launch in side if launch.valid] for side in (sides, base))
    metric = _deciding([*valid, *others], experiment, comparison)
    in_turn = [launch for launch in valid if launch.in_turn]
    pairs = compare_launches(in_turn, others, metric, comparison.confidence).pairs
    # Of the whole, since an invalid launch need not have come to this load.
    there = {r.launch for r in experiment.whole.records} & {r.launch for r in other.whole.records}
    for launches in range(rule.min_pairs, rule.max_pairs):
        if not there.issuperset(range(launches)):
            return launches
        logs = np.log([ratio for launch, ratio in sorted(pairs.items()) if launch < launches])
        if rule.narrow(logs)[-1] if len(logs) else _in_vain(sides, base, launches):
            return launches
    return rule.max_pairs


def _measured(experiment: TimedExperiment) -> list[LaunchMeasures]:
    return [measure(record, experiment.requests.get(record.launch)) for record in experiment.records]


def _deciding(
    launches: Sequence[LaunchMeasures], experiment: TimedExperiment, comparison: ComparisonSettings
) -> MetricName:
    """Return the first metric that is not set by the load, which would be precise at once and tell nothing."""
    metrics = comparison.metrics_of(experiment.mode)
    point = experiment.records[0].iterations[0].point
    if not at_a_rate(point) or fell_behind(launches):
        return metrics[0]
    return next((metric for metric in metrics if not METRICS[metric].set_by_load), metrics[0])


def _in_vain(own: Sequence[LaunchMeasures], theirs: Sequence[LaunchMeasures], launches: int) -> bool:
    """Return whether none of the first `launches` made a pair for a reason that further ones will have too."""
    spoilt = {
        launch.launch
        for launch in (*own, *theirs)
        if any(flag.severity == "invalid" and flag.code not in OF_THE_MOMENT for flag in launch.flags)
    }
    return spoilt.issuperset(range(launches))


def _first(experiment: TimedExperiment, launches: int) -> TimedExperiment:
    """Return `experiment` with its first `launches` alone."""
    return replace(
        experiment,
        planned=launches,
        records=tuple(record for record in experiment.records if record.launch < launches),
        failures=tuple(failure for failure in experiment.failures if failure.launch < launches),
        missing=tuple(launch for launch in experiment.missing if launch < launches),
        damaged=tuple(damaged for damaged in experiment.damaged if damaged.launch < launches),
    )
