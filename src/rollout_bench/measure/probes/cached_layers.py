"""The KV cache inside vLLM's worker: which data type each layer's has, and the bytes of a token."""

from __future__ import annotations

from collections import Counter
from typing import Any


def cache_held(model: Any, tokens: int) -> dict[str, Any] | None:
    """Return what the attention layers of `model` hold of the KV cache, read from its tensors.

    Layers that share another layer's cache are left out.

    Args:
        model: the loaded model, its cache in place.
        tokens: that the cache has room for.

    Returns:
        layers: data type -> layers; bytes_per_token: of all of them. None where there is no cache, or no room is known.
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
    """Return the tensors of a layer's cache: one for both, or one each for keys and values, as on Ascend."""
    import torch

    if isinstance(held, torch.Tensor):
        return [held] if held.numel() else []
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, list | tuple) else []


def _dtype(module: Any, tensors: list[Any]) -> str:
    """Return the data type of a layer's cache.

    A value of one byte may mean anything, and only the layer says what: fp8 lies in tensors of uint8. Any other is
    what the tensor has, whatever the layer says.
    """
    name = str(tensors[0].dtype).removeprefix("torch.")
    said = str(getattr(module, "kv_cache_dtype", "auto"))
    return said if tensors[0].element_size() == 1 and said != "auto" else name
