"""How much of the limit was reached: what a record counted, on the measured limits of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.bounds.architecture import Architecture, UnknownArchitectureError, linear_shapes
from rollout_bench.analysis.bounds.bound import NOT_COUNTED, Lengths, architecture_of, decode_steps, prefill_steps
from rollout_bench.analysis.bounds.cost import (
    NOT_QUANTIZED,
    Batch,
    Coding,
    Cost,
    cache_value_bytes,
    coding_of,
    decode_batch,
    prefill_batch,
    step_costs,
)
from rollout_bench.analysis.bounds.limits import DeviceLimits, Least, Total, least, measured, total
from rollout_bench.contracts.inside import LinearShape, MachineLimits, Phase, Profile
from rollout_bench.contracts.record import Environment, Iteration, Launched, Record, SequenceRow


@dataclass(frozen=True)
class Bound:
    """A measured time beside the least that it could have been.

    Attributes:
        bound_s: the least time, in seconds.
        measured_s: the time that it took, of the same passes or steps.
        limited_by: what the bound comes from mostly: `memory` or `compute`.
        unknown: data types whose rate is not known, so that their operations are not in the bound.
    """

    bound_s: float
    measured_s: float
    limited_by: str
    unknown: frozenset[str] = frozenset()

    @property
    def share(self) -> float:
        """What was reached of the limit: 0.4 is 0.4 of the limit, 1 would be perfect."""
        return self.bound_s / self.measured_s

    @property
    def ratio(self) -> float:
        """How many times longer than the bound it took: measured / bound."""
        return self.measured_s / self.bound_s


def share_of_limit(
    record: Record,
    limits: MachineLimits,
    architecture: Architecture | None = None,
    rows: Sequence[SequenceRow] = (),
) -> Bound | str:
    """Return the passes that count against their bound, or why that can't be said, in words that can follow `since`.

    Tokens and bytes of weights are those that the launch counted.

    Args:
        record: of an offline launch, or of an online one that sent all requests at once.
        limits: of the machine that it ran on (`same_machine`).
        architecture: sizes of its model; needed where that is not synthetic.
        rows: its side file, from which each sequence's length is taken. Without it each has the mean of its pass,
            which makes the bound lower where lengths differ.
    """
    try:
        model = _Model(record, architecture)
    except UnknownArchitectureError as error:
        return str(error)
    counted = [one for one in record.iterations if not one.warmup and one.output_tokens and one.sequences]
    if not counted:
        return "no pass counts"
    if any(one.point and (one.point.request_rate != "inf" or one.failed) for one in counted):
        return "requests arrived at a rate of their own, or failed"
    if any(one.point and one.point.duration_s is not None for one in counted):
        return "requests were sent for a time, not until all were done"
    if any(one.surplus for one in counted):
        return "part of what was generated was not needed"
    if model.caches and any(one.cached_prompt_tokens is None for one in counted):
        return "the server does not say what came from its cache"
    found = [_pass(model, one, _lengths(one, rows), measured(limits)) for one in counted]
    least_s = sum(one.seconds for one in found)
    memory_s = sum(one.memory_s for one in found)
    return Bound(
        least_s,
        sum(one.elapsed_s for one in counted),
        Total(least_s, memory_s).limited_by,
        frozenset().union(*(one.unknown for one in found)),
    )


def step_bound(
    profile: Profile,
    limits: MachineLimits,
    phase: Phase,
    *,
    coding: Coding | None = None,
    architecture: Architecture | None = None,
) -> Bound | str:
    """Return the unprofiled steps of a phase against their bound, or why that can't be said.

    Args:
        profile: the record of a profile launch.
        limits: of the machine that it ran on.
        phase: prefill, decode or mixed.
        coding: how weights are stored; None: as the launch counted them.
        architecture: sizes of its model; needed where that is not synthetic.
    """
    try:
        model = _Model(profile, architecture, coding)
    except UnknownArchitectureError as error:
        return str(error)
    steps = [step for step in profile.steps if step.phase == phase and not step.profiled]
    if not steps:
        return f"no {phase} step was timed without the profiler"
    found: list[Least] = []
    for step in steps:
        batch = step_batch(phase, step.sequences, step.tokens, step.context_tokens)
        if batch is None:
            return "how far its steps looked back was not counted"
        found.append(least(model.costs(batch, profile.linears), measured(limits)))
    least_time = total((1, one) for one in found)
    return Bound(least_time.seconds, sum(step.elapsed_s for step in steps), least_time.limited_by, least_time.unknown)


def profile_costs(
    profile: Profile, phase: Phase, *, profiled: bool = True, architecture: Architecture | None = None
) -> list[Cost] | str:
    """Return what each operator class of a mean step of a phase costs one device, or why that can't be said."""
    try:
        model = _Model(profile, architecture)
    except UnknownArchitectureError as error:
        return str(error)
    steps = [step for step in profile.steps if step.phase == phase and step.profiled == profiled]
    batches = [step_batch(phase, step.sequences, step.tokens, step.context_tokens) for step in steps]
    known = [batch for batch in batches if batch is not None]
    if not known:
        return f"no {phase} step is known"
    mean = Batch(*(sum(values) / len(known) for values in zip(*map(_numbers, known), strict=True)))
    return model.costs(mean, profile.linears)


def step_batch(phase: Phase, sequences: int, tokens: int, context_tokens: int | None) -> Batch | None:
    """Return what a step computed, from what a profile says of it; None where it says too little.

    Args:
        phase: prefill, decode or mixed.
        sequences: in the batch.
        tokens: that were computed.
        context_tokens: that attention looked back at, over all sequences, the computed ones among them. None: not
            known, which is taken for nothing before in a prefill.

    Of a mixed step each sequence counts as if it computed as much as the others.
    """
    if not sequences or (context_tokens is None and phase != "prefill"):
        return None
    before = max(0, (context_tokens or 0) - tokens)
    if phase == "decode":
        return decode_batch(sequences, before / sequences)
    return prefill_batch(sequences, tokens / sequences, before / sequences)


def same_machine(limits: MachineLimits, environment: Environment) -> bool:
    """Return whether limits are those of the machine that a launch ran on: device, processor, cores and torch."""
    return (limits.device_model, limits.cpu_model, limits.cpu_cores, _release(limits.torch_version)) == (
        environment.device_model,
        environment.cpu_model,
        environment.cpu_cores,
        _release(environment.torch_version),
    )


def _release(version: str) -> str:
    """Return a version without its build, which torch tells of itself and its distribution may not.

    2.11.0 of 2.11.0+cu130.
    """
    return version.partition("+")[0]


class _Model:
    """Costs of any step of a launch, with the bytes of weights that it counted."""

    def __init__(self, record: Launched, architecture: Architecture | None, coding: Coding | None = None) -> None:
        spec = record.spec
        found = architecture or architecture_of(spec, "")
        if isinstance(found, str):
            raise UnknownArchitectureError(found)
        settings = {**spec.engine.args, **record.engine.resolved}
        for name in (
            NOT_COUNTED,
            "data_parallel_size",
        ):  # of replicas the spec alone knows: each engine says that it is one
            if any(int(said.get(name) or 1) > 1 for said in (spec.engine.args, settings)):
                raise UnknownArchitectureError(f"{name} is not counted here")
        self._architecture = found
        self._ranks = int(settings.get("tensor_parallel_size") or 1)
        self._coding = coding or self._counted(record, coding_of(spec, {"dtype": settings.get("dtype") or found.dtype}))
        held = record.engine.kv_cache
        said = settings.get("kv_cache_dtype") if held is None else min(held.layers)
        self._value_bytes = cache_value_bytes(said, self._coding.dtype)
        self.slots = settings.get("max_num_seqs")
        self.most_tokens = settings.get("max_num_batched_tokens")
        self.caches = settings.get("enable_prefix_caching") is not False

    def costs(self, batch: Batch, told: Sequence[LinearShape] = ()) -> list[Cost]:
        """Return the costs of a step.

        Linear layers as the engine `told` them, those that it leaves out as the sizes say.
        """
        roles = {shape.role for shape in told}
        derived = linear_shapes(self._architecture, self._ranks)
        linears = [*told, *(shape for shape in derived if shape.role not in roles)]
        return step_costs(
            self._architecture,
            self._coding,
            batch,
            ranks=self._ranks,
            cache_value_bytes=self._value_bytes,
            linears=linears,
        )

    def _counted(self, record: Launched, coding: Coding) -> Coding:
        weights = record.engine.weights_bytes_by_dtype
        if weights is None or not weights.linear:
            return coding
        shapes = [s for s in linear_shapes(self._architecture, self._ranks) if s.role not in NOT_QUANTIZED]
        values = self._ranks * sum(s.in_features * s.out_features * s.layers for s in shapes)
        return replace(coding, bits=8 * sum(weights.linear.values()) / values)


def _pass(model: _Model, iteration: Iteration, sequences: Sequence[Lengths], limits: DeviceLimits) -> Total:
    at_once = iteration.point.concurrency if iteration.point else None
    slots = min(int(limit) for limit in (model.slots, at_once, len(sequences)) if limit)
    steps = [prefill_steps(sequences, model.most_tokens), *decode_steps(sequences, slots)]
    return total((some.number, least(model.costs(some.batch), limits)) for some in steps)


def _lengths(iteration: Iteration, rows: Sequence[SequenceRow]) -> list[Lengths]:
    """Return the sequences of a pass as they came back.

    Of the prefix cache what it says itself; where it doesn't, its share of what the pass took from there.
    """
    cached_share = (iteration.cached_prompt_tokens or 0) / (iteration.prompt_tokens or 1)
    own = [row for row in rows if row.iteration == iteration.index and not row.failed and row.output_tokens]
    if len(own) == iteration.sequences:
        cached = [row.cached_prompt_tokens for row in own]
        return [
            Lengths(row.prompt_tokens, cached_share * row.prompt_tokens if known is None else known, row.output_tokens)
            for row, known in zip(own, cached, strict=True)
        ]
    number = iteration.sequences
    mean = Lengths(
        iteration.prompt_tokens / number,
        (iteration.cached_prompt_tokens or 0) / number,
        iteration.output_tokens / number,
    )
    return [mean] * number


def _numbers(batch: Batch) -> tuple[float, ...]:
    return batch.sequences, batch.tokens, batch.cached, batch.pairs, batch.sampled
