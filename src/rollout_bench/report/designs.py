"""Design of the measurement: blocks of interleaved engines, or one engine at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rollout_bench.analysis.timed.experiments import Collection, launched
from rollout_bench.contracts.record import Block, Record


@dataclass(frozen=True)
class Design:
    """The blocks of one mode and platform, and the launches outside of blocks.

    `engines` and `rounds` (of each engine except the baseline) are the minimum and maximum of a block. `passes` are the
    minimum and maximum of measured iterations of a launch outside of blocks. `grouped` counts blocks whose engines
    came in groups beside the baseline, and `at_once` is the minimum and maximum of simultaneous engines in such a
    block. `dropped` counts engines that failed before the end of their block. `together` counts blocks whose engines
    started simultaneously.
    """

    name: str
    blocks: int
    engines: tuple[int, int]
    grouped: int
    at_once: tuple[int, int]
    rounds: tuple[int, int]
    dropped: int
    together: int
    alone: int
    passes: tuple[int, int]


def design_values(collection: Collection) -> dict[str, Any]:
    """Return the values for templates/measured.md.j2, with designs of blocks and of `iterations: auto`."""
    designs = list(_designs(collection))
    return {"designs": designs, "several_tables": len(designs) > 1}


def _designs(collection: Collection) -> Iterator[Design]:
    experiments = launched(collection.experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        records = [r for e in experiments if (e.mode, e.platform) == (mode, platform) for r in e.records]
        blocks = list({r.block.id: r.block for r in records if r.block is not None}.values())
        grouped = [block for block in blocks if in_groups(block)]
        selected = {f"{e.mode}/{e.experiment}" for e in experiments}
        there = {(r.block.id, f"{r.spec.mode}/{r.experiment}") for r in records if r.block is not None}
        alone = [record for record in records if record.block is None]
        if blocks or any(record.spec.measuring.iterations == "auto" for record in alone):
            yield Design(
                name=f"{mode}, {platform}",
                blocks=len(blocks),
                engines=_range([len(block.members) for block in blocks]),
                grouped=len(grouped),
                at_once=_range([block.at_once for block in grouped]),
                rounds=_range([max(_rounds(block)) for block in blocks]),
                dropped=sum(
                    _failed(block, place)
                    for block in blocks
                    for place, member in enumerate(block.members)
                    if member in selected and (block.id, member) not in there
                ),
                together=sum(block.started == "together" for block in blocks),
                alone=len(alone),
                passes=_range([_counted(record) for record in alone]),
            )


def _range(numbers: Sequence[int]) -> tuple[int, int]:
    return min(numbers, default=0), max(numbers, default=0)


def _rounds(block: Block) -> list[int]:
    """Return the number of rounds in which each engine made an iteration, without the baseline if there are others.

    If engines come in groups, the baseline makes as many iterations beside each group.
    """
    each = [sum(place in order for order in block.order) for place in range(len(block.members))]
    return each[1:] or each


def in_groups(block: Block) -> bool:
    """Return whether some engine made its first iteration only after another one had made all of its iterations.

    If all engines are alive simultaneously, each makes an iteration in the first round, unless it failed before.
    """
    made_a_pass = {place for order in block.order for place in order}
    return not made_a_pass.issubset(block.order[0] if block.order else ())


def _failed(block: Block, place: int) -> bool:
    """Return whether an engine without a record stopped early: fewer iterations than others, or a missing last one.

    An engine that made all of its iterations has lost its record later.
    """
    if place == 0:
        return len(block.members) > 1 and bool(block.order) and 0 not in block.order[-1]
    rounds = _rounds(block)
    return rounds[place - 1] < max(rounds)


def _counted(record: Record) -> int:
    return sum(not iteration.warmup for iteration in record.iterations)
