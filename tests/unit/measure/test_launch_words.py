"""What a launch prints while it runs, and what is told of it once it has ended."""

import itertools
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from launching import tiny_spec
from samples.online import make_online_spec
from synthetic_records import make_record, make_spec

from rollout_bench.contracts.failures import Cause, error_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch import progress
from rollout_bench.measure.launch.outcome import LaunchOutcome


def test_iterations_are_printed_first_and_then_every_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(iterations=8)
    now_s = itertools.count(100.0, 4.0)
    here = [next(now_s)]
    monkeypatch.setattr(progress.time, "monotonic", lambda: here[0])
    launch = progress.Progress(spec, 0, tmp_path / "launch-0.json")
    for iteration in make_record(spec, 0, [400.0] * 8).iterations:
        launch.iteration(iteration)
        here[0] = next(now_s)
    printed = [line.partition(": ")[2].partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert printed == ["warm-up 1/1", "iteration 1/8", "iteration 4/8", "iteration 7/8"]


def test_each_load_of_a_sweep_is_named_from_its_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = make_online_spec(points=[LoadPoint(request_rate=rate) for rate in (2, 8)])
    launch = progress.Progress(spec, 0, tmp_path / "launch-0.json")
    for phase in ("initializing", "warmup", "measuring", "warmup", "measuring", "stopping"):
        launch.phase(phase)
    printed = [line.partition(", launch 0: ")[2] for line in capsys.readouterr().err.splitlines()]
    first, second = "2 req/s (load 1 of 2): ", "8 req/s (load 2 of 2): "
    begun = [f"{load}{phase}" for load in (first, second) for phase in ("warmup", "measuring")]
    assert printed == ["initializing", *begun, "stopping"]


def outcome(results: Path) -> LaunchOutcome:
    spec = tiny_spec()
    return LaunchOutcome(spec, 3, record_path(results, spec.mode, spec.experiment(), 3), Path("logs/launch-3.log"))


@pytest.mark.parametrize(("category", "status", "launches_again"), [("crash", 1, False), ("preempted", 75, True)])
def test_a_failure_is_told_later_with_its_exit_status(
    tmp_path: Path, category: str, status: int, launches_again: bool
) -> None:
    launch = outcome(tmp_path)
    error = launch.failed("measuring", Cause(category, "the engine failed", "read the log"))
    later = error_of(read_failure(failure_path(launch.out)))
    assert later.problem == f"{launch.spec.experiment()} launch 3: measuring: the engine failed"
    assert error.remedy == later.remedy == "read the log (log: logs/launch-3.log)"
    assert error.status == later.status == status, "whether another node may do"
    with nullcontext() if launches_again else pytest.raises(UserError, match=re.escape(str(error))):
        launch.is_settled(2)
