"""Which of the free devices a launch takes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from rollout_bench.placement.device import Device
from rollout_bench.placement.links import DIRECT, Links


def choose(
    free: Sequence[Device], groups: int, size: int, links: Links, wanted: Device | None = None
) -> list[list[Device]] | None:
    """`groups` groups of `size` devices out of `free`; None where there are too few.

    A group gets those whose slowest link is the fastest. Among such, those with the device that is wanted; then those
    that leave most links of their own (not over PCIe) among the rest, so that well-linked devices stay together for
    others; then the first in the order of `free`.
    """
    rest, chosen = list(free), []
    for _ in range(groups):
        group = _group(rest, size, links, wanted)
        if group is None:
            return None
        rest = [device for device in rest if device not in group]
        chosen.append(group)
    return chosen


def turned(devices: Sequence[Device], first: int) -> list[Device]:
    """`devices` in their order, beginning with number `first`, counted round."""
    start = first % len(devices) if devices else 0
    return [*devices[start:], *devices[:start]]


def _group(free: Sequence[Device], size: int, links: Links, wanted: Device | None) -> list[Device] | None:
    if size > len(free):
        return None
    if not links.kinds or size in (0, len(free)):
        return list(free[:size])

    def worth(group: Iterable[Device]) -> tuple[int, int, bool, int]:
        chosen = list(group)
        inside = _strengths(chosen, links)
        left = _strengths([device for device in free if device not in chosen], links)
        direct = sum(strength for strength in left if strength >= DIRECT)
        return min(inside, default=0), sum(inside), wanted in chosen, direct

    return list(max(combinations(free, size), key=worth))


def _strengths(devices: Iterable[Device], links: Links) -> list[int]:
    return [links.strength(one.number, other.number) for one, other in combinations(devices, 2)]
