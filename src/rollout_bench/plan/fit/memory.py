"""The memory that an engine takes while it is alive, and how much of it there is: can several live together?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import Platform, Spec, is_local, tensor_parallel_size
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import number
from rollout_bench.plan.checks import USUAL_UTILIZATION
from rollout_bench.plan.fit.architecture import (
    NOT_QUANTIZED,
    Architecture,
    Coding,
    UnknownArchitectureError,
    architecture_from,
    cache_value_bytes,
    coding_of,
    linear_shapes,
    model_config,
)
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
    if spec.model.synthetic is None and is_local(model_path):
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


OFFLOADS = ("cpu_offload", "offload")
"""How arguments begin that leave part of the weights in the host's memory."""


def engine_parts(spec: Spec, model_path: str, ranks: int) -> dict[str, float]:
    """Return what an engine holds on one of `ranks` devices at the least, what it is -> bytes.

    Weights, and its KV cache: of a set size, else as much as one sequence of max_model_len needs, without which vLLM
    does not start. On CPU also what its process takes.

    Raises:
        MemoryUnknownError: nobody can say how large the weights are.
    """
    parts = {"weights": weights_held(spec, model_path) / ranks}
    asked, one = set_cache_bytes(spec), sequence_bytes(spec, model_path, ranks)
    if asked is not None:
        parts["KV cache"] = asked
    elif one is not None:
        parts["KV cache of one sequence"] = one
    return {**parts, "process": OWN_BYTES} if spec.platform == "cpu" else parts


def sequence_bytes(spec: Spec, model_path: str, ranks: int) -> float | None:
    """Return the KV cache of one sequence of max_model_len on one of `ranks` devices; None where nobody can say."""
    try:
        config = model_config(spec, model_path)
        a, dtype = architecture_from(config), coding_of(spec, config).dtype
    except UnknownArchitectureError:
        return None
    value = cache_value_bytes(spec.engine.args.get("kv_cache_dtype") or spec.quant.kv_cache_dtype, dtype)
    tensor = tensor_parallel_size(spec)
    layers = (a.layers - a.sliding_layers) * tensor / ranks
    token = 2 * a.key_value_heads_of_rank(tensor) * a.head_dim * value * layers
    return float(spec.engine.args.get("max_model_len") or 0) * token


def set_cache_bytes(spec: Spec) -> float | None:
    """Return the size of the KV cache that is set; None where the engine takes what its share leaves."""
    asked = spec.engine.args.get("kv_cache_memory_bytes")
    return cpu_cache_bytes(spec) if spec.platform == "cpu" else None if asked is None else float(asked)


def trainer_bytes(spec: Spec, model_path: str) -> float:
    """Return what a placement's trainer keeps on a device while the engine there is awake, if they share one.

    Of each parameter its bf16 weight; where it really trains also two moments, and, unless the engine sleeps
    meanwhile, the gradient (docs/whole-step.md).
    """
    placement = spec.placement
    if placement is None or placement.generators is not None or spec.platform == "cpu":
        return 0.0
    each = 2 if placement.train_s is not None else 6 if placement.sleep else 8
    return each * weights_held(spec, model_path) / 2


def unfit(experiment: Experiment, device_bytes: float, device: str) -> UserError | None:
    """Return what to say of an engine that a device can't hold in any case; None where it may.

    Args:
        experiment: whose engine it is.
        device_bytes: memory of a device; on CPU of the machine, or of one of its memory nodes.
        device: what it is called.
    """
    spec, args = experiment.spec, experiment.spec.engine.args
    if spec.endpoint is not None or any(name.startswith(OFFLOADS) and value for name, value in args.items()):
        return None
    ranks = tensor_parallel_size(spec) * int(args.get("pipeline_parallel_size") or 1)
    try:
        parts, trainer = engine_parts(spec, experiment.model_path, ranks), trainer_bytes(spec, experiment.model_path)
    except MemoryUnknownError:
        return None
    asked, one = set_cache_bytes(spec), sequence_bytes(spec, experiment.model_path, ranks)
    if asked is not None and one is not None and asked < one:
        return UserError(
            f"config: kv_cache_memory_bytes: {asked:.0f} bytes hold no sequence of {spec.title} with max_model_len"
            f" {args['max_model_len']}",
            f"set it to {math.ceil(one)} or more in engine_args, or lower max_model_len",
        )
    needed, is_set = sum(parts.values()), asked is not None
    share = 1.0 if is_set else utilization(spec)
    taken = max(needed, 0.0 if is_set else share * device_bytes)
    if needed <= share * device_bytes and taken + trainer <= device_bytes:
        return None
    told = ", ".join(
        f"{number(size / 1e9, 3)} GB {what}" for what, size in {**parts, "trainer": trainer}.items() if size
    )
    room = f"{device} has {number(device_bytes / 1e9, 3)} GB"
    room += "" if is_set else f", of which gpu_memory_utilization {share:g} is {number(share * device_bytes / 1e9, 3)}"
    least = math.ceil(100 * needed / device_bytes) / 100
    most = math.floor(100 - 100 * trainer / device_bytes) / 100
    if least <= min(most, USUAL_UTILIZATION) and not is_set:
        remedy = f"set gpu_memory_utilization to {least:.2f} or more in engine_args"
        remedy += f", and to {most:.2f} at most" if trainer else ""
        remedy += ", or kv_cache_memory_bytes" if spec.platform == "cpu" else ""
    elif needed - parts.get("KV cache", 0.0) + trainer < device_bytes and is_set:
        remedy = "set kv_cache_memory_bytes in engine_args to less"
    elif trainer or spec.platform == "cpu":
        remedy = "take a smaller model, or a machine with more memory"
    else:
        size, there = ranks, share * device_bytes
        while size < MOST_RANKS and sum(engine_parts(spec, experiment.model_path, size).values()) > there:
            size *= 2
        remedy = f"set tensor_parallel_size to {size} in engine_args, or take a smaller model"
    return UserError(f"config: {spec.title} ({spec.mode}) does not fit: {told}; {room}", remedy)


MOST_RANKS = 1024


def check_fits(experiments: Iterable[Experiment], device_bytes: float | None, device: str) -> None:
    """Raise `UserError` where an engine can't be held by a device; on CPU by this machine."""
    for experiment in experiments:
        on_cpu = experiment.spec.platform == "cpu"
        there = device_bytes if not on_cpu else machine_bytes() if set_cache_bytes(experiment.spec) else node_bytes()
        problem = None if there is None else unfit(experiment, there, "this machine" if on_cpu else device)
        if problem is not None:
            raise problem


class MachineMemory:
    """The memory of this machine: bytes on CPU, on accelerators shares of what the devices of a launch have.

    Args:
        on_cluster: whether launches run somewhere else: then nobody knows how much memory of a host there is.
        places: launches that run side by side on CPU, each with a share of the memory.
        device_bytes: memory of one accelerator; None where nobody can tell.
    """

    def __init__(self, on_cluster: bool = False, places: int = 1, device_bytes: float | None = None) -> None:
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
        """Return the share of a device that weights and the KV cache come to at the least; 0 where nobody can tell."""
        spec = experiment.spec
        if self._device_bytes is None:
            return 0.0
        try:
            parts = engine_parts(spec, experiment.model_path, tensor_parallel_size(spec))
        except MemoryUnknownError:
            return 0.0
        return sum(parts.values()) / self._device_bytes

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


def node_bytes(nodes: Path = Path("/sys/devices/system/node")) -> int:
    """Return the memory of the largest memory node, which vLLM on CPU takes its share of (0.32, read)."""
    found = []
    for file in nodes.glob("node*/meminfo"):
        lines = (line.split() for line in file.read_text().splitlines())
        found += [int(words[3]) << 10 for words in lines if words[2:3] == ["MemTotal:"]]
    return max(found, default=machine_bytes())


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
