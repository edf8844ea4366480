"""The devices of a machine: what the vendors' tools list, and what variables leave of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_npu import MAPPING

from rollout_bench.measure.machine import inventory
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.gpus import gpus
from rollout_bench.measure.machine.inventory import restricted_devices
from rollout_bench.measure.machine.npus import npus

LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-6c1f43a1-3f0d-11b2-9c55-1d0b8a000001)
  MIG 1g.10gb     Device  0: (UUID: MIG-6c1f43a1-3f0d-11b2-9c55-1d0b8a000003)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-6c1f43a1-3f0d-11b2-9c55-1d0b8a000002)
"""

GPUS = gpus(nvml=object(), ask=lambda *_: LISTED) or []

MAPPED_A3 = """
  NPU ID    Chip ID    Chip Logic ID    Chip Phy-ID    Chip Name
  0         0          0                10             Ascend910
  0         1          1                11             Ascend910
  0         2          -                -              Mcu
"""


def test_without_any_tool_nobody_knows():
    assert gpus(nvml=object(), ask=lambda *_: "") is None
    assert npus(ask=lambda *_: "", files=[]) is None


def test_only_processes_on_the_named_devices_hold_them(monkeypatch: pytest.MonkeyPatch):
    chips = "".join(f"| {n} 910B3 | OK | 93.8 47 0 / 0 |\n| 0 | 0000:C1:00.0 | 0 0 / 0 |\n" for n in (0, 1))
    processes = "| 0 0 | 11 | a | 3000 |\n| 1 0 | 13 | b | 900 |\n"
    monkeypatch.setattr(inventory.npus, "npu_smi", lambda: chips + processes)
    device = Device("npu-1", "1", ("npu-1",), 1)
    assert (inventory.pids_on("ascend"), inventory.pids_on("ascend", [device])) == ({11, 13}, {13})
    assert inventory.pids_on("ascend", []) == inventory.pids_on("cpu") == set()


def test_npus_count_by_logic_id_and_have_machine_wide_names():
    assert [(npu.name, npu.visible) for npu in npus(ask=lambda *_: MAPPING) or []] == [("npu-0", "0"), ("npu-1", "1")]
    a3 = npus(ask=lambda *_: MAPPED_A3) or []
    assert [(npu.name, npu.visible, npu.number) for npu in a3] == [("npu-10", "0", 0), ("npu-11", "1", 1)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 0 , 1 ", [0, 1]),
        ("1,-1,0", [1]),
        ("GPU-6c1f43a1-3f0d-11b2-9c55-1d0b8a000002", [1]),
    ],
)
def test_the_variable_restricts_and_orders(text: str | None, left: list[int]):
    chosen = restricted_devices("CUDA_VISIBLE_DEVICES", text, GPUS)
    assert chosen == [GPUS[number] for number in left]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("2", "there is no device '2', this machine has 0, 1"),
        ("0,,1", "there is no device ''"),
        ("0 1", "there is no device '0 1'"),
        ("gpu0", "there is no device 'gpu0'"),
        ("0,0", "it names 0 twice"),
        ("0,GPU-6c1f43a1-3f0d-11b2-9c55-1d0b8a000001", "twice"),
        ("GPU-6c1f", "names several"),
    ],
)
def test_a_missing_device_is_an_error_naming_the_variable(text: str, what: str):
    with pytest.raises(DeviceError, match=f"CUDA_VISIBLE_DEVICES=.*{what}") as error:
        restricted_devices("CUDA_VISIBLE_DEVICES", text, GPUS)
    assert error.value.remedy == "correct CUDA_VISIBLE_DEVICES, or unset it"
    assert error.value.category == "visible_devices"


@given(st.sets(st.integers(0, 300), min_size=1, max_size=64), st.integers(1, 64))
def test_blocks_are_of_one_size_and_share_no_core(allowed: set[int], count: int):
    if count > len(allowed):
        with pytest.raises(DeviceError, match=f"set devices to at most {len(allowed)}"):
            inventory.core_blocks(count, allowed)
        return
    blocks = inventory.core_blocks(count, allowed, system=Path("/nowhere"))
    held = [core for block in blocks for core in block.cores]
    assert {len(block.cores) for block in blocks} == {len(allowed) // count}
    assert len(set(held)) == len(held)
    assert set(held) <= allowed
    assert count > 1 or set(held) == allowed


@pytest.mark.parametrize(
    ("limit", "held"), [("300000 100000", 3), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8), (None, 8)]
)
def test_a_limit_of_cpu_time_leaves_as_many_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, held: int
):
    if limit is not None:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    granted = inventory.granted_cores(tmp_path)
    monkeypatch.setattr(inventory, "granted_cores", lambda: granted)
    (block,) = inventory.core_blocks(1, range(8), tmp_path)
    assert len(block.cores) == held
    with pytest.raises(DeviceError, match=f"set devices to at most {held}"):
        inventory.core_blocks(held + 1, range(8), tmp_path)


def test_blocks_keep_a_cores_threads_and_a_nodes_cores_together(tmp_path: Path):
    for core in range(8):  # two sockets of two cores with two threads each, numbered as Linux does
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(str(core % 4 // 2))
        (topology / "core_id").write_text(str(core % 2))
        (tmp_path / f"cpu{core}" / f"node{core % 4 // 2}").mkdir()
    assert [b.name for b in inventory.core_blocks(2, range(8), tmp_path)] == ["cores-0-1,4-5", "cores-2-3,6-7"]
    assert [b.cores for b in inventory.core_blocks(4, range(8), tmp_path)] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert inventory.memory_nodes([2, 3], tmp_path) == "1"
