"""Energy: power over time by property, and what a record has where nobody knows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from rollout_bench.contracts.record import Iteration
from rollout_bench.measure.machine import readings
from rollout_bench.measure.machine.gpus import Devices
from rollout_bench.measure.machine.readings import Surroundings


def a_pass(index: int = 1) -> Iteration:
    return Iteration(
        index=index, warmup=False, elapsed_s=2.0, requests=8, sequences=8, prompt_tokens=8, output_tokens=8
    )


def around(platform: Any) -> Surroundings:
    surroundings = Surroundings(platform, [{}], lambda: ([], set()))
    surroundings.ready(1)
    return surroundings


def test_a_pass_on_a_cpu_has_no_device_and_the_record_says_why() -> None:
    surroundings = around("cpu")
    surroundings.before()
    passed = surroundings.after(a_pass())
    assert passed.devices is None
    assert surroundings.why_no_energy([passed]) == "the energy of a CPU is not read"


class Nvml:
    """A GPU, with or without a counter of its energy."""

    def __init__(self, counter: bool = False) -> None:
        self.counter = counter

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"GPU-{index}"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:  # noqa: N802
        return handle.encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.counter:
            raise RuntimeError("Not Supported")
        return 0


def test_a_gpu_without_a_counter_has_no_energy_and_the_record_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readings, "Devices", partial(Devices, nvml=Nvml()))
    surroundings = around("cuda")
    surroundings.before()
    passed = surroundings.after(a_pass())
    assert passed.devices is not None
    assert passed.devices[0].energy_j is None
    assert surroundings.why_no_energy([passed]) == "NVML does not count the energy of its GPUs"
