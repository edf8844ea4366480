"""The memory that an engine takes by its arguments."""

import os
from collections.abc import Mapping

from rollout_bench.contracts.spec import Spec

GIB = 1 << 30

KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""Variable with the size of the KV cache on a CPU, in GiB."""

USUAL_UTILIZATION = 0.92
"""vLLM's default gpu_memory_utilization; on cpu it is a share of the machine's memory (tried with vLLM 0.32)."""


def set_cache_bytes(spec: Spec, variables: Mapping[str, str] = os.environ) -> float | None:
    """Return the set size of the KV cache, in bytes; None if the engine uses the rest of its share.

    On CPU the variable takes precedence over the argument, as in vLLM.
    """
    space = {**variables, **spec.engine.environment}.get(KV_SPACE, "") if spec.platform == "cpu" else ""
    asked = int(space) * GIB if space.isdigit() else spec.engine.args.get("kv_cache_memory_bytes")
    return None if asked is None else float(asked)


def utilization(spec: Spec) -> float:
    """Return the share of a device's memory, on CPU of the machine's, that an engine requests."""
    return float(spec.engine.args.get("gpu_memory_utilization") or USUAL_UTILIZATION)
