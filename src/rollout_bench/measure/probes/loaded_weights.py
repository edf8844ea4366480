"""The weight census inside vLLM's worker: bytes by data type, linear layers by role, resolved settings.

vLLM mixes `WeightCensus` into its worker class (`worker_extension_cls`), and the methods are called by name on every
rank. On CPU most linear layers pass their weights to oneDNN, which packs them into its own memory and leaves an empty
parameter. So these weights are recorded when they are passed.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rollout_bench.contracts.drafts import ARGUMENT, LENGTH, RANDOM
from rollout_bench.contracts.record import RUNNER, CacheFacts, EngineFacts, Served, WeightBytes
from rollout_bench.measure.probes.graph_reports import report_graphs

CENSUS = f"{__name__}.WeightCensus"
"""vLLM's `worker_extension_cls`."""

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


def settings_of(vllm_config: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an engine as JSON values.

    Args:
        vllm_config: vLLM's config.
        asked: the engine's arguments.

    Returns:
        resolved: the fields in `FIELDS` that this vLLM has; overruled: from `overruled`; world_size: number of devices;
        tensor_parallel_size; vocabulary: number of token ids; end_of_text: ids that end a text, from the model's
        config, because without a tokenizer vLLM does not know them.
    """
    parts, parallel = vars(vllm_config), vllm_config.parallel_config
    compared = {name: value for name, value in asked.items() if name not in NOT_HELD}
    if isinstance(drafts := asked.get(ARGUMENT), Mapping):  # whose engine has the made draft's folder, and rates
        held = {key: value for key, value in drafts.items() if key != LENGTH and value != RANDOM}
        compared[ARGUMENT] = held
    return {
        "resolved": {
            NAMES.get(field, field): _plain(getattr(parts[part], field))
            for part, fields in FIELDS.items()
            for field in fields
            if hasattr(parts.get(part), field)
        }
        | ({RUNNER: bool(vllm_config.use_v2_model_runner)} if hasattr(vllm_config, RUNNER) else {}),
        "overruled": overruled(
            [parts, *(vars(parts[part]) for part in FIELDS if parts.get(part) is not None)], compared
        ),
        "world_size": int(parallel.world_size) * int(getattr(parallel, "data_parallel_size", 1) or 1),
        "tensor_parallel_size": int(parallel.tensor_parallel_size),
        "vocabulary": int(vllm_config.model_config.get_vocab_size()),
        "end_of_text": end_of_text(vllm_config.model_config),
    }


NOT_HELD = frozenset({"distributed_executor_backend", "data_parallel_size", "quantization", "tokenizer"})
"""Arguments not compared: the engine may express them differently, or other code checks or uses them."""

ALSO_CALLED = {"half": "float16", "float": "float32", "fp8": "fp8_e4m3"}
"""Value -> vLLM's second name for it."""


def overruled(parts: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in `asked` that the engine does not follow, with the values in `parts` that it uses instead.

    A nested key is called `<argument>.<key>`. Arguments that are in none of the parts of the config are left out.
    """
    values: dict[str, Any] = {}
    for name, value in asked.items():
        field = "cache_dtype" if name == "kv_cache_dtype" else name
        used = next((part[field] for part in parts if field in part), value)
        if isinstance(value, Mapping) and hasattr(used, "__dict__"):
            values |= {f"{name}.{inner}": each for inner, each in overruled([vars(used)], value).items()}
        elif not _as_asked(value, used):
            values[name] = _plain(used)
    return values


def _as_asked(asked: Any, used: Any) -> bool:
    """Return whether an engine that uses `used` follows `asked`, which may leave the choice to the engine."""
    if isinstance(asked, Mapping | list):
        return bool(used) or not asked  # the engine may transform the entries
    if isinstance(asked, str) and isinstance(used, int | float) and not isinstance(used, Enum):
        return True  # 4k, 90%
    names = {str(name).lower() for name in (_plain(used), getattr(used, "value", used))}
    return asked in (None, "auto", -1, used) or not names.isdisjoint({str(asked).lower(), ALSO_CALLED.get(asked)})


def kv_cache_tokens(cache: Mapping[str, Any]) -> int | None:
    """Return the capacity of the KV cache in tokens, from vLLM's facts about it; None if they lack it."""
    names = ("kv_cache_size_tokens", "num_gpu_blocks", "block_size")
    tokens, blocks, size = (int(text) if (text := str(cache.get(name))).isdecimal() else 0 for name in names)
    return tokens or blocks * size or None


def end_of_text(model_config: Any) -> list[int]:
    """Return the token ids that end a text, from the model's config."""
    token_ids = getattr(model_config.hf_text_config, "eos_token_id", None)
    return (
        [int(i) for i in token_ids]
        if isinstance(token_ids, list | tuple)
        else []
        if token_ids is None
        else [int(token_ids)]
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value).removeprefix("torch.")


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
        dtype: data type of the weight.
        nbytes: size of the weight in bytes.
        fact: result of the `look` of `note_packed_weights`.
    """

    dtype: str
    nbytes: int
    fact: Any


def note_packed_weights(look: Callable[[Any], Any] | None = None) -> None:
    """Record the weights that vLLM packs in this process from now on; this imports vLLM.

    From now on, `look` is called with each weight, and its result is recorded too.
    """
    from vllm import _custom_ops as ops

    for name in ("create_onednn_mm", "create_onednn_scaled_mm"):
        create = getattr(ops, name, None)
        packs = getattr(create, "packs", None)  # of an earlier call
        if create is not None and (packs is None or look is not None):
            setattr(ops, name, noting(packs or create, look))


def noting(packs: Any, look: Callable[[Any], Any] | None = None) -> Any:
    """Wrap `packs`, which packs a weight into a oneDNN handler, so that the handler carries the weight's `Packed`."""

    def create(weight: Any, *args: Any, **kwargs: Any) -> Any:
        handler = packs(weight, *args, **kwargs)
        handler.rollout_bench = Packed(_dtype(weight), weight.nbytes, None if look is None else look(weight))
        return handler

    create.packs = packs  # type: ignore[attr-defined]
    return create


def packed_by(value: Any) -> Packed | None:
    """Return the recorded weight of a oneDNN handler; None if `value` is not a recorded handler."""
    return getattr(value, "__dict__", {}).get("rollout_bench")


_HALVES = "lora_a_stacked", "lora_b_stacked"
"""Attributes of vLLM's layers with the tensors of adapters, one of each for each part of the layer."""


class WeightCensus:
    """Worker extension of vLLM."""

    get_model: Any  # the worker's own, as the others here
    model_runner: Any
    vllm_config: Any
    model_config: Any
    load_config: Any
    reload_weights: Any

    def rollout_bench_census(self) -> dict[str, Any]:
        """Return the weights and facts of this rank.

        Returns:
            linear, other: data type -> bytes; linear_methods, linear_kernels: class name -> number of layers;
            attention_backends: their names; kv_cache: from `cache_held`; pid of this process; device_model and
            device_memory_bytes, None on cpu; code: from `imported_code`.
        """
        model, cache = self.get_model(), self.vllm_config.cache_config
        tokens = int(cache.num_gpu_blocks or 0) * int(cache.block_size or 0)
        of_attention = {"attention_backends": _attention_backends(model), "kv_cache": cache_held(model, tokens)}
        return {**count_weights(model), **_device(), "pid": os.getpid(), "code": imported_code(), **of_attention}

    def rollout_bench_report_graphs(self) -> None:
        """Let this rank say of each step whether it ran in a captured graph."""
        report_graphs(self.model_runner)

    def rollout_bench_adapter(self) -> dict[str, int]:
        """Return what this rank's layers hold for adapters: values other than zero, and bytes of all their room."""
        tensors = [tensor for _, tensor in adapter_tensors_of(self.get_model())]
        values = sum(int(tensor.count_nonzero()) for tensor in tensors)
        return {"values": values, "bytes": sum(tensor.nbytes for tensor in tensors)}

    def rollout_bench_merge(self, folder: str, scale: float) -> dict[str, int]:
        """Add an adapter to the weights of the loaded checkpoint, and load these, as PEFT does: in the engine's dtype.

        Args:
            folder: the adapter, in PEFT's format.
            scale: factor of its output.

        Returns:
            values: those of the adapter that are not zero and were added; bytes: 0, for it has no memory of its own.
        """
        from safetensors.torch import load_file

        tensors, added = load_file(Path(folder) / "adapter_model.safetensors"), 0
        dtype = self.model_config.dtype

        def merged() -> Iterator[tuple[str, Any]]:
            nonlocal added
            for name, weight in self.checkpoint():
                where = f"base_model.model.{name.removesuffix('.weight')}"
                first, second = (tensors.get(f"{where}.lora_{half}.weight") for half in "AB")
                if first is not None and second is not None:
                    weight = weight.to(dtype) + scale * (second.to(dtype) @ first.to(dtype))
                    added += int(first.count_nonzero() + second.count_nonzero())
                yield name, weight

        self.reload_weights(weights_iterator=merged())
        return {"values": added, "bytes": 0}

    def checkpoint(self) -> Iterator[tuple[str, Any]]:
        """Yield name and tensor of the loaded checkpoint, read by vLLM's own loader."""
        from vllm.model_executor.model_loader import get_model_loader

        loader: Any = get_model_loader(self.load_config)
        read: Iterator[tuple[str, Any]] = loader.get_all_weights(self.model_config, self.get_model())
        return read

    def rollout_bench_settings(self, asked: str = "{}") -> dict[str, Any]:
        """Return facts that a server does not expose over HTTP, from `settings_of`.

        `asked`: the engine's arguments as JSON, because the server's method only accepts text.
        """
        return settings_of(self.vllm_config, json.loads(asked))


CODE = "rollout-bench: code of the engine: "
"""Start of the line of a launch's log that has the result of `imported_code` as JSON."""


def imported_code() -> dict[str, str]:
    """Return the path of this interpreter, called python, of vLLM, and of the compiled extensions in this process."""
    files = {name: str(getattr(module, "__file__", None)) for name, module in list(sys.modules.items())}
    compiled = (name for name in sorted(files) if name.startswith(("vllm.", "vllm_ascend.")))
    return {
        "python": sys.executable,
        "vllm": files.get("vllm", "none"),
        **{name: files[name] for name in compiled if files[name].endswith(".so")},
    }


def adapter_tensors_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and tensor of each part of an adapter in the layers of `model`; parts without an adapter are zero."""
    for path, module in model.named_modules():
        for half in _HALVES:
            for place, tensor in enumerate(getattr(module, half, ())):
                yield f"{path}.{half}.{place}", tensor


def count_weights(model: Any) -> dict[str, dict[str, int]]:
    """Return the bytes of all tensors of `model` by data type, separately for linear layers with experts and others."""
    names = ("linear", "other", "linear_methods", "linear_kernels")
    counts_of: dict[str, Counter[str]] = {name: Counter() for name in names}
    seen: set[int] = set()
    for name, module in model.named_modules():
        is_linear = is_linear_module(module) and not ROUTER.search(name)
        if is_linear:
            counts_of["linear_methods"][_method(module)] += 1
            counts_of["linear_kernels"].update(_kernels(module))
        for label, held in all_tensors(module, seen) if is_linear else own_tensors(module, seen):
            counts = is_linear and not NOT_A_WEIGHT.search(label)
            counts_of["linear" if counts else "other"][_dtype(held)] += held.nbytes
    return {name: dict(counts) for name, counts in counts_of.items()}


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
    kernels = [getattr(holder, name, None) for holder in holders for name in ("kernel", "fp8_linear")]
    return [type(kernel).__name__ for kernel in kernels if kernel is not None][:1]


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

    attributes = [
        *sorted(module.__dict__.items()),
        *sorted(module._parameters.items()),
        *sorted(module._buffers.items()),
    ]
    waiting = [(name, value, 0) for name, value in attributes if name not in ("_parameters", "_buffers", "_modules")]
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
    if flatten is not None:
        for inner in flatten()[0]:
            yield from _plain_tensors(f"{name}.{inner}", getattr(tensor, inner))
    elif tensor.device.type != "meta" and tensor.numel():
        yield name, tensor


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


def _dtype(held: Any) -> str:
    return str(held.dtype).removeprefix("torch.")


def _attention_backends(model: Any) -> list[str]:
    backends = [module.attn_backend for module in model.modules() if hasattr(module, "attn_backend")]
    return sorted({backend.get_name() for backend in backends if hasattr(backend, "get_name")})


def _device() -> dict[str, Any]:
    import torch

    kinds = [getattr(torch, kind, None) for kind in ("cuda", "npu")]
    devices = next((kind for kind in kinds if kind is not None and kind.is_available()), None)
    properties = devices and devices.get_device_properties(devices.current_device())
    return {
        "device_model": properties and properties.name,
        "device_memory_bytes": properties and int(properties.total_memory),
    }


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
            layers[_cache_dtype(module, tensors)] += 1
            size += sum(tensor.nbytes for tensor in tensors)
    if not layers or not tokens:
        return None
    return {"layers": dict(layers), "bytes_per_token": round(size / tokens)}


def _tensors(held: Any) -> list[Any]:
    """Return the tensors of a layer's cache: one, or separate ones for keys and values, as on Ascend."""
    import torch

    if isinstance(held, torch.Tensor):
        return [held] if held.numel() else []
    return [tensor for part in held for tensor in _tensors(part)] if isinstance(held, list | tuple) else []


def _cache_dtype(module: Any, tensors: list[Any]) -> str:
    """Return the data type of a layer's cache.

    For one-byte values only the layer has the type, because fp8 is stored in uint8 tensors. For other sizes the
    tensor's type counts.
    """
    configured = str(getattr(module, "kv_cache_dtype", "auto"))
    return configured if tensors[0].element_size() == 1 and configured != "auto" else _dtype(tensors[0])


# A worker imports this module by name after vLLM. Code that imports it earlier calls `note_packed_weights` itself:
# the import of vLLM is timed, and must not happen here.
if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" and "vllm" in sys.modules:
    note_packed_weights()


def engine_facts(
    ranks: Sequence[dict[str, Any]], settings: dict[str, Any], cache: Mapping[str, Any], served: Served | None = None
) -> EngineFacts:
    """Return the facts of an engine.

    Args:
        ranks: the census of each worker.
        settings: from `settings_of`.
        cache: vLLM's facts about its KV cache.
        served: the server's description of itself.
    """
    first = ranks[:: settings["tensor_parallel_size"]]  # workers that share the same layers follow each other
    weights = {name: _sum(rank[name] for rank in ranks) for name in ("linear", "other")}
    backends = {name for rank in ranks for name in rank["attention_backends"]}
    return EngineFacts(
        resolved={**settings["resolved"], "attention_backends": sorted(backends)},
        kv_cache_tokens=kv_cache_tokens(cache),
        weights_bytes_by_dtype=WeightBytes(**weights),
        linear_methods=_sum(rank["linear_methods"] for rank in first),
        linear_kernels=_sum(rank["linear_kernels"] for rank in first) or None,
        kv_cache=CacheFacts(
            layers=_sum(rank["kv_cache"]["layers"] for rank in first),
            bytes_per_token=sum(rank["kv_cache"]["bytes_per_token"] for rank in ranks),
        )
        if all(rank["kv_cache"] for rank in ranks)
        else None,
        served=served,
        overruled=settings["overruled"] or None,
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, counts), Counter[str]()))
