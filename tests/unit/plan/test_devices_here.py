"""Launches are refused on a machine with too few devices, or with memory that engines would share."""

import pytest
from planned import planned
from refusals import refused

from rollout_bench.plan.checks import check_devices_here

OPEN = "workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}"
"""A cache as large as the memory that is free."""


@pytest.mark.parametrize(
    ("overlay", "devices", "problem"),
    [
        ("placement: {devices: 4}", 2, "placement.devices: a launch of qwen3-90m needs 4 cores, and there are 2"),
        (OPEN, 2, "2 engines of qwen3-90m share the machine's memory on cpu, and each would"),
        (
            f"placement: {{where: [colocated]}}, engine_args: {{tensor_parallel_size: 2}}, {OPEN}",
            2,
            "2 shards of engines of qwen3-90m share the machine's memory",
        ),
        ("placement: {devices: 4}", 4, ""),
        (f"placement: {{where: [server]}}, {OPEN}", 2, ""),
    ],
)
def test_engines_that_do_not_fit_here_are_refused(overlay: str, devices: int, problem: str):
    specs = [one.spec for one in planned(f"{{modes: [placement], quants: [bf16], {overlay}}}").experiments]
    if problem:
        with refused(problem, ""):
            check_devices_here(specs, devices)
    else:
        check_devices_here(specs, devices)
