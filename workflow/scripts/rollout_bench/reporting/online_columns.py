"""The columns of the tables that only online experiments have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rollout_bench.analysis.latencies import PERCENTILES, Distribution
from rollout_bench.keeping_up import KEPT_UP
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.fields import Metric
from rollout_bench.reporting.columns import THROUGHPUT, Column, Line, speedup_columns
from rollout_bench.reporting.numbers import MISSING, number, plain_percent

THROUGHPUT_METRIC: Metric = "output_tokens_per_s"
"""The metric whose speed-up stands beside the throughput; there is room for one. The others stand beside latencies."""

SHOWN = ("ttft_s", "tpot_s", "itl_s", "e2el_s")
"""Latencies with columns of their own; summary.csv has NTPOT too."""


def _number(field: str, digits: int = 4, factor: float = 1) -> Callable[[Line], str]:
    return lambda line: number(None if line[field] is None else factor * line[field], digits)


def _in_flight(line: Line) -> str:
    if line["in_flight"] is None:
        return MISSING
    return f"{number(line['in_flight'], 3)} ({line['in_flight_most']})"


def milliseconds(seconds: float | None, digits: int = 4) -> str:
    """A time in milliseconds."""
    return number(None if seconds is None else 1000 * seconds, digits)


KEPT = Column(
    "kept up %",
    "Where requests arrive at a rate: how much of it came back in the second half of the arrivals, 100 where the "
    "number under way grew no more than by chance. From "
    f"{plain_percent(KEPT_UP)} on the server keeps up, and throughput is set by the load.",
    _number("kept_up_share", 3, 100),
)

SERVICE = (
    *THROUGHPUT[:2],
    Column(
        "req/s",
        "Requests that succeeded in the measured iterations of a launch, divided by the time those took; mean over "
        "launches.",
        _number("completed_requests_per_s", 3),
    ),
    Column(
        "in flight (most)",
        "Requests under way, as the client saw it: the sum of E2EL over the time, mean over launches; in brackets the "
        "most at once in any launch. Of those that succeeded.",
        _in_flight,
    ),
    Column(
        "failed %",
        "Requests that failed, of all that were sent. They enter no latency.",
        _number("failed_share", 3, 100),
    ),
)
"""What the server did; `KEPT`, `GOODPUT` and the speed-up follow."""

GOODPUT = Column(
    "goodput/s",
    "Requests per second that succeeded and met every limit of `slo`. One of a single token has no TPOT and meets "
    "its limit.",
    _number("goodput_requests_per_s", 3),
)

LATENCIES = (
    Column(
        "TTFT ms",
        "Time to first token: from sending a request until its first token was back. Of each launch the mean over "
        "requests, then the mean over launches, as in the next three; in milliseconds.",
        _number("ttft_mean_s", 4, 1000),
    ),
    Column(
        "TPOT ms",
        "Time per output token after the first: (E2EL - TTFT) / (output tokens - 1), without requests of one token.",
        _number("tpot_mean_s", 4, 1000),
    ),
    Column(
        "ITL ms",
        "Inter-token latency: every gap between two pieces of an answer, all requests pooled. A piece of several "
        "tokens has one gap, as in vLLM's benchmark.",
        _number("itl_mean_s", 4, 1000),
    ),
    Column(
        "E2EL ms",
        "End-to-end latency: from sending a request until its last token was back.",
        _number("e2el_mean_s", 4, 1000),
    ),
)
"""Means; the other speed-ups follow."""


def split_speedups(settings: ComparisonSettings, apart: bool) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """The columns of what is compared: that of throughput, and those of all else."""
    metrics = settings.online_metrics
    columns = dict(zip(metrics, speedup_columns(settings, "online", apart), strict=True))
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
    return (*SERVICE[2:], KEPT, GOODPUT, *rates, *LATENCIES, *latencies, *percentile_columns()[:2])
