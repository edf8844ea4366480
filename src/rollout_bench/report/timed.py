"""The tables of modes that generate, from the registry of numbers: each number says which table shows it."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from rollout_bench.analysis.timed.balance import replicas_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import names_of
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import behind_server, lengths_differ
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.numbers.generation import DRAFTING, ENERGY, GRAPHS, RATES, ROUTING, THROUGHPUT
from rollout_bench.numbers.launch import COST, START
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.numbers.replicas import BALANCE
from rollout_bench.numbers.sequences import ANATOMY
from rollout_bench.report.drafting import break_even_column
from rollout_bench.report.headings import (
    KV_DTYPE,
    OF_THROUGHPUT,
    PERCENTILE_COLUMNS,
    TITLES,
    number_columns,
    speedup_column,
)
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, definitions, sections
from rollout_bench.report.views import FLAGS, LAUNCHES, SETS, Column, Entry, View, view

GENERATED = (THROUGHPUT, ANATOMY, BALANCE, RATES, ENERGY, DRAFTING, GRAPHS, ROUTING)
"""Tables of what was generated, in every mode that repeats iterations."""

OF_LAUNCH = (START, COST)
"""Tables with a line for each launched experiment, whatever its loads."""

Special = Mapping[str, Sequence[Column[Row]]]
"""Columns of a table that are no numbers of the registry."""

_SPECIAL: Special = {THROUGHPUT: OF_THROUGHPUT, START: (KV_DTYPE,)}

HEAVY = 0.15
"""Minimum tail, as a share of the step, that is reported. If sequences complete evenly in time, the last tenth
needs 0.1.
"""


TIME: tuple[MetricName, ...] = ("output_tokens_per_s", "step_time_s")
"""Metrics with a verdict on the whole step, tail included."""

FRONT: MetricName = "t90_s"
"""The metric with a verdict on the step without its tail."""

STANDS: Mapping[str | None, str] = {
    "faster": "faster", "slower": "slower", "undetected": "no difference", "irrelevant": "no difference",
}  # fmt: skip
"""Verdict -> its words in a sentence."""


def timed_part(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the tables of each platform, and the definitions of their columns, of a mode without a report."""
    tables = number_views(findings, mode, (*GENERATED, *OF_LAUNCH))
    tables += percentile_views(findings, mode)
    return SummaryPart(
        tables=tables,
        sections=anatomy_sections(findings, mode),
        definitions=definitions("Definitions", tables),
    )


def anatomy_sections(findings: Findings, mode: Mode) -> list[Section]:
    """Return the notes on the steps of `mode`: verdicts that disagree, and hidden waiting behind a server."""
    rows = [row for row in findings.rows if mode_of(row.experiment.mode) is mode]
    known = [row for row in rows if "makespan_s" in row.values]
    return sections(
        "anatomy",
        disagreeing=list(_disagreeing(rows)),
        waits_unseen=any(behind_server(row.experiment.records[0].spec) for row in known),
    )


def _disagreeing(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, float, str, float]]:
    """Yield rows with different verdicts on the whole step and on its t90.

    Each has its name, the metric of the step, its verdict and ratio, then the verdict and ratio of t90.
    """
    for row in rows:
        metric = next((metric for metric in TIME if metric in row.comparisons), None)
        if metric is None or FRONT not in row.comparisons:
            continue
        one, other = row.comparisons[metric], row.comparisons[FRONT]
        verdict, other_verdict = STANDS.get(one.verdict), STANDS.get(other.verdict)
        if one.speedup and other.speedup and verdict and other_verdict and verdict != other_verdict:
            yield row.name, NUMBERS[metric].header, verdict, one.speedup, other_verdict, other.speedup


def number_views(
    findings: Findings,
    mode: Mode,
    titles: Sequence[str],
    special: Special | None = None,
    without_speedups: Collection[str] = (),
) -> list[View]:
    """Return the tables `titles` of `mode`, for each platform.

    The first one has the counts of launches, their flags, and the speed-ups of numbers that are in none of `titles`.
    The others have those of their numbers, except `without_speedups`. `special` has columns that are no numbers of the
    registry, by table.
    """
    views = []
    pays = break_even_column(findings.rows, findings.collection.comparison.confidence)
    every: Special = {**_SPECIAL, DRAFTING: (pays,), **(special or {})}
    for title, entries in findings.entries(mode):
        rows = [entry.of for entry in entries if entry.of is not None]
        for kind in titles:
            if kind != ANATOMY or any(map(_differ, rows)):
                columns = _columns(findings, mode, titles, kind, rows, every.get(kind, ()))
                columns = [column for column in columns if kind not in without_speedups or not column.is_speedup]
                shown = _entry_of_each_experiment(entries) if kind in OF_LAUNCH else entries
                views.append(view(f"{kind}: ", title, columns, shown))
        views.append(_replicas(title, entries))
    return views


def _columns(
    findings: Findings,
    mode: Mode,
    titles: Sequence[str],
    kind: str,
    rows: Sequence[Row],
    special: Sequence[Column[Row]],
) -> list[Column[Row]]:
    first = kind == titles[0]
    metrics = compared_metrics(rows)
    table_metrics = [m for m in metrics if NUMBERS[m].table == kind or (first and NUMBERS[m].table not in titles)]
    settings, typical = findings.collection.comparison, findings.compared_by_iterations(mode)
    return [
        *([SETS, LAUNCHES] if first else []),
        *(column for column in special if column.words),
        *number_columns(kind),
        *(column for column in special if not column.words),
        *(speedup_column(metric, settings, findings.notes, typical=typical) for metric in table_metrics),
        *([FLAGS] if first else []),
    ]


def compared_metrics(rows: Sequence[Row]) -> list[MetricName]:
    """Return the metrics in which some of `rows` are compared: none where all are baselines."""
    return list(dict.fromkeys(metric for row in rows for metric, it in row.comparisons.items() if not it.is_baseline))


def _entry_of_each_experiment(entries: Sequence[Entry[Row]]) -> list[Entry[Row]]:
    """Return an entry for each experiment, whatever its loads; with the key if two experiments have the same names."""
    first: dict[str, Entry[Row]] = {}
    for entry in entries:
        if entry.of is not None:
            first.setdefault(entry.of.experiment.experiment, entry)
    wholes = [entry.of.experiment.whole for entry in first.values() if entry.of is not None]
    named = Counter(map(names_of, wholes))
    names = (e.quant if named[names_of(e)] == 1 else f"{e.quant} ({e.key})" for e in wholes)
    return [
        Entry({**entry.texts, "workload": whole.workload, "quant": quant}, entry.of)
        for entry, whole, quant in zip(first.values(), wholes, names, strict=True)
    ]


def _differ(row: Row) -> bool:
    """Return whether the sequences of `row` differ, or may differ: in length, by a tail, or in a verdict."""
    values = row.values
    if "makespan_s" not in values:
        return bool(row.launches) and not row.used and lengths_differ(row.experiment.records[0].spec)
    return (
        values["response_length_min_tokens"] < values["response_length_max_tokens"]
        or values.get("tail_share", 0) > HEAVY
        or any(NUMBERS[metric].of == "sequences" for metric in row.comparisons)
    )


def percentile_views(findings: Findings, mode: Mode, measures: Sequence[str] = tuple(TITLES)) -> Iterator[View]:
    """Yield a table for each of `measures` if a sample is large enough for some percentile."""
    for title, entries in findings.entries(mode):
        for measure in measures:
            shown = [Entry(entry.texts, findings.latencies_of(entry.of).get(measure)) for entry in entries if entry.of]
            if any(entry.of and entry.of.proven for entry in shown):
                yield view(f"{TITLES[measure]}: ", title, PERCENTILE_COLUMNS, shown)


Replica = Mapping[str, float]


def _of(field: str, header: str, definition: str, digits: int = 4, factor: float = 1) -> Column[Replica]:
    return Column(
        header,
        definition,
        lambda replica: MISSING if field not in replica else number(factor * replica[field], digits),
    )


REPLICAS: tuple[Column[Replica], ...] = (
    Column(
        "replica",
        "Number of the replica: an engine on its own devices, released together with the others before each iteration.",
        words=True,
    ),
    _of("elapsed_s", "own s", "Elapsed time of a measured iteration on this replica, in seconds."),
    _of("output_tokens", "output tokens", "Output tokens per iteration."),
    _of("output_tokens_per_s", "own tok/s", "Output tokens / own s: the rate while the replica ran."),
    _of("slowest_share", "slowest %", "Share of the iterations in which the step waited for this replica.", 2, 100),
    _of(
        "idle_share",
        "idle %",
        "Share of the step time in which the replica's devices waited for the slowest replica: 1 - own s / step time.",
        2,
        100,
    ),
    _of("prompts", "prompts", "Distinct prompts of the replica per iteration.", 3),
    _of("cached_share", "cached %", "Share of the replica's prompt tokens from its prefix cache.", 3, 100),
    _of("preemptions", "preemptions", "Preemptions per iteration.", 3),
    _of("peak_running", "most at once", "Maximum number of sequences that the replica ran at once.", 3),
)


def _replicas(title: str, entries: Sequence[Entry[Row]]) -> View:
    """Return the table with a line for each replica; without lines if no experiment has several."""
    shown = [
        Entry({**entry.texts, "replica": str(place)}, replica)
        for entry in entries
        if entry.of is not None
        for place, replica in enumerate(replicas_of(entry.of))
    ]
    return view("Replicas: ", title, REPLICAS, shown)
