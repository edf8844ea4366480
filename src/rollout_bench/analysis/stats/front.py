"""Which configurations of a table are on the Pareto front of several metrics, and which may be. Pure functions.

The front holds what nobody needs to leave out: whoever takes a configuration that is not on it could have a better one
in some metric and lose nothing in the others (Pareto, "Manuale di economia politica", 1906).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def on_front(values: ArrayLike) -> list[bool]:
    """Return of each of k configurations whether no other one dominates it: [k].

    One dominates another where it is at least as good in every metric and better in one.

    Args:
        values: of k configurations in n metrics [k, n], higher is better.

    Raises:
        ValueError: `values` has not two dimensions.
    """
    each = np.asarray(values, dtype=float)
    if each.ndim != 2:
        raise ValueError("a front needs two dimensions: configurations and metrics")
    as_good = (each[:, None] >= each[None, :]).all(axis=-1)
    better = (each[:, None] > each[None, :]).any(axis=-1)
    return [not dominated for dominated in np.atleast_1d((as_good & better).any(axis=0))]


def may_be_on_front(better: ArrayLike) -> list[bool]:
    """Return of each of k configurations whether no other one surely is better in every metric: [k].

    Of a configuration that truly is on the front each other one is no better in some metric, and must look better there
    by more than chance allows to rule it out. So with a level a of `best.surely_better` in each metric it is ruled out
    with a chance of at most n a.

    Args:
        better: whether configuration i surely is better than j in each of n metrics [n, k, k].

    Raises:
        ValueError: `better` has not three dimensions.
    """
    each = np.asarray(better, dtype=bool)
    if each.ndim != 3:
        raise ValueError("what is better needs three dimensions: metrics, and twice the configurations")
    return [not beaten for beaten in np.atleast_1d(each.all(axis=0).any(axis=0))]
