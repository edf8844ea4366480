"""What a launch prints while it runs."""

import itertools
from pathlib import Path

import pytest
from synthetic_records import make_record, make_spec

from rollout_bench.measure.launch import progress


def test_iterations_are_printed_first_and_then_every_ten_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(iterations=8)
    now_s = itertools.count(100.0, 4.0)
    here = [next(now_s)]
    monkeypatch.setattr(progress.time, "monotonic", lambda: here[0])
    launch = progress.Progress(spec, 0, tmp_path / "launch-0.json", None)
    for iteration in make_record(spec, 0, [400.0] * 8).iterations:
        launch.iteration(iteration)
        here[0] = next(now_s)
    told = [line.partition(": ")[2].partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["warm-up 1/1", "iteration 1/8", "iteration 4/8", "iteration 7/8"]
