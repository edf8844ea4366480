"""The weight census inside vLLM's worker: bytes by data type, linear layers by role, resolved settings.

vLLM mixes `WeightCensus` into its worker class (`worker_extension_cls`), and the methods are called by name on every
rank. On CPU most linear layers pass their weights to oneDNN, which packs them into its own memory and leaves an empty
parameter. So these weights are recorded when they are passed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from rollout_bench.contracts.inside import LinearShape, Role
from rollout_bench.contracts.record import CacheFacts, EngineFacts, WeightBytes
from rollout_bench.measure.probes.cached_layers import cache_held

ROLES: dict[str, Role] = {
    "qkv_proj": "qkv",
    "qkv": "qkv",
    "o_proj": "o",
    "out_proj": "o",
    "gate_up_proj": "gate_up",
    "down_proj": "down",
    "lm_head": "lm_head",
    "gate": "router",
    "router": "router",
    "shared_expert_gate": "router",
}
"""Last part of a module's name -> role. Linear layers with other names have the role `other`."""


def linear_modules(model: Any) -> dict[Role, list[Any]]:
    """Return the linear modules of `model` by role, in the order of the layers.

    Experts are left out because they are not linear modules.
    """
    found: dict[Role, list[Any]] = {}
    for name, module in model.named_modules():
        if _sizes(module) is not None:
            found.setdefault(ROLES.get(name.rpartition(".")[2], "other"), []).append(module)
    head = getattr(model, "lm_head", None)
    if head is not None and "lm_head" not in found and _head_sizes(head) is not None:
        found["lm_head"] = [head]  # a head that shares the embedding's weights is the embedding's module
    return {role: found[role] for role in get_args(Role) if role in found}


def linears_by_shape(model: Any) -> list[tuple[LinearShape, list[Any]]]:
    """Return the shapes of `linear_modules`, each with its modules."""
    shapes: dict[tuple[Role, int, int], list[Any]] = {}
    for role, modules in linear_modules(model).items():
        for module in modules:
            into, out = _sizes(module) or _head_sizes(module) or (0, 0)
            shapes.setdefault((role, into, out), []).append(module)
    return [
        (LinearShape(role=role, in_features=into, out_features=out, layers=len(modules)), modules)
        for (role, into, out), modules in shapes.items()
    ]


def linear_shapes(model: Any) -> list[LinearShape]:
    """Return the shapes of `linear_modules`, each with its number of layers."""
    return [shape for shape, _ in linears_by_shape(model)]


def _sizes(module: Any) -> tuple[int, int] | None:
    """Return the input and output features on this rank; None if `module` is not a linear layer."""
    bases = {base.__name__ for base in type(module).__mro__}
    if "LinearBase" in bases:
        into = getattr(module, "input_size_per_partition", module.input_size)
        return int(into), int(getattr(module, "output_size_per_partition", module.output_size))
    return _head_sizes(module) if "ParallelLMHead" in bases else None


def _head_sizes(module: Any) -> tuple[int, int] | None:
    """Return the input and output features of an output head; None if `module` is not one."""
    if not hasattr(module, "num_embeddings_per_partition"):
        return None
    return int(module.embedding_dim), int(module.num_embeddings_per_partition)


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
"""Part of vLLM's VllmConfig -> its fields that influence speed."""

NAMES = {"cache_dtype": "kv_cache_dtype", "mode": "compilation_mode", "level": "compilation_level"}
"""Field -> clearer name in the record."""


def resolved_settings(vllm_config: Any) -> dict[str, Any]:
    """Return the fields in `FIELDS` as JSON values; fields that this vLLM lacks are left out."""
    found: dict[str, Any] = {}
    for part, fields in FIELDS.items():
        config = getattr(vllm_config, part, None)
        for field in fields:
            if hasattr(config, field):
                found[NAMES.get(field, field)] = _plain(getattr(config, field))
    return found


NOT_HELD = frozenset({"distributed_executor_backend", "data_parallel_size", "quantization", "tokenizer"})
"""Arguments not compared: the engine may express them differently, or other code checks or uses them."""

ALSO_CALLED = {"half": "float16", "float": "float32", "fp8": "fp8_e4m3"}
"""Value -> vLLM's second name for it."""


def overruled(vllm_config: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in `asked` that the engine does not follow, with the values that it uses instead.

    A nested key is called `<argument>.<key>`. Arguments that are not in the config are left out.
    """
    own = vars(vllm_config)
    parts = [own, *(vars(own[part]) for part in FIELDS if own.get(part) is not None)]
    return dict(_overruled(parts, {name: value for name, value in asked.items() if name not in NOT_HELD}))


def _overruled(parts: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    fields = {plain: field for field, plain in NAMES.items() if plain.startswith("kv_")}
    for name, value in asked.items():
        part = next((part for part in parts if fields.get(name, name) in part), None)
        if part is None:
            continue
        used = part[fields.get(name, name)]
        if isinstance(value, Mapping) and hasattr(used, "__dict__"):
            yield from ((f"{name}.{inner}", each) for inner, each in _overruled([vars(used)], value))
        elif not _as_asked(value, used):
            yield name, _plain(used)


def _as_asked(asked: Any, used: Any) -> bool:
    """Return whether an engine that uses `used` follows `asked`, which may leave the choice to the engine."""
    if asked in (None, "auto", -1):
        return True
    if isinstance(asked, Mapping | list):
        return bool(used) or not asked  # the engine may transform the entries
    if isinstance(asked, str) and isinstance(used, int | float) and not isinstance(used, Enum):
        return True  # 4k, 90%
    names = {str(_plain(used)), str(used.value) if isinstance(used, Enum) else str(used)}
    asked_names = {str(asked), ALSO_CALLED.get(str(asked), str(asked))}
    return asked == used or bool({name.lower() for name in names} & {name.lower() for name in asked_names})


def kv_cache_tokens(vllm_config: Any) -> int | None:
    """Return the capacity of the KV cache in tokens; None if this vLLM does not report it."""
    cache = vllm_config.cache_config
    said = getattr(cache, "kv_cache_size_tokens", None)
    if said is not None:
        return int(said)
    blocks, block_size = getattr(cache, "num_gpu_blocks", None), getattr(cache, "block_size", None)
    return int(blocks) * int(block_size) if blocks and block_size else None


def world_size(vllm_config: Any) -> int:
    """Return the number of devices that the engine uses."""
    parallel = vllm_config.parallel_config
    return int(parallel.world_size) * int(getattr(parallel, "data_parallel_size", 1) or 1)


def end_of_text(model_config: Any) -> list[int]:
    """Return the token ids that end a text, from the model's config; without a tokenizer vLLM does not know them."""
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


NOT_A_WEIGHT = re.compile(r"scale|zero|offset|shape|g_idx|azp|bias|workspace|sort_ind")
"""Tensors of a linear layer that are not its weights."""

ROUTER = re.compile(r"(^|\.)(gate|router|shared_expert_gate)$")
"""Linear layers that choose experts; they stay unquantized by design and do not count as linear."""

EXPERTS = ("FusedMoE", "RoutedExperts")
"""Classes that hold the experts' weights: up to vLLM 0.23, and later."""

DEPTH = 5
"""Depth of the search for packed weights below a layer's attributes."""


@dataclass(frozen=True)
class Packed:
    """A weight packed by oneDNN, recorded at packing because it cannot be read afterwards.

    Attributes:
        handler: weak reference to oneDNN's handler; an update of the weights makes another handler.
        dtype: data type of the weight.
        size: size of the weight in bytes.
        noted: result of the `look` of `note_packed_weights`.
    """

    handler: Callable[[], Any]
    dtype: str
    size: int
    noted: Any


_packed: dict[int, Packed] = {}
"""id of a living oneDNN handler -> its weight."""

_look: list[Callable[[Any], Any]] = []
"""Functions for further facts of a packed weight; the last is used."""


def note_packed_weights(look: Callable[[Any], Any] | None = None) -> None:
    """Record the weights that vLLM packs in this process from now on; this imports vLLM.

    From now on, `look` is called with each weight, and its result is recorded too.
    """
    from vllm import _custom_ops as ops

    if look is not None:
        _look.append(look)
    for name in ("create_onednn_mm", "create_onednn_scaled_mm"):
        create = getattr(ops, name, None)
        if create is not None and not hasattr(create, "notes"):
            setattr(ops, name, noting(create))


def noting(create: Any) -> Any:
    """Wrap `create`, which packs a weight into a oneDNN handler, so that the weight is recorded."""

    def noted(weight: Any, *args: Any, **kwargs: Any) -> Any:
        handler = create(weight, *args, **kwargs)
        key, bytes_of = id(handler), weight.numel() * weight.element_size()
        seen = _look[-1](weight) if _look else None
        refers = weakref.ref(handler, lambda _: _packed.pop(key, None))
        _packed[key] = Packed(refers, _dtype(weight), bytes_of, seen)
        return handler

    noted.notes = True  # type: ignore[attr-defined]
    return noted


def packed_by(value: Any) -> Packed | None:
    """Return the recorded weight of a oneDNN handler; None if `value` is not a recorded handler."""
    found = _packed.get(id(value))
    return found if found is not None and found.handler() is value else None


class WeightCensus:
    """Worker extension of vLLM."""

    get_model: Any  # the worker's own
    vllm_config: Any

    def rollout_bench_census(self) -> dict[str, Any]:
        """Return the weights and facts of this rank.

        Returns:
            linear, other: data type -> bytes; linear_methods, linear_kernels: class name -> number of layers;
            attention_backends: their names; kv_cache: from `cache_held`; pid of this process; device_model and
            device_memory_bytes, None on cpu.
        """
        model = self.get_model()
        found = count_weights(model)
        of_attention = {"attention_backends": _attention_backends(model), "kv_cache": self._cache_held(model)}
        return {**found, **_device(), "pid": os.getpid(), **of_attention}

    def _cache_held(self, model: Any) -> dict[str, Any] | None:
        cache = self.vllm_config.cache_config
        blocks, block_size = getattr(cache, "num_gpu_blocks", None), getattr(cache, "block_size", None)
        return cache_held(model, int(blocks or 0) * int(block_size or 0))

    def rollout_bench_linears(self) -> list[dict[str, Any]]:
        """Return the linear layers of this rank, `LinearShape`s as dictionaries."""
        return [shape.model_dump() for shape in linear_shapes(self.get_model())]

    def rollout_bench_settings(self, asked: str = "{}") -> dict[str, Any]:
        """Return facts that a server does not expose over HTTP: resolved settings, world size, vocabulary, end of text.

        `asked`: the engine's arguments as JSON, because the server's method only accepts text.
        """
        model_config = self.vllm_config.model_config
        return {
            "resolved": resolved_settings(self.vllm_config),
            "overruled": overruled(self.vllm_config, json.loads(asked)),
            "world_size": world_size(self.vllm_config),
            "tensor_parallel_size": int(self.vllm_config.parallel_config.tensor_parallel_size),
            "vocabulary": int(model_config.get_vocab_size()),
            "end_of_text": end_of_text(model_config),
        }


def count_weights(model: Any) -> dict[str, dict[str, int]]:
    """Return the bytes of all tensors of `model` by data type, separately for linear layers with experts and others."""
    linear: Counter[str] = Counter()
    other: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    seen: set[int] = set()
    for name, module in model.named_modules():
        is_linear = is_linear_module(module) and not ROUTER.search(name)
        if is_linear:
            methods[_method(module)] += 1
            kernels.update(_kernels(module))
        for label, held in all_tensors(module, seen) if is_linear else own_tensors(module, seen):
            counts = is_linear and not NOT_A_WEIGHT.search(label)
            (linear if counts else other)[_dtype_of(held)] += _size_of(held)
    counted = {"linear": linear, "other": other, "linear_methods": methods, "linear_kernels": kernels}
    return {name: dict(counts) for name, counts in counted.items()}


def _dtype_of(held: Any) -> str:
    return held.dtype if isinstance(held, Packed) else _dtype(held)


def _size_of(held: Any) -> int:
    return held.size if isinstance(held, Packed) else held.numel() * held.element_size()


def is_linear_module(module: Any) -> bool:
    """Return whether `module` is a linear layer or holds experts."""
    bases = {base.__name__ for base in type(module).__mro__}
    return "LinearBase" in bases or bool(bases & set(EXPERTS))


def _method(module: Any) -> str:
    scheme = getattr(module, "scheme", None)
    scheme = scheme if scheme is not None else getattr(module, "quant_method", None)
    inner = getattr(scheme, "quant_method", None)  # vllm-ascend wraps its schemes once
    return type(inner if inner is not None else scheme).__name__


def _kernels(module: Any) -> list[str]:
    """Return the kernel of the layer's method; empty if the method has none."""
    holders = (getattr(module, "scheme", None), getattr(module, "quant_method", None))
    found = [getattr(holder, name, None) for holder in holders for name in ("kernel", "fp8_linear")]
    return [type(kernel).__name__ for kernel in found if kernel is not None][:1]


def own_tensors(module: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield name and tensor of each parameter and buffer of `module` itself; `seen` has the ids of earlier tensors."""
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            yield from _plain_tensors(name, tensor)


def all_tensors(module: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield `own_tensors` and tensors in the other attributes of a linear layer, such as packed weights (`Packed`).

    The attributes are sorted, so the name of a tensor with two names does not depend on the order of assignment.
    """
    import torch

    own = [*sorted(module.__dict__.items()), *sorted(module._parameters.items()), *sorted(module._buffers.items())]
    waiting = [(name, value, 0) for name, value in own if name not in ("_parameters", "_buffers", "_modules")]
    while waiting:
        name, value, depth = waiting.pop()
        if id(value) in seen or isinstance(value, torch.nn.Module):
            continue
        if isinstance(value, torch.Tensor):
            seen.add(id(value))
            yield from _plain_tensors(name, value)
        elif (packed := packed_by(value)) is not None:
            seen.add(id(value))
            yield "weight", packed
        elif depth < DEPTH:
            waiting += [(inner, held, depth + 1) for inner, held in _held_by(name, value)]


def _plain_tensors(name: str, tensor: Any) -> Iterator[tuple[str, Any]]:
    """Yield `tensor` itself, or the inner tensors of a wrapping subclass (torchao)."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        if tensor.device.type != "meta" and tensor.numel():
            yield name, tensor
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


# A worker imports this module by name after vLLM. Code that imports it earlier calls `note_packed_weights` itself:
# the import of vLLM is timed, and must not happen here.
if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" and "vllm" in sys.modules:
    note_packed_weights()


def engine_facts(
    ranks: Sequence[dict[str, Any]],
    resolved: dict[str, Any],
    tensor_parallel_size: int,
    kv_cache_tokens: int | None,
    overruled: dict[str, Any] | None = None,
) -> EngineFacts:
    """Return the facts of an engine.

    Args:
        ranks: the census of each worker.
        resolved: settings as resolved by the engine.
        tensor_parallel_size: number of workers that share the same layers.
        kv_cache_tokens: capacity of the KV cache in tokens; None if unknown.
        overruled: arguments that the engine does not follow, with the values that it uses.
    """
    linear: Counter[str] = Counter()
    other: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for rank in ranks:
        linear.update(rank["linear"])
        other.update(rank["other"])
    for rank in ranks[::tensor_parallel_size]:
        methods.update(rank["linear_methods"])
        kernels.update(rank.get("linear_kernels", {}))
    caches = [(rank.get("kv_cache"), at % tensor_parallel_size == 0) for at, rank in enumerate(ranks)]
    backends = sorted({name for rank in ranks for name in rank["attention_backends"]})
    return EngineFacts(
        resolved={**resolved, "attention_backends": backends},
        kv_cache_tokens=kv_cache_tokens,
        weights_bytes_by_dtype=WeightBytes(linear=dict(linear), other=dict(other)),
        linear_methods=dict(methods),
        linear_kernels=dict(kernels) or None,
        kv_cache=_cache_facts(caches),
        overruled=overruled or None,
    )


def _cache_facts(caches: Sequence[tuple[dict[str, Any] | None, bool]]) -> CacheFacts | None:
    """Return the KV cache of an engine from each worker's cache, and whether its layers count; None if unknown."""
    layers: Counter[str] = Counter()
    size = 0
    for cache, counts in caches:
        if cache is None:
            return None
        size += cache["bytes_per_token"]
        if counts:
            layers.update(cache["layers"])
    return CacheFacts(layers=dict(layers), bytes_per_token=size)
