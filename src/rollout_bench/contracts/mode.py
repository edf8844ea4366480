"""A mode: its properties for plan, launch, analysis, report and rules, and its parts in the files of its folder.

Without pydantic: `rollout-bench --help` asks each mode for its sub-commands.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment
    from rollout_bench.contracts.fields import Strict
    from rollout_bench.contracts.mode_parts import ModePart, ModeSpec
    from rollout_bench.contracts.problems import FailureKind, FlagKind
    from rollout_bench.contracts.record import Iteration, Launched, Record
    from rollout_bench.contracts.spec import Spec
    from rollout_bench.measure.engine.context import EngineContext
    from rollout_bench.measure.launch.hooks import Hooks
    from rollout_bench.measure.launch.protocol import Job
    from rollout_bench.measure.launch.recorder import CollectorContext, RecordBuilder
    from rollout_bench.numbers.number import Number
    from rollout_bench.plan.planning import Planning
    from rollout_bench.report.figures.charts import Chart
    from rollout_bench.report.parts import Findings, SummaryPart

T = TypeVar("T", covariant=True)

SEQUENCES, STEPS, TRACES = ".sequences.jsonl.gz", ".steps.jsonl.gz", ".traces"
"""Endings of names beside a record: side files with a row per sequence, or per step, and a folder of traces."""


@dataclass(frozen=True)
class Lazy(Generic[T]):
    """An object of a module that is imported when it is first asked for: "package.module:name"."""

    place: str

    def get(self) -> T:
        """Return the object; raise `ImportError` or `AttributeError` if it is not there."""
        value: T = pkgutil.resolve_name(self.place)
        return value


@dataclass(frozen=True)
class Mode:
    """The work and the output of launches of one mode.

    What it adds stands in files of its folder. Only the process that needs a file imports it: the engine's process the
    worker, the report's process the tables. Each has a default, except the worker.

    Attributes:
        name: its name in configs and specs, and of its folder below results/.
        title: its measurement, in a few words.
        page: its how-to page in docs/.
        example: an example config.
        side_files: endings of the files that a launch writes beside its record.
        generates: whether its records have tokens per second, so that experiments are compared by them.
        has_loads: whether requests arrive at a server as the workload sets, and are timed individually.
        passes: whether the workload is `repeated` as configured, runs `once` after its warm-up, or does not run (none).
        launches: number of launches of an experiment: as the config sets it, the `least` number for its auto, or one.
        data_parallel: a launch with several replicas measures all, measures one of them, or is refused.
        interleaves: whether compared engines may be alive simultaneously and alternate their iterations. Online is not
            interleaved, because a server that waits between two loads still has clients, timers and metrics of its own
            time window. A launch that traces a step once has no iterations to alternate.
        loras: whether its requests can name an adapter.
        without_loras: why its requests cannot, if users may expect it.
        merges: whether it also measures an adapter that is merged into the weights.
        is_predicted: whether steps of a calibration predict its iterations.
        shares: whether launches leave the engine as it was, so that it can measure another workload afterwards.
        metrics: default metrics of comparisons; none for modes that compare otherwise.
        by_device: metric that comes first if compared experiments have unequal numbers of devices; empty for none.
        settings: key of the config that only this mode has; empty if there is none.
        figures: names of its figures.
        worker: the job in the engine's process.
        section: model of its section of the config.
        spec: model of the part of the spec that only it has.
        record: model of its records.
        rows: model of a row of its side file.
        iteration_fields: fields that only its iterations have: name -> model and description.
        replica_fields: fields that only a replica's part of its iterations has, likewise.
        start_fields: fields that only the start of its engine has, likewise.
        planning: what is planned, and refusals.
        collector: makes the record from the events of the engine's process.
        hooks: what it adds to the processes of its launches.
        numbers: its numbers.
        columns: returns the amounts of an iteration that its numbers are ratios of.
        tables: returns its tables and notes.
        analyse: returns what is found in its records; None for modes with throughput.
        drawings: its figures by name.
        report_fields: returns what a benchmark report says of its records.
        commands: its sub-commands, which read results: name, place, purpose and example of each.
        transition_s: returns the seconds between an iteration and the next: sleep and weight sync.
        drifts_nats: returns the largest mean |d| of each experiment that its records allow, in nats per token.
        flags: kinds of flags that only its launches have.
        failures: kinds of failures that only its launches have.
    """

    name: str
    title: str
    page: str
    example: str
    worker: "Lazy[Callable[[Job, EngineContext], None]]"
    side_files: tuple[str, ...] = (SEQUENCES,)
    generates: bool = True
    has_loads: bool = False
    passes: Literal["repeated", "once", "none"] = "repeated"
    launches: Literal["config", "least", "one"] = "config"
    data_parallel: Literal["all", "one", "refused"] = "refused"
    interleaves: bool = False
    loras: bool = False
    without_loras: str = ""
    merges: bool = False
    is_predicted: bool = False
    shares: bool = False
    metrics: tuple[str, ...] = ()
    by_device: str = ""
    settings: str = ""
    figures: tuple[str, ...] = ("throughput", "speedup", "settings", "drafts", "iterations")
    section: "Lazy[type[Strict]] | None" = None
    spec: "Lazy[type[ModeSpec]] | None" = None
    record: "Lazy[type[Launched]]" = Lazy("rollout_bench.contracts.record:Record")
    rows: "Lazy[type[Strict]] | None" = None
    iteration_fields: "Lazy[Mapping[str, tuple[type[ModePart], str]]] | None" = None
    replica_fields: "Lazy[Mapping[str, tuple[type[ModePart], str]]] | None" = None
    start_fields: "Lazy[Mapping[str, tuple[type[ModePart], str]]] | None" = None
    planning: "Lazy[Planning]" = Lazy("rollout_bench.plan.planning:PLANNING")
    collector: "Lazy[Callable[[CollectorContext], RecordBuilder]]" = Lazy(
        "rollout_bench.measure.launch.recorder:Measurement"
    )
    hooks: "Lazy[Hooks]" = Lazy("rollout_bench.measure.launch.hooks:HOOKS")
    numbers: "Lazy[Sequence[Number]] | None" = None
    columns: "Lazy[Callable[[Iteration, Spec], Mapping[str, float]]] | None" = None
    tables: "Lazy[Callable[[Findings, Mode], SummaryPart]]" = Lazy("rollout_bench.report.timed:timed_part")
    analyse: "Lazy[Callable[[Path, Sequence[ValidExperiment], ResultSet], Any]] | None" = None
    drawings: "Lazy[Mapping[str, Callable[[Findings], Chart]]] | None" = None
    report_fields: "Lazy[Callable[[Sequence[Record]], dict[str, Any]]] | None" = None
    commands: "Lazy[tuple[tuple[str, str, str, str], ...]] | None" = None
    transition_s: "Lazy[Callable[[Iteration], float]] | None" = None
    drifts_nats: "Lazy[Callable[[Path, ResultSet], Sequence[tuple[Spec, float]]]] | None" = None
    flags: "Lazy[Sequence[FlagKind]] | None" = None
    failures: "Lazy[Sequence[FailureKind]] | None" = None
