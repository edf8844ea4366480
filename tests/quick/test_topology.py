"""How devices are linked, and which of the free ones are taken."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.measure.machine.device import Device
from rollout_bench.measure.machine.links import Links, choose, link_kinds, links_of, read_links, turned

NVSWITCH = """
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tNV18\tNV18\tPIX\t0-23,96-119\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tNV18\tNODE\t0-23,96-119\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tNV18\tSYS\t48-71\t1\t\tN/A
GPU3\tNV18\tNV18\tNV18\t X \tSYS\t48-71\t1\t\tN/A
NIC0\tPIX\tNODE\tSYS\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_0
"""

BRIDGED = """
        GPU0    GPU1    GPU2    GPU3    CPU Affinity    NUMA Affinity
GPU0     X      NV4     NODE    SYS     0-15            0
GPU1    NV4      X      NODE    SYS     0-15            0
GPU2    NODE    NODE     X      NV4     16-31           1
GPU3    SYS     SYS     NV4      X      16-31           1
"""

OVER_PCIE = """
        GPU0    GPU1    GPU2    GPU3    mlx4_0  CPU Affinity
GPU0     X      PIX     PHB     PHB     PHB     0-9,20-29
GPU1    PIX      X      PHB     PHB     PHB     0-9,20-29
GPU2    PHB     PHB      X      PIX     PHB     0-9,20-29
GPU3    PHB     PHB     PIX      X      PHB     0-9,20-29
"""

ASCEND = """
           NPU0       NPU1       NPU2       CPU Affinity
NPU0       X          HCCS       SYS        144-167
NPU1       HCCS       X          PHB        144-167
NPU2       SYS        PHB        X          0-23

Legend:

  X    = Self
  HCCS = Connection traversing HCCS.
"""


def devices(count: int) -> list[Device]:
    return [Device(f"d{number}", str(number), (f"d{number}",), number) for number in range(count)]


def numbers(groups: list[list[Device]] | None) -> list[list[int | None]] | None:
    return None if groups is None else [[device.number for device in group] for group in groups]


def test_the_matrix_of_nvidia_smi_is_read():
    links = read_links(NVSWITCH)
    assert len(links.kinds) == 6
    assert set(links.kinds.values()) == {"NV18"}
    assert read_links(OVER_PCIE).kind(3, 2) == "PIX"
    assert read_links(BRIDGED).kind(1, 3) == "SYS"


def test_the_matrix_of_npu_smi_is_read():
    links = read_links(ASCEND)
    assert links.kinds == {(0, 1): "HCCS", (0, 2): "SYS", (1, 2): "PHB"}
    assert links_of("ascend", ascend=lambda *_: ASCEND) == links


def test_other_text_tells_of_no_link():
    for text in ("", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "GPU0\n"):
        assert read_links(text) == Links()
    assert links_of("cpu") == Links()


def test_faster_links_are_stronger():
    order = ["NV18", "NV4", "PIX", "PXB", "PHB", "NODE", "SYS", "what it may be called some day"]
    links = Links({(0, number): kind for number, kind in enumerate(order, 1)})
    strengths = [links.strength(number, 0) for number in range(1, len(order) + 1)]
    assert strengths == sorted(strengths, reverse=True)
    assert len(set(strengths)) == len(order)


def test_links_are_told_fastest_first():
    assert link_kinds(read_links(BRIDGED), [[0, 1, 2]]) == "NV4, NODE"
    assert link_kinds(read_links(BRIDGED), [[0, 1], [2, 3]]) == "NV4"
    assert link_kinds(Links(), [[0, 1]]) is None
    assert link_kinds(read_links(BRIDGED), [[0], [1]]) is None


def test_a_pair_gets_the_fastest_link_wherever_it_begins():
    links, all_of_them = read_links(BRIDGED), devices(4)
    for first in range(4):
        got = numbers(choose(turned(all_of_them, first), 1, 2, links))
        assert got is not None
        assert sorted(got[0]) in ([0, 1], [2, 3])  # type: ignore[type-var]
    assert numbers(choose(all_of_them[1:], 1, 2, links)) == [[2, 3]]
    assert numbers(choose(turned(all_of_them, 2), 1, 2, links)) == [[2, 3]]


def test_the_wanted_device_is_taken_even_if_that_breaks_a_pair():
    links, all_of_them = read_links(BRIDGED), devices(4)
    assert numbers(choose([all_of_them[n] for n in (2, 3, 1)], 1, 1, links)) == [[2]]
    assert numbers(choose(turned(all_of_them, 3), 1, 2, links)) == [[3, 2]]


def test_each_replica_gets_devices_that_are_linked():
    assert numbers(choose(devices(4), 2, 2, read_links(BRIDGED))) == [[0, 1], [2, 3]]


KINDS = st.sampled_from(["NV18", "NV4", "HCCS", "PIX", "NODE", "SYS", "?"])


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[Device], Links]:
    count = draw(st.integers(1, 7))
    kinds = {pair: draw(KINDS) for pair in combinations(range(count), 2)} if draw(st.booleans()) else {}
    free = draw(st.permutations(devices(count)))
    return free[: draw(st.integers(0, count))], Links(kinds)


@given(machines(), st.integers(1, 3), st.integers(0, 4))
def test_what_is_chosen_is_free_distinct_and_the_same_each_time(machine, groups: int, size: int):
    free, links = machine
    chosen = choose(free, groups, size, links)
    assert chosen == choose(list(free), groups, size, links)
    if groups * size > len(free):
        assert chosen is None
        return
    assert chosen is not None
    assert [len(group) for group in chosen] == [size] * groups
    taken = [device for group in chosen for device in group]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(free)


@given(machines())
def test_no_pair_of_free_devices_has_a_faster_link_than_the_chosen_one(machine):
    free, links = machine
    chosen = choose(free, 1, 2, links)
    if chosen is not None:
        strengths = [links.strength(one.number, other.number) for one, other in combinations(free, 2)]
        assert links.strength(*(device.number for device in chosen[0])) == max(strengths)


@given(st.integers(1, 8), st.integers(0, 30))
def test_without_links_the_first_that_is_wanted_is_taken(count: int, first: int):
    chosen = choose(turned(devices(count), first), 1, 1, Links())
    assert numbers(chosen) == [[first % count]]
