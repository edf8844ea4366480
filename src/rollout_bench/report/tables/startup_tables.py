"""The tables of starts: costs of a start, verdicts, and seconds of each phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rollout_bench.analysis.starts.loading_report import loading_report
from rollout_bench.analysis.starts.start_costs import StartCosts, start_costs, start_table
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import STARTUP
from rollout_bench.contracts.starts import PhaseName
from rollout_bench.core.numbers import MISSING, brief, number
from rollout_bench.report.headings import FLAGS, LAUNCHES, Column, Line, speedup_columns, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections

MOST = 12
"""Maximum number of experiments with a sentence; the tables have all."""

LOADING = "loading"
"""Folder of loading-time reports, beside the summary."""

PHASES: Mapping[PhaseName, tuple[str, str]] = {
    "process": ("process", "Starting the engine's process, until it imports the engine, in seconds."),
    "import": ("import", "Importing torch and vLLM."),
    "platform": ("platform", "Detecting the device."),
    "config": ("config", "Building the engine's configuration, including inspection of the model's class."),
    "worker_start": (
        "worker start",
        "Time until a worker begins to load the model: starting its processes, and their imports.",
    ),
    "model_build": ("model build", "Building the model's modules, without weights."),
    "weights": ("weights", "Loading weights, and converting them to the kernels' format."),
    "dynamo": ("Dynamo", "torch.compile's tracing of the model."),
    "inductor": ("Inductor", "torch.compile's generation of kernels."),
    "cached_graphs": ("graphs loaded", "Loading compiled graphs from the caches instead of Inductor."),
    "memory_profiling": (
        "memory profiling",
        "The first pass, without its compilation; it measures the free memory.",
    ),
    "kv_cache": ("KV cache", "Allocating the KV cache."),
    "graph_capture": ("graph capture", "Capturing device graphs."),
    "engine_ready": ("engine ready", "Time from the end of the engine's own start-up until it accepts requests."),
    "first_token": ("first token", "Time from the request until its only token."),
}
"""Phase -> its display name, and the definition of its column."""


def _costs(cell: Callable[[StartCosts], str]) -> Callable[[Line], str]:
    return lambda line: MISSING if line["costs"] is None else cell(line["costs"])


def _own_s(name: PhaseName) -> Callable[[StartCosts], str]:
    return lambda costs: number(costs.phases[name].own_s, 3) if name in costs.phases else MISSING


START = (
    Column(
        "start-up s",
        "Importing and constructing the engine until it accepts requests, in seconds; mean over valid launches, "
        "as in all columns here.",
        _costs(lambda costs: number(costs.startup_s, 3)),
    ),
    Column(
        "until a token s",
        "Time from the beginning of the launch until the first token: all phases and the rest.",
        _costs(lambda costs: number(costs.until_token_s, 3)),
    ),
)
FOUND = (
    Column(
        "weights MB",
        "Size of the weight files, in megabytes (10^6 bytes).",
        _costs(lambda costs: number(costs.weights_bytes and costs.weights_bytes / 1e6, 4)),
    ),
    Column(
        "weights GB/s",
        "Size of the weight files / seconds of reading them in vLLM's log; without such a log, / seconds of the "
        "whole phase.",
        _costs(lambda costs: number(costs.loading_bytes_per_s and costs.loading_bytes_per_s / 1e9, 3)),
    ),
    Column(
        "cache files",
        "Files in the compile caches when the engine's process started.",
        _costs(lambda costs: MISSING if costs.cache_files is None else brief(costs.cache_files)),
    ),
)
REST = Column("rest", "Time outside all phases.", _costs(lambda costs: f"{costs.rest_s:.2f}"))
REST_SHARE = Column(
    "rest %", "Rest as a share of until a token s.", _costs(lambda costs: f"{100 * costs.rest_share:.1f}")
)


def startup_part(findings: Findings) -> SummaryPart:
    """Return the costs of a start, in sentences and tables, startup.csv, and loading-time reports."""
    tables = []
    rows = [row for row in findings.rows if row.experiment.mode == STARTUP.name]
    costs = {row.experiment.place: start_costs(row) for row in rows}
    speedups = speedup_columns(findings.collection.comparison, STARTUP.name, typical=findings.typical(STARTUP))
    for title, lines, own in findings.tables_of(STARTUP):
        shown = [line | {"costs": costs[row.experiment.place]} for line, row in zip(lines, own, strict=True)]
        there = {name for line in shown if line["costs"] for name in line["costs"].phases}
        phases = [Column(f"{said} s", text, _costs(_own_s(n))) for n, (said, text) in PHASES.items() if n in there]
        flags = (FLAGS,) if any(line["flags"] for line in shown) else ()
        tables.append(view("Starts: ", title, (LAUNCHES, *START, *speedups, *flags), shown))
        tables.append(view("Phases of a start: ", title, (*phases, REST, REST_SHARE), shown))
        tables.append(view("What a start found: ", title, FOUND, shown))
    several = len({(row.experiment.model, row.experiment.workload) for row in rows}) > 1
    return SummaryPart(
        answers=sections(
            STARTUP.name,
            starts=[
                (row.name if several else row.label, found, _largest(found))
                for row in rows
                if (found := costs[row.experiment.place]) is not None
            ],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, starts", tables),
        files={"startup.csv": start_table(rows)} if rows else {},
        texts={name: text for row in rows for name, text in _loading(row)},
    )


def _loading(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the file name and the loading-time report of each valid launch."""
    for record in row.experiment.records:
        if record.valid and record.startup.course is not None:
            name = f"{row.experiment.experiment}.launch-{record.launch}.yaml"
            yield f"{LOADING}/{name}", loading_report(record)


def _largest(costs: StartCosts) -> str:
    told = [f"{PHASES[name][0]} ({number(s, 3)} s, {number(100 * share, 2)} %)" for name, s, share in costs.largest[:3]]
    return " and ".join([*([", ".join(told[:-1])] if told[1:] else []), told[-1]])
