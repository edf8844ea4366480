"""Read profiled experiments: their records and traces."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment
from rollout_bench.contracts.axes import Table, names_of, table_of
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.store import record_path, traces_path
from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.breakdown import Breakdown, breakdowns
from rollout_bench.modes.profile.record import Profile
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.trace import read_traces
from rollout_bench.modes.profile.traces.trace_steps import step_times


@dataclass(frozen=True)
class ProfiledExperiment:
    """One profiled experiment.

    `place` is unique, and `quant` is the label in tables. `baseline` is the place of the baseline; None if the
    experiment is a baseline itself or has none. `reason` explains why no launch is valid, else it is empty. `phases`
    are the traced phases of a valid launch. `traces` is the folder of its traces relative to the summary.
    """

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    baseline: str | None = None
    reason: str = ""
    phases: Mapping[Phase, Breakdown] = field(default_factory=dict)
    traces: str = ""

    @property
    def table(self) -> Table:
        """Platform, model and workload: the key of a table."""
        return table_of(self)


def read_profiled(
    results: Path, inside: Sequence[ValidExperiment], collection: ResultSet
) -> tuple[list[ProfiledExperiment], list[str]]:
    """Return the profiles `inside`, which belong to `collection`, read from `results`; and messages.

    An unreadable profile does not hide timed results: it is left out, and a message names it.
    """
    named = Counter(names_of(each.experiment) for each in inside)
    places = {names: each.place for each in inside if named[names := names_of(each.experiment)] == 1}
    experiments, problems = [], []
    for each in inside:
        experiment = each.experiment
        baseline = names_of(experiment, collection.baseline)
        profiled = ProfiledExperiment(
            platform=experiment.platform,
            model=experiment.model,
            quant=each.label,
            workload=experiment.workload,
            place=each.place,
            baseline=places.get(baseline) if baseline != names_of(experiment) else None,
            reason=each.reason,
        )
        try:
            experiments.append(profiled if each.reason else _with_phases(profiled, results, experiment.records[0]))
        except UserError as error:
            problems.append(f"{error.problem}; {error.remedy}")
    return experiments, problems


def _with_phases(profiled: ProfiledExperiment, results: Path, record: Launched) -> ProfiledExperiment:
    assert isinstance(record, Profile), "the records of profile mode are profiles"
    folder = traces_path(record_path(results, record.spec.mode, record.experiment, record.launch))
    events = read_traces(folder, record)
    events = categorise(without_other_phases(events, record), record.spec.platform)
    phases = breakdowns(events, step_times(events), record.steps, profiled.platform != "cpu")
    return replace(profiled, phases=phases, traces=str(folder.relative_to(results)))


def without_other_phases(events: pd.DataFrame, record: Profile) -> pd.DataFrame:
    """Return `events` without the steps whose phase differs from the phase of their trace.

    The engine goes on for a step or two before a window closes, and it waits between the passes of a window. So a
    decode step in a prefill trace is not a wanted step, and its duration is too long.
    """
    wanted = {trace.name: trace.phase for trace in record.traces}
    if not {"prefill", "decode"} <= set(wanted.values()):
        return events
    of_trace, decodes = events["trace"].map(wanted), events["phase"] == "decode"
    strays = (of_trace == "prefill") & decodes | (of_trace == "decode") & events["phase"].isin(["prefill", "mixed"])
    return events[~strays]
