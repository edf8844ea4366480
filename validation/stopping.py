"""The sequential rule of `launches: auto` with its default settings, and what its comparisons come to."""

from __future__ import annotations

import numpy as np
from kept import SETTINGS
from noise import Array
from numpy.typing import NDArray

from rollout_bench.analysis.stats.intervals import ratio_interval
from rollout_bench.analysis.stats.sequential import StoppingRule
from rollout_bench.plan.config import Precision

_DEFAULT = Precision()
RULE = StoppingRule(_DEFAULT.half_width, _DEFAULT.min_launches, _DEFAULT.max_launches, SETTINGS.confidence)


def auto_comparisons(log_ratios: Array, rule: StoppingRule = RULE) -> tuple[NDArray[np.int_], Array, Array]:
    """Return after how many pairs the rule stops each of `log_ratios` [comparisons, max_pairs], ratio and p value.

    The p values hold over all looks together.
    """
    pairs = rule.stopped(log_ratios)
    middle, p_values = np.empty(len(pairs)), np.empty(len(pairs))
    for number in np.unique(pairs):
        chosen = pairs == number
        taken = log_ratios[chosen, :number]
        middle[chosen] = taken.mean(axis=-1)
        p_values[chosen] = [rule.looks.overall(float(p)) for p in ratio_interval(taken, rule.confidence).p_value]
    return pairs, middle, p_values
