"""The bound of an experiment before anything of it is measured: a decode step, the prefill, a whole pass."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.analysis.bounds.architecture import Architecture, UnknownArchitectureError, architecture_from
from rollout_bench.analysis.bounds.cost import (
    Batch,
    Cost,
    cache_bytes,
    cache_value_bytes,
    coding_of,
    decode_batch,
    step_costs,
    weight_bytes,
)
from rollout_bench.analysis.bounds.limits import ANY_PROCESSOR, DeviceLimits, Least, Total, least, total
from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.spec import Spec, placed_engines, replicas
from rollout_bench.core.errors import UserError
from rollout_bench.plan.checks import least_passes
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.planfile import LeastTimes
from rollout_bench.workloads.lengths import UnknownSizesError, sizes


@dataclass(frozen=True)
class Lengths:
    """The tokens of one sequence.

    Attributes:
        prompt: of its prompt.
        cached: of these, those that the prefix cache answers for.
        output: that it generates.
    """

    prompt: float
    cached: float
    output: float


@dataclass(frozen=True)
class AlikeSteps:
    """Some steps that compute about the same.

    Attributes:
        number: how many they are.
        batch: what one computes, on average over them.
    """

    number: float
    batch: Batch


def prefill_steps(sequences: Sequence[Lengths], most_tokens: int | None) -> AlikeSteps:
    """Return the steps that compute the prompts, as few as hold them.

    Args:
        sequences: of the whole pass.
        most_tokens: max_num_batched_tokens; None where it is not known, then one step is taken for all.
    """
    tokens = sum(one.prompt - one.cached for one in sequences)
    number = max(1, math.ceil(tokens / most_tokens)) if most_tokens else 1
    pairs = sum(_pairs(one.prompt - one.cached, one.cached) for one in sequences)
    cached = sum(one.cached for one in sequences)
    sampled = len(sequences) / number
    return AlikeSteps(number, Batch(sampled, tokens / number, cached / number, pairs / number, sampled))


def decode_steps(sequences: Sequence[Lengths], slots: int) -> Iterator[AlikeSteps]:
    """Yield the steps that decode.

    First come first served, at most `slots` sequences at once, each step one token of each.

    The first token of a sequence comes out of its prefill. Steps with the same sequences are one item, whose batch is
    that of their middle: all grow by one token a step, and the least time is a convex function of the context, so
    that a step at the mean takes no longer than the steps take on average.
    """
    waiting = iter([one for one in sequences if one.output > 1])
    ends: list[tuple[float, float]] = []  # step that is the first without it, context less the step's number
    contexts = step = 0.0
    while True:
        while len(ends) < slots and (one := next(waiting, None)) is not None:
            heapq.heappush(ends, (step + one.output - 1, one.prompt - step))
            contexts += one.prompt - step
        if not ends:
            return
        number, until = len(ends), ends[0][0]
        middle = (step + until - 1) / 2
        yield AlikeSteps(until - step, decode_batch(number, contexts / number + middle))
        step = until
        while ends and ends[0][0] <= step:
            contexts -= heapq.heappop(ends)[1]


def mean_decode(steps: Sequence[AlikeSteps]) -> Batch | None:
    """Return the batch of an average decode step; None where nothing is decoded."""
    number = sum(one.number for one in steps)
    if not number:
        return None
    sequences = sum(one.number * one.batch.sequences for one in steps) / number
    cached = sum(one.number * one.batch.cached for one in steps) / number
    return decode_batch(sequences, cached / sequences)


def _pairs(tokens: float, cached: float) -> float:
    return tokens * cached + tokens * (tokens + 1) / 2


BLOCK_SIZES = {"cpu": 128, "ascend": 128}
"""Tokens in a block of the KV cache where nothing is said: vLLM 0.32 on cpu (ran), vllm-ascend (read); else 16."""


def pass_lengths(spec: Spec, dataset: str | None, launch: int = 0, iteration: int | None = None) -> list[Lengths]:
    """Return the sequences of one pass, in the order in which they are handed over.

    Args:
        spec: the experiment's settings.
        dataset: where the workload's data set is.
        launch: index of the launch: lengths that are drawn differ between launches and passes.
        iteration: index of the pass; None: the first that counts.

    Raises:
        UnknownSizesError: the lengths depend on a tokenizer.
        UserError: the data set can't be read.
    """
    workload, block = spec.workload, _block_size(spec)
    iteration = spec.measuring.warmup_iterations if iteration is None else iteration
    groups = workload.shared_prefix.groups if workload.shared_prefix else 1
    shared = workload.shared_prefix.tokens if workload.shared_prefix else 0
    found, met = [], set[int]()
    for tokens, output, prompt in sizes(workload, launch, iteration, dataset):
        known = tokens if prompt in met else shared if prompt >= groups else 0
        met.add(prompt)
        # whole blocks are found again, and the last token is computed in any case
        cached = min(known, tokens - 1) // block * block if block else 0
        found.append(Lengths(tokens, cached, output))
    return found


def _block_size(spec: Spec) -> int | None:
    """Return tokens in a block of the prefix cache; None where it is off."""
    args = spec.engine.args
    if not args.get("enable_prefix_caching", True):
        return None
    return int(args.get("block_size") or BLOCK_SIZES.get(spec.platform, 16))


NOT_COUNTED = "pipeline_parallel_size"
"""The way to use several devices that is not counted here."""

HUB_MODELS = Path(__file__).with_name("hub_models.yaml")


@dataclass(frozen=True)
class ExperimentBound:
    """What an experiment comes to at best, for each device of the engine.

    Attributes:
        weight_bytes: weights that a decode step reads.
        cache_bytes: KV cache that a decode step reads and writes.
        batch: of an average decode step; None where nothing is decoded, as in the fields before (0) and the next.
        decode: the least time of an average decode step.
        prefill: the least time of all prefill steps of a pass.
        decoding: the least time of all decode steps of a pass.
        output_tokens: that a pass generates.
    """

    weight_bytes: float
    cache_bytes: float
    batch: Batch | None
    decode: Least | None
    prefill: Total
    decoding: Total
    output_tokens: float

    @property
    def pass_s(self) -> float:
        """The least time of a pass, in seconds."""
        return self.prefill.seconds + self.decoding.seconds

    @property
    def most_tokens_per_s(self) -> float:
        """Output tokens per second, at most."""
        return self.output_tokens / self.pass_s

    @property
    def limited_by(self) -> str:
        """What limits most of a pass: `memory` or `compute`."""
        return "memory" if 2 * (self.prefill.memory_s + self.decoding.memory_s) >= self.pass_s else "compute"

    @property
    def unknown(self) -> frozenset[str]:
        """Data types that the limits name no rate of."""
        return self.prefill.unknown | self.decoding.unknown


def experiment_bound(spec: Spec, model_path: str, dataset: str | None, limits: DeviceLimits) -> ExperimentBound | str:
    """Return the bound of an experiment on devices with `limits`, or why there is none, in words to follow `since`.

    Args:
        spec: its settings.
        model_path: folder of the weights, or hub id.
        dataset: where the workload's data set is.
        limits: of one device. With tensor parallelism each device holds and does its part.

    Raises:
        UserError: the data set can't be read.
    """
    if spec.endpoint is not None:
        return "nobody knows what runs behind somebody else's server"
    if spec.rollout is not None and spec.rollout.over_sample:
        return "part of what is generated is not needed"  # a step that keeps the shortest groups can be below any bound
    try:
        config = model_config(spec, model_path)
        costs = _Costs(spec, config)
        sequences = pass_lengths(spec, dataset)
    except (UnknownArchitectureError, UnknownSizesError) as error:
        return str(error)
    return bound_of(costs, sequences, spec, limits)


def least_pass_s(spec: Spec, model_path: str, dataset: str | None, limits: DeviceLimits) -> float | None:
    """Return the least seconds of a pass, as `experiment_bound` has them; None where they are not known."""
    try:
        bound = experiment_bound(spec, model_path, dataset, limits)
    except UserError:  # the data set can't be read, which is said where it is read for more than a guess
        return None
    return None if isinstance(bound, str) else bound.pass_s


class _Costs:
    """Costs of any step of an experiment."""

    def __init__(self, spec: Spec, config: Mapping[str, Any]) -> None:
        args = spec.engine.args
        if int(args.get(NOT_COUNTED) or 1) > 1:
            raise UnknownArchitectureError(f"{NOT_COUNTED} is not counted here")
        self._architecture = architecture_from(config)
        self._coding = coding_of(spec, config)
        self._ranks = int(args.get("tensor_parallel_size") or 1)
        asked = args.get("kv_cache_dtype") or spec.quant.kv_cache_dtype
        self._value_bytes = cache_value_bytes(asked, self._coding.dtype)

    def __call__(self, batch: Batch) -> list[Cost]:
        return step_costs(
            self._architecture, self._coding, batch, ranks=self._ranks, cache_value_bytes=self._value_bytes
        )


def least_times(experiments: Iterable[Experiment], limits: DeviceLimits) -> LeastTimes:
    """Return what launches take at the least on devices with `limits`."""
    found = {}
    for e in experiments:
        passes = least_passes(e.spec)
        pass_s = None if passes is None else least_pass_s(e.spec, e.model_path, e.dataset_path, limits)
        if passes is not None and pass_s is not None:
            found[e.name] = passes * pass_s
    which = ", the fastest that is known: name yours as bounds_device"
    unnamed = limits.source == "assumed" and limits is not ANY_PROCESSOR
    return LeastTimes(found, f"one {limits.device}{which if unnamed else ''}")


def bound_of(costs: _Costs, sequences: Sequence[Lengths], spec: Spec, limits: DeviceLimits) -> ExperimentBound:
    """Return the bound of a pass over `sequences`.

    Engines that share them have equal parts of them at best: of so many of about one length each has the shortest.
    """
    args, shares = spec.engine.args, sharing(spec)
    slots = int(args.get("max_num_seqs") or len(sequences))
    prefill = prefill_steps(sequences, args.get("max_num_batched_tokens"))
    prefill = replace(prefill, number=prefill.number / shares)
    own = sequences if shares == 1 else sorted(sequences, key=lambda one: one.output)[::shares]
    steps = list(decode_steps(own, slots))
    middle = mean_decode(steps)
    of_middle = costs(middle) if middle else []
    return ExperimentBound(
        weight_bytes=weight_bytes(of_middle),
        cache_bytes=cache_bytes(of_middle),
        batch=middle,
        decode=least(of_middle, limits) if middle else None,
        prefill=total([(prefill.number, least(costs(prefill.batch), limits))]),
        decoding=total((some.number, least(costs(some.batch), limits)) for some in steps),
        output_tokens=sum(one.output for one in sequences) * (replicas(spec) if shares == 1 else 1),
    )


def sharing(spec: Spec) -> int:
    """Return how many engines share the sequences of a pass; 1 where each has a whole workload of its own."""
    if spec.placement is not None:
        return len(placed_engines(spec))
    return replicas(spec) if spec.rollout is not None else 1


def architecture_of(spec: Spec, model_path: str) -> Architecture | str:
    """Return the sizes of an experiment's model, or why they are not known, in words that can follow `since`."""
    try:
        return architecture_from(model_config(spec, model_path))
    except UnknownArchitectureError as error:
        return str(error)


def model_config(spec: Spec, model_path: str) -> dict[str, Any]:
    """Return the content of the config.json that an experiment loads.

    Made, in the weights' folder, in a local hub cache, or known of a well-known model; as `hf_overrides` changes it.

    Raises:
        UnknownArchitectureError: there is none here.
    """
    overrides = spec.engine.args.get("hf_overrides")
    return {**_model_config(spec, model_path), **(overrides if isinstance(overrides, dict) else {})}


def _model_config(spec: Spec, model_path: str) -> dict[str, Any]:
    if spec.model.synthetic is not None:
        try:
            return hf_config(ResolvedShape.model_validate(spec.model.synthetic), "bf16")
        except ValueError:
            raise UnknownArchitectureError("the shape of its model is not whole") from None
    folder = Path(model_path).expanduser()
    file = folder / "config.json"
    if not folder.is_dir() and (spec.model.weights or "").startswith("hub:"):
        file = _in_hub_cache(model_path) or file
        if not file.is_file():
            return known_config(model_path)
    try:
        content = json.loads(file.read_bytes())
    except OSError:
        raise UnknownArchitectureError(f"there is no {file}") from None
    except (ValueError, RecursionError):
        raise UnknownArchitectureError(f"{file} is no JSON") from None
    if not isinstance(content, dict):
        raise UnknownArchitectureError(f"{file} holds no settings")
    return content


def known_config(model: str) -> dict[str, Any]:
    """Return what matters here of the config.json of a well-known model of the hub.

    Raises:
        UnknownArchitectureError: it is none of them.
    """
    for one in _hub_models():
        if re.fullmatch(one["models"], model):
            return dict(one["config"])
    raise UnknownArchitectureError("the hub's model is neither in the local cache nor a well-known one")


@lru_cache(maxsize=1)
def _hub_models() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(HUB_MODELS.read_text(encoding="utf-8"))
    return found


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) else None


def most_gain(bound: ExperimentBound | str, baseline: ExperimentBound | str | None) -> float | None:
    """By how many times the bound of a pass is shorter than the baseline's; None where one of them is not known."""
    if isinstance(bound, str) or isinstance(baseline, str) or baseline is None:
        return None
    return baseline.pass_s / bound.pass_s
