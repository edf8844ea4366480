"""Energy: power over time by property, and what a record has where nobody knows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_record

from rollout_bench.contracts.record import DeviceUse, Iteration, Record
from rollout_bench.measure.machine import readings
from rollout_bench.measure.machine.gpus import Devices, used
from rollout_bench.measure.machine.npus import Npus, watts_by_npu
from rollout_bench.measure.machine.power_samples import PowerSample, PowerSampler, Sampled, integral_j
from rollout_bench.measure.machine.readings import Surroundings, energy_flags

LIMIT_S = 60.0

WATTS = st.floats(0, 1000)
MOMENTS = st.lists(st.floats(0, 100), min_size=2, max_size=30, unique=True).map(sorted)


def samples(moments: list[float], watts: list[float]) -> list[PowerSample]:
    return [PowerSample(moment, power) for moment, power in zip(moments, watts, strict=True)]


SAMPLES = MOMENTS.flatmap(
    lambda moments: st.lists(WATTS, min_size=len(moments), max_size=len(moments)).map(
        lambda watts: samples(moments, watts)
    )
)


@given(MOMENTS, WATTS)
def test_constant_power_comes_to_power_times_time(moments: list[float], watts: float) -> None:
    found = integral_j(samples(moments, [watts] * len(moments)), -1, 101)
    assert found == pytest.approx(102 * watts)


@given(MOMENTS, st.floats(0, 5), WATTS)
def test_power_that_rises_in_proportion_is_integrated_without_error(
    moments: list[float], slope: float, offset: float
) -> None:
    def energy(moment: float) -> float:
        return slope * moment**2 / 2 + offset * moment

    there = samples(moments, [slope * moment + offset for moment in moments])
    began, ended = moments[0], moments[-1]
    assert integral_j(there, began, ended) == pytest.approx(energy(ended) - energy(began), abs=1e-6)


@given(SAMPLES)
def test_energy_lies_between_the_least_and_the_most_power_for_that_time(there: list[PowerSample]) -> None:
    powers = [sample.watts for sample in there]
    found = integral_j(there, 0, 100)
    assert found is not None
    assert 100 * min(powers) - 1e-6 <= found <= 100 * max(powers) + 1e-6


@given(SAMPLES, st.data())
def test_the_energies_of_two_parts_add_up(there: list[PowerSample], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(there) - 1)) if len(there) > 3 else 1
    middle = there[cut].moment
    parts = integral_j(there[: cut + 1], 0, middle), integral_j(there[cut:], middle, 100)
    if None not in parts:
        assert sum(part or 0 for part in parts) == pytest.approx(integral_j(there, 0, 100), abs=1e-6)


def test_samples_outside_of_the_time_tell_nothing_and_one_alone_neither() -> None:
    busy = samples([1.0, 2.0], [300.0, 300.0])
    idle = [PowerSample(-5, 60), *busy, PowerSample(9, 60)]
    assert integral_j(idle, 0, 4) == pytest.approx(1200)
    assert integral_j(busy[:1], 0, 4) is None
    assert integral_j([], 0, 4) is None


def test_power_is_sampled_while_a_pass_runs_and_not_between_two() -> None:
    asked, enough = [], threading.Event()

    def watts() -> Mapping[str, float]:
        asked.append(1)
        if len(asked) == 5:
            enough.set()
        return {"GPU-0": 250.0, "GPU-1": 100.0}

    sampler = PowerSampler(watts, 0.01)
    assert not asked
    sampler.begin()
    assert enough.wait(LIMIT_S)
    found = sampler.end()
    assert set(found) == {"GPU-0", "GPU-1"}
    first = found["GPU-0"]
    assert len(first.samples) >= 4
    assert first.energy_j == pytest.approx(250 * (first.ended - first.began))
    for thread in [each for each in threading.enumerate() if each.name == "power"]:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_a_sample_that_is_not_complete_when_the_pass_is_over_is_none_and_nobody_waits_for_it() -> None:
    asked, over = threading.Event(), threading.Event()

    def slow() -> Mapping[str, float]:
        asked.set()
        over.wait(LIMIT_S)
        return {"NPU 0": 300.0}

    sampler = PowerSampler(slow, 0.001)
    sampler.begin()
    assert asked.wait(LIMIT_S)
    assert sampler.end() == {}
    threads = [each for each in threading.enumerate() if each.name == "power"]
    over.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert sampler.end() == {}


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


def test_of_the_devices_of_anothers_server_nobody_asks() -> None:
    surroundings = around("unknown")
    surroundings.before()
    passed = surroundings.after(a_pass())
    assert passed.devices is None
    assert surroundings.why_no_energy([passed]) is None


class Nvml:
    """A GPU of 300 W, with or without a counter of its energy and a field for the power of the moment."""

    def __init__(self, counter: bool = False, instant: bool = True, power: bool = True) -> None:
        self.counter, self.instant, self.power = counter, instant, power
        self.asked, self.enough = 0, threading.Event()

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

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[SimpleNamespace]:  # noqa: N802
        assert fields == [186]
        self.asked += 1
        if self.asked == 5:
            self.enough.set()
        return [SimpleNamespace(nvmlReturn=0 if self.instant else 3, value=SimpleNamespace(uiVal=300_000))]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        if not self.power:
            raise RuntimeError("Not Supported")
        return 290_000


@pytest.mark.parametrize(
    ("instant", "counter", "watts"), [(True, False, 300.0), (False, False, 290.0), (True, True, 300.0)]
)
def test_a_gpu_without_a_counter_or_with_one_that_stands_still_has_the_integral_of_its_power(
    instant: bool, counter: bool, watts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(instant=instant, counter=counter)
    monkeypatch.setattr(readings, "Devices", partial(Devices, nvml=nvml))
    monkeypatch.setattr(Devices, "sample_s", 0.01)
    surroundings = around("cuda")
    surroundings.before()
    assert nvml.enough.wait(LIMIT_S)
    passed = surroundings.after(a_pass())
    assert passed.devices is not None
    (use,) = passed.devices
    assert (use.device, use.energy_source) == ("GPU-0", "sampled")
    assert use.window_s is not None
    assert use.energy_j == use.sampled_j == pytest.approx(watts * use.window_s)
    assert (use.power_samples or 0) >= 4
    assert surroundings.why_no_energy([passed]) is None


def test_a_gpu_that_tells_neither_energy_nor_power_has_none_and_the_record_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readings, "Devices", partial(Devices, nvml=Nvml(instant=False, power=False)))
    surroundings = around("cuda")
    surroundings.before()
    passed = surroundings.after(a_pass())
    assert passed.devices is not None
    assert passed.devices[0].energy_j is None
    assert surroundings.why_no_energy([passed]) == "NVML gives neither energy nor power of its GPUs"


def test_a_pass_shorter_than_two_samples_says_so() -> None:
    surroundings = around("cuda")
    surroundings._devices = [Devices(1, {}, Nvml())]
    short = a_pass().model_copy(update={"devices": [DeviceUse(device="GPU-0", power_samples=1)]})
    assert "too short for samples of power" in str(surroundings.why_no_energy([short]))


NPUS = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| 0     910B3               | OK            | 93.8        47                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3348 / 65536         |
| 1     Ascend910           | OK            | 181.0       45                0    / 0             |
| 0     2                   | 0000:9D:00.0  | 0           0    / 0          3144 / 65536         |
| 1     Ascend910           | OK            | -           45                0    / 0             |
| 1     3                   | 0000:9F:00.0  | 0           0    / 0          2881 / 65536         |
"""


def test_power_of_npus_is_what_npu_smi_prints_for_the_card() -> None:
    assert watts_by_npu(NPUS) == {0: 93.8, 1: 181.0}
    assert Npus(1, {"ASCEND_RT_VISIBLE_DEVICES": "1"}, lambda: NPUS).watts() == {"NPU 1": 181.0}
    assert Npus(2, {}, lambda: "").watts() == {}
    assert "npu-smi" in Npus(2, {}, lambda: "").why_no_energy


def counted(energy_j: float, sampled_j: float | None, power_samples: int = 40) -> Iteration:
    use = DeviceUse(
        device="GPU-0",
        window_s=4.0,
        energy_j=energy_j,
        energy_source="counter",
        sampled_j=sampled_j,
        power_samples=power_samples,
    )
    return a_pass().model_copy(update={"devices": [use]})


@pytest.mark.parametrize("off", [-0.2, -0.031, 0.031, 0.5])
def test_a_counter_that_sampled_power_contradicts_is_flagged_with_both_numbers(off: float) -> None:
    (flag,) = energy_flags([counted(1000, 1000 * (1 + off)), counted(1000, 1000 * (1 + off))])
    assert (flag.code, flag.severity) == ("energy_unsure", "warning")
    assert "2000 J" in flag.sentence
    assert f"{100 * off:+.1f} % (limit 3 %)" in flag.sentence


@pytest.mark.parametrize(
    "passes",
    [
        [counted(1000, 1029), counted(1000, 975)],
        [counted(1000, 1100), counted(1000, 900)],  # the ends of passes, which cancel
        [counted(1000, 1500, power_samples=20)],
        [counted(1000, None)],
        [a_pass()],
    ],
)
def test_where_both_agree_or_little_was_sampled_nothing_is_flagged(passes: list[Iteration]) -> None:
    assert energy_flags(passes) == []


def test_sampled_power_alone_contradicts_nothing() -> None:
    reading = Devices(1, {}, Nvml()).read()[0]
    sampled = Sampled([PowerSample(float(moment), 300.0) for moment in range(40)], 0.0, 40.0)
    use = used(reading, reading, set(), sampled)
    assert (use.energy_j, use.window_s, use.energy_source) == (12_000, 40, "sampled")
    assert energy_flags([a_pass().model_copy(update={"devices": [use]})]) == []


def test_earlier_records_are_read_and_what_nobody_knows_is_not_written() -> None:
    record = make_record()
    assert "no_energy" not in record.model_dump()
    earlier = DeviceUse.model_validate({"device": "GPU-0", "window_s": 2.0, "energy_j": 800.0})
    assert earlier.energy_source is None
    assert {"energy_source", "sampled_j", "power_samples"}.isdisjoint(earlier.model_dump())
    told = record.model_copy(update={"no_energy": "no counters"})
    assert Record.model_validate_json(told.model_dump_json()).no_energy == "no counters"
