"""Read profiled experiments: their records and traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import Chosen, Collection, Selected
from rollout_bench.analysis.traces.categories import CATEGORIES as CATEGORIES
from rollout_bench.analysis.traces.categories import categorise
from rollout_bench.analysis.traces.trace import read_traces
from rollout_bench.analysis.traces.trace_steps import step_times
from rollout_bench.contracts.axes import Table, names_of, table_of
from rollout_bench.contracts.inside import Phase, Profile, Step
from rollout_bench.contracts.modes import PROFILE
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.store import record_path, traces_path
from rollout_bench.core.errors import UserError

PHASES: tuple[Phase, ...] = ("prefill", "mixed", "decode")
"""In the order of a pass."""

LINEAR, QUANTIZE, HOST_GAP, OTHER = "linear", "quantize", "host_gap", "other"


@dataclass(frozen=True, eq=False)
class ProfiledExperiment:
    """One profiled experiment.

    `place` is unique, and `quant` is the label in tables. `baseline` is the place of the baseline; None if the
    experiment is a baseline itself or has none. `events` are categorised. `times` is the result of `step_times`, in
    microseconds. `traces` is the folder of the traces relative to the summary.
    """

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    record: Profile
    events: pd.DataFrame
    times: pd.DataFrame
    baseline: str | None = None
    traces: str = ""

    @property
    def table(self) -> Table:
        """Platform, model and workload: the key of a table."""
        return table_of(self)


@dataclass(frozen=True)
class LeftOut:
    """A profiled experiment without a valid launch, with the `reason`; other fields are as in `ProfiledExperiment`."""

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    baseline: str | None
    reason: str


@dataclass(frozen=True)
class StepSample:
    """Timed steps of one phase: seconds, in order, without and with the profiler.

    `tokens` is the mean over unprofiled steps, or over all steps if none is unprofiled.
    """

    unprofiled_s: tuple[float, ...]
    profiled_s: tuple[float, ...]
    tokens: float

    @property
    def overhead(self) -> float | None:
        """Mean profiled over mean unprofiled step time; None if either is unknown."""
        return mean(self.profiled_s) / mean(self.unprofiled_s) if self.unprofiled_s and self.profiled_s else None

    @property
    def step_s(self) -> float:
        """Mean step time without the profiler, or with it if all steps were profiled."""
        return mean(self.unprofiled_s or self.profiled_s)


def step_samples(steps: Sequence[Step]) -> dict[Phase, StepSample]:
    """Return the steps of each phase that has steps."""
    return {
        phase: _sample([step for step in steps if step.phase == phase])
        for phase in PHASES
        if any(step.phase == phase for step in steps)
    }


def _sample(steps: Sequence[Step]) -> StepSample:
    unprofiled = [step for step in steps if not step.profiled]
    shown = unprofiled or steps
    return StepSample(
        unprofiled_s=tuple(step.elapsed_s for step in unprofiled),
        profiled_s=tuple(step.elapsed_s for step in steps if step.profiled),
        tokens=mean([step.tokens for step in shown]),
    )


@dataclass(frozen=True)
class Read:
    """Profiles with readable traces, profiles without a valid launch, and a message for each unreadable profile.

    An unreadable profile does not hide timed results.
    """

    profiled: tuple[ProfiledExperiment, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[str, ...] = ()


def read_profiled(results: Path, inside: Sequence[Chosen], collection: Collection) -> Read:
    """Return the profiles among `inside`, which belong to `collection`, read from `results`."""
    of_profiles = [each for each in inside if each.experiment.mode == PROFILE.name]
    named = Counter(names_of(each.experiment) for each in of_profiles)
    places = {names: each.place for each in of_profiles if named[names := names_of(each.experiment)] == 1}
    found, problems = [], []
    for each in of_profiles:
        if not each.reason:
            try:
                found.append(_profiled(results, each, places, collection))
            except UserError as error:
                problems.append(f"{error.problem}; {error.remedy}")
    left_out = [
        LeftOut(e.platform, e.model, each.label, e.workload, each.place, _baseline(e, places, collection), each.reason)
        for each in of_profiles
        for e in [each.experiment]
        if each.reason
    ]
    return Read(tuple(found), tuple(left_out), tuple(problems))


def _baseline(
    experiment: Selected[Launched], places: Mapping[tuple[str, ...], str], collection: Collection
) -> str | None:
    """Return the place of the baseline; None if the experiment is a baseline itself or has none."""
    own, baseline = names_of(experiment), names_of(experiment, collection.baseline)
    return places.get(baseline) if baseline != own else None


def _profiled(
    results: Path,
    each: Chosen,
    places: Mapping[tuple[str, ...], str],
    collection: Collection,
) -> ProfiledExperiment:
    experiment = each.experiment
    record = experiment.records[0]
    assert isinstance(record, Profile), "the records of profile mode are profiles"
    path = record_path(results, experiment.mode, experiment.experiment, record.launch)
    events = read_traces(traces_path(path), record.traces, record.linears)
    events = categorise(of_their_windows(events, record), record.spec.platform)
    return ProfiledExperiment(
        platform=experiment.platform,
        model=experiment.model,
        quant=each.label,
        workload=experiment.workload,
        place=each.place,
        record=record,
        events=events,
        times=step_times(events),
        baseline=_baseline(experiment, places, collection),
        traces=str(traces_path(path).relative_to(results)),
    )


def of_their_windows(events: pd.DataFrame, record: Profile) -> pd.DataFrame:
    """Return `events` without the steps whose phase differs from the phase of their trace.

    The engine goes on for a step or two before a window closes, and it waits between the passes of a window. So a
    decode step in a prefill trace is not a wanted step, and its duration is too long.
    """
    decodes = {trace.name for trace in record.traces if trace.phase == "decode"}
    others = {trace.name for trace in record.traces if trace.phase == "prefill"}
    if not decodes or not others:
        return events
    strays = (events["trace"].isin(others) & (events["phase"] == "decode")) | (
        events["trace"].isin(decodes) & events["phase"].isin(["prefill", "mixed"])
    )
    return events[~strays]
