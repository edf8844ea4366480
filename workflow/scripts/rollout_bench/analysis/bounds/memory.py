"""The memory that an engine takes while it is alive, and how much of it there is: can several live together?"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from rollout_bench.analysis.bounds.architecture import (
    Architecture,
    UnknownArchitectureError,
    architecture_from,
    linear_shapes,
)
from rollout_bench.analysis.bounds.bound import model_config
from rollout_bench.analysis.bounds.cost import NOT_QUANTIZED, Coding, coding_of
from rollout_bench.contracts.spec import Platform, Spec, is_local, tensor_parallel_size
from rollout_bench.plan.checks import USUAL_UTILIZATION
from rollout_bench.plan.interleaving import MemoryUnknownError
from rollout_bench.plan.matrix import Experiment

GIB = 1 << 30

OWN_BYTES = int(1.25 * GIB)
"""What a process of an engine takes on CPU besides weights, KV cache and `working_bytes`: Python, torch, vLLM.

Measured with vLLM 0.32 and qwen3-90m: at its most 1.0 to 1.1 GiB, and its supervisor 0.1 GiB.
"""

MOST_AVAILABLE = 0.9
"""Share of the memory that is available which engines on CPU may take together: what is available changes."""

STEP_TOKENS, STEP_SEQUENCES = 4096, 256
"""What vLLM sets max_num_batched_tokens and max_num_seqs to on CPU (`EngineArgs` of 0.32, for one rank)."""

FLOAT32_BYTES = 4

MOST_UTILIZATION = 0.97
"""Share of a device's memory that engines may ask for together: each also has a CUDA context, outside of its share."""

KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"

WEIGHT_FILES = (".safetensors", ".bin", ".pt")


def held_bytes(architecture: Architecture, coding: Coding) -> float:
    """Return bytes of all weights: of each matrix K N bits / 8 and its scales, of tied embeddings those of the head."""
    total = 0.0
    for shape in linear_shapes(architecture):
        plain = shape.role in NOT_QUANTIZED
        bits, scale = (8 * coding.value_bytes, 0.0) if plain else (coding.bits, coding.scale_bytes)
        total += shape.layers * shape.out_features * (shape.in_features * bits / 8 + scale)
    if not architecture.tied_embeddings:
        total += architecture.vocabulary * architecture.hidden_size * coding.value_bytes
    return total + (2 * architecture.layers + 1) * architecture.hidden_size * coding.value_bytes


def weights_held(spec: Spec, model_path: str) -> float:
    """Return bytes of the weights that an engine holds: those of the files, else what the architecture comes to.

    Raises:
        MemoryUnknownError: neither tells.
    """
    if spec.model.shape is None and is_local(model_path):
        try:
            files = [path for path in Path(model_path).expanduser().iterdir() if path.suffix in WEIGHT_FILES]
            if files:
                return float(sum(path.stat().st_size for path in files))
        except OSError:
            pass  # the architecture may tell, and if it does not, its reason does
    try:
        config = model_config(spec, model_path)
        return held_bytes(architecture_from(config), coding_of(spec, config))
    except UnknownArchitectureError as error:
        raise MemoryUnknownError(str(error)) from None


def working_bytes(spec: Spec, model_path: str) -> float:
    """Return bytes that an engine on CPU needs at its most besides weights and KV cache.

    The activations of one step, in float32: 4 x hidden_size (residual, normed, attention's in and out) and
    3 x intermediate_size (gate, up and their product) for each token. The logits of one step, in float32. The largest
    weight once more, in the model's 2 bytes, since loading may repack it.

    Raises:
        MemoryUnknownError: the model's config.json is not here, or lacks a size.
    """
    try:
        config = model_config(spec, model_path)
    except UnknownArchitectureError as error:
        raise MemoryUnknownError(str(error)) from None
    config = config.get("text_config") or config
    hidden, vocabulary = (_size(config, name) for name in ("hidden_size", "vocab_size"))
    experts = int(config.get("moe_intermediate_size") or 0) * int(config.get("num_experts_per_tok") or 0)
    width = max(int(config.get("intermediate_size") or 0), experts)
    args = spec.engine.args
    sequences = int(args.get("max_num_seqs") or STEP_SEQUENCES)
    longest = int(args.get("max_model_len") or config.get("max_position_embeddings") or STEP_TOKENS)
    tokens = int(args.get("max_num_batched_tokens") or min(max(STEP_TOKENS, longest), sequences * longest))
    activations = tokens * (4 * hidden + 3 * width) * FLOAT32_BYTES
    logits = min(sequences, tokens) * vocabulary * FLOAT32_BYTES
    return float(activations + logits + 2 * hidden * max(vocabulary, 2 * width))


def _size(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise MemoryUnknownError(f"its config.json has no {name}", "give the model a config.json with its sizes")
    return value


def cpu_cache_bytes(spec: Spec, variables: Mapping[str, str] = os.environ) -> float | None:
    """Return bytes of the KV cache on CPU; None where the engine takes what its share of the machine leaves.

    The variable wins over the argument, as in vLLM.
    """
    space = {**variables, **spec.engine.environment}.get(KV_SPACE)
    if space and space.isdigit():
        return int(space) * float(GIB)
    asked = spec.engine.args.get("kv_cache_memory_bytes")
    return None if asked is None else float(asked)


def utilization(spec: Spec) -> float:
    """Return the share of the memory of a device, on CPU of the machine, that an engine asks for."""
    asked = spec.engine.args.get("gpu_memory_utilization")
    return USUAL_UTILIZATION if asked is None else float(asked)


class MachineMemory:
    """The memory of this machine: bytes on CPU, on accelerators shares of what the devices of a launch have.

    Args:
        on_cluster: whether launches run somewhere else: then nobody knows how much memory of a host there is.
        places: launches that run side by side on CPU, each with a share of the memory.
        device_bytes: memory of one accelerator; None where nobody can tell.
    """

    def __init__(self, on_cluster: bool = False, places: int = 1, device_bytes: int | None = None) -> None:
        self._on_cluster, self._places, self._device_bytes = on_cluster, max(1, places), device_bytes

    def taken(self, experiment: Experiment) -> float:
        """Return what an engine takes; raise `MemoryUnknownError` where nobody can say."""
        spec = experiment.spec
        if spec.platform != "cpu":
            return max(utilization(spec), self._held_share(experiment))
        cache = cpu_cache_bytes(spec)
        if cache is None:
            return utilization(spec) * machine_bytes()
        ranks = tensor_parallel_size(spec)
        processes = ranks + (1 if spec.engine.multiprocess else 0)
        working = ranks * working_bytes(spec, experiment.model_path)
        return weights_held(spec, experiment.model_path) + ranks * cache + working + processes * OWN_BYTES

    def _held_share(self, experiment: Experiment) -> float:
        """Return the share of a device that weights and a KV cache of a set size come to; 0 where nobody can tell.

        With kv_cache_memory_bytes vLLM does not look at gpu_memory_utilization.
        """
        args = experiment.spec.engine.args
        if self._device_bytes is None or args.get("kv_cache_memory_bytes") is None:
            return 0.0
        ranks = int(args.get("tensor_parallel_size") or 1)
        try:
            weights = weights_held(experiment.spec, experiment.model_path) / ranks
        except MemoryUnknownError:
            weights = 0.0
        return (weights + float(args["kv_cache_memory_bytes"])) / self._device_bytes

    def there(self, platform: Platform) -> float:
        """Return what all engines together may take: on CPU `MOST_AVAILABLE` of what is available now."""
        if platform != "cpu":
            return MOST_UTILIZATION
        return math.inf if self._on_cluster else MOST_AVAILABLE * self._available / self._places

    @cached_property
    def _available(self) -> int:
        """Looked up once, so that all groups of a plan are told of one number."""
        return available_bytes()

    def words(self, platform: Platform, amount: float) -> str:
        """Return an amount as people read it."""
        if platform != "cpu":
            return f"{amount:.2f} of a device's memory"
        return f"{amount / GIB:,.1f} GiB of memory"

    def remedy(self, platform: Platform, engines: int) -> str:
        """Return what to set so that so many engines fit."""
        if platform != "cpu":
            share = math.floor(100 * MOST_UTILIZATION / engines) / 100
            cache = "" if self._device_bytes is None else ", and kv_cache_memory_bytes, where it is set, to less"
            return f"set gpu_memory_utilization: {share:.2f} in engine_args{cache}"
        return "set kv_cache_memory_bytes in engine_args to a size of which all fit, or free memory"


@lru_cache(maxsize=1)
def machine_bytes() -> int:
    """Return the memory of this machine."""
    import psutil  # not at the top: only the CPU's numbers need it

    return int(psutil.virtual_memory().total)


def available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return memory that is available now, on the machine and in the container that this runs in, whichever is less."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stats = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return min(available, int(most) - used + int(stats["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no limit ("max"), another version of cgroups, or none
        return available
