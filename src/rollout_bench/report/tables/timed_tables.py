"""The tables of modes that generate, from the registry of numbers: each number says which table shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from rollout_bench.analysis.timed.balance import replicas_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import names_of
from rollout_bench.contracts.modes import OFFLINE, Mode
from rollout_bench.contracts.spec import lengths_differ
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.numbers.generation import DRAFTING, ENERGY, THROUGHPUT
from rollout_bench.numbers.launch import COST, OF_LAUNCHES, START
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.numbers.rollout import BALANCE
from rollout_bench.numbers.sequences import ANATOMY
from rollout_bench.report.headings import (
    FLAGS,
    KV_DTYPE,
    LAUNCHES,
    OF_THROUGHPUT,
    SETS,
    TITLES,
    Column,
    Line,
    View,
    can_claim,
    latency_columns,
    number_columns,
    speedup_columns,
    view,
)
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions
from rollout_bench.report.tables.anatomy_tables import anatomy_sections

GENERATED = (THROUGHPUT, ANATOMY, BALANCE, "Rates", ENERGY, DRAFTING)
"""Tables of what was generated, in every mode that repeats iterations."""

OF_LAUNCH = (START, COST)

Special = Mapping[str, Sequence[Column]]
"""Columns of a table that are no numbers of the registry."""

_SPECIAL: Special = {THROUGHPUT: OF_THROUGHPUT, START: (KV_DTYPE,)}

HEAVY = 0.15
"""Minimum tail, as a share of the step, that is reported. If sequences complete evenly in time, the last tenth
needs 0.1.
"""


def offline_part(findings: Findings) -> SummaryPart:
    """Return the tables of each platform, and the definitions of their columns."""
    tables = number_views(findings, OFFLINE, (*GENERATED, *OF_LAUNCH))
    tables += percentile_views(findings, OFFLINE)
    return SummaryPart(
        tables=tables,
        sections=anatomy_sections(findings, OFFLINE),
        definitions=definitions("Definitions", tables),
    )


def number_views(
    findings: Findings,
    mode: Mode,
    titles: Sequence[str],
    special: Special | None = None,
    with_more: Callable[[Line, Row], Line] = lambda line, _: line,
) -> list[View]:
    """Return the tables `titles` of `mode`, for each platform.

    The first one has the counts of launches, their flags, and the speed-ups of numbers that are in none of `titles`.
    `special` has columns that are no numbers of the registry, by table; `with_more` adds to a line what they show.
    """
    views = []
    for title, found, rows in findings.tables_of(mode):
        lines = [with_more(line, row) for line, row in zip(found, rows, strict=True)]
        for kind in titles:
            if kind != ANATOMY or _differ(rows):
                columns = (special or {}).get(kind, _SPECIAL.get(kind, ()))
                views.append(_view(findings, mode, titles, kind, title, lines, rows, columns))
        views.append(_replicas(title, rows))
    return views


def _view(
    findings: Findings,
    mode: Mode,
    titles: Sequence[str],
    kind: str,
    title: str,
    lines: Sequence[Line],
    rows: Sequence[Row],
    special: Sequence[Column],
) -> View:
    first = kind == titles[0]
    metrics = dict.fromkeys(metric for row in rows for metric in row.comparisons)
    own = [m for m in metrics if NUMBERS[m].table == kind or (first and NUMBERS[m].table not in titles)]
    columns = [
        *([SETS, LAUNCHES] if first else []),
        *(column for column in special if column.words),
        *number_columns(kind),
        *(column for column in special if not column.words),
        *speedup_columns(own, findings.collection.comparison, typical=findings.typical(mode)),
        *([FLAGS] if first and any(line["flags"] for line in lines) else []),
    ]
    shown = _of_launches(lines, rows) if kind in OF_LAUNCHES else lines
    return view(f"{kind}: ", title, columns, shown)


def _of_launches(lines: Sequence[Line], rows: Sequence[Row]) -> list[Line]:
    """Return a line for each experiment, whatever its loads; with the key if two experiments have the same names."""
    first = {row.experiment.experiment: (line, row) for line, row in reversed(list(zip(lines, rows, strict=True)))}
    wholes = [row.experiment.whole for _, row in first.values()]
    named = Counter(map(names_of, wholes))
    names = (e.quant if named[names_of(e)] == 1 else f"{e.quant} ({e.key})" for e in wholes)
    found = zip(first.values(), wholes, names, strict=True)
    return [line | {"workload": whole.workload, "quant": quant} for (line, _), whole, quant in reversed(list(found))]


def _differ(rows: Sequence[Row]) -> bool:
    """Return whether the sequences of some row differ, or may differ: in length, by a tail, or in a verdict."""
    for row in rows:
        values = row.values
        if "makespan_s" not in values:
            differ = bool(row.launches) and not row.used and lengths_differ(row.experiment.records[0].spec)
        else:
            lengths = values["response_length_min_tokens"], values["response_length_max_tokens"]
            differ = lengths[0] < lengths[1] or values.get("tail_share", 0) > HEAVY
            differ = differ or any(NUMBERS[metric].of == "sequences" for metric in row.comparisons)
        if differ:
            return True
    return False


def percentile_views(findings: Findings, mode: Mode, measures: Sequence[str] = tuple(TITLES)) -> Iterator[View]:
    """Yield a table for each of `measures` if a sample is large enough for some percentile."""
    for title, lines, _ in findings.tables_of(mode):
        for measure in measures:
            if any(can_claim(line, measure) for line in lines):
                yield view(f"{TITLES[measure]}: ", title, latency_columns(measure), lines)


def _of(field: str, digits: int = 4, factor: float = 1) -> Column:
    header, definition = _REPLICAS[field]

    def cell(line: Line) -> str:
        value = line["replica"].get(field)
        return MISSING if value is None else number(factor * value, digits)

    return Column(header, definition, cell)


_REPLICAS = {
    "elapsed_s": ("own s", "Elapsed time of a measured iteration on this replica, in seconds."),
    "output_tokens": ("output tokens", "Output tokens per iteration."),
    "output_tokens_per_s": ("own tok/s", "Output tokens / own s: the rate while the replica ran."),
    "slowest_share": ("slowest %", "Share of the iterations in which the step waited for this replica."),
    "idle_share": (
        "idle %",
        "Share of the step time in which the replica's devices waited for the slowest replica: 1 - own s / step time.",
    ),
    "prompts": ("prompts", "Distinct prompts of the replica per iteration."),
    "cached_share": ("cached %", "Share of the replica's prompt tokens from its prefix cache."),
    "preemptions": ("preemptions", "Preemptions per iteration."),
    "peak_running": ("most at once", "Maximum number of sequences that the replica ran at once."),
}

REPLICAS = (
    Column(
        "replica",
        "Number of the replica: an engine on its own devices, released together with the others before each iteration.",
        lambda line: line["number"],
        words=True,
    ),
    *(_of(field) for field in ("elapsed_s", "output_tokens", "output_tokens_per_s")),
    *(_of(field, 2, 100) for field in ("slowest_share", "idle_share")),
    _of("prompts", 3),
    _of("cached_share", 3, 100),
    *(_of(field, 3) for field in ("preemptions", "peak_running")),
)


def _replicas(title: str, rows: Sequence[Row]) -> View:
    """Return the table with a line for each replica; without lines if no experiment has several."""
    lines: list[Line] = [
        {**row.axes, "number": str(place), "replica": replica}
        for row in rows
        for place, replica in enumerate(replicas_of(row))
    ]
    return view("Replicas: ", title, REPLICAS, lines)
