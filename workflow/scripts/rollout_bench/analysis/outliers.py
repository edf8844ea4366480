"""Launches that are far from the others of their experiment: told and marked, never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.launches import LaunchMeasures
from rollout_bench.records.record import Flag

LEAST = 4
"""Launches that it takes to tell: of three, any one may be the odd one."""

RELEVANT = 0.01
"""Least distance from the median that counts, of the median: less is no relevant difference between launches."""

CUTOFFS = {4: 6.9, 5: 8.0, 6: 5.5, 7: 5.8, 8: 4.9, 9: 5.1, 10: 4.6, 11: 4.7, 12: 4.4}
"""Launches -> modified z-score that in 5 % of experiments some launch exceeds by chance, where throughputs are
normal and independent; from 200,000 simulated experiments each (`tests/quick/test_outliers.py` does it again).
The usual 3.5 would mark a launch in every sixth experiment of four launches."""


def modified_z(values: ArrayLike) -> NDArray[np.float64]:
    """0.6745 (x - median) / MAD of each of `values` [n >= 1], without a unit.

    MAD is the median of |x - median|; 0.6745 makes it agree with the standard deviation of normal values (Iglewicz
    and Hoaglin, How to Detect and Handle Outliers, 1993). Where MAD is zero: 0 at the median, else infinite.
    """
    array = np.asarray(values, dtype=float)
    distance = array - np.median(array)
    mad = np.median(np.abs(distance))
    if mad > 0:
        return np.asarray(0.6745 * distance / mad)
    return np.asarray(np.where(distance == 0, 0.0, np.copysign(np.inf, distance)))


def cutoff(launches: int) -> float:
    """The modified z-score from which on one of `launches` >= 4 is an outlier."""
    return CUTOFFS.get(launches, CUTOFFS[max(CUTOFFS)])


def outliers(values: ArrayLike) -> list[int]:
    """Positions of the outliers in `values` [n], in order; none where there are fewer than `LEAST` values."""
    array = np.asarray(values, dtype=float)
    if array.size < LEAST:
        return []
    middle = np.median(array)
    far = np.abs(modified_z(array)) > cutoff(array.size)
    return [int(i) for i in np.flatnonzero(far & (np.abs(array - middle) > RELEVANT * np.abs(middle)))]


def marked(launches: Sequence[LaunchMeasures]) -> tuple[LaunchMeasures, ...]:
    """`launches` of one experiment; the outliers in output tokens per second among the valid ones have a flag more."""
    valid = [i for i, launch in enumerate(launches) if launch.valid]
    rates = [launches[i].output_tokens_per_s for i in valid]
    found = list(launches)
    for position in outliers(rates):
        launch, middle = launches[valid[position]], float(np.median(rates))
        sentence = (
            f"{launch.output_tokens_per_s:.4g} output tokens/s, "
            f"{100 * (launch.output_tokens_per_s / middle - 1):+.1f} % off the median of {len(rates)} valid launches, "
            f"{middle:.4g} (modified z-score {modified_z(rates)[position]:.1f}, limit {cutoff(len(rates)):.1f})."
        )
        flag = Flag(code="outlier_launch", severity="warning", sentence=sentence)
        found[valid[position]] = replace(launch, flags=(*launch.flags, flag))
    return tuple(found)
