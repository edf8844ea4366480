"""Measured limits: what is timed, and how they are kept for the next time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import calibrate
import pytest

from rollout_bench.contracts.inside import LimitSample, MachineLimits
from rollout_bench.contracts.record import HostUse
from rollout_bench.core.errors import UserError
from rollout_bench.measure.machine import calibration
from rollout_bench.measure.machine.calibration import Timer, best_rates, cache_file, limits_of_this_machine, platform_of

SAMPLES = [
    LimitSample(test="copy", dtype="float32", work=8e9, elapsed_s=0.5),
    LimitSample(test="triad", dtype="float32", work=12e9, elapsed_s=0.5),
    LimitSample(test="read", dtype="float32", work=4e9, elapsed_s=1.0),
    LimitSample(test="matmul", dtype="bfloat16", work=1e12, elapsed_s=2.0),
    LimitSample(test="matmul", dtype="bfloat16", work=1e12, elapsed_s=1.0),
    LimitSample(test="matmul", dtype="int8", work=1e12, elapsed_s=0.25),
]


class Measuring:
    """Stands for torch and its timer: gives fixed samples, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path, version: str = "2.13.0") -> None:
        self.times = 0
        self.said: list[str] = []
        self.torch = SimpleNamespace(__version__=version)
        monkeypatch.setattr(calibration, "import_torch", lambda: self.torch)
        monkeypatch.setattr(calibration.Timer, "samples", self._samples)
        self.other_cpu_share = 0.0
        monkeypatch.setattr(calibration, "between", lambda *_: self._host())
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def _host(self) -> HostUse:
        return HostUse(window_s=3.0, cores=2, other_cpu_share=self.other_cpu_share, busiest_other="make")

    def _samples(self, cache_bytes: int | None) -> list[LimitSample]:
        self.times += 1
        return SAMPLES

    def limits(self, **more: Any) -> MachineLimits:
        return limits_of_this_machine("cpu", say=self.said.append, **more)


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measuring:
    return Measuring(monkeypatch, tmp_path)


def test_the_best_repeat_is_the_limit_and_all_of_them_stay(measuring: Measuring):
    limits = measuring.limits()
    assert limits.memory_bandwidth_bytes_per_s == 24e9
    assert limits.flops_per_s == {"bfloat16": 1e12, "int8": 4e12} == best_rates(SAMPLES)
    assert limits.samples == SAMPLES
    assert limits.device_model == limits.cpu_model
    assert limits.torch_version == "2.13.0"


def test_a_machine_is_measured_once(measuring: Measuring):
    first = measuring.limits()
    assert measuring.limits() == first
    assert (measuring.times, measuring.said) == (1, [])


def test_another_torch_is_another_machine(measuring: Measuring):
    measuring.limits()
    measuring.torch.__version__ = "2.14.0"
    assert measuring.limits().torch_version == "2.14.0"
    assert measuring.times == 2


def test_measuring_again_replaces_what_was_kept(measuring: Measuring, tmp_path: Path):
    measuring.limits()
    (path,) = tmp_path.rglob("*.json")
    before = path.stat().st_mtime_ns
    measuring.limits(again=True)
    assert measuring.times == 2
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema_version": 99}'])
def test_a_damaged_file_is_said_and_measured_again(measuring: Measuring, tmp_path: Path, damage: str):
    measuring.limits()
    (path,) = tmp_path.rglob("*.json")
    path.write_text(damage)
    measuring.limits()
    assert measuring.times == 2
    assert str(path) in measuring.said[0]
    MachineLimits.model_validate(json.loads(path.read_text()))


def test_a_folder_that_can_not_be_written_is_said_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    measuring = Measuring(monkeypatch, tmp_path / "file")
    assert measuring.limits().memory_bandwidth_bytes_per_s == 24e9
    assert "are not kept" in measuring.said[0]


def test_limits_that_others_disturbed_are_said_and_not_kept(measuring: Measuring):
    measuring.other_cpu_share = 0.3
    measuring.limits()
    assert "other processes used 30 % of the cores meanwhile, make most of it" in measuring.said[0]
    measuring.other_cpu_share = 0.01
    measuring.limits()
    measuring.limits()
    assert (measuring.times, len(measuring.said)) == (2, 1)


def test_a_cache_folder_is_the_users_and_never_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    machine = {"device_model": "NVIDIA H200", "cpu_model": "x", "cpu_cores": 2, "torch_version": "2.13.0"}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    path = cache_file(machine)
    assert path is not None
    assert path.parent == tmp_path / ".cache" / "rollout-bench" / "limits"
    assert path.name.startswith("nvidia-h200-")
    assert cache_file({**machine, "cpu_cores": 4}) != path


def test_a_device_that_torch_does_not_see_is_told_in_two_lines(measuring: Measuring):
    with pytest.raises(UserError, match="sees no cuda device"):
        limits_of_this_machine("cuda")
    with pytest.raises(UserError, match="platform unknown"):
        limits_of_this_machine("unknown")
    assert platform_of(measuring.torch) == "cpu"
    with_gpu = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    assert platform_of(with_gpu) == "cuda"


def test_torch_really_copies_and_multiplies(monkeypatch: pytest.MonkeyPatch):
    import torch  # here alone, since it takes seconds

    monkeypatch.setattr(calibration, "LEAST_ARRAY_BYTES", 1 << 20)
    monkeypatch.setattr(calibration, "TEST_S", 0.0)
    monkeypatch.setattr(calibration, "SIZES", {"cpu": (64, 128)})
    threads = torch.get_num_threads()
    samples = Timer(torch, "cpu", 1).samples(None)
    assert torch.get_num_threads() == threads
    assert {sample.test for sample in samples} == {"copy", "read", "triad", "matmul"}
    assert {"bfloat16", "float32"} <= set(best_rates(samples))
    copies = [sample for sample in samples if sample.test == "copy"]
    assert len(copies) >= calibration.LEAST_REPEATS
    assert {sample.work for sample in copies} == {2 * (1 << 20)}
    assert {sample.work for sample in samples if sample.test == "matmul"} <= {2.0 * 64**3, 2.0 * 128**3}


def test_the_command_prints_each_limit_once(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["calibrate.py", "--platform", "cpu"])
    assert calibrate.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        ["copy", "16.0"], ["read", "4.0"], ["triad", "24.0"], ["bfloat16", "1.000"], ["int8", "4.000"],
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["calibrate.py", "--platform", "cpu", "--json"])
    assert calibrate.main() == 0
    assert MachineLimits.model_validate_json(capsys.readouterr().out).samples == SAMPLES
