"""data_parallel_size in the plan: which modes have replicas, and what does not go with them."""

from __future__ import annotations

import os
from typing import Any

from rollout_bench.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.devices import devices_needed, devices_per_replica, replicas
from rollout_bench.plan.spec import Spec

SIZE = "data_parallel_size"

USUAL_UTILIZATION = 0.92
"""vLLM's gpu_memory_utilization where nothing is said; on cpu it is of the machine's memory (vLLM 0.32, ran)."""

ONE_ENGINE = frozenset({"profile", "operators"})
"""Modes that look into one engine: it does the same whether others run beside it or not."""


def args_in(mode: str, args: dict[str, Any]) -> dict[str, Any]:
    """`args` without the number of replicas where `mode` has one."""
    return {name: value for name, value in args.items() if name != SIZE or mode not in ONE_ENGINE}


def check_data_parallel(config: Config, spec: Spec) -> None:
    """Raises `UserError` where the replicas or the devices of an experiment can't be had as the config wants it."""
    count, each, model = replicas(spec), devices_per_replica(spec), spec.model.name
    if config.devices is not None and devices_needed(spec) > config.devices:
        needed = f"{count} replicas x {each} = {devices_needed(spec)}" if count > 1 else str(each)
        raise UserError(
            f"config: devices: a launch of {model} needs {needed} devices at once, more than {config.devices}",
            f"raise devices, or lower {SIZE if count > 1 else 'tensor_parallel_size'}",
        )
    if count == 1:
        return
    if spec.mode == "online":
        raise UserError(
            f"config: {SIZE}: {model} has {count} replicas, and online mode measures one engine behind one server",
            "leave online out of modes, or start the replicas and their router yourself and name that in endpoints",
        )
    if spec.platform == "cpu" and not _memory_is_shared_out(spec, count):
        raise UserError(
            f"config: {SIZE}: {model} has {count} replicas, which share the machine's memory on cpu; each would take "
            f"{spec.engine.args.get('gpu_memory_utilization', USUAL_UTILIZATION)} of it",
            f"set kv_cache_memory_bytes in engine_args, or gpu_memory_utilization to less than 1/{count}",
        )
    for name, value in spec.engine.args.items():
        if name.startswith("data_parallel_") and name != SIZE and value is not None:
            raise UserError(
                f"config: {name}: is of vLLM's own data parallel; {model} has {count} replicas that are whole engines",
                f"leave it out: {SIZE} is all that replicas need",
            )


def _memory_is_shared_out(spec: Spec, count: int) -> bool:
    """Whether `count` engines find as much memory as they will ask for, as far as can be known beforehand."""
    args, variables = spec.engine.args, {*spec.engine.environment, *os.environ}
    if args.get("kv_cache_memory_bytes") is not None or "VLLM_CPU_KVCACHE_SPACE" in variables:
        return True
    return count * float(args.get("gpu_memory_utilization") or USUAL_UTILIZATION) < 1
