"""The order of launches, the missing and repeated ones, and their expected duration."""

import contextlib
import functools
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from rollout_bench.contracts.axes import AXES, names_of, with_setting
from rollout_bench.contracts.failures import RecordScan, has_failed, scan_record
from rollout_bench.contracts.load import PAUSE_S, LoadPoint
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec, devices_needed, replicas, start_of
from rollout_bench.contracts.store import existing, read_launched, record_path, reference_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_json, write_whole
from rollout_bench.core.mappings import grouped
from rollout_bench.core.model_files import NAMING, differing_files, model_files
from rollout_bench.core.numbers import first_few, several
from rollout_bench.core.order import block_orders, round_orders
from rollout_bench.llmd.profiled import profile_lines, rendered
from rollout_bench.llmd.template import MAX_MODEL_LEN, MODEL, TOKENIZER, URL
from rollout_bench.plan.config import Config
from rollout_bench.plan.interleaving import Interleaving
from rollout_bench.plan.matrix import Experiment, Matrix, caveat_lines, differing_lines
from rollout_bench.plan.planfile import (
    PLAN,
    InterleavedGroup,
    PlanFile,
    PlannedExperiment,
    PlannedLaunch,
    Span,
    cost_in_words,
    is_plan,
    read_plan,
    write_plan,
)
from rollout_bench.plan.serving_checks import limit_for
from rollout_bench.plan.settings import idle_lines

RESULTS = Path("results")

PLAN_FILE = RESULTS / PLAN

MARKS = RESULTS / "blocks"
"""Empty files, one for each block that a job has measured; removed at the end of the run.

They are Snakemake's outputs of a job. The records cannot be these outputs: when a job fails, Snakemake deletes all of
its outputs, including the records of successful engines. With update() it rewrites records that existed before (both
were tried with 9.27).
"""

MARK = str(MARKS / "{mode}" / "{experiment}" / "launch-{launch}")
"""Mark of a block, with Snakemake's wildcards for its first launch."""

ASIDE = RESULTS / "aside"
"""Records that were measured again since, by the time of the move; no command reads them."""

USUAL_S = 20.0, 240.0
"""Usual shortest and longest duration of a launch without its passes on an accelerator, in seconds.

On an H200, warm starts of Qwen3-1.7B and 8B took 15 to 50 s (h200-first-hour, h200-aa-5), the first 180 s.
"""

USUAL_TOKENS_PER_S = 15_000.0, 3_000.0
"""Output tokens per second of an engine on an accelerator, with which passes take their usual shortest and longest
time: the first is that of Qwen3-8B in bf16 on one H100 with 256 sequences; larger models and longer ones are slower."""

TIMEOUT_S = 1800
"""Default time limit of a launch, in seconds."""

NONE_SHARED = "no shared starts: workloads need different engines; give them the same max_model_len"

Cell = tuple[str, ...]
"""Mode, platform, model, quantization and workload."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a launch: the start of its engine, everything else, and of the latter the passes that count."""

    start_s: float
    rest_s: float
    counted_s: float

    @classmethod
    def of(cls, record: Launched) -> "Cost":
        """Return the cost of a launch like the one of `record`."""
        started_s = 0.0 if record.after else record.start_s
        return cls(record.start_s, max(0.0, record.held_s - started_s), record.counted_s)


@dataclass(frozen=True)
class ScheduledLaunch:
    """One selected launch: launch `index` of `experiment`, whose record has the path `record`."""

    experiment: Experiment
    index: int
    record: str

    @property
    def needed(self) -> list[str]:
        """Records that must exist first: the record of the launch that samples the tokens to score."""
        reference = reference_path(Path(self.record), self.experiment.spec)
        return [] if reference is None else [str(reference)]


@dataclass(frozen=True)
class ScheduledBlock:
    """Launches of one index that are interleaved, the baseline's first; or a single launch."""

    launches: tuple[ScheduledLaunch, ...]

    @property
    def starts(self) -> tuple[str, ...] | None:
        """What its engines are started as: a block with equal starts can use them afterwards; None if no block can."""
        starts = [start_of(launch.experiment.spec) for launch in self.launches]
        return tuple(map(str, starts)) if all(starts) else None


@dataclass(frozen=True)
class ScheduledJob:
    """What one job measures: a block, or several that use the same engines one after the other."""

    blocks: tuple[ScheduledBlock, ...]

    @property
    def launches(self) -> list[ScheduledLaunch]:
        """The launches of all its blocks."""
        return [launch for block in self.blocks for launch in block.launches]

    @property
    def first_spec(self) -> Spec:
        """The spec of its first launch."""
        return self.blocks[0].launches[0].experiment.spec

    @property
    def mark(self) -> str:
        """The file that it writes after measuring all of it, named as one of its records, whatever their order."""
        return str(MARKS / Path(min(launch.record for launch in self.launches)).relative_to(RESULTS).with_suffix(""))


@dataclass(frozen=True)
class Schedule:
    """All launches of a matrix that may be wanted, in order of execution.

    Launch 0 of every experiment precedes launch 1 of any, so that drift of the machine affects all alike. Within such
    a round the order is balanced and differs between rounds (`core.order`). `order_seed` draws it, and the plan file
    keeps it, so that later runs with the same results continue the same orders. A job measures a block: the launches
    of one index of interleaved experiments, or the launch of one that is not interleaved.
    """

    config: Config
    matrix: Matrix
    launches: list[ScheduledLaunch]
    order_seed: int
    interleaving: Interleaving = field(default_factory=Interleaving)
    again: set[str] = field(default_factory=set)
    """Existing records that are measured again; empty once the run has moved them away."""
    changed: list[str] = field(default_factory=list)
    """A line for each model whose files have changed since some of these records were measured."""
    files: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    """Configs that are merged over the default one."""
    fits: tuple[str, ...] = ()
    """Lines about what fits a device; only shown by plan."""
    choice: str = ""
    """Why `models: auto` chose a smaller model; empty if it did not."""

    @cached_property
    def missing(self) -> list[str]:
        """Paths of the records that were missing at the first access, in the order of their launches."""
        return self.missing_now()

    def missing_now(self) -> list[str]:
        """Return paths of the records that do not exist or are measured again, in order of execution.

        With launches: auto, the maximum number is included.
        """
        return [launch.record for launch in self.launches if self.is_missing(launch.record)]

    def is_missing(self, record: str) -> bool:
        """Return whether a record does not exist or is measured again."""
        return record in self.again or not Path(record).exists()

    @cached_property
    def by_record(self) -> dict[str, tuple[int, ScheduledLaunch]]:
        """Record path -> (position in the order, launch)."""
        return {launch.record: (position, launch) for position, launch in enumerate(self.launches)}

    @cached_property
    def blocks(self) -> list[ScheduledBlock]:
        """The blocks, in order of execution."""
        together = {e.name: group.members for group in self.interleaving.groups for e in group.members}
        blocks: dict[str, ScheduledBlock] = {}
        for launch in self.launches:
            members = together.get(launch.experiment.name, (launch.experiment,))
            records = [str(record_path(RESULTS, e.spec.mode, e.name, launch.index)) for e in members]
            blocks.setdefault(records[0], ScheduledBlock(tuple(self.by_record[record][1] for record in records)))
        return list(blocks.values())

    @property
    def _shares(self) -> bool:
        return self.config.share_starts and self.config.launches != "auto"

    @cached_property
    def jobs(self) -> dict[str, ScheduledJob]:
        """Mark -> job, in order of execution."""
        found = grouped(
            ((block.launches[0].index, (self._shares and block.starts) or block.launches[0].record), block)
            for block in self.blocks
        )
        jobs = [ScheduledJob(self._in_turn(index, blocks)) for (index, _), blocks in found.items()]
        return {job.mark: job for job in jobs}

    def _in_turn(self, index: int, blocks: Sequence[ScheduledBlock]) -> tuple[ScheduledBlock, ...]:
        """Return the blocks of a job in the order of its launch index, which is balanced over launches."""
        if len(blocks) == 1:  # of most jobs; an order is drawn anew from its first round on
            return tuple(blocks)
        named = {block.launches[0].experiment.name: block for block in blocks}
        return tuple(map(named.__getitem__, next(block_orders(self.order_seed, index, sorted(named), 1))))

    @cached_property
    def mark_of(self) -> dict[str, str]:
        """Record -> mark of its job."""
        return {launch.record: job.mark for job in self.jobs.values() for launch in job.launches}

    def outputs_for(self, records: Iterable[str]) -> list[str]:
        """Return the distinct marks of the jobs that `records` belong to, in order; other paths stay as they are."""
        return list(dict.fromkeys(self.mark_of.get(record, record) for record in records))

    def job_at(self, wildcards: Any) -> ScheduledJob:
        """Return the job whose wildcards name its first launch.

        Raises:
            UserError: the config does not select it.
        """
        return selected(self.jobs, MARK.format_map(vars(wildcards)), "launch")

    @cached_property
    def experiments(self) -> list[PlannedExperiment]:
        """The experiments in the form of the plan file."""
        return [
            PlannedExperiment(
                mode=e.spec.mode,
                experiment=e.name,
                key=e.spec.key(),
                **e.spec.axes,
                launches=self.config.launches_of(e.spec.mode),
                devices=devices_needed(e.spec),
            )
            for e in self.matrix.experiments
        ]

    @cached_property
    def by_cell(self) -> dict[Cell, list[PlannedExperiment]]:
        """Cell of the matrix -> its experiments: usually one."""
        return grouped((cell_of(experiment), experiment) for experiment in self.experiments)

    def start_lines(self) -> list[str]:
        """Return a line on the starts that serve several launches; empty without any."""
        starts = several(len(self._starting), "start")
        shared = f"shared starts: {several(len(self.launches), 'launch')} in {starts} of an engine"
        if len(self._starting) == len(self.launches):
            shared = NONE_SHARED if self._could_share else ""
        costs = [cost for launch in self.launches if (cost := self._costs[launch.experiment.name])]
        if not costs:
            return [shared] if shared else []
        own_s = sum(cost.start_s + cost.rest_s for cost in costs)
        with_s = sum(filter(None, map(self.expected_s, self.launches)))
        saves = f", about {with_s / 60:.0f} min instead of {own_s / 60:.0f}" if with_s < own_s - 1 else ""
        return [shared + saves] if shared else []

    @property
    def _could_share(self) -> bool:
        """Whether experiments that need different engines differ only in their workloads."""
        specs = [e.spec for e in self.matrix.experiments if self._shares and start_of(e.spec)]
        return len({(s.mode, s.model.name, s.quant.name, s.setting) for s in specs}) < len(specs)

    @cached_property
    def _starting(self) -> frozenset[str]:
        """Records of the launches that start an engine."""
        return frozenset(launch.record for job in self.jobs.values() for launch in job.blocks[0].launches)

    def shown_file(self, again: list[str]) -> PlanFile:
        """Return the plan to print, with records to measure `again` and the interpretation of profiles."""
        profiles = profile_lines(self.config.model_dump(exclude_unset=True))
        differing = [
            *caveat_lines(self.matrix),
            *differing_lines(self.matrix, self.config.baseline.axes),
            *idle_lines(self.config),
        ]
        shown = {
            "again": again,
            "changed": self.changed,
            "profiles": profiles,
            "differing": [*filter(None, [self.choice]), *differing, *self.fits, *self.start_lines()],
        }
        return self.plan_file().model_copy(update=shown)

    def plan_file(self, *, estimate: bool = True) -> PlanFile:
        """Return the plan in the form of its file; `estimate` reads earlier records for the expected durations."""
        precision = self.config.precision if self.config.launches == "auto" else None
        return PlanFile(
            schema_version=1,
            results=str(RESULTS),
            baseline=self.config.baseline.axes,
            comparison=self.config.comparison,
            precision=precision,
            order_seed=self.order_seed,
            slo=self.config.slo,
            experiments=self.experiments,
            skipped=self.matrix.skipped,
            interleaved=[
                InterleavedGroup(
                    mode=group.members[0].spec.mode,
                    experiments=[e.name for e in group.members],
                    name=group.name,
                )
                for group in self.interleaving.groups
            ],
            not_interleaved=list(self.interleaving.reasons),
            launches=[self._planned(launch, estimate=estimate) for launch in self.launches],
            files=list(self.files),
            overrides=list(self.overrides),
        )

    @cached_property
    def timeout_s(self) -> float:
        """Time limit of a launch, in seconds: the config's, else `TIMEOUT_S` or more for long loads."""
        needed_s = limit_for(max((_held_s(e.spec) for e in self.matrix.experiments), default=0.0))
        return self.config.timeout_s or max(TIMEOUT_S, needed_s)

    def expected_s(self, launch: ScheduledLaunch) -> float | None:
        """Return the expected seconds for which a launch holds its devices; None if nothing is measured."""
        cost = self._costs[launch.experiment.name]
        if cost is None:
            return None
        return round(cost.rest_s + (cost.start_s if launch.record in self._starting else 0.0), 1)

    def _planned(self, launch: ScheduledLaunch, *, estimate: bool = True) -> PlannedLaunch:
        expected_s = self.expected_s(launch) if estimate else None
        usual_s = _usual_s(launch.experiment.spec) if estimate and expected_s is None else None
        return PlannedLaunch(record=launch.record, expected_s=expected_s, usual_s=usual_s)

    @cached_property
    def _costs(self) -> dict[str, Cost | None]:
        """Experiment -> cost of a launch: of its own earlier one, else of one of this engine at another load.

        Without both it is the mean of the known, None without any.
        """
        known: dict[str, Cost] = {}
        absent = set(self.missing) - self.again
        for launch in self.launches:
            if launch.record not in absent and launch.experiment.name not in known:
                with contextlib.suppress(UserError):  # the summary reports it; here only an estimate is missing
                    record = read_launched(Path(launch.record), launch.experiment.spec.mode)
                    known[launch.experiment.name] = Cost.of(record)
        first = functools.cache(_first_record)  # experiments of one engine look into the same folders
        for experiment in self.matrix.experiments:
            if experiment.name not in known and (found := _at_another_load(experiment.spec, first)) is not None:
                known[experiment.name] = found
        usual = Cost(*map(fmean, zip(*map(astuple, known.values()), strict=True))) if known else None
        return {e.name: known.get(e.name, usual) for e in self.matrix.experiments}

    def cost_of(self, records: Iterable[str]) -> str:
        """Return in words the cost of measuring `records`."""
        launches = [self.by_record[record][1] for record in records]
        return cost_in_words(
            ((self._planned(launch).span, devices_needed(launch.experiment.spec)) for launch in launches),
            least=self.config.launches == "auto",
        )


_Value = TypeVar("_Value")


def selected(known: Mapping[str, _Value], path: str, kind: str) -> _Value:
    """Return what is known at `path`; raise `UserError` if the config selects no such `kind`."""
    if path not in known:
        raise UserError(f"{path}: the config selects no such {kind}", "`rollout-bench plan` lists what it selects")
    return known[path]


def _first_record(folder: Path, mode: str) -> Launched | None:
    """Return the record of the first launch in an experiment's folder; None without a usable one."""
    path = min(folder.glob("launch-*.json"), default=None)
    with contextlib.suppress(UserError):
        return read_launched(path, mode) if path else None
    return None


def _at_another_load(spec: Spec, first: Callable[[Path, str], Launched | None]) -> Cost | None:
    """Return the cost of a launch of the engine of `spec` from a record of another load; None without one.

    The time of its passes is scaled by the number of output tokens. `first` returns the first record of a folder.
    """
    start = start_of(spec)
    for folder in sorted((RESULTS / spec.mode).glob(f"{spec.model.name}_{spec.quant.name}_*")) if start else ():
        record = first(folder, spec.mode)
        if record is not None and record.valid and start_of(record.spec) == start:
            cost = Cost.of(record)
            tokens, measured = (_tokens_of_pass(each) * each.measuring.iterations for each in (spec, record.spec))
            counted_s = cost.counted_s * tokens / measured
            return Cost(cost.start_s, cost.rest_s - cost.counted_s + counted_s, counted_s)
    return None


def _tokens_of_pass(spec: Spec) -> int:
    """Return the maximum number of output tokens of a pass of a launch, on all of its engines."""
    load = spec.workload
    return load.prompts * load.samples_per_prompt * load.longest_pair[1]


def _held_s(spec: Spec) -> float:
    """Return the seconds of a launch's loads and the pauses between them; 0 if the loads have no duration."""
    measuring = spec.measuring
    if spec.load is None:
        return 0.0
    held_s = sum(_least_s(spec, point) for point in spec.load.points)
    held_s *= measuring.warmup_iterations + measuring.iterations
    return held_s and held_s + (len(spec.load.points) - 1) * PAUSE_S


def _usual_s(spec: Spec) -> Span | None:
    """Return the usual shortest and longest seconds of a launch before anything is measured; None if unknown."""
    held_s = round(_held_s(spec), 1)
    if spec.endpoint is not None:
        return (held_s, None) if held_s else None
    if spec.platform == "cpu":
        return None
    passes = spec.measuring.warmup_iterations + spec.measuring.iterations
    repeated = mode_of(spec.mode).passes == "repeated" and not held_s
    tokens = _tokens_of_pass(spec) * passes / replicas(spec) if repeated else 0.0
    least_s, most_s = (
        start_s + held_s + tokens / rate for start_s, rate in zip(USUAL_S, USUAL_TOKENS_PER_S, strict=True)
    )
    return round(least_s, 1), None if held_s else round(most_s, 1)


def _least_s(spec: Spec, point: LoadPoint) -> float:
    """Return the least seconds of a pass under `point`; 0 if it depends on the speed of the answers."""
    if point.least_s or not isinstance(point.request_rate, float):
        return point.least_s
    return (spec.workload.prompts * spec.workload.samples_per_prompt - 1) / point.request_rate


def cell_of(experiment: PlannedExperiment, changes: Mapping[str, str] | None = None) -> Cell:
    """Return the cell of an experiment, with `changes` (axis -> value) applied."""
    return experiment.mode, *names_of(experiment, changes)


def schedule(config: Config, matrix: Matrix, order_seed: int = 0, interleaving: Interleaving | None = None) -> Schedule:
    """Return the launches of a matrix in the order that `order_seed` draws.

    Args:
        config: the config with the numbers of launches.
        matrix: the experiments.
        order_seed: seed of the orders.
        interleaving: the experiments that are measured in blocks; None: none.
    """
    by_place = {f"{experiment.spec.mode}/{experiment.name}": experiment for experiment in matrix.experiments}
    launches = [
        ScheduledLaunch(experiment, index, str(record_path(RESULTS, experiment.spec.mode, experiment.name, index)))
        for index, places in enumerate(round_orders(by_place, max(map(config.launches_of, config.modes)), order_seed))
        for experiment in map(by_place.__getitem__, places)
        if index < config.launches_of(experiment.spec.mode)
    ]
    return Schedule(config, matrix, launches, order_seed, interleaving or Interleaving())


def order_seed(plan: Path) -> int:
    """Return the seed in the plan file at `plan`, or a new one."""
    kept = read_plan(plan).order_seed if is_plan(plan) else None
    return secrets.randbits(32) if kept is None else kept


def write_plan_and_specs(plan: Schedule, path: Path, outputs: set[str]) -> None:
    """Write the plan file, and a spec.json for every experiment with a launch that is measured for `outputs`.

    Raises:
        UserError: results/ is not writable.
    """
    write_plan(path, plan.plan_file())
    measured = (launch for output in outputs & plan.jobs.keys() for launch in plan.jobs[output].launches)
    wanted = {launch.experiment.name: launch.experiment for launch in measured}
    for experiment in wanted.values():
        folder = RESULTS / experiment.spec.mode / experiment.name
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


def with_partners(
    doubtful: Container[str],
    experiments: Iterable[PlannedExperiment],
    baseline: Container[str],
) -> set[str]:
    """Return the existing records that are measured again with those in `doubtful`.

    These are the launches of the same index that are compared with them: launches that are measured far apart form no
    pair.
    """
    groups = grouped(
        (
            (index, e.mode, *(name for axis, name in zip(AXES, names_of(e), strict=True) if axis not in baseline)),
            str(record_path(RESULTS, e.mode, e.experiment, index)),
        )
        for e in experiments
        for index in range(e.launches)
    )
    in_doubt = (records for records in groups.values() if any(record in doubtful for record in records))
    return existing(record for records in in_doubt for record in records)


def scanned_records(plan: Schedule) -> dict[str, RecordScan]:
    """Return the facts in each existing record of `plan`."""
    found = {launch.record: scan_record(Path(launch.record)) for launch in plan.launches}
    return {record: scan for record, scan in found.items() if scan is not None}


def of_unsound_blocks(plan: Schedule, scans: Mapping[str, RecordScan]) -> set[str]:
    """Return the existing records of blocks that are measured again whole; `scans` are from `scanned_records`.

    These are blocks with an invalid or a damaged record, with a missing one, and with records of several blocks. A
    launch that is measured alone is not interleaved with the others, so it forms no pair with them. A failed launch,
    and the later launches of its experiment, are not missing: they would fail again. Once they are measured, the next
    call measures their blocks whole.
    """
    found: set[str] = set()
    for block in plan.blocks:
        records = {launch.record for launch in block.launches}
        there = {record: scans[record] for record in records & scans.keys()}
        lost = there and any(not has_failed(Path(record)) for record in records - there.keys())
        mixed = len(there) == len(records) and len({scan.block for scan in there.values()}) > 1
        if lost or mixed or any(scan.is_transient for scan in there.values()):
            found |= there.keys()
    return found


def joined_lines(plan: Schedule, scans: Mapping[str, RecordScan]) -> Iterator[str]:
    """Yield a line for each interleaved group whose records are measured again because experiments joined it."""
    records = grouped((launch.experiment.name, launch.record) for launch in plan.launches)
    for group in plan.interleaving.groups:
        new = [e for e in group.members if not any(r in scans or has_failed(Path(r)) for r in records[e.name])]
        found = [record for e in group.members for record in records[e.name] if record in scans]
        there = [record for record in found if not scans[record].is_transient]  # others are measured again anyway
        if new and there:
            names = first_few([with_setting(e.spec.quant.name, e.spec.axes["setting"]) for e in new])
            whole = plan.cost_of(record for e in group.members for record in records[e.name])
            alone = plan.cost_of(record for e in new for record in records[e.name])
            yield (
                f"{names}: to compare it with the others, engines alternate, so theirs too are measured again"
                f" ({several(len(there), 'launch')}; {whole}); --config interleave=false keeps them, and gives"
                f" {names} numbers without a verdict ({alone})"
            )


def measured_with_other_files(plan: Schedule, scans: Mapping[str, RecordScan]) -> set[str]:
    """Return the records of launches whose model files have changed since; `plan` gets a line for each model.

    `scans` are from `scanned_records`. Models that are not on this machine are not checked.
    """
    now: dict[str, dict[str, str]] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for launch in plan.launches:
        if launch.record not in scans or not (then := scans[launch.record].model_files):
            continue
        model, spec = launch.experiment.model_path, launch.experiment.spec
        weights = spec.load_format not in NO_WEIGHTS_NEEDED
        loaded = f"{model} {weights} {[spec.engine.args.get(name) for name in NAMING]}"
        if loaded not in now:
            now[loaded] = model_files(model, spec.engine.args, weights=weights)
        if now[loaded] and (names := differing_files(then, now[loaded])):
            found.setdefault(model, {})[launch.record] = names
    plan.changed.extend(_changed_line(Path(model), records) for model, records in found.items())
    return {record for records in found.values() for record in records}


def _changed_line(model: Path, records: Mapping[str, list[str]]) -> str:
    """Return a line with the files of `model` that changed, and when, after the launches of `records` were measured."""
    names = list(dict.fromkeys(name for names in records.values() for name in names))
    files = [model / name for name in names]
    changed_s = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    launches = f"{several(len(records), 'launch')} {'was' if len(records) == 1 else 'were'} measured"
    if changed_s <= max(Path(record).stat().st_mtime for record in records):
        return f"{first_few(files)}: not as when {launches}: measured again"
    when = datetime.fromtimestamp(changed_s, UTC)
    return f"{first_few(files)} changed {when:%Y-%m-%d %H:%M} UTC, after {launches}: measured again"


def set_aside(records: Iterable[str], results: Path = RESULTS) -> Path | None:
    """Move `records` in `results` and their side files to a separate folder; return it, or None without records.

    Raises:
        OSError: the folder is not writable.
    """
    folder = results / ASIDE.name / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    moved = False
    for record in map(Path, records):
        place = folder / record.parent.relative_to(results)
        place.mkdir(parents=True, exist_ok=True)
        # the record last: after a kill, a record without its side files must not remain
        beside = [path for path in record.parent.glob(f"{record.stem}.*") if path != record]
        for path in (*beside, record):
            path.rename(place / path.name)
        moved = True
    return folder if moved else None


def moved_since(plan: Path) -> set[str]:
    """Return the records that were set aside since the plan file `plan` was written, so by the run that wrote it."""
    try:
        began_ns = plan.stat().st_mtime_ns
        folders = [folder for folder in ASIDE.iterdir() if folder.stat().st_mtime_ns >= began_ns]
    except OSError:  # no records were ever set aside, or no plan exists
        return set()
    return {str(RESULTS / path.relative_to(folder)) for folder in folders for path in folder.glob("*/*/launch-*.json")}
