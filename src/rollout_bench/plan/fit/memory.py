"""The memory of a running engine, and the available memory: whether several engines can be alive simultaneously."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from rollout_bench.contracts.engine_memory import GIB, USUAL_UTILIZATION, set_cache_bytes, utilization
from rollout_bench.contracts.spec import Platform, Spec, is_local, replicas, tensor_parallel_size
from rollout_bench.core.errors import UserError
from rollout_bench.core.machine_memory import available_bytes, machine_bytes, node_bytes
from rollout_bench.core.numbers import number
from rollout_bench.plan.fit.architecture import (
    Architecture,
    MemoryUnknownError,
    architecture_from,
    bits_of,
    cache_value_bytes,
    check_declared,
    model_config,
    size_in,
    text_config,
    value_bytes,
)
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.planning import planning_of

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

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "*.bin", "*.pt")
"""Patterns of weights; the files of the first one that matches count, since others may be a trainer's own state."""


def held_bytes(architecture: Architecture, bits: float, value_bytes: float) -> float:
    """Return bytes of all weights: `bits` for each of linear layers, `value_bytes` for each other."""
    return architecture.linear * bits / 8 + architecture.plain * value_bytes


def weights_held(spec: Spec, model_path: str) -> float:
    """Return bytes of the weights of an engine, from the architecture or else from the files.

    Files may have another data type than the engine: it loads float32 as 16 bits, and quantizes layer by layer.

    Raises:
        MemoryUnknownError: both are unknown.
    """
    try:
        config = model_config(spec, model_path)
        check_declared(spec, config)
        return held_bytes(architecture_from(config), bits_of(spec), value_bytes(spec))
    except MemoryUnknownError:
        has_files = spec.model.synthetic is None and is_local(model_path)
        folder, patterns = Path(model_path).expanduser(), WEIGHT_FILES if has_files else ()
        files = next((found for each in patterns if (found := [*folder.glob(each)])), [])
        if not (held := sum(path.stat().st_size for path in files)):
            raise
        return float(held)


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


def full_sequences(spec: Spec, model_path: str, device_bytes: float) -> int | None:
    """Return how many sequences of max_model_len the KV cache holds on devices of this size; None if unknown.

    Activations and graphs of the engine are not counted, so it is an upper limit.
    """
    ranks = ranks_of(spec)
    one, asked = sequence_bytes(spec, model_path, ranks), set_cache_bytes(spec)
    if not one:
        return None
    room = asked if asked is not None else utilization(spec) * device_bytes - weights_held(spec, model_path) / ranks
    return max(0, math.floor(room / one))


def concurrent_sequences(spec: Spec) -> int:
    """Return how many sequences of a step one engine has at most: its share, or `max_num_seqs` if that is less."""
    step = math.ceil(spec.workload.prompts * spec.workload.samples_per_prompt / replicas(spec))
    most = spec.engine.args.get("max_num_seqs")
    return min(step, most) if isinstance(most, int) else step


def sequence_bytes(spec: Spec, model_path: str, ranks: int) -> float | None:
    """Return the KV cache of one sequence of max_model_len on one of `ranks` devices; None if unknown."""
    try:
        a = architecture_from(model_config(spec, model_path))
    except MemoryUnknownError:
        return None
    tensor = tensor_parallel_size(spec)
    values = a.of_rank(tensor).cached_values(float(spec.engine.args.get("max_model_len") or 0))
    return values * cache_value_bytes(spec) * tensor / ranks


@dataclass(frozen=True)
class Fit:
    """Whether an engine and the trainer of its launch fit a device, all in bytes.

    Attributes:
        parts: minimum memory of the engine on a device, by part.
        trainer: memory of the trainer on a device.
        beside: whether trainer and engine share a device.
        share: share of the device that the engine may use, 1 if its KV cache has a set size.
        cache: set size of the KV cache.
        device: memory of the device.
    """

    parts: dict[str, float]
    trainer: float
    beside: bool
    share: float
    cache: float | None
    device: float

    @property
    def needed(self) -> float:
        """Minimum memory of the engine."""
        return sum(self.parts.values())

    @property
    def lacks(self) -> float:
        """Bytes by which something exceeds its room; if negative, all fits and this much is left."""
        taken = max(self.needed, 0.0 if self.cache is not None else self.share * self.device)
        amounts = (taken + self.trainer, 0.0) if self.beside else (self.needed, self.trainer)
        return max(self.needed - self.share * self.device, *(amount - self.device for amount in amounts))


def fit_of(spec: Spec, path: str, device_bytes: float, tensor: int | None = None) -> Fit | None:
    """Return whether an engine fits a device, with `tensor` as another tensor_parallel_size; None if unknown."""
    if tensor is not None:
        args = {**spec.engine.args, "tensor_parallel_size": tensor}
        spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": args})})
    args = spec.engine.args
    if spec.endpoint is not None or any(name.startswith(OFFLOADS) and value for name, value in args.items()):
        return None
    try:
        parts = engine_parts(spec, path, ranks_of(spec))
        trainer, beside = planning_of(spec.mode).trainer_bytes(spec, weights_held(spec, path))
    except MemoryUnknownError:
        return None
    asked = set_cache_bytes(spec)
    return Fit(parts, trainer, beside, utilization(spec) if asked is None else 1.0, asked, device_bytes)


def ranks_of(spec: Spec) -> int:
    """Return the number of devices that share the layers of an engine."""
    return tensor_parallel_size(spec) * int(spec.engine.args.get("pipeline_parallel_size") or 1)


def smallest_tensor_parallel(spec: Spec, path: str, device_bytes: float) -> int | None:
    """Return the smallest larger power of two that, as tensor_parallel_size, makes all fit; None if none does."""
    heads = 0  # unknown: each size may do
    with suppress(MemoryUnknownError):
        heads = size_in(text_config(model_config(spec, path)), "num_attention_heads")
    sizes = (size for power in range(1, 11) if (size := 1 << power) > tensor_parallel_size(spec) and heads % size == 0)
    return next((size for size in sizes if (fit := fit_of(spec, path, device_bytes, size)) and fit.lacks <= 0), None)


def lacking_memory(experiment: Experiment, device_bytes: float, device: str) -> UserError | None:
    """Return the error for an engine or a trainer that cannot fit a device in any case; None if both may fit.

    Args:
        experiment: the experiment of the engine.
        device_bytes: memory of a device; on CPU of the machine, or of one of its memory nodes.
        device: its name in messages.
    """
    spec, path = experiment.spec, experiment.model_path
    fit = fit_of(spec, path, device_bytes)
    if fit is None:
        return None
    one = sequence_bytes(spec, path, ranks_of(spec))
    if fit.cache is not None and one is not None and fit.cache < one:
        return UserError(
            f"config: kv_cache_memory_bytes: {fit.cache:.0f} bytes are too small for one sequence of {spec.title} with"
            f" max_model_len {spec.engine.args['max_model_len']}",
            f"set it to {math.ceil(one)} or more in engine_args, or lower max_model_len",
        )
    if fit.lacks <= 0:
        return None
    sizes = {**fit.parts, "trainer" if fit.beside else "trainer on a device of its own": fit.trainer}
    sizes_text = ", ".join(f"{number(size / 1e9, 3)} GB {what}" for what, size in sizes.items() if size)
    room, is_set = f"{device} has {number(device_bytes / 1e9, 3)} GB", fit.cache is not None
    share = f"{fit.share:g} is {number(fit.share * device_bytes / 1e9, 3)}"
    room += "" if is_set else f", of which gpu_memory_utilization {share}"
    return UserError(
        f"config: {spec.title} ({spec.mode}) does not fit by {number(fit.lacks / 1e9, 3)} GB: {sizes_text}; {room}",
        _remedy(experiment, fit),
    )


def _remedy(experiment: Experiment, fit: Fit) -> str:
    """Return the first change with which everything fits."""
    spec, is_set, trainer = experiment.spec, fit.cache is not None, fit.trainer if fit.beside else 0.0
    least = math.ceil(100 * fit.needed / fit.device) / 100
    most = math.floor(100 - 100 * trainer / fit.device) / 100
    upper = f", and to {most:.2f} at most" if trainer else ""
    other = ", or kv_cache_memory_bytes" if spec.platform == "cpu" else ""
    size = None if spec.platform == "cpu" else smallest_tensor_parallel(spec, experiment.model_path, fit.device)
    remedies = {
        f"set gpu_memory_utilization to {least:.2f} or more in engine_args{upper}{other}": not is_set
        and fit.trainer <= fit.device
        and least <= min(most, USUAL_UTILIZATION),
        "set kv_cache_memory_bytes in engine_args to less": is_set
        and fit.needed - fit.parts.get("KV cache", 0.0) + trainer < fit.device,
        f"set tensor_parallel_size to {size} in engine_args, or take a smaller model": size is not None,
        "take a smaller model, or a machine with more memory: no tensor_parallel_size alone is enough": spec.platform
        != "cpu",
        "take a smaller model, or a machine with more memory": True,
    }
    return next(remedy for remedy, helps in remedies.items() if helps)


TYPICAL_BYTES = {"an H100": 85e9, "an H200": 150e9}
"""Devices that a plan made on another machine is about -> bytes of memory, as torch reports them."""


def fit_lines(experiments: Iterable[Experiment], device_bytes: float | None, device: str) -> Iterator[str]:
    """Yield sentences about what fits a CUDA device, by how much, and what does not, with a remedy.

    On a CPU, a sentence about engines that take most of the memory.

    Args:
        experiments: the experiments of the engines.
        device_bytes: memory of this machine's device; None if it has none, then the typical ones count.
        device: its name.
    """
    experiments = list(experiments)
    yield from _unlimited_lines([e for e in experiments if e.spec.platform == "cpu" and e.spec.endpoint is None])
    on_cuda = [e for e in experiments if e.spec.platform == "cuda"]
    unknown = {}
    for experiment in on_cuda:
        try:
            weights_held(experiment.spec, experiment.model_path)
        except MemoryUnknownError as reason:
            model = experiment.spec.model.name
            unknown[model] = f"memory: of {model} not known, since {reason}; {reason.remedy}"
    yield from unknown.values()
    for name, memory in ({device: device_bytes} if device_bytes else TYPICAL_BYTES).items():
        fits = [(fit.lacks, e) for e in on_cuda if (fit := fit_of(e.spec, e.model_path, memory)) is not None]
        wrong = [error for _, e in fits if (error := lacking_memory(e, memory, name)) is not None]
        if len(fits) > len(wrong):
            every = "both" if len(fits) == 2 else f"all {len(fits)}"
            whole = f"{every} experiments fit" if not wrong else f"{len(fits) - len(wrong)} of {len(fits)} fit"
            _, tightest = max(((lacks, e) for lacks, e in fits if lacks <= 0), key=itemgetter(0))
            verdict = whole if len(fits) > 1 else "it fits"
            yield f"memory: {name} ({number(memory / 1e9, 3)} GB): {verdict}{_cache_words(tightest, memory)}"
        yield from (f"memory: {error.problem.removeprefix('config: ')}; {error.remedy}" for error in wrong)


def _unlimited_lines(experiments: Sequence[Experiment]) -> Iterator[str]:
    """Yield a sentence if vLLM on a CPU would take its share of all memory for the KV cache of some of them."""
    unlimited = [e for e in experiments if set_cache_bytes(e.spec) is None]
    if not unlimited:
        return
    share = max(utilization(e.spec) for e in unlimited)
    sizes = [sequence_bytes(e.spec, e.model_path, ranks_of(e.spec)) for e in unlimited]
    needed = max(concurrent_sequences(e.spec) * (one or 0.0) for e, one in zip(unlimited, sizes, strict=True))
    enough = 1 << max(28, math.ceil(math.log2(needed or 1)))
    which = "is enough" if all(sizes) else "is a start"
    if enough > machine_bytes() / 2:
        enough = 1 << math.floor(math.log2(machine_bytes() / 2))
        which = "leaves memory for weights, and some sequences wait"
    yield (
        f"memory: without a size of its KV cache vLLM takes {100 * share:.0f} % of the machine's memory at each"
        f" start, which makes it slow: engine_args: {{kv_cache_memory_bytes: {enough}}} {which}"
    )


def _cache_words(tightest: Experiment, memory: float) -> str:
    """Return what the KV cache of the tightest experiment holds, and what the trainer beside it leaves."""
    spec, path = tightest.spec, tightest.model_path
    held, asked, fit = full_sequences(spec, path, memory), concurrent_sequences(spec), fit_of(spec, path, memory)
    share = f"gpu_memory_utilization {utilization(spec):g}"
    words = ""
    if held is not None:
        enough = "is enough" if held >= asked else "makes some of them wait"
        holds = f"the KV cache holds some {held:,} sequences of full length"
        runs = f"an engine runs up to {asked:,} at once"
        words = f"; tightest is {spec.title} ({spec.mode}): {holds}, and {runs}: {share} {enough}"
    if fit is not None and fit.trainer:
        left = number(-fit.lacks / 1e9, 3)
        words += f"; with the trainer {'beside it' if fit.beside else 'on another device'} {left} GB are left"
    return words


def check_fits(experiments: Iterable[Experiment], device_bytes: float | None, device: str) -> None:
    """Check that each engine may fit a device, on CPU this machine.

    Raises:
        UserError: an engine cannot fit.
    """
    for experiment in experiments:
        on_cpu = experiment.spec.platform == "cpu"
        memory = device_bytes if not on_cpu else machine_bytes() if set_cache_bytes(experiment.spec) else node_bytes()
        problem = None if memory is None else lacking_memory(experiment, memory, "this machine" if on_cpu else device)
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
                held = sum(engine_parts(spec, experiment.model_path, ranks_of(spec)).values())
            return max(utilization(spec), held / (self._device_bytes or math.inf))
        cache = set_cache_bytes(spec)
        if cache is None:
            return utilization(spec) * machine_bytes()
        ranks = ranks_of(spec)
        processes = ranks + (1 if spec.engine.multiprocess else 0)
        weights = (1 + WORKING_SHARE) * weights_held(spec, experiment.model_path)
        return weights + ranks * (cache + WORKING_BYTES) + processes * OWN_BYTES

    def available(self, platform: Platform) -> float:
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
