"""The registry of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from rollout_bench.contracts.fields import brackets, no_duplicates
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.record import Record
from rollout_bench.core.numbers import plain_percent
from rollout_bench.numbers.number import Number

ENERGY = "energy"
"""The table of numbers that need a launch's energy."""


def _startup_s(record: Record) -> float | None:
    """Return the start-up time; None if other engines started simultaneously, because it then includes their load."""
    if record.block is not None and record.block.started == "together":
        return None
    return record.startup.import_s + record.startup.init_s


_ALL = (
    Number(
        name="output_tokens_per_s",
        unit="tokens/s",
        header="output tok/s",
        definition="Output tokens of all measured iterations of a launch, divided by their elapsed time. All n "
        "samples of a prompt count; warm-up iterations do not. Like every column, a mean over valid "
        "launches.",
        better="higher",
        top="output_tokens",
        bottom="elapsed_s",
        speedup="speed-up",
        table="throughput",
        set_by_load=True,
    ),
    Number(
        name="output_tokens_per_s_per_device",
        unit="tokens/s/device",
        header="tok/s per device",
        definition="Output tok/s divided by the number of devices of a launch: tensor parallel x pipeline "
        "parallel x data parallel size. A CPU counts as one device, because all engines share it; so "
        "does an endpoint.",
        better="higher",
        top="output_tokens",
        bottom="device_s",
        speedup="speed-up per device",
        set_by_load=True,
    ),
    # The next three are the same work over the same time, so output_tokens_per_s has their verdict.
    Number(
        name="total_tokens_per_s",
        unit="tokens/s",
        header="total tok/s",
        definition="Like output tok/s, but counts prompt and output tokens.",
        top="total_tokens",
        bottom="elapsed_s",
        table="rates",
    ),
    Number(
        name="requests_per_s",
        unit="requests/s",
        header="requests/s",
        definition="Like output tok/s, but counts requests to the engine.",
        top="requests",
        bottom="elapsed_s",
        table="rates",
    ),
    Number(
        name="sequences_per_s",
        unit="sequences/s",
        header="sequences/s",
        definition="Like output tok/s, but counts returned sequences (samples).",
        top="sequences",
        bottom="elapsed_s",
        table="rates",
    ),
    Number(
        name="step_time_s",
        unit="s",
        header="iter. s",
        definition="Elapsed time of a measured iteration, from the first request until the last token, in "
        "seconds: the step time of the rollout. Mean over iterations, then over launches.",
        better="lower",
        top="elapsed_s",
        speedup="step speed-up",
        table="step",
        set_by_load=True,
    ),
    Number(
        name="cycle_s",
        unit="s",
        header="transition s",
        definition="Time from the last token until the engine can generate again, with new weights, in seconds. "
        "It excludes the time in which a trainer has the device. Mean over measured iterations, then "
        "over launches.",
        better="lower",
        top="transition_s",
        mode="cycle",
        speedup="transition speed-up",
        table="transitions",
    ),
    Number(
        name="whole_step_s",
        unit="s",
        header="whole step s",
        definition="Generation plus the transition after it, in seconds: the time for which a training step needs the "
        "rollout engine. Mean over measured iterations, then over launches.",
        better="lower",
        top="whole_s",
        mode="cycle",
        speedup="whole-step speed-up",
        table="transitions",
    ),
    Number(
        name="placed_step_s",
        unit="s",
        header="placed step s",
        definition="A whole step of a placement, in seconds: from the release of all devices until the last device has "
        "trained and has new weights. Mean over measured iterations, then over launches.",
        better="lower",
        top="placed_s",
        mode="placement",
        speedup="placed-step speed-up",
        table="placed",
    ),
    # The next three are read, and in summary.csv, only if the config names them.
    Number(
        name="t90_s",
        unit="s",
        header="t90 s",
        definition="Time until 90 % of the sequences of an iteration were complete, in seconds. Mean over "
        "iterations, then over launches, as in all columns of this table.",
        better="lower",
        top="t90_s",
        of="sequences",
        speedup="t90 speed-up",
        set_by_load=True,
    ),
    Number(
        name="tail_s",
        unit="s",
        header="tail s",
        definition="Makespan - t90: the time that an iteration waited for the last tenth of its sequences, in seconds.",
        better="lower",
        top="tail_s",
        of="sequences",
        speedup="tail speed-up",
        set_by_load=True,
    ),
    Number(
        name="group_p90_s",
        unit="s",
        header="group p90 s",
        definition="Time until 90 % of the groups of an iteration were complete, in seconds. A group is all "
        "samples of a prompt; it is complete with its last sample.",
        better="lower",
        top="group_p90_s",
        of="sequences",
        speedup="group p90 speed-up",
        set_by_load=True,
    ),
    Number(
        name="startup_s",
        unit="s",
        header="start-up s",
        definition="Importing and constructing the engine until it accepts requests, in seconds; mean over launches.",
        better="lower",
        read=_startup_s,
        speedup="start-up speed-up",
        table="start-up",
        digits=3,
    ),
    Number(
        name="energy_j_per_token",
        unit="J/token",
        header="J per token",
        definition="Energy of the devices, read around the measured iterations, divided by the output tokens. It "
        "includes the devices' memory, but not the host. For a CPU, it covers packages and memory, "
        "including other processes. Cycles and placements have no energy, because their readings "
        "include the proofs.",
        better="lower",
        top="energy_j",
        bottom="output_tokens",
        speedup="energy gain",
        words=("as thrifty", "thriftier", "hungrier"),
        table=ENERGY,
    ),
    Number(
        name="tokens_per_s_per_w",
        unit="tokens/s/W",
        header="tok/s per W",
        definition="Output tokens per second and watt, equal to tokens per joule: the inverse of J per token.",
        better="higher",
        top="output_tokens",
        bottom="energy_j",
        speedup="gain of tok/s per W",
        words=("as thrifty", "thriftier", "hungrier"),
        table=ENERGY,
    ),
    Number(
        name="device_power_w",
        unit="W",
        header="W per device",
        definition="Mean power of a device over the same time.",
        better="lower",
        top="energy_j",
        bottom="window_s",
        speedup="power ratio",
        words=("as sparing of power", "less power", "more power"),
        table=ENERGY,
    ),
    Number(
        name="power_limit_share",
        unit="share",
        header="of limit %",
        definition="W per device as a share of the power limit in force.",
        top="energy_j",
        bottom="allowed_j",
        table=ENERGY,
        factor=100,
        digits=3,
    ),
    Number(
        name="completed_requests_per_s",
        unit="requests/s",
        header="req/s",
        definition="Successful requests of the measured iterations of a launch, divided by the elapsed time of these "
        "iterations; mean over launches.",
        table="requests",
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="ttft_s",
        unit="s",
        header="TTFT ms",
        definition="Time to first token: from sending a request until receiving its first token, in "
        "milliseconds. Mean over the requests of a launch, then over launches, as in the next three "
        "columns.",
        better="lower",
        speedup="TTFT speed-up",
        table="latencies",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="tpot_s",
        unit="s",
        header="TPOT ms",
        definition="Time per output token after the first: (E2EL - TTFT) / (output tokens - 1). Requests with "
        "one output token are left out.",
        better="lower",
        speedup="TPOT speed-up",
        table="latencies",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="itl_s",
        unit="s",
        header="ITL ms",
        definition="Inter-token latency: the gap between two pieces of an answer, over all gaps of all requests. "
        "A piece of several tokens adds one gap, as in vLLM's benchmark.",
        better="lower",
        speedup="ITL speed-up",
        table="latencies",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="e2el_s",
        unit="s",
        header="E2EL ms",
        definition="End-to-end latency: from sending a request until receiving its last token.",
        better="lower",
        speedup="E2EL speed-up",
        table="latencies",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="ntpot_s",
        unit="s",
        header="NTPOT ms",
        definition="Normalised time per output token: TTFT / output tokens + TPOT.",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="goodput_requests_per_s",
        unit="requests/s",
        header="goodput/s",
        definition="Successful requests per second that met every limit of `slo`. A request with one output "
        "token has no TPOT, and counts as within the TPOT limit.",
        better="higher",
        speedup="goodput speed-up",
        table="service",
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="in_flight",
        unit="",
        header="in flight",
        definition="Mean number of requests in flight at the client: the sum of E2EL, divided by the time. "
        "Counts successful requests, and cut requests until they were cut.",
        of="requests",
        mode="online",
    ),
    Number(
        name="offered_requests_per_s",
        unit="requests/s",
        header="offered/s",
        definition="Requests due per second, if requests arrive at a rate.",
        of="requests",
        mode="online",
    ),
    Number(
        name="kept_up_share",
        unit="share",
        header="kept up %",
        definition="If requests arrive at a rate: the completion rate in the second half of the arrivals, as a share "
        "of the arrival rate. It is 100 if the number of requests in flight grew no more than by chance. From "
        f"{plain_percent(KEPT_UP)} on, the server keeps up, and the load determines the throughput.",
        table="load",
        factor=100,
        digits=3,
        of="requests",
        mode="online",
    ),
    Number(
        name="send_delay_s",
        unit="s",
        header="send delay ms",
        definition="Delay between the time at which a request was due and the time at which it was sent.",
        factor=1000,
        of="requests",
        mode="online",
    ),
    Number(
        name="tokens_per_piece",
        unit="tokens/piece",
        header="tokens per piece",
        definition="Output tokens per piece of a streamed answer: 1 if each token arrived separately.",
        of="requests",
        mode="online",
    ),
)

NUMBERS = {number.name: number for number in _ALL}
"""Every number by its name, in the order of the columns of summary.csv."""

COMPARED = tuple(number.name for number in _ALL if number.better)
"""Numbers with a verdict, which a config can name as metrics."""

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[COMPARED]
    """A name in `COMPARED`; no type checker follows a registry."""

Metrics = Annotated[list[MetricName], BeforeValidator(brackets), AfterValidator(no_duplicates)]
"""A selection of metrics: at least one, without repetition."""
