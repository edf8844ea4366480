"""The registry of metrics: their names, definitions and better directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from rollout_bench.contracts.fields import brackets, no_duplicates
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.record import DeviceUse, Iteration, Record
from rollout_bench.contracts.spec import devices_of_rate
from rollout_bench.core.numbers import plain_percent

ENERGY = "energy"
"""Group of metrics that need a launch's energy."""


@dataclass(frozen=True)
class Metric:
    """A number of a launch: its mean over valid launches is a column, and its ratio to the baseline's gets a verdict.

    Args:
        name: name in configs and prefix of columns, ending with the unit.
        unit: of the value; empty for a count.
        header: of its column in a table, and its name in a sentence.
        definition: at the foot of the summary and in the reference.
        better: the better direction; neither for a metric without a verdict.
        value: function of a record with at least one measured iteration; returns None if unknown.
        of_passes: function of measured iterations. It is applied to all of a launch if `value` is None, and to single
            ones for comparisons by round. Without both, the metric is read from the rows of a side file.
        of_sequences: whether the rows are times of sequences: `Anatomy` in analysis/stats/anatomy.py has the metric
            under this name. Otherwise they are requests to a server: `Service` in analysis/timed/service.py has it.
        part: field of an iteration that it needs and that only one mode has; else empty.
        speedup: header of its speed-up's column; empty if neither direction is better.
        words: words for a ratio, for better and for worse.
        column: name in summary.csv; the metric's name if empty.
        group: group of table columns; empty if only summary.csv has it. `throughput` and `start-up` are in tables of
            every mode that generates, and `energy` has a table for all modes. `step` and `rates` are offline only;
            `requests`, `load`, `service` and `latencies` online only; `transitions` in cycles and `placed` in
            placements only.
        optional: whether tables without any value omit its column.
        set_by_load: whether a load with arrival times determines it, as long as the server keeps up.
        factor: factor from the value to the unit in `header`, such as seconds to milliseconds.
        digits: significant digits in tables.
    """

    name: str
    unit: str
    header: str
    definition: str
    better: Literal["higher", "lower", "neither"]
    value: Callable[[Record], float | None] | None = None
    of_passes: Callable[[Sequence[Iteration]], float] | None = None
    of_sequences: bool = False
    part: Literal["", "transition", "placed"] = ""
    speedup: str = ""
    words: tuple[str, str, str] = ("as fast", "faster", "slower")
    column: str = ""
    group: str = ""
    optional: bool = False
    set_by_load: bool = False
    factor: float = 1
    digits: int = 4

    @property
    def heads(self) -> str:
        """Name of its column in summary.csv."""
        return self.column or self.name

    @property
    def of_requests(self) -> bool:
        """Whether only requests to a server have it."""
        return self.in_rows and not self.of_sequences

    @property
    def in_rows(self) -> bool:
        """Whether it is read from a side file instead of the record."""
        return self.value is None and self.of_passes is None

    @property
    def in_passes(self) -> bool:
        """Whether single iterations have it, in the record or in a side file."""
        return self.of_passes is not None or self.of_sequences

    def read(self, record: Record) -> float | None:
        """Return the value of a launch; None if its record does not have it, as for a metric in rows."""
        if self.value is not None or self.of_passes is None:
            return None if self.value is None else self.value(record)
        measured = [iteration for iteration in record.iterations if not iteration.warmup]
        if self.part and any(getattr(iteration, self.part) is None for iteration in measured):
            return None
        return self.of_passes(measured)


def _rate(amount: Callable[[Iteration], int]) -> Callable[[Sequence[Iteration]], float]:
    def of_passes(passes: Sequence[Iteration]) -> float:
        return sum(map(amount, passes)) / sum(iteration.elapsed_s for iteration in passes)

    return of_passes


_output_rate = _rate(lambda iteration: iteration.output_tokens)


def _per_device(record: Record) -> float:
    measured = [iteration for iteration in record.iterations if not iteration.warmup]
    return _output_rate(measured) / devices_of_rate(record.spec)


def _step_time_s(passes: Sequence[Iteration]) -> float:
    import numpy as np  # not at the top: callers that only need names should not wait for it

    return float(np.mean([iteration.elapsed_s for iteration in passes]))


def _transition_s(passes: Sequence[Iteration]) -> float:
    import numpy as np

    return float(np.mean([each.transition.elapsed_s for each in passes if each.transition is not None]))


def _placed_s(passes: Sequence[Iteration]) -> float:
    import numpy as np

    return float(np.mean([each.whole_s for each in passes]))


def _startup_s(record: Record) -> float | None:
    """Return the start-up time; None if other engines started simultaneously, because it then includes their load."""
    if record.block is not None and record.block.started == "together":
        return None
    return record.startup.import_s + record.startup.init_s


def _devices_read(record: Record) -> list[DeviceUse] | None:
    """Return the device readings around measured iterations; None unless the energy of each is known.

    Cycles and placements have none: their readings include proofs, which may be a third of the energy.
    """
    measured = [it for it in record.iterations if not it.warmup]
    if any(it.transition or it.placed for it in measured):
        return None
    read = [it.devices for it in measured]
    if not all(read) or any(use.energy_j is None for uses in read for use in uses or ()):
        return None
    return _uses(measured)


def _uses(passes: Sequence[Iteration]) -> list[DeviceUse]:
    return [use for each in passes for use in each.devices or ()]


def _where_read(of_passes: Callable[[Sequence[Iteration]], float]) -> Callable[[Record], float | None]:
    """Return a function that applies `of_passes` to a launch, or returns None if the energy is not fully known."""

    def value(record: Record) -> float | None:
        if _devices_read(record) is None:
            return None
        return of_passes([iteration for iteration in record.iterations if not iteration.warmup]) or None

    return value


def _energy_per_token_j(passes: Sequence[Iteration]) -> float:
    tokens = sum(each.output_tokens for each in passes)
    return sum(use.energy_j or 0 for use in _uses(passes)) / tokens if tokens else 0.0


def _tokens_per_j(passes: Sequence[Iteration]) -> float:
    """Return output tokens per joule, the inverse of joules per token; equal to tokens per second and watt."""
    per_token_j = _energy_per_token_j(passes)
    return 1 / per_token_j if per_token_j else 0.0


def _power_w(passes: Sequence[Iteration]) -> float:
    """Return the mean power of a device in watts: joules over seconds between readings."""
    uses = _uses(passes)
    return sum(use.energy_j or 0 for use in uses) / sum(use.window_s or 0 for use in uses)


def _share_of_limit(record: Record) -> float | None:
    uses = _devices_read(record)
    if uses is None or any(not use.power_limit_w for use in uses):
        return None
    allowed_j = sum((use.power_limit_w or 0) * (use.window_s or 0) for use in uses)
    return sum(use.energy_j or 0 for use in uses) / allowed_j


_ALL = (
    Metric(
        name="output_tokens_per_s",
        unit="tokens/s",
        header="output tok/s",
        definition="Output tokens of all measured iterations of a launch, divided by their elapsed time. All n "
        "samples of a prompt count; warm-up iterations do not. Like every column, a mean over valid "
        "launches.",
        better="higher",
        of_passes=_output_rate,
        speedup="speed-up",
        group="throughput",
        set_by_load=True,
    ),
    Metric(
        name="output_tokens_per_s_per_device",
        unit="tokens/s/device",
        header="tok/s per device",
        definition="Output tok/s divided by the number of devices of a launch: tensor parallel x pipeline "
        "parallel x data parallel size. A CPU counts as one device, because all engines share it; so "
        "does an endpoint.",
        better="higher",
        value=_per_device,
        speedup="speed-up per device",
        set_by_load=True,
    ),
    # The next three are the same work over the same time, so output_tokens_per_s has their verdict.
    Metric(
        name="total_tokens_per_s",
        unit="tokens/s",
        header="total tok/s",
        definition="Like output tok/s, but counts prompt and output tokens.",
        better="neither",
        of_passes=_rate(lambda iteration: iteration.prompt_tokens + iteration.output_tokens),
        group="rates",
    ),
    Metric(
        name="requests_per_s",
        unit="requests/s",
        header="requests/s",
        definition="Like output tok/s, but counts requests to the engine.",
        better="neither",
        of_passes=_rate(lambda iteration: iteration.requests),
        group="rates",
    ),
    Metric(
        name="sequences_per_s",
        unit="sequences/s",
        header="sequences/s",
        definition="Like output tok/s, but counts returned sequences (samples).",
        better="neither",
        of_passes=_rate(lambda iteration: iteration.sequences),
        group="rates",
    ),
    Metric(
        name="step_time_s",
        unit="s",
        header="iter. s",
        definition="Elapsed time of a measured iteration, from the first request until the last token, in "
        "seconds: the step time of the rollout. Mean over iterations, then over launches.",
        better="lower",
        of_passes=_step_time_s,
        speedup="step speed-up",
        column="iteration_elapsed_s",
        group="step",
        set_by_load=True,
    ),
    Metric(
        name="cycle_s",
        unit="s",
        header="transition s",
        definition="Time from the last token until the engine can generate again, with new weights, in seconds. "
        "It excludes the time in which a trainer has the device. Mean over measured iterations, then "
        "over launches.",
        better="lower",
        of_passes=_transition_s,
        part="transition",
        speedup="transition speed-up",
        group="transitions",
        optional=True,
    ),
    Metric(
        name="whole_step_s",
        unit="s",
        header="whole step s",
        definition="Generation plus the transition after it, in seconds: the time for which a training step needs the "
        "rollout engine. Mean over measured iterations, then over launches.",
        better="lower",
        of_passes=lambda passes: _step_time_s(passes) + _transition_s(passes),
        part="transition",
        speedup="whole-step speed-up",
        group="transitions",
        optional=True,
    ),
    Metric(
        name="placed_step_s",
        unit="s",
        header="placed step s",
        definition="A whole step of a placement, in seconds: from the release of all devices until the last device has "
        "trained and has new weights. Mean over measured iterations, then over launches.",
        better="lower",
        of_passes=_placed_s,
        part="placed",
        speedup="placed-step speed-up",
        group="placed",
        optional=True,
    ),
    # The next three are read, and in summary.csv, only if the config names them.
    Metric(
        name="t90_s",
        unit="s",
        header="t90 s",
        definition="Time until 90 % of the sequences of an iteration were complete, in seconds. Mean over "
        "iterations, then over launches, as in all columns of this table.",
        better="lower",
        of_sequences=True,
        speedup="t90 speed-up",
        set_by_load=True,
    ),
    Metric(
        name="tail_s",
        unit="s",
        header="tail s",
        definition="Makespan - t90: the time that an iteration waited for the last tenth of its sequences, in seconds.",
        better="lower",
        of_sequences=True,
        speedup="tail speed-up",
        set_by_load=True,
    ),
    Metric(
        name="group_p90_s",
        unit="s",
        header="group p90 s",
        definition="Time until 90 % of the groups of an iteration were complete, in seconds. A group is all "
        "samples of a prompt; it is complete with its last sample.",
        better="lower",
        of_sequences=True,
        speedup="group p90 speed-up",
        set_by_load=True,
    ),
    Metric(
        name="startup_s",
        unit="s",
        header="start-up s",
        definition="Importing and constructing the engine until it accepts requests, in seconds; mean over launches.",
        better="lower",
        value=_startup_s,
        speedup="start-up speed-up",
        group="start-up",
        digits=3,
    ),
    Metric(
        name="energy_j_per_token",
        unit="J/token",
        header="J per token",
        definition="Energy of the devices, read around the measured iterations, divided by the output tokens. It "
        "includes the devices' memory, but not the host. For a CPU, it covers packages and memory, "
        "including other processes. Cycles and placements have no energy, because their readings "
        "include the proofs.",
        better="lower",
        value=_where_read(_energy_per_token_j),
        of_passes=_energy_per_token_j,
        speedup="energy gain",
        words=("as thrifty", "thriftier", "hungrier"),
        group=ENERGY,
        optional=True,
    ),
    Metric(
        name="tokens_per_s_per_w",
        unit="tokens/s/W",
        header="tok/s per W",
        definition="Output tokens per second and watt, equal to tokens per joule: the inverse of J per token.",
        better="higher",
        value=_where_read(_tokens_per_j),
        of_passes=_tokens_per_j,
        speedup="gain of tok/s per W",
        words=("as thrifty", "thriftier", "hungrier"),
        group=ENERGY,
        optional=True,
    ),
    Metric(
        name="device_power_w",
        unit="W",
        header="W per device",
        definition="Mean power of a device over the same time.",
        better="lower",
        value=_where_read(_power_w),
        of_passes=_power_w,
        speedup="power ratio",
        words=("as sparing of power", "less power", "more power"),
        group=ENERGY,
        optional=True,
    ),
    Metric(
        name="power_limit_share",
        unit="share",
        header="of limit %",
        definition="W per device as a share of the power limit in force.",
        better="neither",
        value=_share_of_limit,
        group=ENERGY,
        optional=True,
        factor=100,
        digits=3,
    ),
    Metric(
        name="completed_requests_per_s",
        unit="requests/s",
        header="req/s",
        definition="Successful requests of the measured iterations of a launch, divided by the elapsed time of these "
        "iterations; mean over launches.",
        better="neither",
        group="requests",
        digits=3,
    ),
    Metric(
        name="ttft_s",
        unit="s",
        header="TTFT ms",
        definition="Time to first token: from sending a request until receiving its first token, in "
        "milliseconds. Mean over the requests of a launch, then over launches, as in the next three "
        "columns.",
        better="lower",
        speedup="TTFT speed-up",
        column="ttft_mean_s",
        group="latencies",
        factor=1000,
    ),
    Metric(
        name="tpot_s",
        unit="s",
        header="TPOT ms",
        definition="Time per output token after the first: (E2EL - TTFT) / (output tokens - 1). Requests with "
        "one output token are left out.",
        better="lower",
        speedup="TPOT speed-up",
        column="tpot_mean_s",
        group="latencies",
        factor=1000,
    ),
    Metric(
        name="itl_s",
        unit="s",
        header="ITL ms",
        definition="Inter-token latency: the gap between two pieces of an answer, over all gaps of all requests. "
        "A piece of several tokens adds one gap, as in vLLM's benchmark.",
        better="lower",
        speedup="ITL speed-up",
        column="itl_mean_s",
        group="latencies",
        factor=1000,
    ),
    Metric(
        name="e2el_s",
        unit="s",
        header="E2EL ms",
        definition="End-to-end latency: from sending a request until receiving its last token.",
        better="lower",
        speedup="E2EL speed-up",
        column="e2el_mean_s",
        group="latencies",
        factor=1000,
    ),
    Metric(
        name="ntpot_s",
        unit="s",
        header="NTPOT ms",
        definition="Normalised time per output token: TTFT / output tokens + TPOT.",
        better="neither",
        column="ntpot_mean_s",
        factor=1000,
    ),
    Metric(
        name="goodput_requests_per_s",
        unit="requests/s",
        header="goodput/s",
        definition="Successful requests per second that met every limit of `slo`. A request with one output "
        "token has no TPOT, and counts as within the TPOT limit.",
        better="higher",
        speedup="goodput speed-up",
        group="service",
        optional=True,
        digits=3,
    ),
    Metric(
        name="in_flight",
        unit="",
        header="in flight",
        definition="Mean number of requests in flight at the client: the sum of E2EL, divided by the time. "
        "Counts successful requests, and cut requests until they were cut.",
        better="neither",
    ),
    Metric(
        name="offered_requests_per_s",
        unit="requests/s",
        header="offered/s",
        definition="Requests due per second, if requests arrive at a rate.",
        better="neither",
    ),
    Metric(
        name="kept_up_share",
        unit="share",
        header="kept up %",
        definition="If requests arrive at a rate: the completion rate in the second half of the arrivals, as a share "
        "of the arrival rate. It is 100 if the number of requests in flight grew no more than by chance. From "
        f"{plain_percent(KEPT_UP)} on, the server keeps up, and the load determines the throughput.",
        better="neither",
        group="load",
        optional=True,
        factor=100,
        digits=3,
    ),
    Metric(
        name="send_delay_s",
        unit="s",
        header="send delay ms",
        definition="Delay between the time at which a request was due and the time at which it was sent.",
        better="neither",
        factor=1000,
    ),
    Metric(
        name="tokens_per_piece",
        unit="tokens/piece",
        header="tokens per piece",
        definition="Output tokens per piece of a streamed answer: 1 if each token arrived separately.",
        better="neither",
    ),
)

METRICS = {metric.name: metric for metric in _ALL}
"""Every metric by its name, in the order of the columns of summary.csv."""

COMPARED = tuple(metric.name for metric in _ALL if metric.better != "neither")
"""Metrics with a verdict, which a config can name."""

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[COMPARED]
    """A name in `COMPARED`; no type checker follows a registry."""

Metrics = Annotated[list[MetricName], BeforeValidator(brackets), AfterValidator(no_duplicates)]
"""A selection of metrics: at least one, without repetition."""
