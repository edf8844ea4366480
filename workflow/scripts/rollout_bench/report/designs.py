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

    `engines`, `at_once` (of them alive at the same time) and `rounds` (of each engine but the baseline) are the least
    and the most of a block, `passes` those that count of a launch outside of one. `dropped` counts engines that made
    fewer passes than others of their block, `together` blocks whose engines started all at once.
    """

    name: str
    blocks: int
    engines: tuple[int, int]
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
        alone = [record for record in records if record.block is None]
        if blocks or any(record.spec.measuring.iterations == "auto" for record in alone):
            yield Design(
                name=f"{mode}, {platform}",
                blocks=len(blocks),
                engines=_range([len(block.members) for block in blocks]),
                at_once=_range([max(map(len, block.order), default=0) for block in blocks]),
                rounds=_range([max(_rounds(block)) for block in blocks]),
                dropped=sum(_dropped(block) for block in blocks),
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


def _dropped(block: Block) -> int:
    """Return how many engines made fewer passes than another one, or as a baseline did not stay to the end."""
    each = _rounds(block)
    gone = bool(block.order) and len(block.members) > 1 and 0 not in block.order[-1]
    return sum(rounds < max(each) for rounds in each) + gone


def _counted(record: Record) -> int:
    return sum(not iteration.warmup for iteration in record.iterations)
