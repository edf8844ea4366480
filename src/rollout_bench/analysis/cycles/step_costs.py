"""Costs of a step: generation, each part of the transition after it, and memory. Warm-up is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import get_args

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.cycles import MemoryLook, PartName, Transition
from rollout_bench.contracts.record import Iteration, Record

Step = tuple[Iteration, Transition]
"""A measured iteration and the transition after it."""


@dataclass(frozen=True)
class LaunchSteps:
    """Means over the measured steps of one launch, in seconds; `output_tokens` are the output tokens of a sequence."""

    launch: int
    generation_s: float
    transition_s: float
    output_tokens: float

    @property
    def whole_s(self) -> float:
        """Generation and transition."""
        return self.generation_s + self.transition_s

    @property
    def token_s(self) -> float:
        """Generation time per output token of a sequence."""
        return self.generation_s / self.output_tokens


@dataclass(frozen=True)
class UpdateCosts:
    """Seconds of each stage of a weight update, its bytes and its buckets; None if vLLM reads the weights itself."""

    transfer_s: float | None
    quantize_s: float | None
    load_s: float
    size_bytes: float | None
    buckets: float | None


@dataclass(frozen=True)
class MemoryCosts:
    """Free bytes on the device and bytes of the engine on the host; None if not measured."""

    device_free_before: float | None
    device_free_asleep: float | None
    device_free_after: float | None
    host_before: float | None
    host_asleep: float | None
    host_after: float | None


@dataclass(frozen=True)
class StepCosts:
    """Means over the measured steps of each valid launch, then over launches.

    Attributes:
        launches: means of each valid launch.
        parts: part of the transition -> seconds, in the order of the parts.
        update: stages of the update.
        memory: memory before, during and after sleep.
        updates: transitions of these launches, warm-up included; each was proven.
    """

    launches: tuple[LaunchSteps, ...]
    parts: Mapping[PartName, float]
    update: UpdateCosts
    memory: MemoryCosts
    updates: int

    @property
    def generation_s(self) -> float:
        """Generation only."""
        return mean([each.generation_s for each in self.launches])

    @property
    def transition_s(self) -> float:
        """From the end of generation until the engine can generate again."""
        return mean([each.transition_s for each in self.launches])

    @property
    def whole_s(self) -> float:
        """Generation and transition."""
        return mean([each.whole_s for each in self.launches])

    @property
    def transition_share(self) -> float:
        """The transition's share of the whole step."""
        return self.transition_s / self.whole_s

    @property
    def output_tokens(self) -> float:
        """Output tokens of a sequence."""
        return mean([each.output_tokens for each in self.launches])


def step_costs(row: Row) -> StepCosts | None:
    """Return the costs of a step of `row`; None if no valid launch has transitions."""
    used = {launch.launch for launch in row.used}
    return costs_of([record for record in row.experiment.records if record.launch in used])


def costs_of(records: Sequence[Record]) -> StepCosts | None:
    """Return the costs of a step of these launches; None if none has transitions."""
    launches = [(record, steps) for record in records if (steps := _steps(record))]
    if not launches:
        return None

    def over(value: Callable[[Transition], float | None]) -> float | None:
        means = [
            mean(known) for _, steps in launches if (known := [v for _, t in steps if (v := value(t)) is not None])
        ]
        return mean(means) if means else None

    def each_part(value: Callable[[PartName], Callable[[Transition], float | None]]) -> dict[PartName, float]:
        names: tuple[PartName, ...] = get_args(PartName)
        return {name: seconds for name in names if (seconds := over(value(name))) is not None}

    def looked(when: str, field: str) -> float | None:
        return over(lambda transition: _looked(transition.memory, when, field))

    load_s = over(lambda transition: transition.update.load_s)
    assert load_s is not None, "every update has it"
    return StepCosts(
        launches=tuple(_of_launch(record, steps) for record, steps in launches),
        parts=each_part(_part_s),
        update=UpdateCosts(
            transfer_s=over(lambda transition: transition.update.transfer_s),
            quantize_s=over(lambda transition: transition.update.quantize_s),
            load_s=load_s,
            size_bytes=over(lambda transition: transition.update.size_bytes),
            buckets=over(lambda transition: transition.update.buckets),
        ),
        memory=MemoryCosts(
            **{
                f"{short}_{when}": looked(when, field)
                for short, field in (("device_free", "device_free_bytes"), ("host", "host_bytes"))
                for when in ("before", "asleep", "after")
            },
        ),
        updates=sum(one.transition is not None for record, _ in launches for one in record.iterations),
    )


def _steps(record: Record) -> list[Step]:
    return [(one, one.transition) for one in record.iterations if one.transition is not None and not one.warmup]


def _of_launch(record: Record, steps: Sequence[Step]) -> LaunchSteps:
    return LaunchSteps(
        launch=record.launch,
        generation_s=mean([one.elapsed_s for one, _ in steps]),
        transition_s=mean([transition.elapsed_s for _, transition in steps]),
        output_tokens=sum(one.output_tokens for one, _ in steps) / max(1, sum(one.sequences for one, _ in steps)),
    )


def _part_s(name: PartName) -> Callable[[Transition], float | None]:
    return lambda transition: transition.part_s(name) if any(part.name == name for part in transition.parts) else None


def _looked(memory: Sequence[MemoryLook], when: str, field: str) -> float | None:
    return next((getattr(look, field) for look in memory if look.when == when), None)


def cost_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return a line for each of `rows`, in plain units and full precision; cells are empty if no launch is valid."""
    lines = []
    for row in rows:
        found = step_costs(row)
        names = {"platform": row.experiment.platform, **row.axes, "experiment": row.experiment.experiment}
        numbers = ("generation_s", "transition_s", "whole_s", "transition_share", "output_tokens", "updates")
        lines.append(
            names
            | {"launches_valid": len(row.used)}
            | {name: found and getattr(found, name) for name in numbers}
            | {f"{part}_s": found and found.parts.get(part) for part in get_args(PartName)}
            | {f"update_{field.name}": found and getattr(found.update, field.name) for field in fields(UpdateCosts)}
            | {f"{field.name}_bytes": found and getattr(found.memory, field.name) for field in fields(MemoryCosts)}
        )
    return pd.DataFrame(lines)
