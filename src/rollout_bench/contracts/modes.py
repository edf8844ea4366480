"""The modes: the measurement of each, and its properties for plan, launch, analysis, report and rules.

A mode consists of an entry here, its worker, its record model if needed, its tables and its page. Functions are given
by name, so that only the process that calls them imports them: the engine's the worker, the report's the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal

from rollout_bench.contracts.inside import Drift, Profile
from rollout_bench.contracts.messages import Messages
from rollout_bench.contracts.record import Launched, Record

SEQUENCES, TRACES = ".sequences.jsonl.gz", ".traces"
"""Endings of names beside a record: a side file with a row per sequence, and a folder of traces."""

SCORE_ROWS = ".scores.jsonl.gz"
"""Ending of a side file with a row per scored sequence."""

_MODES, _TABLES = "rollout_bench.modes", "rollout_bench.report.tables"


@dataclass(frozen=True)
class Mode:
    """The work and the output of launches of one mode.

    Attributes:
        name: its name in configs and specs, and of its folder below results/.
        title: its measurement, in a few words.
        worker: module:function that does the job in the engine's process.
        record: model of the record.
        collector: module:class that makes the record from the events of the engine's process.
        hooks: module:name of the `Hooks` on its processes; empty for none.
        side_files: endings of the files that a launch writes beside its record.
        generates: whether its records have tokens per second, so that experiments are compared by them.
        has_loads: whether requests arrive at a server as the workload sets, and are timed individually.
        passes: whether the workload is `repeated` as configured, runs `once` after its warm-up, or does not run (none).
        launches: number of launches of an experiment: as the config sets it, the `least` number for its auto, or one.
        data_parallel: a launch with several replicas measures all, measures one of them, or is refused.
        interleaves: whether compared engines may be alive simultaneously and alternate their iterations. Online is not
            interleaved, because a server that waits between two loads still has clients, timers and metrics of its own
            time window. A launch that traces a step once has no iterations to alternate.
        metrics: default metrics of comparisons; none for modes that compare otherwise.
        settings: key of the config, and field of the spec, that only this mode has; empty if there is none.
        tables: module:function that makes its part of the summary, tables, notes and further files:
            (report.parts.Findings) -> report.parts.SummaryPart.
        figures: names of its figures in the report's registry.
        page: its how-to page in docs/.
        example: an example config.
    """

    name: str
    title: str
    worker: str
    record: type[Launched]
    side_files: tuple[str, ...]
    generates: bool
    has_loads: bool
    passes: Literal["repeated", "once", "none"]
    launches: Literal["config", "least", "one"]
    data_parallel: Literal["all", "one", "refused"]
    interleaves: bool
    metrics: tuple[str, ...]
    settings: str
    tables: str
    figures: tuple[str, ...]
    page: str
    example: str
    collector: str = "rollout_bench.measure.launch.recorder:Measurement"
    hooks: str = ""


OFFLINE = Mode(
    name="offline",
    title="throughput through LLM.generate()",
    worker=f"{_MODES}.offline.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=False,
    passes="repeated",
    launches="config",
    data_parallel="all",
    interleaves=True,
    metrics=("output_tokens_per_s",),
    settings="",
    tables=f"{_TABLES}.timed_tables:offline_part",
    figures=("throughput", "speedup", "settings", "iterations"),
    page="trust.md",
    example="config.yaml",
)
ONLINE = Mode(
    name="online",
    title="latency through an OpenAI-compatible server",
    worker=f"{_MODES}.online.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=True,
    passes="repeated",
    launches="config",
    data_parallel="refused",
    interleaves=False,
    metrics=("output_tokens_per_s", "ttft_s", "tpot_s"),
    settings="",
    tables=f"{_TABLES}.online_tables:online_part",
    figures=("throughput", "speedup", "settings", "iterations", "sweep"),
    page="serving.md",
    example="configs/online.yaml",
    collector=f"{_MODES}.online.record:OnlineCollecting",
)
ROLLOUT = Mode(
    name="rollout",
    title="rollout steps whose requests a router distributes among engines",
    worker=f"{_MODES}.rollout.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=False,
    passes="repeated",
    launches="config",
    data_parallel="all",
    interleaves=True,
    metrics=("output_tokens_per_s",),
    settings="rollout",
    tables=f"{_TABLES}.timed_tables:rollout_part",
    figures=("throughput", "speedup", "settings", "iterations"),
    page="rollout.md",
    example="configs/rollout.yaml",
    collector=f"{_MODES}.rollout.record:RolloutCollecting",
    hooks=f"{_MODES}.rollout.router:HOOKS",
)
CYCLE = Mode(
    name="cycle",
    title="whole training steps: generation, sleep, wake-up and weight sync",
    worker=f"{_MODES}.cycle.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=False,
    passes="repeated",
    launches="config",
    data_parallel="refused",
    interleaves=False,
    metrics=("whole_step_s", "output_tokens_per_s", "cycle_s"),
    settings="cycle",
    tables=f"{_TABLES}.cycle_tables:cycle_part",
    figures=("cycle", "throughput", "speedup", "settings", "iterations"),
    page="whole-step.md",
    example="configs/cycle.yaml",
    collector=f"{_MODES}.cycle.record:CycleCollecting",
)
PLACEMENT = Mode(
    name="placement",
    title="placements of engine and trainer: on the same devices or on separate devices",
    worker=f"{_MODES}.placement.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=False,
    passes="repeated",
    launches="config",
    data_parallel="refused",
    interleaves=False,
    metrics=("placed_step_s",),
    settings="placement",
    tables=f"{_TABLES}.placement_tables:placement_part",
    figures=("placement", "throughput", "iterations"),
    page="whole-step.md",
    example="configs/placement.yaml",
    collector=f"{_MODES}.placement.record:PlacementCollecting",
    hooks=f"{_MODES}.placement.together:HOOKS",
)
STARTUP = Mode(
    name="startup",
    title="the time of an engine start, from its process to a first token",
    worker=f"{_MODES}.startup.worker:measure",
    record=Record,
    side_files=(SEQUENCES,),
    generates=True,
    has_loads=False,
    passes="none",
    launches="config",
    data_parallel="refused",
    interleaves=False,
    metrics=("startup_s",),
    settings="startup",
    tables=f"{_TABLES}.startup_tables:startup_part",
    figures=("startup",),
    page="vllm-developers.md",
    example="configs/startup.yaml",
    collector=f"{_MODES}.startup.record:StartCollecting",
    hooks=f"{_MODES}.startup.caches:HOOKS",
)
PROFILE = Mode(
    name="profile",
    title="the time of a step by category of operators",
    worker=f"{_MODES}.profile.worker:measure",
    record=Profile,
    side_files=(TRACES,),
    generates=False,
    has_loads=False,
    passes="once",
    launches="one",
    data_parallel="one",
    interleaves=False,
    metrics=(),
    settings="profile",
    tables=f"{_TABLES}.profile_tables:profile_part",
    figures=("steps",),
    page="why-faster.md",
    example="configs/profile.yaml",
    collector=f"{_MODES}.profile.record:ProfileCollecting",
)
MESSAGES = Mode(
    name="messages",
    title="the messages between engine core and workers",
    worker=f"{_MODES}.messages.worker:measure",
    record=Messages,
    side_files=(),
    generates=False,
    has_loads=False,
    passes="once",
    launches="least",
    data_parallel="one",
    interleaves=False,
    metrics=(),
    settings="messages",
    tables=f"{_TABLES}.message_tables:messages_part",
    figures=("messages", "message_shares"),
    page="vllm-developers.md",
    example="configs/messages.yaml",
    collector=f"{_MODES}.messages.record:MessagesCollecting",
    hooks=f"{_MODES}.messages.record:HOOKS",
)
DRIFT = Mode(
    name="drift",
    title="the difference between the probabilities of a quantization and of the reference",
    worker=f"{_MODES}.drift.worker:measure",
    record=Drift,
    side_files=(SCORE_ROWS,),
    generates=False,
    has_loads=False,
    passes="none",
    launches="least",
    data_parallel="one",
    interleaves=False,
    metrics=(),
    settings="drift",
    tables=f"{_TABLES}.drift_tables:drift_part",
    figures=("drift",),
    page="drift.md",
    example="configs/drift.yaml",
    collector=f"{_MODES}.drift.record:DriftCollecting",
    hooks=f"{_MODES}.drift.reference:HOOKS",
)

BUILT_IN = (OFFLINE, ONLINE, ROLLOUT, CYCLE, PLACEMENT, STARTUP, PROFILE, MESSAGES, DRIFT)

_ADDED = (found.load() for found in entry_points(group="rollout_bench.modes"))

MODES: dict[str, Mode] = {mode.name: mode for mode in (*BUILT_IN, *_ADDED)}
"""Name -> mode, in the order of all lists: ours, then those of other packages, by their entry points."""


def mode_of(name: str) -> Mode:
    """Return the mode called `name`, or offline for an unknown folder of results."""
    return MODES.get(name, OFFLINE)


def named(place: str) -> Any:
    """Import and return what module:name names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
