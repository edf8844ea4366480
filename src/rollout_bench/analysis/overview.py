"""All findings of a summary about the inside of the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout_bench.analysis.timed.experiments import Chosen, Collection, chosen
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped


@dataclass(frozen=True)
class Looked:
    """Findings inside the engine.

    `found` are those of each measured mode without throughput, by its name. `left_out` are the experiments without a
    valid launch; none of their measurements are used. `rows` are the timed experiments.
    """

    found: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[Chosen, ...] = ()
    rows: tuple[Row, ...] = ()


def look(results: Path, collection: Collection, rows: Sequence[Row]) -> Looked:
    """Read and analyse the experiments of `collection` without throughput, which was read from `results`."""
    inside = chosen(collection.others)
    return Looked(
        found={
            name: mode_of(name).part("report", "look")(results, own, collection)
            for name, own in grouped((each.experiment.mode, each) for each in inside).items()
        },
        left_out=tuple(each for each in inside if each.reason),
        rows=tuple(rows),
    )
