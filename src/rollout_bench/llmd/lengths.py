"""Lengths in a workload's form, for those of profiles: of prompts, answers, and turns of conversations."""

import math
from statistics import NormalDist
from typing import Any

from rollout_bench.contracts.load import MOST_TURNS
from rollout_bench.llmd.keys import Keys

SPREAD = 5
"""Standard deviations from the mean to a missing bound, as in guidellm."""


def lengths(kind: str, low: int, high: int, mean: float = 0.0, std: float = 0.0) -> int | dict[str, Any]:
    """Return a distribution of lengths within bounds, `kind` uniform or normal; a number if all lengths are equal."""
    if low == high or (kind == "normal" and std == 0):
        return min(max(round(mean), low), high)
    middle = {"mean": plain(mean), "std": plain(std), "beyond": "clipped"} if kind == "normal" else {}
    return {"distribution": kind, **middle, "low": low, "high": high}


def with_prefix(prefix: int, length: int | dict[str, Any]) -> int | dict[str, Any]:
    """Return the lengths of whole prompts: a shared prefix, then an individual part of the given length."""
    if isinstance(length, int):
        return prefix + length
    begins = {"offset": prefix + length.get("offset", 0)} if prefix and length["distribution"] == "lognormal" else {}
    whole = {key: value + prefix if key in ("low", "high", "mean") else value for key, value in length.items()}
    return whole | begins


def turns_of(keys: Keys, path: str, count: Any, words: Any, thinking: Any) -> dict[str, Any]:
    """Return the turns of a workload: how many there are, the user's tokens, and milliseconds before them."""
    most = most_of(count)
    if most > MOST_TURNS:
        raise keys.error(path, f"asks for up to {most} turns, and {MOST_TURNS} is the maximum", "lower it")
    return {"count": count, "tool_ms": thinking, "tool_tokens": words}


def most_of(length: int | dict[str, Any]) -> int:
    """Return the maximum of a length."""
    return length if isinstance(length, int) else int(length["high"])


def plain(value: float | None) -> float | int | None:
    """Return a whole number as an integer: 30, not 30.0."""
    return int(value) if value is not None and value == int(value) else value


def middle_of(length: Any) -> float:
    """Return the typical value of a length or a distribution."""
    if isinstance(length, int):
        return float(length)
    middle = length.get("mean") or length.get("median") or (length["low"] + length["high"]) / 2
    return float(middle + length.get("offset", 0))


QUANTILES = [NormalDist().inv_cdf((number + 0.5) / 1000) for number in range(1000)]


def mean_of(length: int | dict[str, Any]) -> float:
    """Return the mean of a length or of a distribution, whose draws beyond the bounds are clipped."""
    if isinstance(length, int) or length["distribution"] == "uniform":
        return middle_of(length)
    if length["distribution"] == "normal":
        draws = [length["mean"] + length["std"] * z for z in QUANTILES]
    else:
        draws = [length.get("offset", 0) + length["median"] * math.exp(length["sigma"] * z) for z in QUANTILES]
    return float(sum(min(max(draw, length["low"]), length["high"]) for draw in draws)) / len(draws)
