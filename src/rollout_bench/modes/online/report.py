"""The tables of online experiments and their notes: service, latency, the sweep."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.latencies import Distribution
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, number, plain_percent, ratio
from rollout_bench.core.saturation import LONG
from rollout_bench.modes.online.beside import Beside, beside_view, both_ways
from rollout_bench.modes.online.numbers import LATENCY
from rollout_bench.numbers.generation import DRAFTING, ENERGY, RATES, THROUGHPUT
from rollout_bench.numbers.number import P99
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.numbers.replicas import BALANCE
from rollout_bench.numbers.sequences import ANATOMY
from rollout_bench.report.headings import OF_THROUGHPUT, UNPROVEN, missing_text, speedup_column, too_few_values
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.service import states_at_rates
from rollout_bench.report.timed import (
    OF_LAUNCH,
    anatomy_sections,
    compared_metrics,
    number_views,
    percentile_views,
)
from rollout_bench.report.views import Column, Entry, View, view

SHOWN = ("ttft_s", "tpot_s", "itl_s", "e2el_s")
"""Latencies with percentiles in tables; summary.csv has NTPOT too."""


def milliseconds(seconds: float | None, digits: int = 4) -> str:
    """Return a time in milliseconds."""
    return number(None if seconds is None else 1000 * seconds, digits)


Latencies = Mapping[str, Distribution]
"""Distributions of a row's requests, by measure."""


def _percentile(measure: str, percentile: int) -> Column[Latencies]:
    name = measure.removesuffix("_s").upper()
    what = "Median" if percentile == 50 else f"{percentile}th percentile of"

    def cell(latencies: Latencies) -> str:
        values = latencies.get(measure)
        if values is None:
            return MISSING
        text = milliseconds(values.by_launch[percentile], 3)
        return text if percentile in values.proven_by_launch else too_few_values(text)

    return Column(
        f"{name} p{percentile}",
        f"{what} {name} of the requests of a launch, mean over launches, in milliseconds. {UNPROVEN}",
        cell,
    )


def _missing_values_text(latencies: Latencies) -> str:
    fewest = [latencies[measure].independent_by_launch for measure in SHOWN if measure in latencies]
    return missing_text(min(fewest)) if fewest else MISSING


PERCENTILES: tuple[Column[Latencies], ...] = (
    *(_percentile(measure, percentile) for measure in SHOWN for percentile in (50, 99)),
    Column(
        "p99 lacks",
        "Independent requests that a launch lacks until each p99 is sure. More prompts or passes bring them.",
        _missing_values_text,
    ),
)


def with_interval(name: str, confidence: float) -> Column[Row]:
    """Return a column of the mean over launches of a non-negative number, with its interval."""
    of = NUMBERS[name]

    def cell(row: Row) -> str:
        known = list(values_of(name, row.used).values())
        if not known:
            return MISSING
        interval = t_interval(known, confidence) or ()
        ends = [number(of.factor * max(0.0, end), 3) for end in interval]
        return number(of.factor * mean(known), 3) + (f" [{', '.join(ends)}]" if ends else "")

    return Column(of.header, "", cell)


def _keeps_up(rows: Sequence[Row]) -> Column[Row]:
    """Return the column that says of the loads of `rows` at a rate what the conclusion says."""
    states = states_at_rates(rows)
    words = {"keeps up": "yes", "falls behind": "no", "undecided": "?"}
    return Column(
        "keeps up",
        f"Whether the server keeps up with the rate of the requests: it answers {plain_percent(KEPT_UP)} of those that "
        "are due in the second half of the arrivals, by the growth of latencies. What it answers at another rate "
        "counts, too. ?: these requests do not show it.",
        lambda row: words[states[row.experiment.place]] if row.experiment.place in states else MISSING,
    )


SWEPT = ("output_tokens_per_s", "ttft_s", "tpot_s", "e2el_s")


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the tables of each platform, and the definitions of their columns."""
    titles = (THROUGHPUT, LATENCY, RATES, ANATOMY, BALANCE, ENERGY, DRAFTING, *OF_LAUNCH)
    tables = number_views(findings, mode, titles, {THROUGHPUT: (_keeps_up(findings.rows), *OF_THROUGHPUT)}, {LATENCY})
    tables[1:1] = _speedup_views(findings, mode)
    confidence = findings.collection.comparison.confidence
    swept = [Column[Row]("load", words=True), *(with_interval(name, confidence) for name in SWEPT)]
    for title, entries in findings.entries(mode):
        shown = [Entry(entry.texts, findings.latencies_of(entry.of)) for entry in entries if entry.of]
        tables.append(replace(view("Latency, percentiles in ms: ", title, PERCENTILES, shown), is_open=True))
        tables.append(view("Latency over the sweep: ", title, swept, list(_swept(entries))))
    tables += percentile_views(findings, mode, ("output_tokens",))
    beside = both_ways(findings)
    tables += [beside_view(findings, beside)] if beside else []
    return SummaryPart(
        tables=tables,
        sections=[*anatomy_sections(findings, mode), *sections(f"{mode.name}/report", **_values(findings, beside))],
        definitions=definitions("Definitions, online", tables),
    )


def _speedup_views(findings: Findings, mode: Mode) -> list[View]:
    """Return a table of all speed-ups for each platform."""
    typical = findings.compared_by_iterations(mode)
    rows = {row.experiment.place: row for row in findings.rows}

    def column_of(metric: MetricName) -> Column[Row]:
        column = speedup_column(metric, findings.collection.comparison, findings.notes, typical=typical)
        proven = column.cell
        assert proven is not None
        if metric != P99:
            return replace(column, header=f"{NUMBERS[metric].header.removesuffix(' ms')} speed-up")
        unproven = "In parentheses, the ratio of means over launches, which has no verdict for lack of requests."

        def cell(row: Row) -> str:
            raw = _unproven_p99(row, rows, findings)
            return f"{raw}{proven(row).removeprefix(MISSING)}" if raw else proven(row)

        return replace(column, definition=f"{column.definition} {unproven}", cell=cell)

    return [
        view("Speed-ups: ", title, [column_of(metric) for metric in compared_metrics(_rows(entries))], entries)
        for title, entries in findings.entries(mode)
    ]


def _unproven_p99(row: Row, rows: Mapping[str, Row], findings: Findings) -> str:
    """Return the ratio of two p99 of E2EL that are not proven, and the requests that a launch lacks; else nothing."""
    comparison, other = row.comparisons.get(P99), row.against.other
    baseline = rows.get(other.place) if other else None
    if comparison is None or comparison.is_baseline or comparison.verdict or baseline is None:
        return ""
    sides = [findings.latencies_of(each).get("e2el_s") for each in (baseline, row)]
    p99_s = [each.by_launch[99] for each in sides if each and 99 in each.by_launch]
    if len(p99_s) < len(sides):
        return ""
    fewest = min(each.independent_by_launch for each in sides if each)
    return f"{too_few_values(f'{ratio(p99_s[0] / p99_s[1])}x')} needs {missing_text(fewest)} more requests"


def _rows(entries: Sequence[Entry[Row]]) -> list[Row]:
    return [entry.of for entry in entries if entry.of is not None]


def _swept(entries: Sequence[Entry[Row]]) -> Iterator[Entry[Row]]:
    """Yield the loads of each sweep, experiment by experiment."""
    parts = [(entry, entry.of) for entry in entries if entry.of and entry.of.experiment.part is not None]
    for loads in grouped((row.experiment.experiment, (entry, row)) for entry, row in parts).values():
        for entry, row in loads:
            names = {"workload": row.experiment.whole.workload, "load": row.experiment.point_label}
            yield Entry({**entry.texts, **names}, row)


PIECES = 1.01
"""Minimum tokens per piece that are reported."""

LATE_S = 0.005
"""Minimum mean delay of sending that is reported."""


def _values(findings: Findings, beside: Sequence[Beside]) -> dict[str, Any]:
    rows = findings.rows
    online = [row for row in rows if mode_of(row.experiment.mode).has_loads and row.launches]
    return {
        "measured": bool(online),
        "confidence": plain_percent(findings.collection.comparison.confidence),
        "beside": [ratio(end(each.share for each in beside)) for end in (min, max)] if beside else [],
        "at_once": [
            {int(row.values[name]) for row in rows if name in row.values}
            for name, rows in (
                ("most_running", [each.offline for each in beside]),
                ("in_flight_most", [each.served for each in beside]),
            )
        ],
        "limits": findings.collection.slo.named,
        "swept": any(row.experiment.part for row in rows),
        "long": plain_percent(LONG),
        "too_short": [row.name for row in online if any(launch.too_short for launch in row.used)],
        "pieces": [
            (row.name, max(known))
            for row in online
            if (known := values_of("tokens_per_piece", row.used).values()) and max(known) > PIECES
        ],
        "late": list(_late(online)),
    }


def _late(rows: Sequence[Row]) -> Iterator[tuple[str, int, float, float]]:
    """Yield each experiment with late requests: name, number of such launches, mean and maximum delay in ms."""
    for row in rows:
        late = [launch.values for launch in row.used if launch.values.get("send_delay_s", 0) > LATE_S]
        if late:
            mean_ms = 1000 * max(values["send_delay_s"] for values in late)
            yield row.name, len(late), mean_ms, 1000 * max(values["send_delay_most_s"] for values in late)
