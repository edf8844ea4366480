"""Choose the next loads of a sweep, which narrow down the highest rate that a server keeps up with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Literal

from rollout_bench.core.saturation import LONG

CLOSE = 1.25
"""Ratio of the lowest rate that is too high to the highest that is kept up with, up to which no rate between them is
worth measuring."""

PARTS = 4
"""Maximum number of parts into which new rates divide the widest gap between two known ones."""

TIMES = 4
"""Requests that are likely to decide a load, as a multiple of those that did not: the growth of latencies is then known
twice as well beside the limit, where latencies wander, and eight times as well far from it."""

ENOUGH = 600
"""Requests of a pass that mostly decide a load beside the limit, where those of a first sweep are often too few."""

BESIDE = 2
"""Ratio of the lowest rate that is too high to the highest that is kept up with, up to which both are beside the limit.
"""

FEWEST = 64
"""Minimum number of requests of a pass at a new rate: with fewer, the growth of latencies is often not known."""

AROUND = 0.9, 1.1
"""New rates, as shares of the answers per second of a server that falls behind: its limit is likely between them."""

State = Literal["keeps up", "falls behind", "undecided"]


@dataclass(frozen=True)
class RatedLoad:
    """A measured load whose requests arrive at a rate.

    Attributes:
        rate: requests per second that were asked.
        state: whether the server keeps up with it, and meets its limits.
        most: requests per second that the server answered, if it fell behind; else None.
        sent: requests of a pass.
        needed: requests of a pass that are likely to decide it.
        seems_behind: whether an undecided load is more likely to fall behind, or to miss its limits, than not.
    """

    rate: float
    state: State
    most: float | None
    sent: int
    needed: int
    seems_behind: bool = False


def more_requests(sent: int, rate: float = 0.0, latency_s: float = 0.0) -> int:
    """Return the number of requests of a pass that is likely to decide what `sent` requests at `rate` did not.

    Args:
        sent: requests of the pass that did not.
        rate: requests per second.
        latency_s: mean latency, in seconds, if it was too long for that pass; else 0.
    """
    return max(TIMES * sent, FEWEST, math.ceil(latency_s * rate / LONG))


def kept_count(states: Sequence[State]) -> int:
    """Return how many loads, the lightest first, end with the heaviest that is kept up with, and none falls behind."""
    possible = takewhile(lambda state: state != "falls behind", states)
    return max((place for place, state in enumerate(possible, 1) if state == "keeps up"), default=0)


def next_loads(
    loads: Sequence[RatedLoad], invalid: float = math.inf, until: str = "the server falls behind"
) -> tuple[str, Mapping[float, int]]:
    """Return what finds the highest rate that is kept up with, and the rates to measure with the requests of a pass.

    The rates have both sides of the limit as far as they are known, so that one page has them; an undecided load stands
    for the side on which it seems to be. Undecided loads between the sides get the requests that they need, and new
    rates divide the widest gap. Both results are empty where the limit is known within `CLOSE`.

    Args:
        loads: the measured loads, the lightest first, at least one.
        invalid: lowest rate without a valid result.
        until: what happens above the limit, in words.
    """
    count = kept_count([load.state for load in loads])
    kept = loads[count - 1] if count else None
    behind = next((load for load in loads[count:] if load.state == "falls behind"), None)
    undecided = [load for load in loads[count:] if behind is None or load.rate < behind.rate]
    open_rates = [load.rate for load in undecided]
    highest = kept.rate if kept else 0.0
    end = behind.rate if behind else invalid if kept and invalid > highest else math.inf
    if end <= CLOSE * highest:
        return "", {}
    most = max((load.most for load in loads[count:] if load.most), default=0.0)
    above = [] if undecided and undecided[-1].seems_behind else [end]
    around = [rate for share in AROUND if highest < (rate := _rounded(share * most)) < end]
    if kept and end < math.inf:
        step = f"measure rates between {highest:g} and {[*open_rates, *above][-1]:g} req/s"
        if behind is None:
            step = f"measure rates below {end:g} req/s, whose launches are invalid"
        rates = _divided([highest, *open_rates, *([] if open_rates else around), *above])
    elif kept:
        step = f"raise the rate until {until}"
        higher = [2 * (open_rates or [highest])[-1]] if above else []
        rates = [highest, *open_rates, *higher] if undecided else [highest, *higher, 4 * highest]
    elif behind:
        step = "measure lower rates"
        below = [] if undecided and not undecided[0].seems_behind else [(open_rates or [most or end])[0] / 2]
        rates = [*map(_rounded, below), *(open_rates or around), *above]
    else:
        step, rates = "send more requests", open_rates
    if undecided and (kept or behind):
        more = f"send more requests at {', '.join(f'{rate:g}' for rate in open_rates)} req/s"
        step = f"{more}, and {step}" if {*rates} - {load.rate for load in loads} else more
    shown_s = max(load.sent / load.rate for load in loads)
    beside_s = shown_s
    if behind and end <= BESIDE * highest:  # or what was known of both sides might be undecided in the new page
        beside_s = max(shown_s, min(TIMES * shown_s, ENOUGH / highest))
    needed_s = max([beside_s, *(load.needed / load.rate for load in undecided)])
    requests = {rate: max(math.ceil(rate * needed_s), FEWEST) for rate in rates}
    requests |= {kept.rate: math.ceil(kept.rate * beside_s)} if kept else {}
    longer = math.ceil(behind.rate * beside_s) if behind and beside_s > shown_s else 0
    requests |= {behind.rate: max(behind.sent, longer)} if behind else {}
    requests |= {load.rate: load.needed for load in undecided}
    return step, {float(rate): requests[rate] for rate in rates if behind or rate < end}


def _divided(rates: Sequence[float]) -> list[float]:
    """Return rising `rates` with further ones in their widest gap, unless it is as narrow as `CLOSE`."""
    low, high = max(reversed([*pairwise(rates)]), key=lambda pair: pair[1] / pair[0])  # of equal ones the heaviest
    needed = math.ceil(math.log(high / low) / math.log(CLOSE))
    parts = min(needed, max(PARTS + 2 - len(rates), 2))
    new = (_rounded(low * (high / low) ** (part / parts)) for part in range(1, parts))
    return sorted({*rates, *(rate for rate in new if low < rate < high)})


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
