"""What a step costs where engine and trainer live: seconds of each part, and how long each device waits."""

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
    """What one device did of a step, as means.

    Attributes:
        rank: its number.
        generates, trains: what it is for.
        shares: of the whole step, by what it did; nothing of what it never did.
        sequences: that it generated and handed over.
        trained_sequences: that it trained on.
    """

    rank: int
    generates: bool
    trains: bool
    shares: Mapping[Activity, float]
    sequences: float
    trained_sequences: float

    @property
    def idle_share(self) -> float:
        """The share of a step in which it waited; what a sum of floats is off by is none."""
        return round(1 - sum(self.shares.values()), 9) + 0.0


@dataclass(frozen=True)
class PlacedCosts:
    """Means over the measured steps of each valid launch, then over launches.

    Seconds of generation, training, update, gathering and sleep are those of the device that was longest at it, which
    the others wait for.

    Attributes:
        spec: where engines and trainer live.
        engines: that share the generation of a step.
        whole_s: the whole step.
        generation_s: until its sequences are generated.
        training_s: forward, backward, sum of gradients and optimizer.
        update_s: until an engine has the new weights, its caches reset.
        gather_s: handing over sequences.
        sleep_s: putting an engine to sleep, and waking it; 0 where none sleeps.
        asleep: memory of the device that had least free while its engine slept, over all steps; None where none slept.
        devices: of each device, by its number.
        kv_cache_tokens: that fit into the KV cache of one engine; None where unknown.
        gathered_bytes: of sequences that were handed over.
        update_bytes: of weights that each engine took.
        steps: that count.
        proofs: steps of these launches, warm-up included, whose weights were proven.
        compared: how many of the trainer's tensors were found again in an engine that had loaded them, and how many
            it has: of the engine where fewest were; None where a step was not held against its trainer.
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
        """Device-seconds of a step: what it costs where devices are paid for."""
        return self.spec.devices * self.whole_s

    @property
    def devices_per_engine(self) -> int:
        """Devices that each engine has: its tensor_parallel_size."""
        return len(self.spec.generating) // self.engines

    @property
    def idle_share(self) -> float:
        """The share of a step in which a device waits, as the mean over devices."""
        return mean([device.idle_share for device in self.devices])

    @property
    def generating_idle_share(self) -> float:
        """The same of devices that generate."""
        return mean([device.idle_share for device in self.devices if device.generates])

    @property
    def training_idle_share(self) -> float:
        """The same of devices that train."""
        return mean([device.idle_share for device in self.devices if device.trains])

    @property
    def sequences_per_engine(self) -> float:
        """Sequences of a step that an engine generates, as the mean over engines."""
        return sum(device.sequences for device in self.devices) / self.engines


def placed_costs(row: Row) -> PlacedCosts | None:
    """Return what a step of `row` costs; None where no valid launch has placed steps."""
    used = {launch.launch for launch in row.used}
    return costs_of([record for record in row.experiment.records if record.launch in used])


def costs_of(records: Sequence[Record]) -> PlacedCosts | None:
    """Return what a step of these launches costs; None where none has placed steps."""
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
    """Return the measured passes of a launch that are placed steps."""
    return [(one, one.placed) for one in record.iterations if one.placed is not None and not one.warmup]


def typical_step(row: Row) -> PlacedStep | None:
    """Return the step with the median time of all valid launches, of two the shorter one; None where there is none."""
    used = {launch.launch for launch in row.used}
    steps = [step for record in row.experiment.records if record.launch in used for _, step in placed_steps(record)]
    steps.sort(key=lambda step: step.elapsed_s)
    return steps[(len(steps) - 1) // 2] if steps else None


def unlike_work(own: Spec, other: Spec) -> tuple[str, str, str] | None:
    """Return in what two placements do other work, and of both how; None where one is better for where it is.

    How far generation is ahead is no part of the work. Nor are the engine's own settings: a server may use memory that
    a trainer would need.
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
    """Return a line for each device of each of `rows`, in plain units; empty fields where nothing is valid.

    What is of the whole step stands in each line of its devices.
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
