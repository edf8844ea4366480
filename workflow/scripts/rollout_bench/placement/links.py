"""How devices are connected, from the matrices that nvidia-smi and npu-smi print.

The matrix of nvidia-smi has run on machines with H200s; that of npu-smi is read from published samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from rollout_bench.placement.gpus import nvidia_smi
from rollout_bench.placement.npus import npu_smi
from rollout_bench.plan.spec import Platform

DIRECT = 100
"""Strength from which on a link is one of its own between devices, and not the way over PCIe."""

_STRENGTHS = {
    "SIO": 500,  # two dies of one chip
    "HCCS": 200,
    "HCCS_SW": 200,
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
        return DIRECT + int(bonded[1]) if bonded else _STRENGTHS.get(kind, 0)


def read_links(text: str) -> Links:
    """The links from a matrix that `nvidia-smi topo -m` or `npu-smi info -t topo` printed; none from other text."""
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
    """The links of this machine's devices; none known where there is no tool."""
    if platform == "cuda":
        return read_links(nvidia("topo", "-m"))
    return read_links(ascend("-t", "topo")) if platform == "ascend" else Links()


def told(links: Links, groups: list[list[int | None]]) -> str | None:
    """The kinds of link inside groups of devices, fastest first; None where there is none or none is known."""
    pairs = [pair for group in groups for pair in combinations(group, 2)]
    strength = {kind: links.strength(*pair) for pair in pairs if (kind := links.kind(*pair)) is not None}
    return ", ".join(sorted(strength, key=lambda kind: (-strength[kind], kind))) or None
