"""Many comparisons at once, without more false findings than one alone may have. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p values of families [..., m], in the order of the input.

    With the family sorted, p(1) <= ... <= p(m): adjusted(i) = max over j <= i of min(1, (m - j + 1) p(j)).
    To reject what is at most alpha keeps the chance of even one false rejection in the family at most alpha,
    whatever depends on what: comparisons with one baseline do. (Holm, "A simple sequentially rejective
    multiple test procedure", Scandinavian Journal of Statistics 6, 1979, 65-70.)

    Raises:
        ValueError: a value that is not between 0 and 1, NaN included.
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a p value is not between 0 and 1")
    m = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.minimum(1.0, np.arange(m, 0, -1) * np.take_along_axis(p, order, axis=-1))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(stepped, axis=-1), axis=-1)
    return adjusted


def strictest_level(alpha: float, comparisons: int) -> float:
    """The level that Holm asks of the smallest p value in a family of `comparisons` >= 1: alpha / comparisons.

    The others are held to milder ones, up to alpha for the largest, so what can be detected at this level
    can be detected wherever a comparison ends up in the order.
    """
    return alpha / comparisons
