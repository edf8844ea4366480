"""What was loaded, from what the workers said of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rollout_bench.records.record import EngineFacts, WeightBytes


def engine_facts(
    ranks: Sequence[dict[str, Any]], resolved: dict[str, Any], tensor_parallel_size: int, kv_cache_tokens: int | None
) -> EngineFacts:
    """The facts of an engine.

    Args:
        ranks: the census of each worker.
        resolved: settings as the engine resolved them.
        tensor_parallel_size: workers that hold parts of the same layers.
        kv_cache_tokens: tokens that fit into the KV cache; None where it is not known.
    """
    linear: Counter[str] = Counter()
    other: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    for rank in ranks:
        linear.update(rank["linear"])
        other.update(rank["other"])
    for rank in ranks[::tensor_parallel_size]:
        methods.update(rank["linear_methods"])
    backends = sorted({name for rank in ranks for name in rank["attention_backends"]})
    return EngineFacts(
        resolved={**resolved, "attention_backends": backends},
        kv_cache_tokens=kv_cache_tokens,
        weights_bytes_by_dtype=WeightBytes(linear=dict(linear), other=dict(other)),
        linear_methods=dict(methods),
    )
