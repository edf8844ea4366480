"""A placed step besides its numbers: what each device does, memory that sleep frees, and proofs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.placement.record import Activity, AsleepMemory, PlacedStep, placed_engines
from rollout_bench.modes.placement.settings import PlacementSpec

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
class Placed:
    """A measured placement, besides its numbers.

    Attributes:
        spec: devices of engines and trainer.
        engines: number of engines that share the generation of a step.
        asleep: memory of the device with the least free memory while its engine slept, over all steps; None if no
            engine slept.
        devices: costs of each device, by its number.
    """

    spec: PlacementSpec
    engines: int
    asleep: AsleepMemory | None
    devices: tuple[DeviceCosts, ...]

    @property
    def devices_per_engine(self) -> int:
        """Devices of each engine: its tensor_parallel_size."""
        return len(self.spec.generating) // self.engines


def placed_of(row: Row) -> Placed | None:
    """Return the placement of `row`, from its valid launches; None if none has placed steps."""
    steps, records = placed_steps(row), row.experiment.records
    if not steps:
        return None
    spec = records[0].spec.of(PlacementSpec)

    def mean_of(value: Callable[[PlacedStep], float]) -> float:
        return mean([value(step) for step in steps])

    def device(rank: int) -> DeviceCosts:
        def share(activity: Activity) -> float:
            return mean_of(lambda step: step.ranks[rank].busy_s(activity) / step.elapsed_s)

        shares = {each: share(each) for each in ACTIVITIES}
        return DeviceCosts(
            rank=rank,
            generates=rank in spec.generating,
            trains=rank in spec.training,
            shares={each: share for each, share in shares.items() if share},
            sequences=mean_of(lambda step: step.ranks[rank].sequences),
            trained_sequences=mean_of(lambda step: step.ranks[rank].trained_sequences),
        )

    return Placed(
        spec=spec,
        engines=len(placed_engines(records[0].spec)),
        asleep=min(
            (rank.asleep for step in steps for rank in step.ranks if rank.asleep is not None),
            key=lambda memory: memory.asleep_free_bytes,
            default=None,
        ),
        devices=tuple(map(device, range(spec.devices))),
    )


def placed_steps(row: Row) -> list[PlacedStep]:
    """Return the placed steps of the valid launches of `row`, without warm-up."""
    return [
        placed
        for record in row.experiment.records
        if record.valid
        for one in record.iterations
        if not one.warmup and (placed := one.of(PlacedStep)) is not None
    ]


def typical_step(row: Row) -> PlacedStep | None:
    """Return the step with the median time over all valid launches; None if there are no steps.

    With an even number of steps, the shorter of the two middle steps is returned.
    """
    steps = sorted(placed_steps(row), key=lambda step: step.elapsed_s)
    return steps[(len(steps) - 1) // 2] if steps else None


def unlike_work(own: Spec, other: Spec) -> tuple[str, str, str] | None:
    """Return the first difference in the work of two placements: its name and both values; None if both do equal work.

    The overlap of generation and training is not part of the work. Neither are engine settings: a server may use memory
    that a trainer would need.
    """
    mine, theirs = _work(own), _work(other)
    differing = next((name for name in mine if mine[name] != theirs.get(name)), None)
    return None if differing is None else (differing, str(mine[differing]), str(theirs.get(differing)))


def _work(spec: Spec) -> dict[str, object]:
    placement = spec.of(PlacementSpec)
    load = spec.workload.model_dump(mode="json", exclude_none=True)
    names = {"platform": spec.platform, "model": spec.model.name, "quant": spec.quant.name}
    settings = {name: value or "null" for name, value in placement.work(spec.platform).items()}
    return names | settings | load


def device_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each device of each of `rows` with a valid launch: its shares of a step, and its sequences."""
    return pd.DataFrame(
        {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        | {name: getattr(device, name) for name in ("rank", "generates", "trains", "sequences", "trained_sequences")}
        | {f"{each}_share": device.shares.get(each, 0.0) for each in ACTIVITIES}
        | {"idle_share": device.idle_share}
        for row, step_costs in ((row, placed_of(row)) for row in rows)
        for device in (step_costs.devices if step_costs else ())
    )
