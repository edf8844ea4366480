"""What the profiler wrote is kept whole under plain names, or is a failure with a cause and a fix."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from launching import tiny_spec

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.launch.recorder import folder_for_traces
from rollout_bench.modes.profile.settings import ProfileSettings
from rollout_bench.modes.profile.worker import check_whole

STEP = {"ph": "X", "name": "execute_context_0(0)_generation_8(8)", "ts": 1.0, "dur": 2.0, "pid": 1, "tid": 1}


def trace(path: Path, content: bytes | None = None, packed: bool = True) -> Path:
    raw = json.dumps({"traceEvents": [STEP]}).encode() if content is None else content
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


@pytest.mark.parametrize(
    ("damage", "category"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "torn_trace"),
        (lambda path: path.write_bytes(b""), "torn_trace"),
        (lambda path: path.write_bytes(b"no gzip at all"), "torn_trace"),
        (lambda path: trace(path, b'{"traceEvents": [{"name": "execute_context_1'), "torn_trace"),
        (lambda path: trace(path, b'{"traceEvents": []}'), "empty_trace"),
    ],
)
def test_a_damaged_trace_fails_with_cause_and_fix(tmp_path: Path, damage: Callable[[Path], object], category: str):
    path = trace(tmp_path / "rank0.1.pt.trace.json.gz")
    check_whole(path)
    damage(path)
    with pytest.raises(MeasuringFailed) as raised:
        check_whole(path)
    assert raised.value.category == category
    assert path.name in raised.value.cause
    assert raised.value.fix


def test_traces_of_a_killed_launch_vanish_before_the_next_begins(tmp_path: Path):
    spec = tiny_spec().model_copy(update={"mode": "profile", "profile": ProfileSettings()})
    record = tmp_path / "launch-0.json"
    with folder_for_traces(spec, record) as folder:
        assert folder is not None
        left = folder
    left.mkdir()
    (left / "decode.rank0.trace.json.gz").write_bytes(b"half")
    with folder_for_traces(spec, record) as folder:
        assert folder == left
        assert list(left.iterdir()) == []
        folder.rename(tmp_path / "launch-0.traces")
    assert [path.name for path in tmp_path.iterdir()] == ["launch-0.traces"]
