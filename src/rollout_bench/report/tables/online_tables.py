"""The tables of online experiments and their notes: service, latency, the sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.latencies import PERCENTILES, Distribution
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import OF_SERVERS, Row, metrics_line
from rollout_bench.analysis.timed.service import Service
from rollout_bench.contracts.axes import names_of
from rollout_bench.contracts.modes import ONLINE, mode_of
from rollout_bench.core.numbers import MISSING, number, plain_percent
from rollout_bench.core.saturation import LONG
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import (
    COST,
    FLAGS,
    FURTHER,
    PER_LAUNCH,
    RATES,
    TITLES,
    Column,
    Line,
    View,
    can_claim,
    latency_columns,
    metric_columns,
    speedup_columns,
    view,
)
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.anatomy_tables import anatomy_files, anatomy_sections, anatomy_views

THROUGHPUT_METRIC: MetricName = "output_tokens_per_s"
"""The only metric whose speed-up is beside the throughput, for lack of room. The others are beside latencies."""

SHOWN = ("ttft_s", "tpot_s", "itl_s", "e2el_s")
"""Latencies with separate columns; summary.csv has NTPOT too."""


def _in_flight(line: Line) -> str:
    if line["in_flight"] is None:
        return MISSING
    return f"{number(line['in_flight'], 3)} ({line['in_flight_most']})"


def milliseconds(seconds: float | None, digits: int = 4) -> str:
    """Return a time in milliseconds."""
    return number(None if seconds is None else 1000 * seconds, digits)


SERVICE = (
    *RATES,
    *metric_columns("requests"),
    Column(
        "in flight (most)",
        "Mean number of requests in flight at the client: the sum of E2EL, divided by the time; mean over "
        "launches. In brackets, the maximum in any launch. Counts only successful requests, and requests that "
        "were cut at the end of the load's time.",
        _in_flight,
    ),
    Column(
        "failed %",
        "Failed requests, as a share of all sent requests. No latency includes them.",
        lambda line: number(None if line["failed_share"] is None else 100 * line["failed_share"], 3),
    ),
    Column(
        "cut %",
        "Requests in flight, or due but not yet sent, at the end of the load's time, as a share of all due "
        "requests. They are not failures. No latency includes them, but the tokens received before the end count.",
        lambda line: number(None if line["incomplete_share"] is None else 100 * line["incomplete_share"], 3),
        known="incomplete_share",
    ),
    *metric_columns("load"),
    *metric_columns("service"),
    *FURTHER,
)
"""Columns on the server's work, before the speed-up."""

LATENCIES = metric_columns("latencies")
"""Columns of means, before the other speed-ups."""


def split_speedups(
    settings: ComparisonSettings, typical: Collection[MetricName]
) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Return the speed-up column of throughput, and the columns of all other compared metrics."""
    metrics = settings.metrics_of(ONLINE.name)
    speedups = speedup_columns(settings, ONLINE.name, typical=typical)
    columns = dict(zip(metrics, speedups, strict=True))
    rates = tuple(column for metric, column in columns.items() if metric == THROUGHPUT_METRIC)
    return rates, tuple(column for metric, column in columns.items() if metric != THROUGHPUT_METRIC)


def percentile_columns() -> tuple[Column, ...]:
    """Return the columns of median and tail of each latency."""
    return tuple(column for measure in SHOWN for column in _percentiles(measure))


def _percentiles(measure: str) -> tuple[Column, Column]:
    name = measure.removesuffix("_s").upper()
    shown = ", ".join(f"p{percentile}" for percentile in PERCENTILES)
    return (
        Column(
            f"{name} p50",
            f"Median {name} of the requests of a launch, mean over launches, in milliseconds.",
            _median(measure),
        ),
        Column(
            f"{name} tail",
            f"{name} at the highest of {shown} for which every launch has enough requests, mean over launches, in "
            "milliseconds.",
            _tail(measure),
        ),
    )


def _median(measure: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        found: Distribution | None = line["distributions"].get(measure)
        return milliseconds(found.by_launch.get(50) if found else None, 3)

    return cell


def _tail(measure: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        found: Distribution | None = line["distributions"].get(measure)
        highest = max(found.by_launch, default=50) if found else 50
        return MISSING if not found or highest == 50 else f"p{highest} {milliseconds(found.by_launch[highest], 3)}"

    return cell


def with_interval(field: str, header: str, definition: str, factor: float = 1000) -> Column:
    """Return a column of `line[field]`: a mean over launches of a non-negative value with its interval, or None."""

    def cell(line: Line) -> str:
        value: tuple[float, tuple[float, float] | None] | None = line[field]
        if value is None:
            return MISSING
        middle, interval = value
        ends = "" if interval is None else " [{}, {}]".format(*(number(factor * max(0.0, end), 3) for end in interval))
        return number(factor * middle, 3) + ends

    return Column(header, definition, cell)


SWEPT = ("ttft_s", "tpot_s", "e2el_s")


def online_part(findings: Findings) -> SummaryPart:
    """Return the tables of each platform, and the definitions of their columns."""
    tables = [
        view for title, lines, rows in findings.tables_of(ONLINE) for view in _views(findings, title, lines, rows)
    ]
    return SummaryPart(
        tables=tables,
        sections=[*anatomy_sections(findings, ONLINE), *sections(ONLINE.name, **_values(findings))],
        definitions=definitions("Definitions, online", tables),
        files=anatomy_files(findings),
    )


def _views(findings: Findings, title: str, lines: Sequence[Line], rows: Sequence[Row]) -> Iterator[View]:
    settings = findings.collection.comparison
    flags = (FLAGS,) if any(line["flags"] for line in lines) else ()
    rates, latencies = split_speedups(settings, findings.typical(ONLINE))
    yield view("Throughput: ", title, (*SERVICE, *rates, *flags), lines)
    yield from anatomy_views(findings, title, rows)
    yield view("Latency, means: ", title, (*LATENCIES, *latencies), lines)
    yield view("Latency, percentiles in ms: ", title, percentile_columns(), lines)
    if swept := list(_sweep(rows, settings.confidence)):
        yield view("Latency over the sweep: ", title, _sweep_columns(), swept)
    if any(can_claim(line, "output_tokens") for line in lines):
        yield view(f"{TITLES['output_tokens']}: ", title, latency_columns("output_tokens"), lines)
    launched = _launched(lines, rows)
    if started := [line for line in launched if line["own"]]:
        yield view("Start-up and memory: ", title, PER_LAUNCH, started)
    yield view("What a launch costs: ", title, COST, launched)


def _launched(lines: Sequence[Line], rows: Sequence[Row]) -> list[Line]:
    """Return a line for each experiment, whatever its loads; with the key if two experiments have the same names."""
    first = {row.experiment.experiment: (line, row) for line, row in reversed(list(zip(lines, rows, strict=True)))}
    there = [(line, row) for line, row in zip(lines, rows, strict=True) if first[row.experiment.experiment][1] is row]
    wholes = [row.experiment.whole for _, row in there]
    named = Counter(map(names_of, wholes))
    return [
        _costs(line, any(record.spec.endpoint is not None for record in row.experiment.records))
        | {"workload": e.workload, "quant": e.quant if named[names_of(e)] == 1 else f"{e.quant} ({e.key})"}
        for (line, row), e in zip(there, wholes, strict=True)
    ]


def _costs(line: Line, others: bool) -> Line:
    """Return a line of launch costs; a server of `others` was not started, so the time before counts as other."""
    if not others:
        return line | {"own": True}
    spent = [line.get(name) or 0.0 for name in (OF_SERVERS, "other_s")]
    asked = {} if line["other_s"] is None else {"other_s": sum(spent)}
    return line | {"own": False, OF_SERVERS: None} | asked


def _sweep(rows: Sequence[Row], confidence: float) -> Iterator[Line]:
    swept = [row for row in rows if row.experiment.part is not None]
    for experiment in dict.fromkeys(row.experiment.experiment for row in swept):
        for row in (row for row in swept if row.experiment.experiment == experiment):
            rates = [launch.output_tokens_per_s for launch in row.used]
            line: Line = metrics_line(row) | {
                **row.axes,
                "workload": row.experiment.whole.workload,
                "load": row.experiment.point_label,
                "empty_because": row.empty_because,
                "output_tokens_per_s": (mean(rates), t_interval(rates, confidence)) if rates else None,
            }
            for field in SWEPT:
                known = list(values_of(field, row.used).values())
                line[field] = (mean(known), t_interval(known, confidence)) if known else None
            yield line


def _sweep_columns() -> tuple[Column, ...]:
    means = [with_interval(field, NUMBERS[field].header, "") for field in SWEPT]
    return (
        Column("load", "", lambda line: line["load"], words=True),
        *metric_columns("load"),
        with_interval("output_tokens_per_s", "output tok/s", "", 1),
        *means,
        *metric_columns("service"),
    )


PIECES = 1.01
"""Minimum tokens per piece that are reported."""

LATE_S = 0.005
"""Minimum mean delay of sending that is reported."""


def _values(findings: Findings) -> dict[str, Any]:
    rows = findings.rows
    online = [row for row in rows if mode_of(row.experiment.mode).has_loads and row.launches]
    services = [(row, [launch.service for launch in row.used if launch.service]) for row in online]
    return {
        "measured": bool(online),
        "confidence": plain_percent(findings.collection.comparison.confidence),
        "limits": findings.collection.slo.named,
        "swept": any(row.experiment.part for row in rows),
        "long": plain_percent(LONG),
        "too_short": [row.name for row, found in services if any(service.too_short for service in found)],
        "pieces": [
            (row.name, max(known))
            for row, found in services
            if (known := [each.tokens_per_piece for each in found if each.tokens_per_piece is not None])
            and max(known) > PIECES
        ],
        "late": list(_late(services)),
    }


def _late(services: Iterable[tuple[Row, Sequence[Service]]]) -> Iterator[tuple[str, int, float, float]]:
    """Yield each experiment with late requests: name, number of such launches, mean and maximum delay in ms."""
    for row, found in services:
        late = [service for service in found if service.send_delay_s is not None and service.send_delay_s > LATE_S]
        if late:
            mean_ms = 1000 * max(service.send_delay_s or 0 for service in late)
            most_ms = 1000 * max(service.send_delay_most_s or 0 for service in late)
            yield row.name, len(late), mean_ms, most_ms
