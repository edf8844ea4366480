"""What a lease gives a launch: devices of its own, told to each replica, or two lines that say why not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from contender import Cannot, hold, no_waiting
from launching import tiny_spec

from rollout_bench.measure.machine import inventory, leases
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.leases import Wanted
from rollout_bench.modes.rollout.settings import RolloutSpec


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Return a node with four GPUs, nothing restricted."""
    found = [Device(f"GPU-{number}", str(number), (f"GPU-{number}",), number) for number in range(4)]
    monkeypatch.setattr(inventory.gpus, "gpus", lambda: found)
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


def wanted(
    launch: int = 0, isolation=None, devices: int | None = None, platform: str = "cuda", **engine_args
) -> Wanted:
    spec = tiny_spec(engine={"args": engine_args}).model_copy(update={"platform": platform})
    return Wanted(spec, Path(f"results/offline/tiny-00000000/launch-{launch}.json"), isolation, devices, launch)


def leased(want: Wanted):
    return leases.lease(want, no_waiting, lambda _: None)


def test_launches_side_by_side_get_own_devices_and_name_neighbours(gpus: list[Device]):
    with leased(wanted(1)) as one, leased(wanted(2)) as other, leased(wanted(3, tensor_parallel_size=1)):
        assert one.environments({"A": "a"}) == [
            {"A": "a", "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        ]
        assert other.environments({})[0]["CUDA_VISIBLE_DEVICES"] == "2"
        assert one.neighbours() == ["offline/tiny-00000000/launch-2", "offline/tiny-00000000/launch-3"]
        placement = one.placement(one.neighbours()[:1])
        assert (placement.devices, placement.visible) == (["GPU-1"], ["1"])
        assert placement.isolation == "per_device"
        assert placement.neighbours == ["offline/tiny-00000000/launch-2"]
    with leased(wanted(0)) as alone:
        assert alone.neighbours() == []


def test_each_replica_is_told_its_own_devices(gpus: list[Device]):
    with leased(wanted(tensor_parallel_size=2, data_parallel_size=2)) as held:
        assert [e["CUDA_VISIBLE_DEVICES"] for e in held.environments({})] == ["0,1", "2,3"]
        assert held.placement([]).devices == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tensor_parallel_size": 8}, "needs 8 devices (tensor_parallel_size 8); 4 are visible here"),
        ({"tensor_parallel_size": 2, "devices": 1}, "4 are visible here, of which devices allows 1"),
        (
            {"tensor_parallel_size": 2, "data_parallel_size": 4},
            "needs 8 devices (tensor_parallel_size 2 x data_parallel_size 4)",
        ),
    ],
)
def test_asking_for_too_many_devices_fails_before_any_wait(gpus: list[Device], changes: dict, problem: str):
    everything = hold(Path(os.environ["ROLLOUT_BENCH_LEASES"]), 4, 4)
    with everything, pytest.raises(DeviceError) as error, leased(wanted(**changes)):
        pass
    assert problem in error.value.problem
    assert error.value.category == "too_few_devices"


def test_a_launch_on_unknown_devices_runs_alone_without_replicas(gpus: list[Device], monkeypatch):
    monkeypatch.setattr(inventory.gpus, "gpus", lambda: None)
    with leased(wanted()) as held:
        assert held.environments({"A": "a"}) == [{"A": "a"}]
        assert (held.placement([]).isolation, held.placement([]).devices) == ("exclusive", [])
        with pytest.raises(Cannot), leased(wanted(1)):
            pass
    step = wanted(data_parallel_size=2)
    shared = replace(step, spec=step.spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec()}))
    for want, key in ((step, "data_parallel_size"), (shared, "rollout.replicas")):
        with pytest.raises(DeviceError, match="no tool here lists the devices") as refused, leased(want):
            pass
        assert refused.value.remedy.endswith(f"or lower {key} to 1")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a block needs cores to leave to others")
def test_a_block_of_cores_is_where_the_launch_stays(gpus: list[Device]):
    allowed = os.sched_getaffinity(0)
    with leased(wanted(1, "per_device", 2, "cpu")) as held:
        assert held.cores == [os.sched_getaffinity(0)]
        assert len(os.sched_getaffinity(0)) == len(allowed) // 2
        assert held.environments({})[0] == {"CPU_VISIBLE_MEMORY_NODES": "0"}
        (name,) = held.placement([]).devices
        assert name.startswith("cores-")
    assert os.sched_getaffinity(0) == allowed
    with leased(wanted(platform="cpu", data_parallel_size=2)) as held:
        assert all(held.cores)
        assert not held.cores[0] & held.cores[1]
        assert os.sched_getaffinity(0) == held.cores[0] | held.cores[1]
