"""The tables of online experiments and their foot: service, latency, the sweep, offline beside online."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.latencies import PERCENTILES, Distribution
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.mode_pairs import ModePair, Saturation, t_interval
from rollout_bench.analysis.timed.rows import Row, metrics_line
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.contracts.modes import ONLINE, mode_of
from rollout_bench.contracts.saturation import LONG
from rollout_bench.core.numbers import MISSING, number, plain_percent, ratio, several
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.serving import Slo
from rollout_bench.report.headings import (
    COST,
    FLAGS,
    FURTHER,
    PER_LAUNCH,
    THROUGHPUT,
    TITLES,
    Column,
    Line,
    View,
    interval_text,
    latency_columns,
    metric_columns,
    speedup_columns,
    view,
)
from rollout_bench.report.verdicts import those

THROUGHPUT_METRIC: MetricName = "output_tokens_per_s"
"""The metric whose speed-up stands beside the throughput; there is room for one. The others stand beside latencies."""

SHOWN = ("ttft_s", "tpot_s", "itl_s", "e2el_s")
"""Latencies with columns of their own; summary.csv has NTPOT too."""


def _in_flight(line: Line) -> str:
    if line["in_flight"] is None:
        return MISSING
    return f"{number(line['in_flight'], 3)} ({line['in_flight_most']})"


def milliseconds(seconds: float | None, digits: int = 4) -> str:
    """A time in milliseconds."""
    return number(None if seconds is None else 1000 * seconds, digits)


SERVICE = (
    *THROUGHPUT[:2],
    *metric_columns("requests"),
    Column(
        "in flight (most)",
        "Requests under way, as the client saw it: the sum of E2EL over the time, mean over launches; in brackets the "
        "most at once in any launch. Of those that succeeded.",
        _in_flight,
    ),
    Column(
        "failed %",
        "Requests that failed, of all that were sent. They enter no latency.",
        lambda line: number(None if line["failed_share"] is None else 100 * line["failed_share"], 3),
    ),
    *metric_columns("load"),
    *metric_columns("service"),
    *FURTHER,
)
"""What the server did; the speed-up follows."""

LATENCIES = metric_columns("latencies")
"""Means; the other speed-ups follow."""


def split_speedups(settings: ComparisonSettings, apart: bool) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """The columns of what is compared: that of throughput, and those of all else."""
    metrics = settings.online_metrics
    columns = dict(zip(metrics, speedup_columns(settings, ONLINE.name, apart), strict=True))
    rates = tuple(column for metric, column in columns.items() if metric == THROUGHPUT_METRIC)
    return rates, tuple(column for metric, column in columns.items() if metric != THROUGHPUT_METRIC)


def percentile_columns() -> tuple[Column, ...]:
    """Median and tail of each latency."""
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
            f"The same of the highest of {shown} that the requests of every launch can claim.",
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
    """A column of `line[field]`: a mean over launches of what is never negative, and its interval, or None."""

    def cell(line: Line) -> str:
        value: tuple[float, tuple[float, float] | None] | None = line[field]
        if value is None:
            return MISSING
        middle, interval = value
        ends = "" if interval is None else " [{}, {}]".format(*(number(factor * max(0.0, end), 3) for end in interval))
        return number(factor * middle, 3) + ends

    return Column(header, definition, cell)


def shown_columns(settings: ComparisonSettings, apart: bool) -> Sequence[Column]:
    """All columns of the tables of online experiments, to define them."""
    rates, latencies = split_speedups(settings, apart)
    return (*SERVICE[2:], *rates, *LATENCIES, *latencies, *percentile_columns()[:2])


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
    tables = [
        view("Throughput: ", title, (*SERVICE, *rates, *flags), lines),
        view("Latency, means: ", title, (*LATENCIES, *latencies), lines),
        view("Latency, percentiles in ms: ", title, percentile_columns(), lines),
    ]
    swept = list(_sweep(rows, settings.confidence))
    if swept:
        tables.append(view("Latency over the sweep: ", title, _sweep_columns(), swept))
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
            rates = [launch.output_tokens_per_s for launch in row.used]
            line: Line = metrics_line(row) | {
                "model": row.experiment.model,
                "workload": row.experiment.whole.workload,
                "quant": row.quant_label,
                "load": row.experiment.point_label,
                "empty_because": row.empty_because,
                "output_tokens_per_s": (mean(rates), t_interval(rates, confidence)) if rates else None,
            }
            for field in SWEPT:
                known = list(values_of(field, row.used).values())
                line[field] = (mean(known), t_interval(known, confidence)) if known else None
            yield line


def _sweep_columns() -> tuple[Column, ...]:
    means = [with_interval(field, METRICS[field].header, "") for field in SWEPT]
    return (
        Column("load", "", lambda line: line["load"], words=True),
        *(replace(column, known="") for column in metric_columns("load")),
        with_interval("output_tokens_per_s", "output tok/s", "", 1),
        *means,
        *metric_columns("service"),
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


PIECES = 1.01
"""Tokens per piece from which on it is told."""

LATE_S = 0.005
"""Mean delay of sending from which on it is told."""


def online_notes(
    rows: Sequence[Row], found: Sequence[Saturation], settings: ComparisonSettings, slo: Slo
) -> tuple[str, ...]:
    """The items of the section; none where nothing is online."""
    online = [row for row in rows if mode_of(row.experiment.mode).has_loads and row.launches]
    if not online:
        return ()
    limits = ", ".join(f"{name.removesuffix('_ms').upper()} {limit:g} ms" for name, limit in slo.named.items())
    return (
        "All times are what the client saw, from when a request was sent. Those that failed enter no latency; as "
        "vLLM's benchmark has it, see docs/reference/measures.md for the formulas and for what other tools do.",
        *([f"Goodput: what kept {limits}."] if limits else []),
        *_sweep_rule(rows, found, settings),
        *_saturated(found),
        *_short(online),
        *_pieces(online),
        *_late(online),
    )


def _sweep_rule(rows: Sequence[Row], found: Sequence[Saturation], settings: ComparisonSettings) -> Iterator[str]:
    confidence = plain_percent(settings.confidence)
    if any(row.experiment.part for row in rows):
        yield (
            f"Sweep: each load is measured behind the same server start. In brackets: {confidence} t interval over "
            "launches."
        )
    if found:
        yield (
            "Saturates at: the highest rate of which 95 % or more came back, the lowest to the highest over launches. "
            "Too much: the next rate that was tried. What the server can do lies between. Most answers/s: the highest "
            f"rate of answers at any load, mean over launches with its {confidence} t interval."
        )


def _saturated(found: Sequence[Saturation]) -> Iterator[str]:
    for each in found:
        if each.delivered is None:
            continue
        row = each.rows[0]
        name = f"{row.experiment.model} {row.quant_label} {row.experiment.whole.workload}"
        if each.first_missed is None:
            yield f"{name}: kept up with every rate that was tried; where it saturates lies higher."
        elif min(each.kept.values()) == 0:
            yield f"{name}: some launch kept up with no rate that was tried; where it saturates lies lower."
        elif len(set(each.kept.values())) > 1:
            told = "; ".join(f"launch {launch} at {number(rate, 3)}" for launch, rate in sorted(each.kept.items()))
            yield f"{name}: launches saturate at different rates: {told}."


def _short(rows: Sequence[Row]) -> Iterator[str]:
    short = [row.name for row in rows if any(launch.service and launch.service.too_short for launch in row.used)]
    if short:
        yield (
            f"Requests took over {plain_percent(LONG)} of the time in which they arrived, so the pass is too short to "
            "tell a server that falls behind from one that is only slow: kept up % is the least that it can be, "
            "requests over time over the rate "
            f"({'; '.join(short)}). More prompts make a pass longer."
        )


def _pieces(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        tokens = [launch.service.tokens_per_piece for launch in row.used if launch.service]
        known = [value for value in tokens if value is not None]
        if known and max(known) > PIECES:
            yield (
                f"{row.name}: answers came in pieces of {number(max(known), 3)} tokens in the mean: ITL, the gap "
                "between pieces, is as many times TPOT."
            )


def _late(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        delays = [launch.service for launch in row.used if launch.service]
        late = [service for service in delays if service.send_delay_s is not None and service.send_delay_s > LATE_S]
        if late:
            mean_ms = 1000 * max(service.send_delay_s or 0 for service in late)
            most_ms = 1000 * max(service.send_delay_most_s or 0 for service in late)
            yield (
                f"{row.name}: {several(len(late), 'launch')} sent requests later than due: {number(mean_ms, 3)} ms in "
                f"the mean, {number(most_ms, 3)} ms at most. Latencies count from sending, so that is in none of them."
            )


def modes_notes(pairs: Sequence[ModePair], settings: ComparisonSettings) -> tuple[str, ...]:
    """What the table of both modes means, and in what else than the mode the two differ."""
    if not pairs:
        return ()
    apart = [pair.online.name for pair in pairs if pair.ratio and pair.ratio.sides]
    compared = sum(pair.ratio is not None for pair in pairs)
    return (
        "Online / offline: output tok/s of a launch of each, by launch index, where they took turns; geometric mean, "
        f"with its {plain_percent(settings.confidence)} interval taken alone. Online costs: how much below 1 it is. "
        "Arrives at a rate: that says how much there is to do, where offline everything is there at once.",
        *_limited(pairs),
        *([f"Not in turns, so compared as a whole: {those(apart, compared)}."] if apart else []),
        *_other_settings(pairs),
    )


def _limited(pairs: Sequence[ModePair]) -> Iterator[str]:
    """What the load itself takes from the throughput."""
    by_limit: dict[int, list[str]] = {}
    for pair in pairs:
        point = pair.online.experiment.records[0].iterations[0].point
        if pair.ratio is not None and point is not None and point.concurrency is not None:
            by_limit.setdefault(point.concurrency, []).append(pair.online.name)
    for limit, names in by_limit.items():
        yield (
            f"Online no more than {several(limit, 'request')} are under way at once, as the load says, offline all "
            f"that the engine takes ({'; '.join(names)}): that is part of the ratio."
        )


def _other_settings(pairs: Sequence[ModePair]) -> Iterator[str]:
    by_setting: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        for setting in pair.settings:
            by_setting.setdefault(setting, []).append(pair.online.name)
    for (name, offline, online), names in by_setting.items():
        yield (
            f"The modes differ in {name} too, {offline} offline and {online} online ({those(names, len(pairs))}): its "
            "part of the difference can't be told."
        )
