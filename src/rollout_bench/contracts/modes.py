"""The modes: what each measures, and what plan, launch, analysis, report and rules have to know of it.

A mode is an entry here, its worker, its record model where it needs one, its tables and its page. What is imported by
name stays in the process that calls it: the worker in the engine's, the tables in the report's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from rollout_bench.contracts.inside import Drift, Profile
from rollout_bench.contracts.messages import Messages
from rollout_bench.contracts.metrics import Metric
from rollout_bench.contracts.record import Launched, Record

SEQUENCES, TRACES = ".sequences.jsonl.gz", ".traces"
"""How the names of what lies beside a record end: a row per sequence, a folder of traces."""

MESSAGE_ROWS = ".messages.jsonl.gz"
"""The same of a row per message."""

SCORE_ROWS = ".scores.jsonl.gz"
"""The same of a row per scored sequence."""

_WORKERS, _TABLES = "rollout_bench.measure.engine", "rollout_bench.report.tables"


@dataclass(frozen=True)
class Mode:
    """What launches of one mode do and leave, and what is made of it.

    Attributes:
        name: as configs, specs and the folder below results/ have it.
        title: what it measures, in a few words.
        worker: module:function that does the job in the engine's process.
        record: model of the record.
        side_files: endings of what a launch writes beside its record.
        generates: whether its records have tokens per second, so that experiments are compared by them.
        has_loads: whether requests arrive at a server in ways that the workload names, and are timed one by one.
        passes: how often the workload is run: `repeated` as the config says, `once` after its warm-up, or not at all.
        launches: how many make an experiment: as many as the config wants, `least` where it says auto, or one.
        data_parallel: what a launch does with several replicas: measures all, measures one of them, refuses.
        interleaves: whether engines that are compared may be alive together and make their passes in turn. Not
            online: a server that waits between two loads still has clients, timers and metrics that belong to its own
            window of time. And a launch that traces a step once has no passes to take turns with.
        metrics: what its experiments are compared by where a config says nothing else; none of modes that compare
            otherwise.
        settings: key of the config, and field of the spec, that only this mode has; empty where there is none.
        tables: module:function that makes its part of the summary, tables, notes and further files, from what the
            report has: (report.parts.Findings) -> report.parts.SummaryPart.
        figures: names of the figures that show it, from the registry of figures in the report.
        page: the page in docs/ that says how to use it.
        example: a config that plans it.
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


OFFLINE = Mode(
    name="offline",
    title="throughput through LLM.generate()",
    worker=f"{_WORKERS}.offline:measure",
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
    tables=f"{_TABLES}.offline_tables:offline_part",
    figures=("throughput", "speedup", "settings", "iterations", "replicas"),
    page="trust.md",
    example="config.yaml",
)
ONLINE = Mode(
    name="online",
    title="latency through an OpenAI-compatible server",
    worker=f"{_WORKERS}.online:measure",
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
    figures=(
        "throughput",
        "speedup",
        "settings",
        "iterations",
        "latency",
        "sweep",
    ),
    page="serving.md",
    example="configs/online.yaml",
)
ROLLOUT = Mode(
    name="rollout",
    title="the step of a rollout, shared out among engines by a router",
    worker=f"{_WORKERS}.rollout:measure",
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
    tables=f"{_TABLES}.rollout_tables:rollout_part",
    figures=(
        "throughput",
        "speedup",
        "settings",
        "iterations",
        "replicas",
    ),
    page="rollout.md",
    example="configs/rollout.yaml",
)
CYCLE = Mode(
    name="cycle",
    title="a whole step: generation, sleep, wake-up and new weights",
    worker=f"{_WORKERS}.cycle:measure",
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
)
PLACEMENT = Mode(
    name="placement",
    title="where engine and trainer should live: on the same devices, or on devices of their own",
    worker="rollout_bench.measure.placed.controller:measure",
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
)
STARTUP = Mode(
    name="startup",
    title="what one start of an engine costs, from its process to a first token",
    worker=f"{_WORKERS}.startup:measure",
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
)
PROFILE = Mode(
    name="profile",
    title="where the time of a step goes",
    worker=f"{_WORKERS}.profile:measure",
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
)
MESSAGES = Mode(
    name="messages",
    title="what front end, engine core and workers send one another",
    worker=f"{_WORKERS}.message_passes:measure",
    record=Messages,
    side_files=(MESSAGE_ROWS,),
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
)
DRIFT = Mode(
    name="drift",
    title="how far a quantization's probabilities are from the reference's",
    worker="rollout_bench.measure.drift.scoring:measure",
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
)

MODES = {mode.name: mode for mode in (OFFLINE, ONLINE, ROLLOUT, CYCLE, PLACEMENT, STARTUP, PROFILE, MESSAGES, DRIFT)}
"""Name -> mode, in the order in which they are listed everywhere."""


def mode_of(name: str) -> Mode:
    """Return the mode called `name`; a folder of results that no mode is called by is taken to hold offline records."""
    return MODES.get(name, OFFLINE)


def only_mode(metric: Metric) -> str:
    """Return the only mode whose experiments have `metric`; empty where those of each have."""
    if metric.of_requests:
        return ONLINE.name
    return {"": "", "transition": CYCLE.name, "placed": PLACEMENT.name}[metric.part]


def named(function: str) -> Callable[..., Any]:
    """Return what module:function names, imported now."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
