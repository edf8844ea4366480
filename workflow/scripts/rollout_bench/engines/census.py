"""The weight census: bytes of the loaded weights by data type, read inside the worker.

vLLM mixes `WeightCensus` into its worker class (`worker_extension_cls`) and calls it by name on every rank.
On CPU the weights of most linear layers are handed to oneDNN, which packs them into memory of its own and
leaves an empty parameter behind; what is handed over is noted at that moment.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rollout_bench.engines.linears import linear_shapes
from rollout_bench.engines.settings import end_of_text, resolved_settings, world_size

NOT_A_WEIGHT = re.compile(r"scale|zero|offset|shape|g_idx|azp|bias|workspace|sort_ind")
"""Tensors of a linear layer that are no weights of it."""

ROUTER = re.compile(r"(^|\.)(gate|router|shared_expert_gate)$")
"""Linear layers that choose experts; they stay unquantized by design and do not count as linear."""

EXPERTS = ("FusedMoE", "RoutedExperts")
"""Classes that hold the experts' weights: vLLM up to 0.23, and since."""

DEPTH = 5
"""How far from a layer's own attributes its packed weights are looked for."""

_packed: dict[int, tuple[Any, str, int]] = {}
"""id of a oneDNN handler -> the handler (kept alive), data type and bytes of what it packed."""


def _note_packed_weights() -> None:
    from vllm import _custom_ops as ops

    for name in ("create_onednn_mm", "create_onednn_scaled_mm"):
        create = getattr(ops, name, None)
        if create is not None:
            setattr(ops, name, _noting(create))


def _noting(create: Any) -> Any:
    def noted(weight: Any, *args: Any, **kwargs: Any) -> Any:
        handler = create(weight, *args, **kwargs)
        _packed[id(handler)] = (handler, _dtype(weight), weight.numel() * weight.element_size())
        return handler

    return noted


class WeightCensus:
    """What vLLM mixes into its worker."""

    get_model: Any  # the worker's own
    vllm_config: Any

    def rollout_bench_census(self) -> dict[str, Any]:
        """Bytes and facts of this rank.

        Returns:
            linear, other: data type -> bytes; linear_methods: class name -> layers; attention_backends: their
            names; pid of this process; device_model and device_memory_bytes, None on cpu.
        """
        model = self.get_model()
        found = count_weights(model)
        return {**found, **_device(), "pid": os.getpid(), "attention_backends": _attention_backends(model)}

    def rollout_bench_linears(self) -> list[dict[str, Any]]:
        """The linear layers of this rank: `LinearShape`s as dictionaries."""
        return [shape.model_dump() for shape in linear_shapes(self.get_model())]

    def rollout_bench_settings(self) -> dict[str, Any]:
        """What a server does not tell over HTTP: settings as resolved, world size, vocabulary, end of text."""
        model_config = self.vllm_config.model_config
        return {
            "resolved": resolved_settings(self.vllm_config),
            "world_size": world_size(self.vllm_config),
            "tensor_parallel_size": int(self.vllm_config.parallel_config.tensor_parallel_size),
            "vocabulary": int(model_config.get_vocab_size()),
            "end_of_text": end_of_text(model_config),
        }


def count_weights(model: Any) -> dict[str, dict[str, int]]:
    """Bytes of all tensors of `model` by data type, those of linear layers and experts apart."""
    linear: Counter[str] = Counter()
    other: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    seen: set[int] = set()
    for name, module in model.named_modules():
        is_linear = _is_linear(module) and not ROUTER.search(name)
        if is_linear:
            methods[_method(module)] += 1
        held = _tensors(module, seen) if is_linear else _own_tensors(module, seen)
        for label, dtype, size in held:
            (linear if is_linear and not NOT_A_WEIGHT.search(label) else other)[dtype] += size
    return {"linear": dict(linear), "other": dict(other), "linear_methods": dict(methods)}


def _is_linear(module: Any) -> bool:
    bases = {base.__name__ for base in type(module).__mro__}
    return "LinearBase" in bases or bool(bases & set(EXPERTS))


def _method(module: Any) -> str:
    scheme = getattr(module, "scheme", None)
    scheme = scheme if scheme is not None else getattr(module, "quant_method", None)
    inner = getattr(scheme, "quant_method", None)  # vllm-ascend wraps its schemes once
    return type(inner if inner is not None else scheme).__name__


def _own_tensors(module: Any, seen: set[int]) -> Iterator[tuple[str, str, int]]:
    """Name, data type and bytes of each parameter and buffer of `module` itself, each once."""
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            yield from _plain_tensors(name, tensor)


def _tensors(module: Any, seen: set[int]) -> Iterator[tuple[str, str, int]]:
    """As `_own_tensors`, with what hides behind the other attributes of a linear layer: packed weights."""
    import torch

    own = {**module.__dict__, **module._parameters, **module._buffers}
    waiting = [(name, value, 0) for name, value in own.items() if name not in ("_parameters", "_buffers", "_modules")]
    while waiting:
        name, value, depth = waiting.pop()
        if id(value) in seen or isinstance(value, torch.nn.Module):
            continue
        if isinstance(value, torch.Tensor):
            seen.add(id(value))
            yield from _plain_tensors(name, value)
        elif id(value) in _packed:
            seen.add(id(value))
            yield ("weight", *_packed[id(value)][1:])
        elif depth < DEPTH:
            waiting += [(inner, held, depth + 1) for inner, held in _held_by(name, value)]


def _plain_tensors(name: str, tensor: Any) -> Iterator[tuple[str, str, int]]:
    """The tensors inside `tensor`: itself, or what a wrapping subclass (torchao) is made of."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        if tensor.device.type != "meta" and tensor.numel():
            yield name, _dtype(tensor), tensor.numel() * tensor.element_size()
        return
    for inner in flatten()[0]:
        yield from _plain_tensors(f"{name}.{inner}", getattr(tensor, inner))


def _held_by(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(str(key), held) for key, held in value.items()]
    if isinstance(value, list | tuple):
        return [(name, held) for held in value]
    closure = getattr(value, "__closure__", None)
    if closure:
        return [(held, cell.cell_contents) for held, cell in zip(value.__code__.co_freevars, closure, strict=True)]
    package = type(value).__module__.partition(".")[0]
    if package in ("vllm", "vllm_ascend") and not type(value).__name__.endswith("Config"):
        return list(getattr(value, "__dict__", {}).items())
    return []


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _attention_backends(model: Any) -> list[str]:
    backends = [module.attn_backend for module in model.modules() if hasattr(module, "attn_backend")]
    return sorted({backend.get_name() for backend in backends if hasattr(backend, "get_name")})


def _device() -> dict[str, Any]:
    import torch

    for kind in ("cuda", "npu"):
        devices = getattr(torch, kind, None)
        if devices is not None and devices.is_available():
            properties = devices.get_device_properties(devices.current_device())
            return {"device_model": properties.name, "device_memory_bytes": int(properties.total_memory)}
    return {"device_model": None, "device_memory_bytes": None}


if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
    _note_packed_weights()
