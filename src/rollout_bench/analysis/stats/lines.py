"""Where two straight lines cross that are known by a few pairs of them: Fieller's theorem. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Range = tuple[float, float]
"""From and to, of x; infinity where there is no end."""

Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class LineCrossing:
    """Where the difference d(x) = p + s x of two lines is zero, for x >= 0, and where it is shown not to be.

    Each x is tested by itself, so a stretch found by searching all x holds with less confidence; one that holds an x
    that was named before holds with all of it.

    Attributes:
        at: the estimate of it; None where the means of the lines do not cross at x >= 0.
        below: where d is significantly below zero; None where it is so nowhere.
        above: the same above zero.
    """

    at: float | None
    below: Range | None
    above: Range | None


def crossing(intercepts: ArrayLike, slopes: ArrayLike, confidence: float) -> LineCrossing:
    """Return where n >= 2 lines p_i + s_i x, each the difference of a pair, are zero in the mean.

    With m(x) = p + s x of the mean p and s, v_pp, v_ps and v_ss the sample covariances (n - 1) divided by n, and t the
    quantile of Student's distribution with n - 1 degrees of freedom: what lies neither in `below` nor in `above` is
    all x with m(x)^2 <= t^2 (v_pp + 2 x v_ps + x^2 v_ss). If p_i and s_i are normally distributed, however they depend
    on each other, that set holds the true crossing -E(p) / E(s) with `confidence`, because at the true one m(x) over
    its standard error is a t statistic (Fieller, "Some problems in interval estimation", Journal of the Royal
    Statistical Society B 16, 1954, 175-185). It is an interval where s is not zero by the same test; else it goes on
    without end, or has all x: there is no answer then, and no method with a bounded interval would keep its promise
    (von Luxburg and Franz, "A geometric approach to confidence sets for ratios", Statistica Sinica 19, 2009,
    1095-1117).

    Args:
        intercepts: p_i [n], in the unit of d.
        slopes: s_i [n], in the unit of d for each unit of x.
        confidence: between 0 and 1.

    Raises:
        ValueError: fewer than two lines, not as many slopes as intercepts, or a value that is not finite.
    """
    lines = np.stack([np.asarray(intercepts, dtype=float), np.asarray(slopes, dtype=float)])
    if lines.shape[1] < 2 or not np.isfinite(lines).all():
        raise ValueError("a crossing takes two lines or more, of finite numbers")
    n = lines.shape[1]
    p, s = lines.mean(axis=1)
    (v_pp, v_ps), (_, v_ss) = np.cov(lines) / n
    t = special.stdtrit(n - 1, 0.5 + confidence / 2)

    def sign(x: float) -> Sign:
        """Return the sign of the difference at `x` where it is significant, else 0."""
        mean, error = p + s * x, math.sqrt(max(0.0, v_pp + 2 * x * v_ps + x * x * v_ss))
        return 0 if abs(mean) <= t * error else 1 if mean > 0 else -1

    # The discriminant is written so that it is exactly zero where nothing scatters. Where it is negative there is no
    # end, and the place that is taken for one divides nothing.
    a, b, c = s * s - t * t * v_ss, p * s - t * t * v_ps, p * p - t * t * v_pp
    inside = p * p * v_ss - 2 * p * s * v_ps + s * s * v_pp - t * t * (v_pp * v_ss - v_ps * v_ps)
    q = -(b + math.copysign(t * math.sqrt(max(0.0, inside)), b))
    roots = [over / under for over, under in ((q, a), (c, q)) if under]
    ends = sorted(root for root in roots if 0 < root < math.inf)
    signs = [(sign(_between(low, high)), low, high) for low, high in zip((0.0, *ends), (*ends, math.inf), strict=True)]
    at = -p / s if s else None
    return LineCrossing(at=None if at is None or at < 0 else float(at), below=_where(signs, -1), above=_where(signs, 1))


def _between(low: float, high: float) -> float:
    return (low + high) / 2 if math.isfinite(high) else 2 * low + 1


def _where(signs: Sequence[tuple[Sign, float, float]], wanted: Sign) -> Range | None:
    """Return from where to where the sign is `wanted`: d is a line, so that is one stretch or none."""
    found = [(low, high) for sign, low, high in signs if sign == wanted]
    return (found[0][0], found[-1][1]) if found else None
