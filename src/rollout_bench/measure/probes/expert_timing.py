"""Times the experts of a loaded mixture inside the worker: the grouped GEMMs of each layer, as the model calls them.

A call is a layer's experts as vLLM runs them once its router has chosen: tokens are sorted by expert, multiplied by
the weights that gate and up have together, activated, multiplied by those of down, and summed. The router itself is a
linear layer, and timed as one. Which experts the tokens go to is given, since it decides what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout_bench.contracts.inside import ExpertRouting, ExpertShape
from rollout_bench.measure.probes.census import all_tensors, count_weights
from rollout_bench.measure.probes.linear_timing import (
    TIMES_THE_CACHE,
    Bench,
    LinearTiming,
    Point,
    cache_bytes,
    expert_modules,
)
from rollout_bench.measure.probes.router_choices import Choices, RouterChoices

SKEW = 1.0
"""Of a skewed draw: the n-th most popular expert is asked for as 1 / n^SKEW."""


class OperatorTiming(LinearTiming):
    """What vLLM mixes into its worker in operators mode."""

    def rollout_bench_note_choices(self) -> int:
        """Note what routers choose from now on; return how many there are."""
        self._rollout_bench_choices = RouterChoices(self.get_model(), uncompiled=True)
        self._rollout_bench_choices.begin()
        return self._rollout_bench_choices.layers

    def rollout_bench_expert_bench(self) -> dict[str, Any]:
        """Make the bench of the experts with what was noted until now.

        Returns:
            shapes: `ExpertShape`s as dictionaries; routings: how experts are chosen; recorded: tokens whose experts
            were noted; why: for each module that can't be timed, the reason.
        """
        config = self.vllm_config.model_config
        chosen = self._rollout_bench_choices.end()
        bench = ExpertBench(self.get_model(), config.dtype, not config.enforce_eager, chosen)
        self._rollout_bench_experts = bench
        return {
            "shapes": [shape.model_dump() for shape in bench.shapes],
            "routings": list(bench.routings),
            "recorded": bench.recorded,
            "why": bench.why,
        }

    def rollout_bench_prepare_experts(self, shape: int, tokens: int, routing: ExpertRouting) -> dict[str, Any]:
        """As `ExpertBench.prepared`."""
        return self._rollout_bench_experts.prepared((shape, tokens, routing))

    def rollout_bench_time_linears(self, asked: Sequence[tuple[Any, ...]]) -> list[float]:
        """Return seconds per call of each of `asked`, timed in this order.

        Each is (shape, tokens, passes), or of experts (shape, tokens, passes, routing).
        """
        found = []
        for shape, tokens, passes, *routing in asked:
            bench: Bench = self._rollout_bench_experts if routing else self._rollout_bench_bench
            found.append(bench.seconds_per_call((shape, tokens, *routing), passes))
        return found


@dataclass(frozen=True)
class _Shape:
    """As `Bench` wants it: `in_features` are those of the activations."""

    in_features: int
    of: ExpertShape


class ExpertBench(Bench):
    """The experts of `model`, ready to be timed; its first arguments are those of `Bench`.

    Args:
        chosen: what each layer's router chose for real tokens; empty where that is not known.

    Attributes:
        routings: how tokens choose experts: evenly, and as was recorded, or by a skewed draw where nothing was.
        recorded: tokens whose experts were recorded.
        why: for each module of experts that can't be timed, the reason.
    """

    def __init__(self, model: Any, dtype: Any, captures: bool, chosen: Sequence[Choices]) -> None:
        modules = expert_modules(model)
        reasons = {name: untimed(module) for name, module in modules.items()}
        self.why = {name: reason for name, reason in reasons.items() if reason}
        self._timed = [module for name, module in modules.items() if not reasons[name]]
        # without a router for each, in the same order, nobody can tell which choices are whose
        fits = len(chosen) == len(modules) and len({len(each) for each in chosen}) == 1
        self.recorded = len(chosen[0]) if fits and chosen else 0
        order = {id(module): number for number, module in enumerate(modules.values())}
        self._chosen = {key: chosen[number] for key, number in order.items()} if self.recorded else {}
        self.routings: tuple[ExpertRouting, ...] = ("uniform", "recorded" if self.recorded else "skewed")
        super().__init__(model, dtype, captures)

    @property
    def shapes(self) -> list[ExpertShape]:
        """The experts that can be timed, by shape."""
        return [shape.of for shape, _ in self._shapes]

    def _shapes_of(self, model: Any) -> Sequence[tuple[_Shape, list[Any]]]:
        found: dict[tuple[int, ...], list[Any]] = {}
        for module in self._timed:
            config = module.moe_config
            sizes = (
                int(config.hidden_dim),
                int(config.intermediate_size_per_partition),
                int(config.num_experts),
                int(config.experts_per_token),
            )
            found.setdefault(sizes, []).append(module)
        return [
            (
                _Shape(
                    hidden,
                    ExpertShape(
                        hidden_size=hidden,
                        intermediate_size=width,
                        experts=experts,
                        per_token=per_token,
                        layers=len(own),
                        gated=bool(getattr(own[0].moe_config, "is_act_and_mul", True)),
                        method=type(own[0].quant_method).__name__,
                    ),
                ),
                own,
            )
            for (hidden, width, experts, per_token), own in found.items()
        ]

    def _what_a_step_evicts(self, model: Any) -> list[int]:
        counted = count_weights(model)
        total = sum(counted["linear"].values()) + sum(counted["other"].values())
        cache = TIMES_THE_CACHE * cache_bytes(self._device)
        return [max(0, min(cache, total - sum(map(bytes_of, own)))) for _, own in self._shapes]

    def prepared(self, point: tuple[int, int, ExpertRouting]) -> dict[str, Any]:
        """As `prepare`, with what the tokens hit.

        Returns:
            what `prepare` does; hit, busiest: experts of a layer that get a token, and tokens of the one that gets
            most, means over the layers; weight_bytes: of the weights of a layer's experts that are hit, its mean. Where
            the kernel refuses the call, why has its reason.
        """
        try:
            answer = self.prepare(point)
        except Exception as error:  # the kernels are many, and each has its own way to refuse a shape
            self._runs.pop(point, None)
            return {"why": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        shape, own = self._shapes[point[0]]
        counts = [np.bincount(self._ids(module, point).ravel(), minlength=shape.of.experts) for module in own]
        hits = [int((each > 0).sum()) for each in counts]
        each_bytes = [bytes_of(module) / int(module.moe_config.num_local_experts) for module in own]
        return answer | {
            "hit": float(np.mean(hits)),
            "busiest": float(np.mean([each.max() for each in counts])),
            "weight_bytes": float(np.mean(np.multiply(hits, each_bytes))),
        }

    def _pass_over(self, point: Point, layers: Sequence[Any], x: Any) -> Callable[[], None]:
        import torch

        tokens = x.shape[0]
        calls = []
        for module in layers:
            ids = self._ids(module, point)
            dtype = module.quant_method.topk_indices_dtype or torch.int32
            weights = torch.full(ids.shape, 1 / ids.shape[1], dtype=torch.float32, device=self._device)
            assert ids.shape[0] == tokens
            calls.append((module, module.quant_method.apply, weights, torch.from_numpy(ids).to(self._device, dtype)))

        def run() -> None:
            with torch.inference_mode():
                for module, apply, weights, ids in calls:
                    apply(
                        layer=module,
                        x=x,
                        topk_weights=weights,
                        topk_ids=ids,
                        shared_experts=None,
                        shared_experts_input=None,
                    )

        return run

    def _ids(self, module: Any, point: tuple[Any, ...]) -> Choices:
        _, tokens, routing = point
        shape = self._shapes[point[0]][0].of
        if routing == "recorded":
            return sampled(self._chosen[id(module)], tokens)
        return drawn(routing, tokens, shape.experts, shape.per_token)


def drawn(routing: ExpertRouting, tokens: int, experts: int, per_token: int) -> Choices:
    """Return experts for each of `tokens` [tokens, per_token], the same in each process.

    uniform: each expert gets tokens x per_token / experts of them, as evenly as whole tokens allow. skewed: each token
    draws its experts, no expert twice, the n-th most popular one with a weight of 1 / n^`SKEW`.
    """
    random = np.random.default_rng([tokens, experts, per_token])
    order = random.permutation(experts).astype(np.int32)
    if routing == "uniform":
        even: Choices = order[np.arange(tokens * per_token).reshape(tokens, per_token) % experts]
        return even
    # Gumbel's trick: the largest of log weight + noise are a draw without replacement
    weights = -SKEW * np.log1p(np.arange(experts))
    noisy = weights + random.gumbel(size=(tokens, experts))
    favoured: Choices = order[np.argsort(-noisy, axis=1)[:, :per_token]]
    return favoured


def sampled(chosen: Choices, tokens: int) -> Choices:
    """Return what was chosen for `tokens` of the tokens of `chosen`: the same of each layer, none twice while there
    are as many.
    """
    random = np.random.default_rng([tokens, len(chosen)])
    return np.ascontiguousarray(chosen[random.choice(len(chosen), tokens, replace=tokens > len(chosen))])


def untimed(module: Any) -> str:
    """Return why the experts that `module` holds can't be timed alone; empty where they can."""
    method = module.quant_method
    if getattr(method, "is_monolithic", False):
        return "their kernel chooses the experts itself"
    if getattr(module, "use_ep", False):
        return "they are spread over devices (expert parallelism)"
    return "" if hasattr(module, "moe_config") else "this engine does not tell their sizes"


def bytes_of(module: Any) -> int:
    """Return bytes of all weights of the experts that `module` holds, scales and biases included."""
    held = int(module.moe_config.num_local_experts)
    tensors = (each for _, each in all_tensors(module, set()) if hasattr(each, "element_size"))
    return sum(each.numel() * each.element_size() for each in tensors if each.dim() > 1 and each.shape[0] == held)
