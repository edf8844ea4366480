"""Crossing of two straight lines that are known from a few pairs: Fieller's theorem. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Range = tuple[float, float]
"""Both ends of a range of x; infinity without an upper end."""

Sign = Literal[-1, 0, 1]


@dataclass(frozen=True)
class LineCrossing:
    """Where the difference d(x) = p + s x of two lines is zero, for x >= 0, and where it is significantly nonzero.

    Each x is tested separately. So a range that was found by searching all x holds with less confidence. A range that
    holds an x chosen beforehand has the full confidence.

    Attributes:
        at: estimate of the crossing; None if the mean lines do not cross at x >= 0.
        below: range in which d is significantly below zero; None if there is none.
        above: range in which d is significantly above zero; None if there is none.
    """

    at: float | None
    below: Range | None
    above: Range | None


def crossing(intercepts: ArrayLike, slopes: ArrayLike, confidence: float) -> LineCrossing:
    """Return where the mean of n >= 2 lines p_i + s_i x is zero; each line is the difference of a pair.

    Let m(x) = p + s x with the means p and s. v_pp, v_ps and v_ss are the sample covariances (n - 1) divided by n. t
    is the quantile of Student's distribution with n - 1 degrees of freedom. The x outside `below` and `above` are all
    x with m(x)^2 <= t^2 (v_pp + 2 x v_ps + x^2 v_ss). If p_i and s_i are jointly normal, this set holds the true
    crossing -E(p) / E(s) with `confidence`, because m(x) over its standard error is a t statistic there (Fieller,
    "Some problems in interval estimation", Journal of the Royal Statistical Society B 16, 1954, 175-185). The set is
    an interval if s is significantly nonzero by the same test. Otherwise it is unbounded or holds all x. Then there is
    no answer, and no method with a bounded interval could keep its confidence (von Luxburg and Franz, "A geometric
    approach to confidence sets for ratios", Statistica Sinica 19, 2009, 1095-1117).

    Args:
        intercepts: p_i [n], in the unit of d.
        slopes: s_i [n], in the unit of d per unit of x.
        confidence: between 0 and 1.

    Raises:
        ValueError: fewer than two lines, different numbers of slopes and intercepts, or a value that is not finite.
    """
    lines = np.stack([np.asarray(intercepts, dtype=float), np.asarray(slopes, dtype=float)])
    if lines.shape[1] < 2 or not np.isfinite(lines).all():
        raise ValueError("a crossing takes two lines or more, of finite numbers")
    n = lines.shape[1]
    p, s = lines.mean(axis=1)
    (v_pp, v_ps), (_, v_ss) = np.cov(lines) / n
    t = special.stdtrit(n - 1, 0.5 + confidence / 2)

    def sign(x: float) -> Sign:
        """Return the sign of the difference at `x` if it is significant, else 0."""
        mean, error = p + s * x, math.sqrt(max(0.0, v_pp + 2 * x * v_ps + x * x * v_ss))
        return 0 if abs(mean) <= t * error else 1 if mean > 0 else -1

    # In this form the discriminant is exactly zero if nothing scatters. If it is negative, there is no root,
    # and the sign is the same on both sides of the value computed here.
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
    """Return the range in which the sign is `wanted`; d is a line, so there is at most one range."""
    spans = [(low, high) for sign, low, high in signs if sign == wanted]
    return (spans[0][0], spans[-1][1]) if spans else None
