"""Costs of a placed step: seconds of each part, and each device's idle time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.placed_steps import Activity, AsleepMemory, PlacedStep, PlacementSpec, RankStep
from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.contracts.spec import Spec, placed_engines

GENERATING: tuple[Activity, ...] = ("generate",)
TRAINING: tuple[Activity, ...] = ("train", "reduce", "optimize")
UPDATING: tuple[Activity, ...] = ("update", "reset")
GATHERING: tuple[Activity, ...] = ("gather",)
SLEEPING: tuple[Activity, ...] = ("sleep", "wake")

ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


@dataclass(frozen=True)
class DeviceCosts:
    """Means over one device's steps.

    Attributes:
        rank: number of the device.
        generates, trains: whether the device generates or trains.
        shares: activity -> its share of the whole step; activities that never ran are missing.
        sequences: sequences that the device generated and handed over.
        trained_sequences: sequences that the device trained on.
    """

    rank: int
    generates: bool
    trains: bool
    shares: Mapping[Activity, float]
    sequences: float
    trained_sequences: float

    @property
    def idle_share(self) -> float:
        """Share of a step in which the device waits; rounding errors of the sum count as 0."""
        return round(1 - sum(self.shares.values()), 9) + 0.0


@dataclass(frozen=True)
class PlacedCosts:
    """Means over the measured steps of each valid launch, then over launches.

    Generation, training, update, gathering and sleep are the seconds of the device that spent most time on them: the
    other devices wait for it.

    Attributes:
        spec: devices of engines and trainer.
        engines: number of engines that share the generation of a step.
        whole_s: the whole step.
        generation_s: until all sequences of the step are generated.
        training_s: forward, backward, sum of gradients and optimizer.
        update_s: until an engine has the new weights and has reset its caches.
        gather_s: handing over sequences.
        sleep_s: putting an engine to sleep and waking it; 0 if none sleeps.
        asleep: memory of the device with the least free memory while its engine slept, over all steps; None if no
            engine slept.
        devices: costs of each device, by its number.
        kv_cache_tokens: tokens that fit into the KV cache of one engine; None if unknown.
        gathered_bytes: bytes of the sequences that were handed over.
        update_bytes: bytes of weights that each engine received.
        steps: measured steps.
        proofs: steps of these launches, warm-up included, whose weights were proven.
        compared: trainer's tensors that were found in an engine that had loaded them, and the trainer's total. Both are
            of the engine with the fewest found. None if a step was not compared with its trainer.
    """

    spec: PlacementSpec
    engines: int
    whole_s: float
    generation_s: float
    training_s: float
    update_s: float
    gather_s: float
    sleep_s: float
    asleep: AsleepMemory | None
    devices: tuple[DeviceCosts, ...]
    kv_cache_tokens: int | None
    gathered_bytes: float
    update_bytes: float
    steps: int
    proofs: int
    compared: tuple[int, int] | None

    @property
    def device_s(self) -> float:
        """Device-seconds of a step: its cost if devices are paid by time."""
        return self.spec.devices * self.whole_s

    @property
    def devices_per_engine(self) -> int:
        """Devices of each engine: its tensor_parallel_size."""
        return len(self.spec.generating) // self.engines

    @property
    def idle_share(self) -> float:
        """Share of a step in which a device waits, as the mean over devices."""
        return mean([device.idle_share for device in self.devices])

    @property
    def generating_idle_share(self) -> float:
        """Mean idle share of the devices that generate."""
        return mean([device.idle_share for device in self.devices if device.generates])

    @property
    def training_idle_share(self) -> float:
        """Mean idle share of the devices that train."""
        return mean([device.idle_share for device in self.devices if device.trains])

    @property
    def sequences_per_engine(self) -> float:
        """Sequences of a step that an engine generates, as the mean over engines."""
        return sum(device.sequences for device in self.devices) / self.engines


def placed_costs(row: Row) -> PlacedCosts | None:
    """Return the costs of a step of `row`; None if no valid launch has placed steps."""
    used = {launch.launch for launch in row.used}
    return costs_of([record for record in row.experiment.records if record.launch in used])


def costs_of(records: Sequence[Record]) -> PlacedCosts | None:
    """Return the costs of a step of these launches; None if none has placed steps."""
    launches = [steps for record in records if (steps := placed_steps(record))]
    spec = records[0].spec.placement if records else None
    if not launches or spec is None:
        return None

    def over(value: Callable[[PlacedStep], float]) -> float:
        return mean([mean([value(step) for _, step in steps]) for steps in launches])

    def slowest(*activities: Activity) -> float:
        return over(lambda step: max(rank.busy_s(*activities) for rank in step.ranks))

    def device(rank: int) -> DeviceCosts:
        def of(step: PlacedStep) -> RankStep:
            return step.ranks[rank]

        def share(activity: Activity) -> float:
            return over(lambda step: of(step).busy_s(activity) / step.elapsed_s)

        shares = {each: share(each) for each in ACTIVITIES}
        return DeviceCosts(
            rank=rank,
            generates=rank in spec.generating,
            trains=rank in spec.training,
            shares={each: share for each, share in shares.items() if share},
            sequences=over(lambda step: of(step).sequences),
            trained_sequences=over(lambda step: of(step).trained_sequences),
        )

    proofs = [proof for record in records for one in record.iterations if one.placed for proof in one.placed.proofs]
    held = [(proof.trainer.found, proof.trainer.tensors) for proof in proofs if proof.trainer is not None]
    tokens = [each for record in records if (each := record.engine.kv_cache_tokens) is not None]
    return PlacedCosts(
        spec=spec,
        engines=len(placed_engines(records[0].spec)),
        whole_s=over(lambda step: step.elapsed_s),
        generation_s=slowest(*GENERATING),
        training_s=slowest(*TRAINING),
        update_s=slowest(*UPDATING),
        gather_s=slowest(*GATHERING),
        sleep_s=slowest(*SLEEPING),
        asleep=min(
            (each.asleep for steps in launches for _, step in steps for each in step.ranks if each.asleep is not None),
            key=lambda memory: memory.asleep_free_bytes,
            default=None,
        ),
        devices=tuple(map(device, range(spec.devices))),
        kv_cache_tokens=min(tokens, default=None),
        gathered_bytes=over(lambda step: step.gathered_bytes),
        update_bytes=over(lambda step: step.update_bytes),
        steps=sum(map(len, launches)),
        proofs=sum(bool(one.placed and one.placed.proofs) for record in records for one in record.iterations),
        compared=min(held) if held and len(held) == len(proofs) else None,
    )


def placed_steps(record: Record) -> list[tuple[Iteration, PlacedStep]]:
    """Return the measured iterations of a launch that have a placed step, each with that step."""
    return [(one, one.placed) for one in record.iterations if one.placed is not None and not one.warmup]


def typical_step(row: Row) -> PlacedStep | None:
    """Return the step with the median time over all valid launches; None if there are no steps.

    With an even number of steps, the shorter of the two middle steps is returned.
    """
    used = {launch.launch for launch in row.used}
    steps = [step for record in row.experiment.records if record.launch in used for _, step in placed_steps(record)]
    steps.sort(key=lambda step: step.elapsed_s)
    return steps[(len(steps) - 1) // 2] if steps else None


def unlike_work(own: Spec, other: Spec) -> tuple[str, str, str] | None:
    """Return the first difference in the work of two placements: its name and both values; None if both do equal work.

    The overlap of generation and training is not part of the work. Neither are engine settings: a server may use memory
    that a trainer would need.
    """
    sides = [_work(spec) for spec in (own, other)]
    found = next((name for name in sides[0] if sides[0][name] != sides[1][name]), None)
    return None if found is None else (found, str(sides[0][found]), str(sides[1][found]))


def _work(spec: Spec) -> dict[str, object]:
    placement = spec.placement
    assert placement is not None, "a placement has one"
    load = spec.workload.model_dump(mode="json", exclude_none=True)
    names = {"platform": spec.platform, "model": spec.model.name, "quant": spec.quant.name}
    return names | {"devices": placement.devices, "train_s": placement.train_s or "null"} | load


def placed_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each device of each of `rows`, in plain units; cells are empty if no launch is valid.

    Values of the whole step are repeated in the line of each device.
    """
    lines = []
    for row in rows:
        found = placed_costs(row)
        names = {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        names |= {"launches_valid": len(row.used)}
        whole = (
            "whole_s", "device_s", "generation_s", "training_s", "update_s", "gather_s", "sleep_s", "engines",
            "devices_per_engine", "sequences_per_engine", "kv_cache_tokens", "gathered_bytes", "update_bytes", "steps",
        )  # fmt: skip
        for device in found.devices if found else (None,):
            lines.append(
                names
                | {name: found and getattr(found, name) for name in whole}
                | {"where": found and found.spec.where, "overlap": found and (found.spec.overlap or 0)}
                | {"sleep": found and (found.spec.sleep or "none")}
                | {name: found and found.asleep and getattr(found.asleep, name) for name in AsleepMemory.model_fields}
                | {name: device and getattr(device, name) for name in ("rank", "generates", "trains", "sequences")}
                | {"trained_sequences": device and device.trained_sequences}
                | {f"{each}_share": device and device.shares.get(each, 0.0) for each in ACTIVITIES}
                | {"idle_share": device and device.idle_share}
            )
    return pd.DataFrame(lines)
