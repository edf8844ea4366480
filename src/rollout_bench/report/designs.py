"""How launches were measured: in blocks of interleaved engines, or one engine at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rollout_bench.analysis.timed.experiments import Collection, launched
from rollout_bench.contracts.record import Block, Record


@dataclass(frozen=True)
class Design:
    """The blocks of one mode and platform, and what was measured outside of them.

    `engines` and `rounds` (of each engine but the baseline) are the least and the most of a block, `passes` those that
    count of a launch outside of one. `grouped` counts blocks whose engines came in groups beside the baseline, and
    `at_once` is how many engines of such a block were alive at the same time, the least and the most. `dropped` counts
    engines that failed before the end of their block, `together` blocks whose engines started all at once.
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
    """Return what templates/measured.md.j2 asks for: no design where all was measured as configs before blocks say."""
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
    """Return in how many rounds each engine made a pass.

    Without the baseline where there are others: of engines that come in groups, it makes as many beside each group.
    """
    each = [sum(place in order for order in block.order) for place in range(len(block.members))]
    return each[1:] or each


def in_groups(block: Block) -> bool:
    """Return whether some engine made its passes only after another one had made all of its own.

    Of engines that are all alive at once each makes a pass in the first round, but for those that fail before.
    """
    made_a_pass = {place for order in block.order for place in order}
    return not made_a_pass.issubset(block.order[0] if block.order else ())


def _failed(block: Block, place: int) -> bool:
    """Return whether an engine without a record made fewer passes than others, and as the baseline not the last one.

    One that made all of its passes has lost its record since.
    """
    if place == 0:
        return len(block.members) > 1 and bool(block.order) and 0 not in block.order[-1]
    rounds = _rounds(block)
    return rounds[place - 1] < max(rounds)


def _counted(record: Record) -> int:
    return sum(not iteration.warmup for iteration in record.iterations)
