"""Prints what this machine can do at most: memory bandwidth, and the rates of products of matrices.

Measured in a few seconds, once for each device, processor and version of torch, and kept in the user's cache folder.
Run it with the engine's own Python, while nothing else runs.
"""

from __future__ import annotations

import argparse
from typing import Literal, cast

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.contracts.inside import MachineLimits
from rollout_bench.core.errors import run_command
from rollout_bench.measure.machine.calibration import import_torch, limits_of_this_machine, platform_of


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--platform",
        choices=("auto", "cpu", "cuda", "ascend"),
        default="auto",
        help="kind of device (default: auto, one that torch sees, else cpu)",
    )
    parser.add_argument("--again", action="store_true", help="measure anew, whatever is kept")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, each timed repeat too")
    return parser


def main() -> int:
    """Measure where it has to, and prints."""
    arguments = parser().parse_args()
    platform = arguments.platform if arguments.platform != "auto" else platform_of(import_torch())
    limits = limits_of_this_machine(cast(Literal["cpu", "cuda", "ascend"], platform), again=arguments.again)
    print(limits.model_dump_json(indent=1) if arguments.json else told(limits))
    return 0


def told(limits: MachineLimits) -> str:
    """Return the limits as people read them."""
    cache = "" if limits.cache_bytes is None else f", last-level cache {limits.cache_bytes / 2**20:.0f} MiB"
    lines = [
        f"{limits.device_model}, {limits.cpu_cores} cores of {limits.cpu_model}{cache}; torch {limits.torch_version}",
        f"measured {limits.measured_at}, best of the repeats, their median in brackets:",
    ]
    for test in ("copy", "read", "triad"):
        rates = [sample.rate for sample in limits.samples if sample.test == test]
        lines.append(f"  {test:<16} {max(rates) / 1e9:>10,.1f} GB/s    ({_median(rates) / 1e9:,.1f})")
    for dtype, rate in limits.flops_per_s.items():
        rates = [sample.rate for sample in limits.samples if (sample.test, sample.dtype) == ("matmul", dtype)]
        lines.append(f"  {dtype:<16} {rate / 1e12:>10,.3f} TFLOP/s ({_median(rates) / 1e12:,.3f})")
    return "\n".join(lines)


def _median(rates: list[float]) -> float:
    return sorted(rates)[len(rates) // 2]


if __name__ == "__main__":
    run_command(main)
