"""From costs to time: what a device can do at most, and the least time that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rollout_bench.bounds.arithmetic import Cost
from rollout_bench.records.limits import MachineLimits


@dataclass(frozen=True)
class Limits:
    """What one device can do at most.

    Attributes:
        device: its name.
        source: how that is known: `measured` or `published`.
        bytes_per_s: from and to its memory.
        flops_per_s: data type -> operations a second in multiplications of matrices.
        cache_bytes: its last-level cache, where that is known.
    """

    device: str
    source: str
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    cache_bytes: int | None = None


def measured(machine: MachineLimits) -> Limits:
    """The limits that were measured."""
    return Limits(
        machine.device_model,
        "measured",
        machine.memory_bandwidth_bytes_per_s,
        machine.flops_per_s,
        machine.cache_bytes,
    )


@dataclass(frozen=True)
class Least:
    """The least time that some work takes.

    Attributes:
        memory_s: its bytes over the bandwidth.
        compute_s: its operations over their rates, those of which no rate is known left out.
        unknown: data types that no rate is known of.
    """

    memory_s: float
    compute_s: float
    unknown: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        """The longer of the two: at best one goes on beside the other."""
        return max(self.memory_s, self.compute_s)

    @property
    def limited_by(self) -> str:
        """`memory` or `compute`."""
        return "memory" if self.memory_s >= self.compute_s else "compute"


def least(costs: Iterable[Cost], limits: Limits) -> Least:
    """max(bytes / bandwidth, operations / rate): the roofline of Williams et al. (2009), solved for time."""
    memory_s = compute_s = 0.0
    unknown = set()
    for cost in costs:
        memory_s += cost.least_bytes / limits.bytes_per_s
        rate = limits.flops_per_s.get(cost.dtype)
        if rate is not None:
            compute_s += cost.flops / rate
        elif cost.flops:
            unknown.add(cost.dtype)
    return Least(memory_s, compute_s, frozenset(unknown))


@dataclass(frozen=True)
class Total:
    """The least time of several steps, one after the other.

    Attributes:
        seconds: the sum over the steps of each one's least time.
        memory_s: the part of it that memory limits; the rest is limited by computing.
        unknown: as of `Least`.
    """

    seconds: float
    memory_s: float
    unknown: frozenset[str] = frozenset()

    @property
    def limited_by(self) -> str:
        """What limits most of the time: `memory` or `compute`."""
        return "memory" if 2 * self.memory_s >= self.seconds else "compute"


def total(steps: Iterable[tuple[float, Least]]) -> Total:
    """The sum over pairs of a number of steps and the least time of each."""
    seconds = memory_s = 0.0
    unknown: frozenset[str] = frozenset()
    for number, step in steps:
        seconds += number * step.seconds
        memory_s += number * step.seconds if step.limited_by == "memory" else 0.0
        unknown |= step.unknown
    return Total(seconds, memory_s, unknown)
