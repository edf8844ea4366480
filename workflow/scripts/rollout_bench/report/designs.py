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

    `engines` and `rounds` are the least and the most of a block, `passes` those that count of a launch outside of
    one. `dropped` counts engines that were not there to the end of their block, `together` blocks whose engines
    started all at once.
    """

    name: str
    blocks: int
    engines: tuple[int, int]
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
        alone = [record for record in records if record.block is None]
        if blocks or any(record.spec.measuring.iterations == "auto" for record in alone):
            yield Design(
                name=f"{mode}, {platform}",
                blocks=len(blocks),
                engines=_range([len(block.members) for block in blocks]),
                rounds=_range([len(block.order) for block in blocks]),
                dropped=sum(len(block.members) - _last(block) for block in blocks),
                together=sum(block.started == "together" for block in blocks),
                alone=len(alone),
                passes=_range([_counted(record) for record in alone]),
            )


def _range(numbers: Sequence[int]) -> tuple[int, int]:
    return min(numbers, default=0), max(numbers, default=0)


def _last(block: Block) -> int:
    """Return how many engines made a pass in the last round."""
    return len(block.order[-1]) if block.order else 0


def _counted(record: Record) -> int:
    return sum(not iteration.warmup for iteration in record.iterations)
