"""What a config asks for: its launches in their order, as blocks and jobs. Nothing here looks at the results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rollout_bench.contracts.axes import names_of
from rollout_bench.contracts.spec import Spec, devices_needed, start_of
from rollout_bench.contracts.store import record_path, reference_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.core.order import block_orders, round_orders
from rollout_bench.plan.config import Config
from rollout_bench.plan.durations import loads_s, usual_s
from rollout_bench.plan.interleaving import Interleaving
from rollout_bench.plan.matrix import Experiment, Matrix
from rollout_bench.plan.planfile import PLAN, InterleavedGroup, PlanFile, PlannedExperiment, PlannedLaunch
from rollout_bench.plan.serving_checks import limit_for

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

TIMEOUT_S = 1800
"""Default time limit of a launch, in seconds."""

Cell = tuple[str, ...]
"""Mode, platform, model, quantization and workload."""


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
    launches: tuple[ScheduledLaunch, ...]
    order_seed: int
    interleaving: Interleaving
    files: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    """Configs that are merged over the default one."""
    fits: tuple[str, ...] = ()
    """Lines about what fits a device; only shown by plan."""
    on_cluster: bool = False
    """Whether jobs are submitted to a cluster."""
    choice: str = ""
    """Why `models: auto` chose a smaller model; empty if it did not."""

    @cached_property
    def by_record(self) -> Mapping[str, tuple[int, ScheduledLaunch]]:
        """Record path -> (position in the order, launch)."""
        return {launch.record: (position, launch) for position, launch in enumerate(self.launches)}

    @cached_property
    def blocks(self) -> tuple[ScheduledBlock, ...]:
        """The blocks, in order of execution."""
        together = {e.name: group.members for group in self.interleaving.groups for e in group.members}
        blocks: dict[str, ScheduledBlock] = {}
        for launch in self.launches:
            members = together.get(launch.experiment.name, (launch.experiment,))
            records = [str(record_path(RESULTS, e.spec.mode, e.name, launch.index)) for e in members]
            blocks.setdefault(records[0], ScheduledBlock(tuple(self.by_record[record][1] for record in records)))
        return tuple(blocks.values())

    @property
    def _shares(self) -> bool:
        return self.config.share_starts and self.config.launches != "auto"

    @cached_property
    def jobs(self) -> Mapping[str, ScheduledJob]:
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
    def mark_of(self) -> Mapping[str, str]:
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
    def experiments(self) -> tuple[PlannedExperiment, ...]:
        """The experiments in the form of the plan file."""
        return tuple(
            PlannedExperiment(
                mode=e.spec.mode,
                experiment=e.name,
                key=e.spec.key(),
                **e.spec.axes,
                launches=self.config.launches_of(e.spec.mode),
                devices=devices_needed(e.spec),
            )
            for e in self.matrix.experiments
        )

    @cached_property
    def by_cell(self) -> Mapping[Cell, Sequence[PlannedExperiment]]:
        """Cell of the matrix -> its experiments: usually one."""
        return grouped((cell_of(experiment), experiment) for experiment in self.experiments)

    @property
    def could_share(self) -> bool:
        """Whether experiments that need different engines differ only in their workloads."""
        specs = [e.spec for e in self.matrix.experiments if self._shares and start_of(e.spec)]
        return len({(s.mode, s.model.name, s.quant.name, s.setting) for s in specs}) < len(specs)

    @cached_property
    def starting(self) -> frozenset[str]:
        """Records of the launches that start an engine."""
        return frozenset(launch.record for job in self.jobs.values() for launch in job.blocks[0].launches)

    def plan_file(self) -> PlanFile:
        """Return the plan in the form of its file, without expected durations, which `ResultsState.plan_file` adds."""
        precision = self.config.precision if self.config.launches == "auto" else None
        return PlanFile(
            schema_version=1,
            results=str(RESULTS),
            baseline=self.config.baseline.axes,
            comparison=self.config.comparison,
            precision=precision,
            order_seed=self.order_seed,
            slo=self.config.slo,
            experiments=list(self.experiments),
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
            launches=[PlannedLaunch(record=launch.record) for launch in self.launches],
            files=list(self.files),
            overrides=list(self.overrides),
        )

    @cached_property
    def timeout_s(self) -> float:
        """Time limit of a launch, in seconds: the config's, else `TIMEOUT_S` or more for long loads."""
        if self.config.timeout_s is not None:
            return self.config.timeout_s
        needed_s = limit_for(max((loads_s(e.spec) for e in self.matrix.experiments), default=0.0))
        return max(TIMEOUT_S, needed_s, self._usual_s)

    @cached_property
    def _usual_s(self) -> float:
        """The longest that a launch usually takes, in seconds, as far as it is known before one is measured."""
        known = (usual_s(each.spec) for each in self.matrix.experiments)
        return max((longest_s or 0.0 for _, longest_s in filter(None, known)), default=0.0)

    def limit_lines(self) -> list[str]:
        """Return a line if the config's limit may end a launch that is as slow as usual ones are."""
        if self._usual_s <= self.timeout_s:
            return []
        limit, longest = (f"{seconds / 60:.0f} min" for seconds in (self.timeout_s, self._usual_s))
        problem = f"timeout_s: ends a launch after {limit}, and one may take up to {longest} here"
        return [f"{problem} -> timeout_s: {math.ceil(self._usual_s)}, or fewer iterations"]


_Value = TypeVar("_Value")


def selected(known: Mapping[str, _Value], path: str, kind: str) -> _Value:
    """Return what is known at `path`; raise `UserError` if the config selects no such `kind`."""
    if path not in known:
        raise UserError(f"{path}: the config selects no such {kind}", "`rollout-bench plan` lists what it selects")
    return known[path]


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
    launches = tuple(
        ScheduledLaunch(experiment, index, str(record_path(RESULTS, experiment.spec.mode, experiment.name, index)))
        for index, places in enumerate(round_orders(by_place, max(map(config.launches_of, config.modes)), order_seed))
        for experiment in map(by_place.__getitem__, places)
        if index < config.launches_of(experiment.spec.mode)
    )
    return Schedule(config, matrix, launches, order_seed, interleaving or Interleaving())
