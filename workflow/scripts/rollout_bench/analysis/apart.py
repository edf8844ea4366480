"""Experiments and their counterparts among earlier results: same names, nothing took turns, and what must agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.against import Against, valid_records, why_not_measured
from rollout_bench.analysis.comparison import Comparison
from rollout_bench.analysis.experiments import Earlier, Experiment
from rollout_bench.analysis.facts import Difference, Group, differences, launch_facts, load_facts
from rollout_bench.errors import UserError

ONE_IN_A_SIDE = ("engine_name", "engine_version", "plugins", "torch_version", "device_model", "cpu_model", "cpu_cores")
"""Facts that all launches of one side must share."""

_SHOWN = 4
"""Facts or launches that a message names before it counts."""


@dataclass(frozen=True)
class Refusal:
    """Why the sides of the table of `mode` and `platform` are not compared, and what to do about it."""

    mode: str
    platform: str
    problem: str
    remedy: str

    def error(self) -> UserError:
        """The same as an error."""
        return UserError(self.problem, self.remedy)


def against_earlier(experiments: Sequence[Experiment], earlier: Earlier) -> list[Against]:
    """What each of `experiments` is compared with; where a table is refused, all of it has the reason instead."""
    found = counterparts(experiments, earlier)
    refused = {(refusal.mode, refusal.platform): refusal for refusal in refusals(experiments, found, earlier)}
    return [
        Against(instead=Comparison(reason=refused[e.mode, e.platform].problem))
        if against.other is not None and (e.mode, e.platform) in refused
        else against
        for e, against in zip(experiments, found, strict=True)
    ]


def counterparts(experiments: Sequence[Experiment], earlier: Earlier) -> list[Against]:
    """The one of `earlier` that has the same mode, model, quant and workload as each, and the same load.

    The platform must be the same too, unless each side has one platform and they are not the same. Among several
    the one with the same engine arguments counts.
    """
    across = _across(experiments, earlier.experiments)
    return [_counterpart(experiment, earlier, across) for experiment in experiments]


def in_common(experiments: Sequence[Experiment], others: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """Those of `experiments` whose names some of `others` have too."""
    across = _across(experiments, others)
    names = {_names(other, across) for other in others}
    return tuple(e for e in experiments if _names(e, across) in names)


def refusals(experiments: Sequence[Experiment], found: Sequence[Against], earlier: Earlier) -> list[Refusal]:
    """The tables (mode and platform) whose sides can't be compared: launches of one side differ, or too much does.

    Either the engine or the machine may differ, or what `earlier.differ` accepts.
    """
    refused = []
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        matched = [
            (e, against.other, against)
            for e, against in zip(experiments, found, strict=True)
            if (e.mode, e.platform) == (mode, platform) and against.other is not None
        ]
        problem = (
            _mixed([other for _, other, _ in matched], earlier.name)
            or _mixed([own for own, _, _ in matched], earlier.of)
            or _too_different([against for _, _, against in matched], earlier)
        )
        if problem:
            refused.append(Refusal(mode, platform, *problem))
    return refused


def _counterpart(experiment: Experiment, earlier: Earlier, across: bool) -> Against:
    reason = why_not_measured(experiment) or earlier.problem
    if reason:
        return Against(instead=Comparison(reason=reason))
    if earlier.is_own(experiment):
        return Against(instead=Comparison(is_baseline=True))
    candidates = [other for other in earlier.experiments if _names(other, across) == _names(experiment, across)]
    if not candidates:
        return Against(instead=Comparison(reason=f"{earlier.name} has no experiment of its names"))
    measured = [other for other in candidates if valid_records(other)]
    if not measured:
        return Against(instead=Comparison(reason=f"{why_not_measured(candidates[0])} in {earlier.name}"))
    load = [load_facts(valid_records(experiment)[0])]
    unlike = {other.key: differences(load, [load_facts(valid_records(other)[0])]) for other in measured}
    alike = [other for other in measured if not unlike[other.key]]
    if not alike:
        told = told_differences(unlike[measured[0].key])
        return Against(instead=Comparison(reason=f"{earlier.name} measured another load: {told}"))
    spec = experiment.records[0].spec.engine
    same = [o for o in alike if _settings(o) == (spec.multiprocess, spec.environment, spec.args)]
    candidates = same or alike
    if len(candidates) > 1:
        reason = f"{len(candidates)} experiments of its names in {earlier.name} could be meant"
        return Against(instead=Comparison(reason=reason))
    shared = _same_records(experiment, candidates[0])
    if shared:
        reason = f"{earlier.name} has the very same record of launch {', '.join(map(str, shared))}, as a copy would"
        return Against(instead=Comparison(reason=reason))
    own, theirs = ([launch_facts(record) for record in valid_records(side)] for side in (experiment, candidates[0]))
    return Against(candidates[0], differences=tuple(differences(own, theirs)))


def _same_records(one: Experiment, other: Experiment) -> list[int]:
    """The launches that are one and the same on both sides: they tell nothing of a difference."""
    there = {record.launch: record for record in valid_records(other)}
    return [
        record.launch
        for record in valid_records(one)
        if (same := there.get(record.launch)) is not None and record.origin == same.origin
    ]


def told_differences(differing: Iterable[Difference]) -> str:
    """The first few of `differing` in a line, and how many more there are."""
    facts = list(differing)
    more = f", and {len(facts) - _SHOWN} more" if len(facts) > _SHOWN else ""
    return ", ".join(map(str, facts[:_SHOWN])) + more


def _mixed(side: Sequence[Experiment], name: str) -> tuple[str, str] | None:
    """Problem and remedy where launches of one side differ in a fact of `ONE_IN_A_SIDE`."""
    launches = [
        (f"{e.model} {e.quant} {e.workload} launch {record.launch}", launch_facts(record))
        for e in side
        for record in valid_records(e)
    ]
    for fact in dict.fromkeys(fact for _, facts in launches for fact in facts):
        if fact.partition(".")[0] not in ONE_IN_A_SIDE:
            continue
        by_value: dict[str, list[str]] = {}
        for launch, facts in launches:
            by_value.setdefault(facts.get(fact, "not set"), []).append(launch)
        if len(by_value) > 1:
            told = "; ".join(f"{value} ({_named(found)})" for value, found in by_value.items())
            return (
                f"{name}: its launches differ in {fact}: {told}",
                "select those of one kind (make its summary with a plan of them), or move the others away",
            )
    return None


def _named(launches: Sequence[str]) -> str:
    more = f", and {len(launches) - _SHOWN} more" if len(launches) > _SHOWN else ""
    return ", ".join(launches[:_SHOWN]) + more


def _too_different(found: Sequence[Against], earlier: Earlier) -> tuple[str, str] | None:
    """Problem and remedy where engine and machine differ, or one that was not to."""
    unique = dict.fromkeys(difference for against in found for difference in against.differences)
    groups: tuple[Group, ...] = ("engine", "machine")
    differing = {g: [d for d in unique if d.group == g] for g in groups}
    there = [group for group in groups if differing[group]]
    accepted = earlier.differ or (there if len(there) == 1 else [])
    if set(there) <= set(accepted):
        return None
    told = "; ".join(f"{group}: {told_differences(differing[group])}" for group in there)
    return (
        f"{earlier.name} and {earlier.of} differ in {' and in '.join(there)}, and no more than one may: {told}"
        if len(there) > 1
        else f"{earlier.name} and {earlier.of} differ in {there[0]}, which was not to differ: {told}",
        f"make one side agree, or take the difference of all together: compare.py with --differ {' '.join(there)}",
    )


def _across(experiments: Sequence[Experiment], others: Sequence[Experiment]) -> bool:
    """Whether the platform is what differs: each side has one."""
    return len({e.platform for e in experiments}) == len({e.platform for e in others}) == 1


def _names(experiment: Experiment, across: bool) -> tuple[str, ...]:
    platform = "" if across else experiment.platform
    return experiment.mode, platform, experiment.model, experiment.quant, experiment.workload


def _settings(experiment: Experiment) -> tuple[object, ...]:
    engine = experiment.records[0].spec.engine
    return engine.multiprocess, engine.environment, engine.args
