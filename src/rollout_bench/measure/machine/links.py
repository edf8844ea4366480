"""How devices are connected, and which of the free ones a launch takes.

The matrix of nvidia-smi has run on machines with H200s; that of npu-smi is read from published samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rollout_bench.contracts.spec import Platform
from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.gpus import nvidia_smi
from rollout_bench.measure.machine.npus import npu_smi

_STRENGTHS = {
    "SIO": 500,  # two dies of one chip
    "HCCS": 200,
    "HCCS_SW": 200,
    # NV#, so many NVLinks: 100 and as many more
    "PIX": 50,  # one PCIe bridge
    "PIB": 45,
    "PXB": 40,  # several PCIe bridges
    "PHB": 30,  # a host bridge
    "NODE": 20,  # several host bridges of a NUMA node
    "SYS": 10,  # from one socket to another
}
"""Greater is faster; the order is that of the legends below both matrices."""

_DEVICE = re.compile(r"^(?:GPU|NPU|Phy-ID)(\d+)$")


@dataclass(frozen=True)
class Links:
    """What connects each pair of devices, by their numbers (smaller first), in the words of the vendor's tool."""

    kinds: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def kind(self, one: int | None, other: int | None) -> str | None:
        """NV18, HCCS, SYS, ...; None where it is not known."""
        if one is None or other is None:
            return None
        return self.kinds.get((min(one, other), max(one, other)))

    def strength(self, one: int | None, other: int | None) -> int:
        """Greater for the faster; 0 where it is not known."""
        kind = self.kind(one, other)
        if kind is None:
            return 0
        bonded = re.fullmatch(r"NV(\d+)", kind)
        return 100 + int(bonded[1]) if bonded else _STRENGTHS.get(kind, 0)


def read_links(text: str) -> Links:
    """Return the links from a matrix that `nvidia-smi topo -m` or `npu-smi info -t topo` printed.

    None from other text.
    """
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    header = next((line for line in lines if line and _DEVICE.match(line[0])), [])
    columns = [int(match[1]) for word in header if (match := _DEVICE.match(word))]
    kinds = {}
    for line in lines:
        row = _DEVICE.match(line[0]) if line else None
        if row is None or line is header:
            continue
        for column, kind in zip(columns, line[1:], strict=False):
            if column != int(row[1]):
                kinds[min(column, int(row[1])), max(column, int(row[1]))] = kind
    return Links(kinds)


def links_of(
    platform: Platform, nvidia: Callable[..., str] = nvidia_smi, ascend: Callable[..., str] = npu_smi
) -> Links:
    """Return the links of this machine's devices; none known where there is no tool."""
    if platform == "cuda":
        return read_links(nvidia("topo", "-m"))
    return read_links(ascend("-t", "topo")) if platform == "ascend" else Links()


def link_kinds(links: Links, groups: list[list[int | None]]) -> str | None:
    """Return the kinds of link inside groups of devices, fastest first; None where there is none or none is known."""
    pairs = [pair for group in groups for pair in combinations(group, 2)]
    strength = {kind: links.strength(*pair) for pair in pairs if (kind := links.kind(*pair)) is not None}
    return ", ".join(sorted(strength, key=lambda kind: (-strength[kind], kind))) or None


def choose(free: Sequence[Device], groups: int, size: int, links: Links) -> list[list[Device]] | None:
    """Return `groups` groups of `size` devices out of `free`; None where there are too few.

    A group gets those whose slowest link is the fastest; among such, those that come first in `free`.
    """
    if groups * size > len(free):
        return None
    rest, chosen = list(free), []
    for _ in range(groups):
        known = links.kinds and size not in (0, len(rest))  # else any is as good, and there may be too many to try
        group = max(combinations(rest, size), key=lambda group: _worth(group, links)) if known else rest[:size]
        chosen.append(list(group))
        rest = [device for device in rest if device not in group]
    return chosen


def turned(devices: Sequence[Device], first: int) -> list[Device]:
    """Return `devices` in their order, beginning with number `first`, counted round."""
    start = first % len(devices) if devices else 0
    return [*devices[start:], *devices[:start]]


def _worth(group: Sequence[Device], links: Links) -> tuple[int, int]:
    strengths = [links.strength(one.number, other.number) for one, other in combinations(group, 2)]
    return min(strengths, default=0), sum(strengths)
