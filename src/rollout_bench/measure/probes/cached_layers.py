"""The KV cache inside vLLM's worker: data type of each layer, and bytes per token."""

from __future__ import annotations

from collections import Counter
from typing import Any


def cache_held(model: Any, tokens: int) -> dict[str, Any] | None:
    """Return the data types and size of the KV cache of `model`, read from its tensors.

    Layers that share another layer's cache are left out.

    Args:
        model: the loaded model with its cache.
        tokens: capacity of the cache in tokens.

    Returns:
        layers: data type -> number of layers; bytes_per_token: over all layers. None if there is no cache or the
            capacity is unknown.
    """
    layers: Counter[str] = Counter()
    size = 0
    for module in model.modules():
        tensors = _tensors(getattr(module, "kv_cache", None))
        if tensors and getattr(module, "kv_sharing_target_layer_name", None) is None:
            layers[_dtype(module, tensors)] += 1
            size += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if not layers or not tokens:
        return None
    return {"layers": dict(layers), "bytes_per_token": round(size / tokens)}


def _tensors(held: Any) -> list[Any]:
    """Return the tensors of a layer's cache: one, or separate ones for keys and values, as on Ascend."""
    import torch

    if isinstance(held, torch.Tensor):
        return [held] if held.numel() else []
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, list | tuple) else []


def _dtype(module: Any, tensors: list[Any]) -> str:
    """Return the data type of a layer's cache.

    For one-byte values only the layer has the type, because fp8 is stored in uint8 tensors. For other sizes the
    tensor's type counts.
    """
    name = str(tensors[0].dtype).removeprefix("torch.")
    said = str(getattr(module, "kv_cache_dtype", "auto"))
    return said if tensors[0].element_size() == 1 and said != "auto" else name
