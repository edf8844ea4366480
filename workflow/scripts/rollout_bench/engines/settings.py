"""The settings that matter, as vLLM resolved them. Works on vLLM 0.23 to 0.33: what a version lacks is left out."""

from __future__ import annotations

from enum import Enum
from typing import Any

FIELDS: dict[str, tuple[str, ...]] = {
    "model_config": ("max_model_len", "dtype", "quantization", "enforce_eager", "seed", "skip_tokenizer_init"),
    "scheduler_config": (
        "max_num_seqs",
        "max_num_batched_tokens",
        "enable_chunked_prefill",
        "async_scheduling",
        "policy",
    ),
    "cache_config": (
        "block_size",
        "cache_dtype",
        "enable_prefix_caching",
        "gpu_memory_utilization",
        "num_gpu_blocks",
        "prefix_caching_hash_algo",
    ),
    "parallel_config": (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "distributed_executor_backend",
    ),
    "load_config": ("load_format",),
    "compilation_config": ("mode", "level", "cudagraph_mode"),
}
"""Part of vLLM's VllmConfig -> fields of it that influence speed."""

NAMES = {"cache_dtype": "kv_cache_dtype", "mode": "compilation_mode", "level": "compilation_level"}
"""Fields that are recorded under a plainer name."""


def resolved_settings(vllm_config: Any) -> dict[str, Any]:
    """The fields above as JSON values; those that this vLLM does not have are left out."""
    found: dict[str, Any] = {}
    for part, fields in FIELDS.items():
        config = getattr(vllm_config, part, None)
        for field in fields:
            if hasattr(config, field):
                found[NAMES.get(field, field)] = _plain(getattr(config, field))
    return found


def kv_cache_tokens(vllm_config: Any) -> int | None:
    """Tokens that fit into the KV cache; None where this vLLM does not say."""
    cache = vllm_config.cache_config
    said = getattr(cache, "kv_cache_size_tokens", None)
    if said is not None:
        return int(said)
    blocks, block_size = getattr(cache, "num_gpu_blocks", None), getattr(cache, "block_size", None)
    return int(blocks) * int(block_size) if blocks and block_size else None


def world_size(vllm_config: Any) -> int:
    """Devices that the engine uses."""
    parallel = vllm_config.parallel_config
    return int(parallel.world_size) * int(getattr(parallel, "data_parallel_size", 1) or 1)


def end_of_text(model_config: Any) -> list[int]:
    """Token ids that end a text, from the model's own config: without a tokenizer vLLM does not know them."""
    said = getattr(model_config.hf_text_config, "eos_token_id", None)
    return [int(i) for i in said] if isinstance(said, list | tuple) else [] if said is None else [int(said)]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value).removeprefix("torch.")
