"""Records of cycles for tests: any record as if a transition, with times that a test chooses, followed each pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from synthetic_records import make_record, make_spec

from rollout_bench.contracts.cycles import (
    CycleSpec,
    MemoryLook,
    PartName,
    SleepLevel,
    Transition,
    TransitionPart,
    UpdateMethod,
    WeightProof,
    Weights,
    WeightUpdate,
)
from rollout_bench.contracts.record import Flag, Iteration, Record
from rollout_bench.contracts.spec import Spec

GIB = 2**30

OUTPUT_CHANGED = Flag(code="output_changed", severity="invalid", sentence="After update 1 the tokens are others.")
WITHOUT_EFFECT = Flag(code="update_without_effect", severity="invalid", sentence="1 of 1 linear layers stayed.")


def cycle_spec(
    quant: str = "bf16",
    workload: str = "small",
    *,
    model: str = "qwen3-90m",
    sleep: SleepLevel = "none",
    update: UpdateMethod = "in_process",
    setting: str | None = None,
    unchanged: bool = False,
    platform: str = "cpu",
) -> Spec:
    """Return a spec; with sleep it wakes weights and KV cache apart."""
    spec = make_spec(model, quant, workload, platform=platform)
    cycle = CycleSpec(
        sleep=sleep,
        wake=None if sleep == "none" else "split",
        update=update,
        unchanged=True if unchanged else None,
    )
    return spec.model_copy(update={"mode": "cycle", "cycle": cycle, "setting": setting})


def cycle_record(
    spec: Spec | None = None,
    launch: int = 0,
    rates: Sequence[float] = (400.0, 410.0, 420.0),
    *,
    transition_s: float = 0.5,
    flags: Sequence[Flag] = (),
) -> Record:
    """Return a record of `spec` whose passes have these output tokens per second, and transitions of that length."""
    return cycled(make_record(spec or cycle_spec(), launch, rates, flags=flags), transition_s)


def cycled(record: Record, transition_s: float) -> Record:
    """Return `record` with a transition after each pass, whose update takes 8 tenths of it."""
    last = record.iterations[-1].index
    iterations = [
        one.model_copy(update={"transition": _transition(record.spec, one, transition_s, last=one.index == last)})
        for one in record.iterations
    ]
    return record.model_copy(update={"iterations": iterations})


def _transition(spec: Spec, one: Iteration, seconds: float, *, last: bool) -> Transition:
    assert spec.cycle is not None, "a cycle has one"
    asleep = spec.cycle.sleep != "none"
    shares: dict[PartName, float] = (
        {"drain": 0.01, "sleep": 0.05, "wake_weights": 0.05, "update": 0.8, "reset_prefix_cache": 0.01}
        | {"wake_kv_cache": 0.08}
        if asleep
        else {"drain": 0.1, "pause": 0.04, "update": 0.8, "reset_prefix_cache": 0.02, "resume": 0.04}
    )
    parts, began = [], 0.0
    for name, share in shares.items():
        parts.append(TransitionPart(name=name, began_s=began, elapsed_s=share * seconds))
        began += share * seconds
    handed_over = spec.cycle.update == "in_process"
    quantized = handed_over and spec.quant.name != "bf16"
    update_s = 0.8 * seconds
    changes = not spec.cycle.unchanged
    had: Weights = "second" if changes and one.index % 2 else "first"
    weights: Weights = "second" if changes and had == "first" else "first"
    return Transition(
        elapsed_s=sum(part.elapsed_s for part in parts),
        parts=parts,
        update=WeightUpdate(
            weights=weights,
            transfer_s=update_s / 4 if handed_over else None,
            quantize_s=update_s / 4 if quantized else None,
            load_s=update_s * (1 - (0.25 if handed_over else 0) - (0.25 if quantized else 0)),
            size_bytes=170_000_000 if handed_over else None,
            buckets=3 if handed_over else None,
        ),
        memory=[
            MemoryLook(
                when=when,
                device_free_bytes=None if spec.platform == "cpu" else (60 if asleep and when == "asleep" else 20) * GIB,
                host_bytes=(3 if asleep and when == "asleep" else 2) * GIB,
            )
            for when in ("before", "asleep", "after")
        ],
        loaded=_proof(had, changed=changes and one.index > 0),
        proof=_proof(weights, changed=changes) if last else None,
    )


def _proof(weights: Weights, *, changed: bool) -> WeightProof:
    digest = hashlib.sha256(weights.encode()).hexdigest()[:16]
    return WeightProof(
        weights=weights,
        tensors=60,
        trained=48,
        changed=60 if changed else 0,
        changed_trained=48 if changed else 0,
        not_finite=0,
        checksum=digest,
        tokens=digest,
    )
