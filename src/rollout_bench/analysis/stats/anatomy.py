"""Anatomy of a step: how the sequences of one iteration fill and drain an engine. Pure functions on arrays.

A step ends with its last sequence, so its time hides the other sequences. The names come from scheduling: the
makespan is the time until the last job is complete, with all jobs present at the beginning (Pinedo, "Scheduling",
section 2.1).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout_bench.analysis.stats.percentiles import Array

Whole = NDArray[np.int64]


def complete_s(ends_s: ArrayLike, percent: int) -> float:
    """Return the time at which `percent` % of the sequences were complete, in the unit of `ends_s` [n >= 1]."""
    ordered = np.sort(np.asarray(ends_s, dtype=float))
    return float(ordered[rank(percent, ordered.size)])


def rank(percent: int, sequences: int) -> int:
    """Return the place, from 0, of the end at which `percent` % of the sequences are complete, the earliest first.

    It is that of the k-th smallest, with k = ceil(percent n / 100), as in R's quantile type 1 (Hyndman and Fan, "Sample
    quantiles in statistical packages", The American Statistician 50, 1996). With fewer than 100 sequences, 99 % are
    all.
    """
    return max(-(-percent * sequences // 100), 1) - 1


def running(begins_s: ArrayLike, ends_s: ArrayLike) -> tuple[Array, Whole]:
    """Return the number of running sequences over time: moments [k], rising, and the count [k] from each moment on.

    A sequence runs from its begin until just before its end. None runs before the first moment or from the last one on.
    """
    begins, ends = (np.asarray(times, dtype=float) for times in (begins_s, ends_s))
    changes = np.repeat([1, -1], [begins.size, ends.size])
    at_s, place = np.unique(np.concatenate([begins, ends]), return_inverse=True)
    return at_s, np.cumsum(np.bincount(place, weights=changes, minlength=at_s.size)).astype(np.int64)


def group_ends_s(ends_s: ArrayLike, prompt: ArrayLike) -> tuple[Array, Array]:
    """Return the completion time of each group, and the time at which half of the group was complete [groups].

    A group has the sequences of one `prompt` [n]. It is complete with its last sequence, and half complete at
    `complete_s` of its own `ends_s` [n]. Times have the unit of `ends_s`.
    """
    ends, groups = np.asarray(ends_s, dtype=float), np.asarray(prompt)
    order = np.lexsort((ends, groups))
    firsts = np.flatnonzero(np.diff(groups[order], prepend=groups.min() - 1))
    sizes = np.diff([*firsts, ends.size])
    ordered = ends[order]
    return ordered[firsts + sizes - 1], ordered[firsts + (sizes + 1) // 2 - 1]


def anatomy_of(
    begins: Array, ends: Array, tokens: Whole, prompt: Whole, elapsed_s: float, limit: int | None
) -> dict[str, float]:
    """Return the columns of `numbers.sequences` for the sequences [n >= 1] of one iteration; unknown ones are missing.

    Occupancy is the sum of running times / (makespan x most running). The sum is the integral of the number of running
    sequences, so the ratio is the mean of this number over its maximum: Little's law (Little 1961) for a system that
    begins and ends empty. The drain begins at the last moment with the most running sequences; the straggler gap is
    from a group's half completion until its last sequence ends.

    Args:
        begins: start of each sequence, in seconds after the iteration began.
        ends: time of each last token, on the same clock.
        tokens: output tokens of each sequence.
        prompt: number of each sequence's prompt; the samples of a prompt are a group.
        elapsed_s: time of the iteration in the record.
        limit: maximum output tokens of a sequence; None if each sequence has its own limit.
    """
    makespan_s, t90_s = float(ends.max()), complete_s(ends, 90)
    groups_s, halves_s = group_ends_s(ends, prompt)
    grouped = groups_s.size < ends.size
    at_s, sequences = running(begins, ends)
    most = int(sequences.max())
    last = int(np.flatnonzero(sequences == most)[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = tokens / (ends - begins)
    longest = int(np.lexsort((ends, tokens))[-1])
    rate = float(rates[longest]) if np.isfinite(rates[longest]) else None
    numbers = {
        "makespan_s": makespan_s,
        "t50_s": complete_s(ends, 50),
        "t90_s": t90_s,
        "t99_s": complete_s(ends, 99),
        "tail_s": makespan_s - t90_s,
        "tail_share": _ratio(makespan_s - t90_s, makespan_s),
        "fill_s": float(begins.max()),
        "drain_s": float(at_s[-1] - at_s[min(last + 1, at_s.size - 1)]),
        "most_running": most,
        "occupancy": _ratio(float((ends - begins).sum()), makespan_s * most),
        "group_p50_s": complete_s(groups_s, 50) if grouped else None,
        "group_p90_s": complete_s(groups_s, 90) if grouped else None,
        "straggler_gap_s": float(np.mean(groups_s - halves_s)) if grouped else None,
        "longest_tokens": int(tokens[longest]),
        "longest_tokens_per_s": rate,
        "longest_speed": None if rate is None else _ratio(rate, float(np.median(rates[np.isfinite(rates)]))),
        "response_length_mean_tokens": float(tokens.mean()),
        "response_length_max_tokens": int(tokens.max()),
        "response_length_min_tokens": int(tokens.min()),
        "response_length_clip_ratio": None if limit is None else float((tokens >= limit).mean()),
        "timing_per_token_ms": _ratio(1000 * elapsed_s, int(tokens.sum())),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
