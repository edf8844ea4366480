"""What others do on host and device, and pauses of the launch itself, are seen with their evidence."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from launching import tiny_spec

from rollout_bench.contracts.record import DeviceUse, EngineFacts, HostUse, SequenceRow, WeightBytes
from rollout_bench.core.processes import group_of
from rollout_bench.measure.launch.flags import batch_flags
from rollout_bench.measure.machine import readings
from rollout_bench.measure.machine.gpus import Gpus, used
from rollout_bench.measure.machine.host import host_use, read_host
from rollout_bench.measure.machine.leases import LeaseRequest, lease
from rollout_bench.measure.machine.readings import LATE_S, LOOK_S, HostMonitor, PauseDetector, device_flags, host_flags


def test_only_a_busy_process_outside_the_launch_is_named() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as process:
        burning = psutil.Process(process.pid)
        own = {os.getpid()}, {os.getpid(), process.pid}
        before = [read_host([], ours) for ours in own]
        begun = burning.cpu_times().user
        while burning.cpu_times().user < begun + 0.5:  # however much of a core others leave to it
            time.sleep(0.05)
        outside, inside = (host_use(one, read_host([], ours)) for one, ours in zip(before, own, strict=True))
        process.kill()
    got = outside.other_cpu_share - inside.other_cpu_share  # what the process itself had: others may be busy too
    assert got * outside.cores * outside.window_s > 0.3
    assert f"(pid {process.pid})" in str(outside.busiest_other) or inside.other_cpu_share > 0.2
    machine = {"steal_share": 0.0, "memory_pressure_share": 0.0, "swap_bytes": 0}
    alone = outside.model_copy(update=machine)  # whatever else this machine has just now
    assert [flag.code for flag in host_flags("cpu", [alone])] == ["cpu_shared"]


def test_steal_memory_pressure_and_swap_come_from_the_kernels_counters() -> None:
    now = read_host([], set())
    before = replace(now, own=0.0, others={}, stalled_s=0.0, swapped_bytes=0)
    later = {"moment": now.moment + 2.0, "steal": now.steal + 1.0, "total": now.total + 4.0}
    seen = host_use(before, replace(before, **later, stalled_s=0.5, swapped_bytes=4 << 20))
    assert (seen.steal_share, seen.memory_pressure_share, seen.swap_bytes) == (0.25, 0.25, 4 << 20)
    codes = {(flag.code, flag.severity) for flag in host_flags("cpu", [seen])}
    assert codes == {("cpu_steal", "invalid"), ("memory_pressure", "invalid"), ("swapping", "warning")}


@pytest.mark.parametrize(
    ("shares", "platform", "flags"),
    [
        ({"steal_share": 0.01, "other_cpu_share": 0.04, "memory_pressure_share": 0.005, "swap_bytes": 4096}, "cpu", []),
        ({"steal_share": 0.04}, "cpu", ["cpu_steal warning"]),
        ({"steal_share": 0.2}, "cpu", ["cpu_steal invalid"]),
        ({"steal_share": 0.2}, "cuda", ["cpu_steal warning"]),
        ({"other_cpu_share": 0.1}, "cpu", ["cpu_shared warning"]),
        ({"other_cpu_share": 0.4}, "cpu", ["cpu_shared invalid"]),
        ({"other_cpu_share": 0.4}, "ascend", ["cpu_shared warning"]),
        ({"memory_pressure_share": 0.05}, "cpu", ["memory_pressure warning"]),
        ({"swap_bytes": 1 << 24}, "cpu", ["swapping warning"]),
    ],
)
def test_limits_of_the_host(shares: dict[str, float], platform: Any, flags: list[str]) -> None:
    found = host_flags(platform, [HostUse(window_s=2.0, cores=2, **shares)])
    assert [f"{flag.code} {flag.severity}" for flag in found] == flags


def nvml(pids: list[int]) -> SimpleNamespace:
    """Return what answers as NVML does; violations rise by half a second with each reading, energy by 700 J."""
    violations, energies = itertools.count(1), itertools.count(1)
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: f"GPU-{index}",
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUUID=lambda handle: handle,
        nvmlDeviceGetViolationStatus=lambda *_: SimpleNamespace(violationTime=next(violations) * 500_000_000),
        nvmlDeviceGetTotalEnergyConsumption=lambda _: next(energies) * 700_000,  # millijoules
        nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=p, usedGpuMemory=1 << 30) for p in pids],
    )


def device_use(pids: list[int], ours: set[int]) -> DeviceUse:
    devices = Gpus(["1"], 1, nvml(pids))
    (before,), (after,) = devices.read(), devices.read()
    return used(before, after, ours)


def test_a_throttled_and_shared_device_is_flagged_with_evidence() -> None:
    use = device_use([7, 8, 9], ours={7})
    assert (use.device, use.other_processes, use.other_memory_bytes) == ("GPU-1", 2, 2 << 30)
    assert use.temperature_c is None  # a question that this device does not answer
    flags = device_flags([(3, use)])
    assert [flag.code for flag in flags] == ["throttled", "throttled", "device_shared"]
    assert flags[0].sentence.startswith("Iteration 3: the clock of GPU-1 was lowered by heat for ")
    assert flags[2].sentence == "Iteration 3: 2 others held 2.0 GiB of GPU-1."


def test_energy_is_unknown_without_a_continuously_rising_counter() -> None:
    assert device_use([7], ours={7}).energy_j == 700
    (reading,) = Gpus(["1"], 1, nvml([7])).read()
    later = replace(reading, moment=reading.moment + 1, energy_j=reading.energy_j + 500)
    assert (used(reading, later, {7}).energy_j, used(later, reading, {7}).energy_j) == (500, None)
    silent = used(replace(reading, energy_j=None), later, {7})
    assert {"energy_j", "window_s"}.isdisjoint(silent.model_dump())


def test_pids_of_another_namespace_are_not_taken_for_strangers() -> None:
    use = device_use([4007], ours={7})
    assert (use.other_processes, use.other_memory_bytes) == (None, None)
    assert "device_shared" not in [flag.code for flag in device_flags([(1, use)])]


def row(scheduled_s: float | None, last_token_s: float | None, index: int = 1) -> SequenceRow:
    return SequenceRow(
        iteration=index,
        prompt=0,
        sample=0,
        prompt_tokens=130,
        output_tokens=16,
        finish_reason="length",
        scheduled_s=scheduled_s,
        last_token_s=last_token_s,
    )


def facts(max_num_seqs: int, tokens: int) -> EngineFacts:
    return EngineFacts(
        resolved={"max_num_seqs": max_num_seqs, "block_size": 128},
        kv_cache_tokens=tokens,
        weights_bytes_by_dtype=WeightBytes(linear={}, other={}),
        linear_methods={},
    )


APART, TOGETHER = [(i // 4, i // 4 + 1) for i in range(8)], [(0, 1)] * 8
"""When sequences run: four at once, or all eight."""


@pytest.mark.parametrize(
    ("spans", "max_num_seqs", "cache_tokens", "words"),
    [
        (
            APART,
            8,
            1280,
            "Iteration 1: at most 4 of 8 sequences ran together; the KV cache holds 1280 tokens, 5 sequences of 256 "
            "(whole blocks) if none share.",
        ),
        (APART, 8, 10_000, "max_num_batched_tokens"),
        (APART, 4, 1280, None),
        (TOGETHER, 8, 1280, None),
    ],
)
def test_only_an_unrequested_split_of_a_batch_is_flagged(
    spans: list[tuple[int, int]], max_num_seqs: int, cache_tokens: int, words: str | None
) -> None:
    rows = [row(*span, index) for index in (1, 2) for span in spans]
    flags = batch_flags(tiny_spec(), rows, facts(max_num_seqs, cache_tokens))
    assert [flag.code for flag in flags] == ["batch_not_at_once"] * (words is not None)
    assert all(words in flag.sentence for flag in flags if words)


@pytest.fixture
def engine() -> Iterator[psutil.Process]:
    """Yield a process that leads a session, as an engine's does."""
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        yield psutil.Process(process.pid)
        process.kill()


def wait(looking: PauseDetector, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        assert looking.wait([], left_s) == []


def test_a_pause_of_a_process_is_seen_with_its_duration(engine: psutil.Process):
    looking = PauseDetector()
    looking.begin([os.getpid(), engine.pid])
    wait(looking, LOOK_S)
    engine.suspend()
    wait(looking, 3 * LOOK_S)
    engine.resume()
    (note,) = looking.end()
    stopped_s = float(note.removeprefix("a process of the engine was stopped for about ").removesuffix(" s"))
    assert 2 * LOOK_S < stopped_s < 60


FROZEN = """
import os, sys, time
from rollout_bench.measure.machine.readings import PauseDetector
looking, deadline = PauseDetector(), time.monotonic() + 2
looking.begin([os.getppid()])
print("looks", flush=True)
while time.monotonic() < deadline:
    looking.wait([], 2)
print(looking.end())
"""


def test_who_looks_notices_that_it_was_not_let_run_itself():
    with subprocess.Popen([sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True) as looks:
        assert looks.stdout.readline() == "looks\n"
        time.sleep(LOOK_S / 2)  # by now it looks
        looks.send_signal(signal.SIGSTOP)
        time.sleep(LOOK_S + LATE_S + 0.5)
        looks.send_signal(signal.SIGCONT)
        assert "['the launch as a whole was stopped or frozen for about " in looks.stdout.read()


def test_a_machine_that_was_suspended_is_told_by_its_clocks(monkeypatch: pytest.MonkeyPatch):
    looking = PauseDetector()
    looking.begin([os.getpid()])
    suspended_s = readings.suspended_s() + 60.0
    monkeypatch.setattr(readings, "suspended_s", lambda: suspended_s)
    assert looking.end() == ["the machine was suspended for about 60.0 s"]


def test_only_a_pass_that_counts_makes_the_launch_invalid(engine: psutil.Process, tmp_path: Path, leases: Path):
    looking = PauseDetector()
    wanted = LeaseRequest(tiny_spec(), tmp_path / "results/offline/tiny-00000000/launch-0.json")
    with lease(wanted, time.sleep, print) as held:
        around = HostMonitor("cpu", [{}], lambda: ([group_of(engine.pid)], set()), held, looking)

        def run_pass(*, stopped: bool) -> None:
            around.before()
            if stopped:
                engine.suspend()
            wait(looking, 2 * LOOK_S)
            engine.resume()
            around.meanwhile()

        for stopped in (True, False, True):
            run_pass(stopped=stopped)
        assert around.flags({1}) == []
        (paused,) = around.flags({1, 2})
        assert (paused.code, paused.severity) == ("paused", "invalid")
        assert paused.sentence.startswith("During pass 2 a process of the engine was stopped for about ")
        held.claim.path.unlink()
        run_pass(stopped=False)
        (lost,) = around.flags({1, 3})
        assert (lost.code, lost.severity) == ("lease_lost", "invalid")
        assert f"{held.claim.path}, before pass 3 was over" in lost.sentence
