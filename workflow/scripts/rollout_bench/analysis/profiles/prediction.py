"""The speed-up of a whole pass that follows from its steps' parts. Pure functions on seconds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special

from rollout_bench.analysis.paired import NO_SPREAD

Key = TypeVar("Key", bound=Hashable)


def amdahl(parts: Mapping[Key, float], speedups: Mapping[Key, float], added: float = 0.0) -> float:
    """The speed-up of a whole of `parts` >= 0 with a sum above 0, in any one unit, when each becomes faster.

    With T_i the time of part i and s_i its speed-up, 1 where `speedups` lacks it: sum T_i / (sum T_i / s_i + added)
    (Amdahl, "Validity of the single processor approach to achieving large scale computing capabilities", AFIPS 1967,
    there for two parts). `added` is the time of parts that the whole did not have. A part that goes has s_i = inf.

    Raises:
        ValueError: nothing is left of the whole.
    """
    left = sum(time / speedups.get(part, 1.0) for part, time in parts.items()) + added
    if left <= 0:
        raise ValueError("nothing is left of the whole")
    return sum(parts.values()) / left


def predicted(baseline: Mapping[Key, float], own: Mapping[Key, float]) -> float:
    """`amdahl` from both sides' times of the same parts: what only `own` has is added, what only `baseline` has goes.

    Since the speed-ups are those of the same times this is the ratio of both sums: the parts say where it comes from.
    """
    speedups = {part: time / own[part] if own.get(part) else math.inf for part, time in baseline.items() if time > 0}
    return amdahl(baseline, speedups, sum(time for part, time in own.items() if not baseline.get(part)))


@dataclass(frozen=True)
class Sum:
    """A weighted sum of means: `total` in seconds, its variance over `total` squared by term with degrees of freedom.

    `terms` are None where some mean is of a single value, whose scatter nobody knows.
    """

    total: float
    terms: tuple[tuple[float, int], ...] | None


def pass_time(steps: Sequence[tuple[float, Sequence[float]]]) -> Sum:
    """The time of a pass, of (number of steps, step times in seconds) by phase.

    Sum of n_p mean(t_p), with the variance n_p^2 s_p^2 / k_p of each term over k_p timed steps. Steps count as
    independent; where they drift, s_p holds the drift, which makes it no smaller.
    """
    total = sum(number * float(np.mean(times)) for number, times in steps)
    if any(len(times) < 2 for number, times in steps if number):
        return Sum(total, None)
    terms = [
        (float(number**2 * np.var(times, ddof=1) / len(times)) / total**2, len(times) - 1)
        for number, times in steps
        if number
    ]
    return Sum(total, tuple(terms))


def ratio_interval(baseline: Sum, own: Sum, confidence: float) -> tuple[float, float] | None:
    """The interval of baseline / own, None where the scatter of one is unknown or both have none.

    exp(ln R -+ t sqrt(V)), V the sum of all terms' relative variances (the first-order variance of ln R), t with the
    degrees of freedom V^2 / sum(V_i^2 / f_i) (Satterthwaite, "An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2, 1946). It holds for this launch: what changes from launch to launch is not in.
    """
    if baseline.terms is None or own.terms is None:
        return None
    terms = [*baseline.terms, *own.terms]
    variance = sum(v for v, _ in terms)
    if math.sqrt(variance) < NO_SPREAD:
        return None
    freedom = variance**2 / sum(v**2 / f for v, f in terms)
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    middle = math.log(baseline.total / own.total)
    # A handful of unsteady steps can be worth less than one degree of freedom; beyond e^700 no float goes.
    return math.exp(max(-700.0, middle - half)), math.exp(min(700.0, middle + half))


def ratio_of_ratios(
    one: float, one_interval: tuple[float, float], other: float, other_interval: tuple[float, float]
) -> tuple[float, float]:
    """The interval of one / other from the intervals of both, all above 0 and of the same confidence.

    On logarithms: low = x - y - sqrt((x - l)^2 + (u' - y)^2), high = x - y + sqrt((u - x)^2 + (y - l')^2) (Zou and
    Donner, "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27,
    2008), which takes them as independent.
    """
    x, y = math.log(one), math.log(other)
    (low, high), (low_, high_) = (tuple(map(math.log, interval)) for interval in (one_interval, other_interval))
    return (
        math.exp(x - y - math.hypot(x - low, high_ - y)),
        math.exp(x - y + math.hypot(high - x, y - low_)),
    )
