"""How many launches of each experiment are wanted where the precision of its comparison decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rollout_bench.analysis.against import against_baseline, valid_records
from rollout_bench.analysis.baselines import Names, find_baseline, index_by_names, is_baseline
from rollout_bench.analysis.comparison import compare
from rollout_bench.analysis.experiments import Experiment
from rollout_bench.analysis.launches import LaunchMeasures, measure
from rollout_bench.analysis.metrics import METRICS
from rollout_bench.analysis.sequential import Rule
from rollout_bench.analysis.turns import marked_out_of_turn, round_s
from rollout_bench.plan.comparing import ComparisonSettings, Precision

OF_THE_MOMENT = {"cpu_steal", "cpu_shared", "memory_pressure"}
"""Flags that make a launch invalid because of what else the machine did; the next may be spared."""


def with_enough(
    experiments: Sequence[Experiment],
    baseline: Mapping[str, str],
    comparison: ComparisonSettings,
    precision: Precision,
) -> tuple[Experiment, ...]:
    """`experiments` cut down to the launches that are wanted now, given the records that are there.

    An experiment is wanted until its comparison in the first metric is narrow enough; while one of the launches up to
    then is missing on either side, no further one is. The baseline is wanted as often as anything compared with it,
    and what is compared with nothing as often as the least. Records beyond are left out, although they are
    there: which launches count is for the rule to say, not for what somebody measured besides.
    """
    rule = Rule(precision.half_width, precision.min_launches, precision.max_launches, comparison.confidence)
    index = index_by_names(experiments)
    wanted = {id(experiment): rule.min_pairs for experiment in experiments}
    limit_s = round_s(experiments)
    for experiment in experiments:
        other = _partner(experiment, index, baseline)
        if other is not None:
            launches = _launches(experiment, other, rule, comparison, limit_s)
            wanted[id(experiment)] = launches
            wanted[id(other)] = max(wanted[id(other)], launches)
    return tuple(_first(experiment, wanted[id(experiment)]) for experiment in experiments)


def _partner(
    experiment: Experiment, index: Mapping[Names, Sequence[Experiment]], baseline: Mapping[str, str]
) -> Experiment | None:
    if is_baseline(experiment, baseline) or not experiment.records:
        return None
    other, _ = find_baseline(experiment, index, baseline)
    if other is None or not (valid_records(experiment) and valid_records(other)):
        return other
    return against_baseline(experiment, index, baseline).other  # none where no verdict could come of it


def _launches(
    experiment: Experiment, other: Experiment, rule: Rule, comparison: ComparisonSettings, limit_s: float
) -> int:
    """Launches that `experiment` wants beside its baseline `other`; `limit_s` as in `turns.marked_out_of_turn`."""
    metric = METRICS[comparison.metrics[0]]
    sides = marked_out_of_turn([measure(r) for r in experiment.records], experiment, other, limit_s)
    own = {launch.launch: metric.value(launch) for launch in sides if launch.valid and launch.in_turn}
    base = [measure(record) for record in other.records]
    theirs = {launch.launch: metric.value(launch) for launch in base if launch.valid}
    pairs = compare(own, theirs, comparison.confidence, metric.higher_is_better).pairs
    there = {r.launch for r in experiment.records} & {r.launch for r in other.records}
    for launches in range(rule.min_pairs, rule.max_pairs):
        if not there.issuperset(range(launches)):
            return launches
        logs = np.log([ratio for launch, ratio in sorted(pairs.items()) if launch < launches])
        if rule.narrow(logs)[-1] if len(logs) else _in_vain(sides, base, launches):
            return launches
    return rule.max_pairs


def _in_vain(own: Sequence[LaunchMeasures], theirs: Sequence[LaunchMeasures], launches: int) -> bool:
    """Whether none of the first `launches` made a pair for a reason that further ones will have too."""
    spoilt = {
        launch.launch
        for launch in (*own, *theirs)
        if any(flag.severity == "invalid" and flag.code not in OF_THE_MOMENT for flag in launch.flags)
    }
    return spoilt.issuperset(range(launches))


def _first(experiment: Experiment, launches: int) -> Experiment:
    """`experiment` with its first `launches` alone."""
    return replace(
        experiment,
        planned=launches,
        records=tuple(record for record in experiment.records if record.launch < launches),
        failures=tuple(failure for failure in experiment.failures if failure.launch < launches),
        missing=tuple(launch for launch in experiment.missing if launch < launches),
    )
