"""Records of placements for tests: steps whose devices generate, gather, train and update for times that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from synthetic_records import OUTPUT_TOKENS, PROMPT_TOKENS, SEQUENCES, make_record, make_spec

from rollout_bench.contracts.cycles import Agreement, WeightProof
from rollout_bench.contracts.placed_steps import Activity, AsleepMemory, PlacedStep, PlacementSpec, RankStep, Span
from rollout_bench.contracts.record import Flag, Iteration, Record
from rollout_bench.contracts.spec import Spec, placed_engines

GENERATION_S, TRAINING_S, GATHER_S, UPDATE_S = 2.0, 1.0, 0.05, 0.1
"""Seconds of a step if two devices share generation, and two training; of gathering and of an update."""

SLEEP_S, WAKE_WEIGHTS_S, WAKE_KV_CACHE_S = 0.2, 0.04, 0.06
"""Seconds of falling asleep and of waking, where an engine sleeps: before it hands over, and around the update."""

GIB = 1 << 30

UPDATE_BYTES = 170_000_000


def placed_spec(
    generators: int | None = None,
    *,
    devices: int = 2,
    overlap: bool = False,
    sleep: Literal["1", "2"] | None = None,
    setting: str | None = None,
    workload: str = "small",
    args: Mapping[str, Any] | None = None,
    train_s: float | None = None,
    micro_batch: int = 4,
) -> Spec:
    """Return a spec: colocated, or so many of the devices only generate; its setting is named after that."""
    where = "colocated" if generators is None else "server"
    placement = PlacementSpec(
        where="colocated" if generators is None else "server",
        devices=devices,
        generators=generators,
        overlap=1 if overlap else None,
        sleep=sleep,
        micro_batch=None if train_s else micro_batch,
        train_s=train_s,
    )
    spec = make_spec(workload=workload, args=args)
    name = setting or f"{'overlap-1+' if overlap else ''}{f'sleep-{sleep}+' if sleep else ''}where-{where}"
    return spec.model_copy(update={"mode": "placement", "placement": placement, "setting": name})


def placed_record(
    spec: Spec,
    launch: int = 0,
    factors: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    flags: Sequence[Flag] = (),
    found: int = 25,
) -> Record:
    """Return a record of `spec` whose measured steps take the usual time times `factors`; the warm-up takes twice.

    Of the trainer's 25 tensors `found` can be compared where engines keep them.
    """
    assert spec.placement is not None, "a placement has one"
    engines = len(placed_engines(spec))
    rates = [SEQUENCES * OUTPUT_TOKENS * engines / (2 * GENERATION_S * factor) for factor in factors]
    record = make_record(spec, launch, rates, warmup_rates=(rates[0] / 2,), flags=flags)
    iterations = [
        one.model_copy(update={"placed": _step(one, spec.placement, engines, found)}) for one in record.iterations
    ]
    return record.model_copy(update={"iterations": iterations})


def _step(one: Iteration, placement: PlacementSpec, engines: int, found: int) -> PlacedStep:
    """Return a step as long as its generation says: of what all do, the last to begin is waited for."""
    factor = one.elapsed_s * engines / (2 * GENERATION_S)
    training_s = factor * 2 * TRAINING_S / len(placement.training)
    done_s = one.elapsed_s if placement.overlap is None else max(one.elapsed_s, training_s)
    slept_s, woke_s = (SLEEP_S, WAKE_WEIGHTS_S) if placement.sleep else (0.0, 0.0)
    done_s += slept_s
    trained_s = done_s + GATHER_S + (training_s if placement.overlap is None else 0.0)
    ranks = []
    for rank in range(placement.devices):
        spans: list[tuple[Activity, float, float]] = []
        if rank in placement.generating:
            spans.append(("generate", 0.0, one.elapsed_s))
        if placement.sleep:
            spans.append(("sleep", one.elapsed_s, slept_s))
        if rank in placement.training and placement.overlap is not None:
            spans.append(("train", 0.0, training_s))
        spans.append(("gather", done_s, GATHER_S))
        if rank in placement.training and placement.overlap is None:
            spans += [
                ("train", done_s + GATHER_S, 0.8 * training_s),
                ("reduce", done_s + GATHER_S + 0.8 * training_s, 0.1 * training_s),
                ("optimize", done_s + GATHER_S + 0.9 * training_s, 0.1 * training_s),
            ]
        if placement.sleep:
            spans.append(("wake", trained_s, woke_s))
        spans.append(("update", trained_s + woke_s, UPDATE_S))
        if placement.sleep:
            spans.append(("wake", trained_s + woke_s + UPDATE_S, WAKE_KV_CACHE_S))
        generates, trains = rank in placement.generating, rank in placement.training
        shards = len(placement.generating) // engines
        hands_over = trains or rank % shards == 0  # of a server's engine the first rank has all
        sequences = SEQUENCES // (len(placement.generating) if trains else engines) if generates and hands_over else 0
        trained = SEQUENCES // len(placement.training) if trains else 0
        ranks.append(
            RankStep(
                rank=rank,
                spans=[Span(activity=name, began_s=began, elapsed_s=seconds) for name, began, seconds in spans],
                sequences=sequences,
                output_tokens=sequences * OUTPUT_TOKENS,
                trained_sequences=trained,
                trained_tokens=trained * (PROMPT_TOKENS + OUTPUT_TOKENS),
                loss=1.5 if trains and placement.train_s is None else None,
                asleep=AsleepMemory(
                    awake_free_bytes=14 * GIB, asleep_free_bytes=(120 + rank) * GIB, total_bytes=140 * GIB
                )
                if placement.sleep
                else None,
            )
        )
    return PlacedStep(
        elapsed_s=trained_s + woke_s + UPDATE_S + (WAKE_KV_CACHE_S if placement.sleep else 0.0),
        ranks=ranks,
        gathered_bytes=8 * SEQUENCES * (PROMPT_TOKENS + OUTPUT_TOKENS),
        update_bytes=UPDATE_BYTES,
        proofs=[
            WeightProof(
                weights="first",
                tensors=60,
                trained=48,
                changed=60,
                changed_trained=48,
                not_finite=0,
                checksum=f"{one.index:016x}",
                tokens=f"{one.index:016x}",
                trainer=Agreement(tensors=25, not_received=0, found=found, not_loaded=0),
            )
            for _ in placement.generating
        ],
    )
