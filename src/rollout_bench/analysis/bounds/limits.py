"""What a device can do at most, from data sheets or measured, and the least time that follows from a cost.

What is not published, or what sources disagree about, is left out: of Ascend 910B1 to 910B4 no data sheet was at hand
whose numbers others confirm. None of these were measured here; `calibrate.py` measures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rollout_bench.analysis.bounds.cost import Cost
from rollout_bench.contracts.inside import MachineLimits
from rollout_bench.core.errors import UserError, did_you_mean


@dataclass(frozen=True)
class DeviceLimits:
    """What one device can do at most.

    Attributes:
        device: its name.
        source: how that is known: `measured`, `published`, or `assumed`.
        bytes_per_s: from and to its memory.
        flops_per_s: data type -> operations a second in multiplications of matrices.
        cache_bytes: its last-level cache, where that is known.
        memory_bytes: its memory, where that is known.
    """

    device: str
    source: str
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    cache_bytes: int | None = None
    memory_bytes: float | None = None


def measured(machine: MachineLimits) -> DeviceLimits:
    """Return the limits that were measured."""
    return DeviceLimits(
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


def least(costs: Iterable[Cost], limits: DeviceLimits) -> Least:
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
    """Return the sum over pairs of a number of steps and the least time of each."""
    seconds = memory_s = 0.0
    unknown: frozenset[str] = frozenset()
    for number, step in steps:
        seconds += number * step.seconds
        memory_s += number * step.seconds if step.limited_by == "memory" else 0.0
        unknown |= step.unknown
    return Total(seconds, memory_s, unknown)


TERA, GIB = 1e12, float(1 << 30)


@dataclass(frozen=True)
class Peak:
    """One device.

    Attributes:
        name: what it is called here.
        pattern: regular expression for the names that drivers and people give it.
        bytes_per_s: of its memory.
        flops_per_s: data type -> dense operations a second.
        memory_bytes: its memory: what makers call GB is about as many GiB (`nvidia-smi` of an H200: 140.4).
        platform: that it runs under.
    """

    name: str
    pattern: str
    bytes_per_s: float
    flops_per_s: dict[str, float]
    memory_bytes: float
    platform: str = "cuda"


def _rates(half: float, int8: float, float8: float | None = None) -> dict[str, float]:
    """Return rates in 10^12 a second; bfloat16 and float16 have the same on all of these."""
    rates = {"bfloat16": half * TERA, "float16": half * TERA, "int8": int8 * TERA}
    return rates if float8 is None else {**rates, "float8": float8 * TERA}


PEAKS: tuple[Peak, ...] = (
    # NVIDIA HGX platform data sheet, B200: eight with 36 PFLOP/s fp16 and 72 PFLOP/s fp8 and int8, with sparsity
    Peak("B200", r"\bB200\b", 8.0e12, _rates(2250, 4500, 4500), 180 * GIB),
    # NVIDIA H200 data sheet, columns SXM and NVL: 1,979 and 1,671 TFLOP/s fp16 with sparsity, 4.8 TB/s
    Peak("H200 NVL", r"\bH200[ -]NVL\b", 4.8e12, _rates(835.5, 1670.5, 1670.5), 141 * GIB),
    Peak("H200", r"\bH200\b", 4.8e12, _rates(989.5, 1979, 1979), 141 * GIB),
    # NVIDIA H100 data sheet, columns NVL, PCIe (earlier edition: 1,513 TFLOP/s with sparsity) and SXM
    Peak("H100 NVL", r"\bH100[ -]NVL\b", 3.9e12, _rates(835.5, 1670.5, 1670.5), 94 * GIB),
    Peak("H100 PCIe", r"\bH100[ -]PCIe\b", 2.0e12, _rates(756.5, 1513, 1513), 80 * GIB),
    Peak("H100", r"\bH100\b", 3.35e12, _rates(989.5, 1979, 1979), 80 * GIB),
    # NVIDIA A100 data sheets (40 GB: 1,555 GB/s; 80 GB: PCIe 1,935 GB/s, SXM 2,039 GB/s); it has no fp8
    Peak("A100 80GB PCIe", r"\bA100[ -]80GB[ -]PCIe\b|\bA100[ -]PCIe?[ -]80GB\b", 1.935e12, _rates(312, 624), 80 * GIB),
    Peak("A100 80GB", r"\bA100\b.*\b80GB\b", 2.039e12, _rates(312, 624), 80 * GIB),
    Peak("A100 40GB", r"\bA100\b.*\b40GB\b", 1.555e12, _rates(312, 624), 40 * GIB),
    # NVIDIA L40S data sheet: 864 GB/s, fp16 362.05, int8 and fp8 733 TFLOP/s dense
    Peak("L40S", r"\bL40S\b", 0.864e12, _rates(362.05, 733, 733), 48 * GIB),
    # NVIDIA L4 data sheet: 300 GB/s, fp16 242 and int8 and fp8 485 TFLOP/s with sparsity
    Peak("L4", r"\bL4\b", 0.3e12, _rates(121, 242.5, 242.5), 24 * GIB),
    # NVIDIA Ada GPU architecture whitepaper, appendix A: with fp32 accumulation fp16 165.2 and fp8 330.3, int8 660.6
    Peak("RTX 4090", r"\bRTX[ -]?4090\b", 1.008e12, _rates(165.2, 660.6, 330.3), 24 * GIB),
    # P. Zuo et al., "Serving large language models on Huawei CloudMatrix384", arXiv:2506.12708: a 910C has two dies,
    # which torch sees as two devices; both together 752 TFLOP/s bf16, 1,504 TOP/s int8 and 3.2 TB/s
    Peak("Ascend 910C die", r"\bAscend[ -]?910(C\b|_93)", 1.6e12, _rates(376, 752), 64 * GIB, "ascend"),
)


def find_peak(device: str) -> Peak | None:
    """Return the first known device whose pattern occurs in `device`; None where there is none."""
    return next((peak for peak in PEAKS if re.search(peak.pattern, device, re.IGNORECASE)), None)


def known_peak(device: str) -> Peak:
    """As `find_peak`; raises `UserError` for a device that is not known."""
    peak = find_peak(device)
    if peak is None:
        names = [known.name for known in PEAKS]
        raise UserError(f"device '{device}': its limits are not known", did_you_mean(device, names))
    return peak


def published(peak: Peak) -> DeviceLimits:
    """Return the limits that its maker publishes."""
    return DeviceLimits(peak.name, "published", peak.bytes_per_s, peak.flops_per_s, memory_bytes=peak.memory_bytes)


ANY_PROCESSOR = DeviceLimits("server, however fast", "assumed", 2 * TERA, dict.fromkeys(("bfloat16", "int8"), 4e15))
"""More than the processors of any server of today have together: two with 0.85 TB/s, and 128 AMX units, each."""


def assumed(platform: str, device: str | None = None, memory_bytes: float | None = None) -> DeviceLimits:
    """Return the limits of `device` where it is known, else of the fastest one of a platform: nothing is faster.

    Args:
        platform: of the device.
        device: its name, None where nobody knows it.
        memory_bytes: its memory, where that was looked up.
    """
    peak = find_peak(device) if device else None
    if peak is not None:
        found = published(peak)
        return found if memory_bytes is None else replace(found, memory_bytes=memory_bytes)
    there = [peak for peak in PEAKS if peak.platform == platform]
    fastest = max(there, key=lambda peak: peak.bytes_per_s, default=None)
    if fastest is None:
        return ANY_PROCESSOR
    return replace(published(fastest), source="assumed", memory_bytes=memory_bytes)
