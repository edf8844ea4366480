"""Times the linear layers of a loaded model inside the worker, each called as the model calls it.

A pass calls all layers of one shape one after the other, as the steps of the engine do, each with weights of its own.
Before each pass the caches are filled with something else: between two calls of a layer a step reads the rest of the
model. What a call costs is the time of a pass over the number of layers.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rollout_bench.measure.probes.census import EXPERTS, WeightCensus, count_weights, linears_by_shape

Point = tuple[int, int] | tuple[int, int, str]
"""Index of the shape, and tokens in a call; of experts also how they are chosen."""

UNKNOWN_CACHE_BYTES = 256 << 20
"""Taken for the cache of a device that does not tell it: no less than any of today's has."""

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|[Nn]ot enough memory|std::bad_alloc", re.IGNORECASE)

TIMES_THE_CACHE = 2
"""What is read is so many times larger than the cache, since no cache drops the oldest line for sure."""


class LinearTiming(WeightCensus):
    """What vLLM mixes into its worker; a worker that is asked for one method may be asked for all of them."""

    def rollout_bench_linear_bench(self) -> dict[str, Any]:
        """Make the bench that the other methods use.

        Returns:
            experts: names of modules with experts; threads: of torch; evicted_bytes: read before a pass at most.
        """
        import torch

        model, config = self.get_model(), self.vllm_config.model_config
        self._rollout_bench_bench = Bench(model, config.dtype, captures=not config.enforce_eager)
        return {
            "experts": list(expert_modules(model)),
            "threads": torch.get_num_threads(),
            "evicted_bytes": self._rollout_bench_bench.most_evicted_bytes,
        }

    def rollout_bench_prepare_linear(self, shape: int, tokens: int) -> dict[str, Any]:
        """As `Bench.prepare`."""
        return self._rollout_bench_bench.prepare((shape, tokens))

    def rollout_bench_time_linears(self, asked: Sequence[tuple[int, int, int]]) -> list[float]:
        """Return seconds per call of each of `asked` (shape, tokens, passes), timed in this order."""
        return [self._rollout_bench_bench.seconds_per_call((shape, tokens), passes) for shape, tokens, passes in asked]


class Bench:
    """The linear layers of `model`, ready to be timed with activations of data type `dtype`.

    Args:
        model: a loaded model.
        dtype: torch data type of the activations.
        captures: capture passes as graphs where the device can, as the engine does unless it is told not to.
    """

    def __init__(self, model: Any, dtype: Any, captures: bool) -> None:
        self._shapes = self._shapes_of(model)
        self._dtype = dtype
        self._device = _device_of(model)
        self._captures = captures and self._device.type in ("cuda", "npu")
        self._pool: Any = None
        self._activations: dict[tuple[int, int], Any] = {}
        self._runs: dict[Point, Callable[[], None]] = {}
        # a graph reads the tensors that these hold where they were when it was captured
        self._captured_runs: list[Callable[[], None]] = []
        self._evicted = self._what_a_step_evicts(model)
        self.most_evicted_bytes = max(self._evicted, default=0)
        self._scratch: Any = None

    def _shapes_of(self, model: Any) -> Sequence[tuple[Any, list[Any]]]:
        return linears_by_shape(model)

    def _what_a_step_evicts(self, model: Any) -> list[int]:
        """Return bytes to read before a pass over each shape.

        The rest of the model, but no more than empties the cache.
        """
        counted = count_weights(model)
        total = sum(counted["linear"].values()) + sum(counted["other"].values())
        weights = [shape.in_features * shape.out_features * shape.layers for shape, _ in self._shapes]
        cache = TIMES_THE_CACHE * cache_bytes(self._device)
        return [min(cache, round(total * (1 - own / sum(weights)))) for own in weights]

    def prepare(self, point: Point) -> dict[str, Any]:
        """Call the layers of `point` until nothing is new to the kernels any more, and captures the pass.

        Returns:
            pass_s: seconds of a pass; layers in a pass; through: "calls" or "graph"; or why: the reason why there is
            no memory for it.
        """
        shape, layers = self._shapes[point[0]]
        try:
            run = self._pass_over(point, layers, self._activation(shape.in_features, point[1]))
            run()
            self._synchronize()
            captured = self._captured(run) if self._captures else None
            through: Literal["calls", "graph"] = "graph" if captured else "calls"
            self._runs[point] = captured or run
            pass_s = self.seconds_per_call(point, 1) * len(layers)
        except (RuntimeError, MemoryError) as error:
            self._runs.pop(point, None)
            if not _is_out_of_memory(error):
                raise
            return {"why": " ".join(str(error).split())[:200]}
        return {"pass_s": pass_s, "layers": len(layers), "through": through}

    def seconds_per_call(self, point: Point, passes: int) -> float:
        """Return seconds per call, mean of `passes` passes over the layers, with weights that are in no cache.

        NaN where the point could not be prepared on this rank.
        """
        import torch

        run = self._runs.get(point)
        if run is None:
            return float("nan")
        shape, layers = self._shapes[point[0]]
        with torch.inference_mode():
            x = self._activation(shape.in_features, point[1])
            if self._device.type == "cpu":
                elapsed_s = sum(self._timed_on_host(run, point[0], x) for _ in range(passes))
            else:
                elapsed_s = self._timed_on_device(run, point[0], x, passes)
        return elapsed_s / (passes * len(layers))

    def _timed_on_host(self, run: Callable[[], None], shape: int, x: Any) -> float:
        self._evict(shape, x)
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def _timed_on_device(self, run: Callable[[], None], shape: int, x: Any, passes: int) -> float:
        """Return seconds between events in the stream: what the device took, queued behind what evicts."""
        events = self._backend().Event
        pairs = [(events(enable_timing=True), events(enable_timing=True)) for _ in range(passes)]
        self._synchronize()
        for start, end in pairs:
            self._evict(shape, x)
            start.record()
            run()
            end.record()
        self._synchronize()
        return sum(float(start.elapsed_time(end)) for start, end in pairs) / 1000

    def _evict(self, shape: int, x: Any) -> None:
        """Leave the weights in no cache, and the activations in it, since in a step they were just computed."""
        import torch

        if self._scratch is None:
            self._scratch = torch.zeros(self.most_evicted_bytes // 4, dtype=torch.int32, device=self._device)
        # Read and written: what is only written may go past the caches.
        self._scratch[: self._evicted[shape] // 4].add_(1)
        x.mul_(1)

    def _pass_over(self, point: Point, layers: Sequence[Any], x: Any) -> Callable[[], None]:
        import torch

        calls = [(module, module.quant_method.apply, bias_of(module)) for module in layers]

        def run() -> None:
            with torch.inference_mode():
                for module, apply, bias in calls:
                    apply(module, x, bias)

        return run

    def _captured(self, run: Callable[[], None]) -> Callable[[], None] | None:
        """Return replays what `run` has the device do; None where that can't be captured."""
        backend = self._backend()
        try:
            graph = backend.CUDAGraph() if self._device.type == "cuda" else backend.NPUGraph()
            self._pool = self._pool or backend.graph_pool_handle()
            with backend.graph(graph, pool=self._pool):
                run()
        except (RuntimeError, AttributeError) as error:
            if _is_out_of_memory(error):
                raise
            return None
        self._captured_runs.append(run)
        replay: Callable[[], None] = graph.replay
        return replay

    def _activation(self, features: int, tokens: int) -> Any:
        """Random activations [tokens, features], made once: a graph reads them where they were when it was captured."""
        import torch

        held = self._activations.get((features, tokens))
        if held is None:
            with torch.inference_mode():
                held = torch.randn(tokens, features, device=self._device).to(self._dtype)
            self._activations[features, tokens] = held
        return held

    def _backend(self) -> Any:
        import torch

        return getattr(torch, self._device.type)

    def _synchronize(self) -> None:
        if self._device.type != "cpu":
            self._backend().synchronize()


def bias_of(module: Any) -> Any:
    """Return the bias that the model has this layer add; None where it has none or something else adds it."""
    # Of layers whose outputs are summed over ranks the first rank's alone adds it.
    summed = hasattr(module, "reduce_results") and getattr(module, "tp_rank", 0) > 0
    return None if summed or getattr(module, "skip_bias_add", False) else getattr(module, "bias", None)


def expert_modules(model: Any) -> dict[str, Any]:
    """Return the modules that hold experts by their name, in the order of the layers."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(base.__name__ in EXPERTS for base in type(module).__mro__)
    }


def cache_bytes(device: Any) -> int:
    """Size of the last cache before the memory: all that the process's cores have, or the device's."""
    import torch

    if device.type == "cpu":
        return last_level_cache_bytes() or UNKNOWN_CACHE_BYTES
    properties = getattr(torch, device.type).get_device_properties(device)
    return int(getattr(properties, "L2_cache_size", 0) or UNKNOWN_CACHE_BYTES)


@lru_cache(maxsize=1)
def last_level_cache_bytes(root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return bytes of the last-level caches of the cores that this process may run on.

    0 where the system does not say.
    """
    caches: dict[tuple[int, str], int] = {}
    for core in sorted(os.sched_getaffinity(0)):
        for folder in (root / f"cpu{core}" / "cache").glob("index*"):
            try:
                level = int((folder / "level").read_text())
                shared = (folder / "shared_cpu_list").read_text().strip()
                caches[level, shared] = _size((folder / "size").read_text().strip())
            except (OSError, ValueError):
                continue
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last)


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def _device_of(model: Any) -> Any:
    """Return the device of the first tensor of `model`; packed weights leave empty parameters on it too."""
    return next(model.parameters()).device
