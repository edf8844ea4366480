"""The memory of a running engine, and the available memory: whether several engines can be alive simultaneously."""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from rollout_bench.contracts.spec import Platform, Spec, is_local, tensor_parallel_size
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import number
from rollout_bench.plan.checks import USUAL_UTILIZATION
from rollout_bench.plan.fit.architecture import (
    Architecture,
    MemoryUnknownError,
    architecture_from,
    bits_of,
    cache_value_bytes,
    model_config,
    value_bytes,
)
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.planning import planning_of

GIB = 1 << 30

OWN_BYTES = int(1.25 * GIB)
"""Memory of an engine's process on CPU besides weights, KV cache and a step's work: Python, torch, vLLM.

Measured with vLLM 0.32 and qwen3-90m: at most 1.0 to 1.1 GiB, and its supervisor 0.1 GiB.
"""

WORKING_BYTES, WORKING_SHARE = GIB // 2, 0.25
"""Further memory of a rank on CPU: activations and logits of a step, and repacked weights, a share of all weights."""

MOST_AVAILABLE = 0.9
"""Share of the available memory that engines on CPU may use together, since the available memory changes."""

MOST_UTILIZATION = 0.97
"""Share of a device's memory that engines may request together: each also has a CUDA context outside of its share."""

KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"

WEIGHT_FILES = (".safetensors", ".bin", ".pt")


def held_bytes(architecture: Architecture, bits: float, value_bytes: float) -> float:
    """Return bytes of all weights: `bits` for each of linear layers, `value_bytes` for each other."""
    return architecture.linear * bits / 8 + architecture.plain * value_bytes


def weights_held(spec: Spec, model_path: str) -> float:
    """Return bytes of the weights of an engine, from the files or else from the architecture.

    Raises:
        MemoryUnknownError: both are unknown.
    """
    if spec.model.synthetic is None and is_local(model_path):
        files = (path for path in Path(model_path).expanduser().glob("*") if path.suffix in WEIGHT_FILES)
        if held := sum(path.stat().st_size for path in files if path.is_file()):
            return float(held)
    return held_bytes(architecture_from(model_config(spec, model_path)), bits_of(spec), value_bytes(spec))


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


OFFLOADS = ("cpu_offload", "offload")
"""Prefixes of arguments that keep part of the weights in the host's memory."""


def engine_parts(spec: Spec, model_path: str, ranks: int) -> dict[str, float]:
    """Return the minimum memory of an engine on one of `ranks` devices: name of the part -> bytes.

    The parts are the weights and the KV cache. If the cache has no set size, it is the size for one sequence of
    max_model_len, because vLLM does not start with less. On CPU the process is included.

    Raises:
        MemoryUnknownError: the size of the weights is unknown.
    """
    parts = {"weights": weights_held(spec, model_path) / ranks}
    asked, one = set_cache_bytes(spec), sequence_bytes(spec, model_path, ranks)
    if asked is not None:
        parts["KV cache"] = asked
    elif one is not None:
        parts["KV cache of one sequence"] = one
    return {**parts, "process": OWN_BYTES} if spec.platform == "cpu" else parts


def sequence_bytes(spec: Spec, model_path: str, ranks: int) -> float | None:
    """Return the KV cache of one sequence of max_model_len on one of `ranks` devices; None if unknown."""
    try:
        a = architecture_from(model_config(spec, model_path))
    except MemoryUnknownError:
        return None
    tensor = tensor_parallel_size(spec)
    heads = max(1, a.key_value_heads // tensor)  # with more ranks than heads, each rank has a copy of one
    token = 2 * heads * a.head_dim * cache_value_bytes(spec) * a.whole_layers * tensor / ranks
    return float(spec.engine.args.get("max_model_len") or 0) * token


def unfit(experiment: Experiment, device_bytes: float, device: str) -> UserError | None:
    """Return the error for an engine that cannot fit a device in any case; None if it may fit.

    Args:
        experiment: the experiment of the engine.
        device_bytes: memory of a device; on CPU of the machine, or of one of its memory nodes.
        device: its name in messages.
    """
    spec, args, path = experiment.spec, experiment.spec.engine.args, experiment.model_path
    if spec.endpoint is not None or any(name.startswith(OFFLOADS) and value for name, value in args.items()):
        return None
    ranks = tensor_parallel_size(spec) * int(args.get("pipeline_parallel_size") or 1)
    try:
        parts = engine_parts(spec, path, ranks)
        trainer = planning_of(spec.mode).beside_bytes(spec, weights_held(spec, path))
    except MemoryUnknownError:
        return None
    asked, one = set_cache_bytes(spec), sequence_bytes(spec, path, ranks)
    if asked is not None and one is not None and asked < one:
        return UserError(
            f"config: kv_cache_memory_bytes: {asked:.0f} bytes are too small for one sequence of {spec.title} with"
            f" max_model_len {args['max_model_len']}",
            f"set it to {math.ceil(one)} or more in engine_args, or lower max_model_len",
        )
    needed, is_set = sum(parts.values()), asked is not None
    share = 1.0 if is_set else utilization(spec)
    taken = max(needed, 0.0 if is_set else share * device_bytes)
    if needed <= share * device_bytes and taken + trainer <= device_bytes:
        return None
    sizes = {**parts, "trainer": trainer}
    told = ", ".join(f"{number(size / 1e9, 3)} GB {what}" for what, size in sizes.items() if size)
    room = f"{device} has {number(device_bytes / 1e9, 3)} GB"
    room += "" if is_set else f", of which gpu_memory_utilization {share:g} is {number(share * device_bytes / 1e9, 3)}"
    least = math.ceil(100 * needed / device_bytes) / 100
    most = math.floor(100 - 100 * trainer / device_bytes) / 100
    upper = f", and to {most:.2f} at most" if trainer else ""
    other = ", or kv_cache_memory_bytes" if spec.platform == "cpu" else ""
    size = ranks << max(1, math.ceil(math.log2(needed / (share * device_bytes))))
    remedies = {
        f"set gpu_memory_utilization to {least:.2f} or more in engine_args{upper}{other}": not is_set
        and least <= min(most, USUAL_UTILIZATION),
        "set kv_cache_memory_bytes in engine_args to less": is_set
        and needed - parts.get("KV cache", 0.0) + trainer < device_bytes,
        "take a smaller model, or a machine with more memory": trainer or spec.platform == "cpu",
        f"set tensor_parallel_size to {size} in engine_args, or take a smaller model": True,
    }
    remedy = next(remedy for remedy, helps in remedies.items() if helps)
    return UserError(f"config: {spec.title} ({spec.mode}) does not fit: {told}; {room}", remedy)


def check_fits(experiments: Iterable[Experiment], device_bytes: float | None, device: str) -> None:
    """Check that each engine may fit a device, on CPU this machine.

    Raises:
        UserError: an engine cannot fit.
    """
    for experiment in experiments:
        on_cpu = experiment.spec.platform == "cpu"
        there = device_bytes if not on_cpu else machine_bytes() if set_cache_bytes(experiment.spec) else node_bytes()
        problem = None if there is None else unfit(experiment, there, "this machine" if on_cpu else device)
        if problem is not None:
            raise problem


class MachineMemory:
    """The memory of this machine: bytes on CPU, shares of a launch's devices on accelerators.

    Args:
        on_cluster: whether launches run elsewhere, so that the host's memory is unknown.
        places: launches that run side by side on CPU, each with a share of the memory.
        device_bytes: memory of one accelerator; None if unknown.
    """

    def __init__(self, on_cluster: bool = False, places: int = 1, device_bytes: float | None = None) -> None:
        self._on_cluster, self._places, self._device_bytes = on_cluster, max(1, places), device_bytes

    def taken(self, experiment: Experiment) -> float:
        """Return the memory of an engine.

        Raises:
            MemoryUnknownError: it is unknown.
        """
        spec = experiment.spec
        if spec.platform != "cpu":
            held = 0.0
            with suppress(MemoryUnknownError):
                held = sum(engine_parts(spec, experiment.model_path, tensor_parallel_size(spec)).values())
            return max(utilization(spec), held / (self._device_bytes or math.inf))
        cache = set_cache_bytes(spec)
        if cache is None:
            return utilization(spec) * machine_bytes()
        ranks = tensor_parallel_size(spec)
        processes = ranks + (1 if spec.engine.multiprocess else 0)
        weights = (1 + WORKING_SHARE) * weights_held(spec, experiment.model_path)
        return weights + ranks * (cache + WORKING_BYTES) + processes * OWN_BYTES

    def there(self, platform: Platform) -> float:
        """Return the memory for all engines together: on CPU `MOST_AVAILABLE` of the currently available memory."""
        if platform != "cpu":
            return MOST_UTILIZATION
        return math.inf if self._on_cluster else MOST_AVAILABLE * available_bytes() / self._places

    def words(self, platform: Platform, amount: float) -> str:
        """Return an amount in readable form."""
        if platform != "cpu":
            return f"{amount:.2f} of a device's memory"
        return f"{amount / GIB:,.1f} GiB of memory"

    def remedy(self, platform: Platform, engines: int) -> str:
        """Return the setting with which this number of engines fits."""
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
    """Return the memory of the largest memory node, of which vLLM on CPU uses its share (0.32, read)."""
    found = []
    for file in nodes.glob("node*/meminfo"):
        lines = (line.split() for line in file.read_text().splitlines())
        found += [int(words[3]) << 10 for words in lines if words[2:3] == ["MemTotal:"]]
    return max(found, default=machine_bytes())


def available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the available memory: the smaller of the machine's and the container's."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        most = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        stats = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return min(available, int(most) - used + int(stats["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no limit ("max"), another version of cgroups, or none
        return available
