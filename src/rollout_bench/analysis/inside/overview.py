"""Everything that a summary says of the inside of the engine, and how far it is from the machine's limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rollout_bench.analysis.bounds.architecture import Architecture
from rollout_bench.analysis.bounds.bound import architecture_of
from rollout_bench.analysis.bounds.reached import Bound, same_machine, share_of_limit, step_bound
from rollout_bench.analysis.inside.drifts import DriftReport, drift_report
from rollout_bench.analysis.inside.message_links import MessagesRun, message_runs
from rollout_bench.analysis.inside.profiles import read_profiled
from rollout_bench.analysis.inside.reconciliation import ProfileReport, profile_report
from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import Chosen, Collection, Selected, chosen, no_valid_launch
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import table_of
from rollout_bench.contracts.inside import MachineLimits, Phase, Profile
from rollout_bench.contracts.modes import PROFILE
from rollout_bench.contracts.record import Environment, Launched, Record
from rollout_bench.contracts.side_files import known_sequences
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, sequences_path
from rollout_bench.plan.config import ComparisonSettings

What = Literal["pass", "step", "prefill", "mixed", "decode"]
"""`step` is one of no matter which phase."""


Names = tuple[str, str, str, str, str]
"""Mode, platform, model, workload and quant label."""


@dataclass(frozen=True)
class Reach:
    """What of the limit a pass, or a step of one phase, reaches; `reason` says why that is not known.

    `seconds` is one of them, and `bound_s` the least that it could take. Where no launch is valid, `left_out` says so.
    """

    mode: str
    platform: str
    model: str
    workload: str
    quant: str
    what: What
    seconds: float = 0.0
    bound_s: float = 0.0
    limited_by: str = ""
    unknown: tuple[str, ...] = ()
    reason: str = ""
    left_out: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return not (self.reason or self.left_out)

    @property
    def share(self) -> float:
        """Of the limit, 1 being all of it."""
        return self.bound_s / self.seconds


def machine_limits(inside: Sequence[Chosen]) -> list[MachineLimits]:
    """Return the limits that profiles found, one for each machine, the earliest first."""
    found: list[MachineLimits] = []
    for each in inside:
        for record in each.experiment.records:
            if isinstance(record, Profile) and record.limits is not None:
                known = any(same_machine(limits, record.environment) for limits in found)
                found += [] if known else [record.limits]
    return found


def reaches_of(
    results: Path,
    inside: Sequence[Chosen],
    limits: Sequence[MachineLimits],
    collection: Collection,
    rows: Sequence[Row],
) -> list[Reach]:
    """Pass of the timed experiments, then the steps of profiles, on machines whose `limits` are known."""
    found: list[Reach] = []
    for row in rows:
        records = row.experiment.records
        own = _limits_of(limits, records[0].environment) if records else None
        if own is None or row.experiment.part is not None:
            continue
        architecture = architecture_in(collection, row.experiment)
        names = _names(row.experiment, row.label)
        if left_out := no_valid_launch(records):
            found.append(Reach(*names, what="pass", left_out=left_out))
        elif isinstance(architecture, str):
            found.append(Reach(*names, what="pass", reason=architecture))
        else:
            found.append(_of_pass(results, row, own, architecture))
    for each in inside:
        if each.experiment.mode != PROFILE.name:
            continue
        if each.reason and limits:
            found.append(Reach(*_names(each.experiment, each.label), what="step", left_out=each.reason))
        for record in each.experiment.records:
            own = _limits_of(limits, record.environment)
            architecture = architecture_in(collection, each.experiment)
            if isinstance(record, Profile) and own is not None and not isinstance(architecture, str):
                found += _of_steps(_names(each.experiment, each.label), record, own, architecture)
    return found


def _limits_of(limits: Sequence[MachineLimits], environment: Environment) -> MachineLimits | None:
    return next((each for each in limits if same_machine(each, environment)), None)


def architecture_in(collection: Collection, experiment: Selected[Launched]) -> Architecture | str:
    """Return the sizes of the model of a measured experiment, or why they are not known."""
    spec: Spec = experiment.records[0].spec
    named = (spec.model.weights or "").removeprefix("hub:")
    return architecture_of(spec, collection.weights.get(experiment.experiment, named))


def _of_pass(results: Path, row: Row, limits: MachineLimits, architecture: Architecture) -> Reach:
    experiment = row.experiment
    records: list[Record] = [record for record in experiment.records if record.valid]
    bounds: list[Bound] = []
    for record in records:
        path = record_path(results, experiment.mode, experiment.experiment, record.launch)
        found = share_of_limit(record, limits, architecture, known_sequences(sequences_path(path), record))
        if isinstance(found, str):
            return Reach(*_names(experiment, row.label), what="pass", reason=found)
        bounds.append(found)
    passes = mean([sum(not i.warmup for i in record.iterations) for record in records])
    return _reach(_names(experiment, row.label), "pass", bounds, passes)


def _of_steps(names: Names, record: Profile, limits: MachineLimits, architecture: Architecture) -> list[Reach]:
    found = []
    phases: tuple[Phase, ...] = ("prefill", "mixed", "decode")
    for phase in phases:
        steps = sum(step.phase == phase and not step.profiled for step in record.steps)
        if steps:
            bound = step_bound(record, limits, phase, architecture=architecture)
            reason = bound if isinstance(bound, str) else ""
            found.append(
                Reach(*names, what=phase, reason=reason)
                if isinstance(bound, str)
                else _reach(names, phase, [bound], steps)
            )
    return found


def _names(experiment: Selected[Launched], quant: str) -> Names:
    return experiment.mode, *table_of(experiment), quant


def _reach(names: Names, what: What, bounds: Sequence[Bound], each: float) -> Reach:
    return Reach(
        *names,
        what=what,
        seconds=mean([bound.measured_s for bound in bounds]) / each,
        bound_s=mean([bound.bound_s for bound in bounds]) / each,
        limited_by=bounds[0].limited_by,
        unknown=tuple(sorted(bounds[0].unknown)),
    )


@dataclass(frozen=True)
class Looked:
    """What was found inside the engine; all empty where nothing of the kind was measured.

    `architectures` are those of the profiles by their place, as far as they are known. `problems` say of profiles that
    can't be read why, and what to do. `left_out` are the experiments without a valid launch, of which nothing else is
    made from anything that they measured. `rows` are the timed experiments, for whoever
    else needs them, `messages_before` the messages of the earlier results that the baseline names.
    """

    profiles: ProfileReport = field(default_factory=lambda: profile_report((), ComparisonSettings()))
    reaches: tuple[Reach, ...] = ()
    limits: tuple[MachineLimits, ...] = ()
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    messages: tuple[MessagesRun, ...] = ()
    messages_before: tuple[MessagesRun, ...] = ()
    drift: DriftReport = field(default_factory=DriftReport)
    left_out: tuple[Chosen, ...] = ()
    rows: tuple[Row, ...] = ()


def look(results: Path, collection: Collection, rows: Sequence[Row]) -> Looked:
    """Read and analyse what `collection`, which was read from `results`, has of modes that look into the engine."""
    if not collection.others:
        return Looked(rows=tuple(rows))
    settings = collection.comparison
    inside = chosen(collection.others)
    read = read_profiled(results, inside, collection, rows)
    profiles = profile_report(read.profiled, settings, read.left_out)
    limits = machine_limits(inside)
    messages, damaged = message_runs(results, inside)
    earlier = collection.earlier
    before: list[MessagesRun] = []
    if earlier is not None and earlier.folder is not None:
        before, damaged_before = message_runs(earlier.folder, chosen(earlier.others))
        damaged += damaged_before
    return Looked(
        profiles=profiles,
        reaches=tuple(reaches_of(results, inside, limits, collection, rows)),
        limits=tuple(limits),
        architectures=dict(_architectures(inside, collection)),
        problems=(*read.problems, *damaged),
        messages=tuple(messages),
        messages_before=tuple(before),
        drift=drift_report(results, inside, settings.confidence),
        left_out=tuple(each for each in inside if each.reason),
        rows=tuple(rows),
    )


def _architectures(inside: Sequence[Chosen], collection: Collection) -> Iterator[tuple[str, Architecture]]:
    for each in inside:
        if each.experiment.mode == PROFILE.name and not each.reason:
            found = architecture_in(collection, each.experiment)
            if not isinstance(found, str):
                yield each.place, found
