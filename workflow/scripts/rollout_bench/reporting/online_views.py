"""The tables of online experiments: service, latency, the sweep, where it saturates, and offline beside online."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rollout_bench.analysis.modes import ModePair
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.saturation import Saturation, t_interval
from rollout_bench.analysis.statistics import mean
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.reporting.columns import ENGINE, FLAGS, Column, Line, interval_text
from rollout_bench.reporting.cost_columns import COST
from rollout_bench.reporting.latency_columns import TITLES, latency_columns
from rollout_bench.reporting.numbers import MISSING, number, ratio
from rollout_bench.reporting.online_columns import (
    GOODPUT,
    KEPT,
    LATENCIES,
    SERVICE,
    percentile_columns,
    split_speedups,
    with_interval,
)
from rollout_bench.reporting.view import View, view

PER_LAUNCH = tuple(column for column in ENGINE if column.header not in ("total tok/s", "requests/s", "sequences/s"))
"""What no load changes."""

SWEPT = ("ttft_s", "tpot_s", "e2el_s")


def online_views(
    title: str,
    lines: Sequence[Line],
    rows: Sequence[Row],
    found: Sequence[Saturation],
    settings: ComparisonSettings,
    apart: bool,
) -> list[View]:
    """The tables of one platform; `lines` belong to `rows`, `found` to those of them that are a sweep."""
    flags = (FLAGS,) if any(line["flags"] for line in lines) else ()
    rates, latencies = split_speedups(settings, apart)
    kept = (KEPT,) if _any(lines, "kept_up_share") else ()
    goodput = (GOODPUT,) if _any(lines, "goodput_requests_per_s") else ()
    tables = [
        view("Throughput: ", title, (*SERVICE, *kept, *goodput, *rates, *flags), lines),
        view("Latency, means: ", title, (*LATENCIES, *latencies), lines),
        view("Latency, percentiles in ms: ", title, percentile_columns(), lines),
    ]
    swept = list(_sweep(rows, settings.confidence))
    if swept:
        tables.append(view("Latency over the sweep: ", title, _sweep_columns(goodput), swept))
    if found:
        tables.append(view("Where it saturates: ", title, SATURATION, list(map(_saturation, found))))
    if any("output_tokens" in line["distributions"] for line in lines):
        tables.append(view(f"{TITLES['output_tokens']}: ", title, latency_columns("output_tokens"), lines))
    launched = _launched(lines, rows)
    return [
        *tables,
        view("Start-up and memory: ", title, PER_LAUNCH, launched),
        view("What a launch costs: ", title, COST, launched),
    ]


def _any(lines: Sequence[Line], field: str) -> bool:
    return any(line.get(field) is not None for line in lines)


def _launched(lines: Sequence[Line], rows: Sequence[Row]) -> list[Line]:
    """A line for each experiment, whatever its loads; with the key beside the quant where names are the same."""
    first = {row.experiment.experiment: (line, row) for line, row in reversed(list(zip(lines, rows, strict=True)))}
    there = [(line, row) for line, row in zip(lines, rows, strict=True) if first[row.experiment.experiment][1] is row]
    names = Counter((row.experiment.model, row.experiment.whole.workload, row.experiment.quant) for _, row in there)
    return [
        line
        | {"workload": e.whole.workload, "quant": e.quant if names[e.model, e.whole.workload, e.quant] == 1 else key}
        for line, row in there
        for e, key in ((row.experiment, f"{row.experiment.quant} ({row.experiment.key})"),)
    ]


def _sweep(rows: Sequence[Row], confidence: float) -> Iterator[Line]:
    """A line for each load of each sweep, those of one experiment together."""
    swept = [row for row in rows if row.experiment.part is not None]
    for experiment in dict.fromkeys(row.experiment.experiment for row in swept):
        for row in (row for row in swept if row.experiment.experiment == experiment):
            services = [launch.service for launch in row.used if launch.service]
            rates = [launch.output_tokens_per_s for launch in row.used]
            line: Line = {
                "model": row.experiment.model,
                "workload": row.experiment.whole.workload,
                "quant": row.quant_label,
                "load": row.experiment.point_label,
                "empty_because": row.empty_because,
                "output_tokens_per_s": (mean(rates), t_interval(rates, confidence)) if rates else None,
            }
            for field in (*SWEPT, "kept_up", "goodput_requests_per_s"):
                known = [value for service in services if (value := getattr(service, field)) is not None]
                line[field] = (mean(known), t_interval(known, confidence)) if known else None
            line["goodput_requests_per_s"] = line["goodput_requests_per_s"] and line["goodput_requests_per_s"][0]
            yield line


def _sweep_columns(goodput: Sequence[Column]) -> tuple[Column, ...]:
    def kept(line: Line) -> str:
        return MISSING if line["kept_up"] is None else number(100 * line["kept_up"][0], 3)

    means = [with_interval(field, f"{field.removesuffix('_s').upper()} ms", "") for field in SWEPT]
    return (
        Column("load", "", lambda line: line["load"], words=True),
        Column("kept up %", "", kept),
        with_interval("output_tokens_per_s", "output tok/s", "", 1),
        *means,
        *goodput,
    )


SATURATION = (
    Column("saturates at req/s", "", lambda line: line["kept"]),
    Column("too much", "", lambda line: line["missed"]),
    with_interval("delivered", "most answers/s", "", 1),
)
"""Defined in the notes, since they take more than a line."""


def _saturation(found: Saturation) -> Line:
    row = found.rows[0]
    line: Line = {
        "model": row.experiment.model,
        "workload": row.experiment.whole.workload,
        "quant": row.quant_label,
        "empty_because": row.empty_because,
    }
    if found.delivered is None:
        return line | {"kept": MISSING, "missed": MISSING, "delivered": None}
    low, high = min(found.kept.values()), max(found.kept.values())
    assert row.experiment.part is not None
    below = f"below {number(float(row.experiment.part.point.request_rate), 3)}"
    ends = [below if rate == 0 else number(rate, 3) for rate in (low, high)]
    return line | {
        "kept": ends[0] if low == high else f"{ends[0]} to {ends[1]}",
        "missed": "not reached" if found.first_missed is None else number(found.first_missed, 3),
        "delivered": (found.delivered, found.delivered_interval),
    }


MODES = (
    Column("offline tok/s", "", lambda line: number(line["offline"])),
    Column("online tok/s", "", lambda line: number(line["online"])),
    Column("online / offline", "", lambda line: line["ratio"], words=True),
    Column("online costs", "", lambda line: line["costs"]),
)
"""Defined in the notes."""


def modes_view(pairs: Sequence[ModePair]) -> View:
    """Offline and online throughput of each model, quant and workload that has both."""
    return view("Offline and online: ", "what a server costs", MODES, list(map(_modes, pairs)))


def _modes(pair: ModePair) -> Line:
    found = pair.ratio
    text, costs = pair.reason or MISSING, MISSING
    if found is not None and found.speedup is not None:
        text = f"{ratio(found.speedup)}x{interval_text(found)}"
        costs = f"{number(100 * (1 - found.speedup), 2)} %"
    return {
        "model": pair.online.experiment.model,
        "workload": pair.online.experiment.workload,
        "quant": pair.online.quant_label,
        "offline": _mean_rate(pair.offline),
        "online": _mean_rate(pair.online),
        "ratio": text,
        "costs": costs,
    }


def _mean_rate(row: Row) -> float | None:
    return mean([launch.output_tokens_per_s for launch in row.used]) if row.used else None
