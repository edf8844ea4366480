"""What a results folder has of a schedule: what is missing, what is measured again and why, what the rest takes."""

import functools
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

from rollout_bench.contracts.spec import devices_needed
from rollout_bench.core.files import write_json, write_whole
from rollout_bench.llmd.profiled import rendered
from rollout_bench.llmd.template import MAX_MODEL_LEN, MODEL, TOKENIZER, URL
from rollout_bench.plan.durations import Cost, cost_at_another_load, first_record, usable_record, usual_s
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.planfile import PLAN, PlanFile, PlannedLaunch, Span, is_plan, read_plan, write_plan
from rollout_bench.plan.schedule import RESULTS, Schedule, ScheduledLaunch


@dataclass(frozen=True)
class ResultsState:
    """What a results folder has of a schedule.

    It looks for each record once, when it is first asked for it, and then answers alike although more is measured.
    Whoever wants to know what is there later makes a new state.

    Attributes:
        schedule: the schedule.
        folder: the results folder; the schedule's records lie in it as in `RESULTS`.
        again: existing records that are measured again.
        changed: lines for people on why they are.
    """

    schedule: Schedule
    folder: Path = RESULTS
    again: frozenset[str] = frozenset()
    changed: tuple[str, ...] = ()
    _found: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def path(self, record: str) -> Path:
        """Return where a record of the schedule lies."""
        return self.folder / Path(record).relative_to(RESULTS)

    def exists(self, record: str) -> bool:
        """Return whether a record existed when this state was first asked for it."""
        if record not in self._found:
            self._found[record] = self.path(record).exists()
        return self._found[record]

    def is_missing(self, record: str) -> bool:
        """Return whether a record does not exist or is measured again."""
        return record in self.again or not self.exists(record)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Records that do not exist or are measured again, in order of execution.

        With launches: auto, the maximum number is included.
        """
        return tuple(launch.record for launch in self.schedule.launches if self.is_missing(launch.record))

    @cached_property
    def costs(self) -> dict[str, Cost | None]:
        """Experiment -> cost of a launch: of its own earlier one, else of one of this engine at another load.

        Without both it is the mean of the known, None without any.
        """
        known: dict[str, Cost] = {}
        for launch in self.schedule.launches:
            if launch.experiment.name not in known and self.exists(launch.record):
                record = usable_record(self.path(launch.record), launch.experiment.spec.mode)
                if record is not None:
                    known[launch.experiment.name] = Cost.of(record)
        first = functools.cache(first_record)  # experiments of one engine look into the same folders
        experiments = self.schedule.matrix.experiments
        for experiment in experiments:
            if experiment.name not in known:
                found = cost_at_another_load(self.folder, experiment.spec, first)
                if found is not None:
                    known[experiment.name] = found
        usual = Cost(*map(fmean, zip(*map(astuple, known.values()), strict=True))) if known else None
        return {e.name: known.get(e.name, usual) for e in experiments}

    def expected_s(self, launch: ScheduledLaunch) -> float | None:
        """Return the expected seconds for which a launch holds its devices; None if nothing is measured."""
        cost = self.costs[launch.experiment.name]
        if cost is None:
            return None
        return round(cost.rest_s + (cost.start_s if launch.record in self.schedule.starting else 0.0), 1)

    def _planned(self, launch: ScheduledLaunch) -> PlannedLaunch:
        expected_s = self.expected_s(launch)
        usual = usual_s(launch.experiment.spec) if expected_s is None else None
        return PlannedLaunch(record=launch.record, expected_s=expected_s, usual_s=usual)

    def spans(self, records: Iterable[str]) -> Iterator[tuple[Span | None, int]]:
        """Yield the expected seconds of each launch of `records`, None if unknown, and its number of devices."""
        for record in records:
            launch = self.schedule.by_record[record][1]
            yield self._planned(launch).span, devices_needed(launch.experiment.spec)

    def plan_file(self) -> PlanFile:
        """Return the plan in the form of its file, with expected durations."""
        launches = [self._planned(launch) for launch in self.schedule.launches]
        return self.schedule.plan_file().model_copy(update={"launches": launches})


def order_seed(plan: Path) -> int:
    """Return the seed in the plan file at `plan`, or a new one."""
    kept = read_plan(plan).order_seed if is_plan(plan) else None
    return secrets.randbits(32) if kept is None else kept


def write_plan_and_specs(state: ResultsState, outputs: set[str]) -> None:
    """Write the plan file, and a spec.json for every experiment with a launch that is measured for `outputs`.

    Raises:
        UserError: the results folder is not writable.
    """
    plan = state.schedule
    write_plan(state.folder / PLAN, state.plan_file())
    measured = (launch for output in outputs & plan.jobs.keys() for launch in plan.jobs[output].launches)
    wanted = {launch.experiment.name: launch.experiment for launch in measured}
    for experiment in wanted.values():
        folder = state.folder / experiment.spec.mode / experiment.name
        write_json(folder / "spec.json", experiment.spec)
        profile = plan.config.workload_settings[experiment.spec.workload.name].profile
        if profile is not None:
            written = plan.config.model_dump(exclude_unset=True)
            write_whole(folder / "profile.yaml", rendered(profile, written, _known_of(experiment)).encode())


def _known_of(experiment: Experiment) -> dict[str, str]:
    """Return the values of an experiment's launches that a profile of llm-d-benchmark needs."""
    endpoint, length = experiment.spec.endpoint, experiment.spec.engine.args.get("max_model_len")
    model = experiment.model_path if endpoint is None else endpoint.model
    url = "http://127.0.0.1:PORT" if endpoint is None else endpoint.url.removesuffix("/v1")
    return {MODEL: model, TOKENIZER: model, URL: url, MAX_MODEL_LEN: "" if length is None else str(length)}
