"""The counterpart of each experiment in another results folder, and the facts that must agree."""

from collections.abc import Sequence

from rollout_bench.analysis.timed.baselines import (
    Counterpart,
    Place,
    no_counterpart,
    only_fitting,
    place_of,
    spec_of,
    valid_records,
    why_not_measured,
)
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import Earlier, TimedExperiment
from rollout_bench.analysis.timed.facts import Difference, differences, launch_facts, load_facts
from rollout_bench.contracts.axes import name_of
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.quants import NOT_SET

ONE_IN_A_SIDE = ("engine_name", "engine_version", "plugins", "torch_version", "device_model", "cpu_model", "cpu_cores")
"""Facts that all launches of one side must share."""


def against_earlier(experiments: Sequence[TimedExperiment], earlier: Earlier) -> list[Counterpart]:
    """Return the counterpart of each of `experiments`: the one in `earlier` with its names and its load.

    The names are mode, model, quantization, workload and setting. The platform is included unless each side has a
    single platform and these differ. If several have these names, the one with the same engine arguments is used.

    A table (mode and platform) is refused as a whole if launches of one side differ, or if the sides differ too much.
    Only the engine or only the machine may differ, or the groups in `earlier.differ`.
    """
    across = _across(experiments, earlier.experiments)
    counterparts = [_counterpart(experiment, earlier, across) for experiment in experiments]
    tables = grouped(
        ((experiment.mode, experiment.platform), number)
        for number, (experiment, against) in enumerate(zip(experiments, counterparts, strict=True))
        if against.other is not None
    )
    for numbers in tables.values():
        refused = (
            _mixed_facts_error([other for number in numbers if (other := counterparts[number].other)], earlier.name)
            or _mixed_facts_error([experiments[number] for number in numbers], earlier.of)
            or _too_different([counterparts[number] for number in numbers], earlier)
        )
        if refused:
            against = Counterpart(instead=Comparison(reason=refused.problem), refused=refused)
            counterparts = [against if number in numbers else each for number, each in enumerate(counterparts)]
    return counterparts


def in_common(experiments: Sequence[TimedExperiment], others: Sequence[TimedExperiment]) -> tuple[TimedExperiment, ...]:
    """Return the `experiments` whose names also occur in `others`."""
    across = _across(experiments, others)
    names = {_names_outside(other, across) for other in others}
    return tuple(e for e in experiments if _names_outside(e, across) in names)


def _counterpart(experiment: TimedExperiment, earlier: Earlier, across: bool) -> Counterpart:
    if reason := why_not_measured(experiment):
        return no_counterpart(reason)
    names = _names_outside(experiment, across)

    def load_differences(other: TimedExperiment) -> list[Difference]:
        return differences(*([load_facts(valid_records(side)[0])] for side in (experiment, other)))

    other, reason = only_fitting(
        earlier.experiments,
        (
            (
                lambda other: _names_outside(other, across) == names,
                lambda _: f"{earlier.name} has no experiment of its names",
            ),
            (valid_records, lambda found: f"{why_not_measured(found[0])} in {earlier.name}"),
            (
                lambda other: not load_differences(other),
                lambda found: f"{earlier.name} measured another load: {first_few(load_differences(found[0]))}",
            ),
        ),
        lambda other: _settings_apart(other) == _settings_apart(experiment),
        f"experiments of its names in {earlier.name} could be meant",
    )
    if other is None:
        return no_counterpart(reason)
    origins = {record.launch: record.origin for record in valid_records(other)}
    if shared := [each.launch for each in valid_records(experiment) if origins.get(each.launch) == each.origin]:
        reason = f"{earlier.name} has the very same record of launch {', '.join(map(str, shared))}, as a copy would"
        return no_counterpart(reason)
    own, theirs = ([launch_facts(record) for record in valid_records(side)] for side in (experiment, other))
    return Counterpart(other, differences=tuple(differences(own, theirs)))


def _mixed_facts_error(side: Sequence[TimedExperiment], name: str) -> UserError | None:
    """Return the error if launches of one side differ in a fact of `ONE_IN_A_SIDE`."""
    launches = [
        (f"{name_of(e)} launch {record.launch}", launch_facts(record)) for e in side for record in valid_records(e)
    ]
    for fact in dict.fromkeys(fact for _, facts in launches for fact in facts):
        if fact.partition(".")[0] not in ONE_IN_A_SIDE:
            continue
        by_value = grouped((facts.get(fact, NOT_SET), launch) for launch, facts in launches)
        if len(by_value) > 1:
            values = "; ".join(f"{value} ({first_few(names)})" for value, names in by_value.items())
            return UserError(
                f"{name}: its launches differ in {fact}: {values}",
                "select those of one kind (make its summary with a plan of them), or move the others away",
            )
    return None


def _too_different(found: Sequence[Counterpart], earlier: Earlier) -> UserError | None:
    """Return the error if both engine and machine differ, or a group that must not."""
    unique = dict.fromkeys(difference for against in found for difference in against.differences)
    differing = {group: [d for d in unique if d.group == group] for group in ("engine", "machine")}
    groups = [group for group, found in differing.items() if found]
    if set(groups) <= set(earlier.differ or groups[:1]):
        return None
    named = "; ".join(f"{group}: {first_few(differing[group])}" for group in groups)
    return UserError(
        f"{earlier.name} and {earlier.of} differ in {' and in '.join(groups)}, and no more than one may: {named}"
        if len(groups) > 1
        else f"{earlier.name} and {earlier.of} differ in {groups[0]}, which was not to differ: {named}",
        f"make one side agree, or let both differ: rollout-bench compare with --differ {' '.join(groups)}",
    )


def _across(experiments: Sequence[TimedExperiment], others: Sequence[TimedExperiment]) -> bool:
    """Return whether the sides are compared across platforms: each side has exactly one."""
    return len({e.platform for e in experiments}) == len({e.platform for e in others}) == 1


def _names_outside(experiment: TimedExperiment, across: bool) -> Place:
    return place_of(experiment, {"platform": ""} if across else {})


def _settings_apart(experiment: TimedExperiment) -> tuple[object, ...]:
    engine = spec_of(experiment).engine
    return engine.multiprocess, engine.environment, engine.args
