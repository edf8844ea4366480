"""Launches whose new weights did not come, or came wrong: findings about a quantization that no repetition changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.timed.rows import Row

WRONG_WEIGHTS = ("output_changed", "update_without_effect", "weights_differ")
"""Codes of the flags of launches whose weights failed a proof."""

NOT_UPDATABLE = "not_updatable"
"""Category of the failures of launches whose checkpoint takes no new weights."""

LASTING = frozenset({*WRONG_WEIGHTS, NOT_UPDATABLE})
"""What another launch would show again."""


@dataclass(frozen=True)
class Unfit:
    """Launches of one experiment that failed a proof, or whose weights can't be updated.

    Attributes:
        code: of their flag, or the category of their failure.
        launches: how many.
        of: launches that were tried.
        seen: what the first of them tells.
    """

    code: str
    launches: int
    of: int
    seen: str


def unfit(row: Row) -> Iterator[Unfit]:
    """Yield what launches of `row` failed by."""
    tried = len(row.launches) + len(row.experiment.failures)
    for code in WRONG_WEIGHTS:
        seen = [next((flag.sentence for flag in launch.flags if flag.code == code), "") for launch in row.launches]
        if any(seen):
            yield Unfit(code, sum(map(bool, seen)), tried, next(filter(None, seen)))
    causes = [failure.cause for failure in row.experiment.failures if failure.category == NOT_UPDATABLE]
    if causes:
        yield Unfit(NOT_UPDATABLE, len(causes), tried, causes[0])
