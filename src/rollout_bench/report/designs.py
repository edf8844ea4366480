"""Design of the measurement: blocks of interleaved engines, or one engine at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollout_bench.analysis.timed.experiments import Collection, launched


def design_values(collection: Collection) -> dict[str, Any]:
    """Return the values for templates/measured.md.j2, with designs of blocks and of `iterations: auto`."""
    return {"designs": list(_designs(collection))}


def _designs(collection: Collection) -> Iterator[dict[str, Any]]:
    """Yield for each mode and platform its blocks, and the launches outside of blocks."""
    experiments = launched(collection.experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        records = [r for e in experiments if (e.mode, e.platform) == (mode, platform) for r in e.records]
        blocks = list({r.block.id: r.block for r in records if r.block is not None}.values())
        alone = [record for record in records if record.block is None]
        if blocks or any(record.spec.measuring.iterations == "auto" for record in alone):
            yield {
                "name": f"{mode}, {platform}",
                "blocks": len(blocks),
                "engines": max((len(block.members) for block in blocks), default=0),
                "at_once": max((block.at_once for block in blocks), default=0),
                "rounds": max((len(block.order) for block in blocks), default=0),
                "together": sum(block.started == "together" for block in blocks),
                "alone": len(alone),
            }
