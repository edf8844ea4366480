"""Where a server saturates: the highest rate of a sweep that it keeps up with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rollout_bench.analysis.rows import Row
from rollout_bench.keeping_up import KEPT_UP


@dataclass(frozen=True)
class Saturation:
    """What the sweep of one experiment says, `rows` being its loads from the lightest, all at a rate.

    `kept` has by launch the highest rate that it kept up with, in requests per second, 0 where it kept up with none;
    `first_missed` the lowest rate above those of all launches, None where the sweep ended before. `delivered` is the
    highest rate of answers over all loads, mean over launches, with its t interval, None for a single launch.
    Without a valid launch all of it is missing and `kept` is empty.
    """

    rows: tuple[Row, ...]
    kept: Mapping[int, float]
    first_missed: float | None
    delivered: float | None
    delivered_interval: tuple[float, float] | None


def saturations(rows: Sequence[Row], confidence: float) -> list[Saturation]:
    """The saturation of each experiment in `rows` that was measured at several rates, in their order."""
    sweeps: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        part = row.experiment.part
        if part is not None and isinstance(part.point.request_rate, float):
            sweeps.setdefault((row.experiment.mode, row.experiment.experiment), []).append(row)
    found = [_saturation(sweep, confidence) for sweep in sweeps.values() if len(sweep) > 1]
    return [each for each in found if each is not None]


def _saturation(rows: Sequence[Row], confidence: float) -> Saturation | None:
    kept: dict[int, float] = {}
    delivered: dict[int, float] = {}
    for row in rows:
        for launch in row.used:
            service = launch.service
            if service is None or service.kept_up is None or service.offered_per_s is None:
                continue
            held = _rate(row) if service.kept_up >= KEPT_UP else 0.0
            kept[launch.launch] = max(kept.get(launch.launch, 0.0), held)
            came = service.kept_up * service.offered_per_s
            delivered[launch.launch] = max(delivered.get(launch.launch, 0.0), came)
    if not any(row.used for row in rows):
        return Saturation(tuple(rows), {}, None, None, None)
    if not kept:
        return None
    above = [_rate(row) for row in rows if _rate(row) > max(kept.values())]
    values = np.array(list(delivered.values()))
    return Saturation(
        rows=tuple(rows),
        kept=kept,
        first_missed=min(above, default=None),
        delivered=float(values.mean()),
        delivered_interval=t_interval(values, confidence),
    )


def t_interval(values: Sequence[float] | np.ndarray, confidence: float) -> tuple[float, float] | None:
    """Student's interval of the mean of `values` [n], in their unit; None for fewer than two."""
    array = np.asarray(values, dtype=float)
    if array.size < 2:
        return None
    half = float(special.stdtrit(array.size - 1, 0.5 + confidence / 2) * array.std(ddof=1) / np.sqrt(array.size))
    return float(array.mean()) - half, float(array.mean()) + half


def _rate(row: Row) -> float:
    assert row.experiment.part is not None
    return float(row.experiment.part.point.request_rate)
