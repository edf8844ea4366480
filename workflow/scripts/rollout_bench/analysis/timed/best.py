"""The best of what is compared with one baseline, and what can't be told from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rollout_bench.analysis.stats.best import may_be_best
from rollout_bench.analysis.stats.blocks import contrasts
from rollout_bench.analysis.timed.comparison import log_ratios
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.plan.config import ComparisonSettings

FEWEST = 3
"""Configurations from which on the best is asked for: of two the verdict says it."""


@dataclass(frozen=True)
class Standing:
    """Configurations that share a baseline, by the first metric, each in one of three groups.

    `best` has the best mean, `ties` can't be told from it, the best of them first, `others` are surely not the best.
    The baseline is one of them.
    """

    best: Row
    ties: tuple[Row, ...]
    others: tuple[Row, ...]


def compared_rows(rows: Iterable[Row]) -> list[tuple[Row | None, list[Row]]]:
    """Return the baseline's row and the rows that are compared with it, for each baseline that some row has.

    None stands for a baseline that is not among `rows`, as one of earlier results.
    """
    rows = list(rows)
    by_place = {row.experiment.place: row for row in rows}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.against.other is not None:
            groups.setdefault(row.against.other.place, []).append(row)
    return [(by_place.get(place), others) for place, others in groups.items()]


def standing(baseline: Row, others: Sequence[Row], settings: ComparisonSettings) -> Standing | None:
    """Return how configurations stand that are compared with `baseline` pair by pair; None where nobody can say.

    So it is with fewer than `FEWEST` that are, and where pairs are of different ways.
    """
    judged = [row for row in others if row.comparison.p_value is not None and not row.comparison.sides]
    if len(judged) + 1 < FEWEST or len({row.comparison.ways for row in judged}) > 1:
        return None
    logs = log_ratios([row.comparison for row in judged])
    found = contrasts(logs)
    if not math.isfinite(float(found.error.sum())):
        return None
    spread = float(found.pooled_error[0]) * math.sqrt(int(found.pairs[0]) / 2)
    may_be = may_be_best(logs, spread, int(found.freedom), 1 - settings.confidence)
    means = [0.0, *np.nanmean(logs, axis=0)]
    everyone = [baseline, *judged]
    order = sorted(range(len(everyone)), key=lambda place: -means[place])
    best, *rest = order
    return Standing(
        best=everyone[best],
        ties=tuple(everyone[place] for place in rest if may_be[place]),
        others=tuple(everyone[place] for place in rest if not may_be[place]),
    )
