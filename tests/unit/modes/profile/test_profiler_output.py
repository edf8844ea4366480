"""What the profiler wrote is kept whole under plain names, or is a failure with a cause and a fix."""

import gzip
import json
from pathlib import Path

import pytest
from launching import tiny_spec

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.launch.recorder import folder_for_traces
from rollout_bench.modes.profile.settings import ProfileSettings
from rollout_bench.modes.profile.worker import check_whole

STEP = {"ph": "X", "name": "execute_context_0(0)_generation_8(8)", "ts": 1.0, "dur": 2.0, "pid": 1, "tid": 1}
WHOLE = json.dumps({"traceEvents": [STEP]}).encode()


@pytest.mark.parametrize(
    ("damaged", "category"),
    [
        (gzip.compress(WHOLE, mtime=0)[:-9], "torn_trace"),
        (b"", "torn_trace"),
        (b"no gzip at all", "torn_trace"),
        (gzip.compress(b'{"traceEvents": [{"name": "execute_context_1', mtime=0), "torn_trace"),
        (gzip.compress(b'{"traceEvents": []}', mtime=0), "empty_trace"),
    ],
)
def test_a_damaged_trace_fails_with_cause_and_fix(tmp_path: Path, damaged: bytes, category: str):
    path = tmp_path / "rank0.1.pt.trace.json.gz"
    path.write_bytes(gzip.compress(WHOLE))
    check_whole(path)
    path.write_bytes(damaged)
    with pytest.raises(MeasuringFailed, match=path.name) as raised:
        check_whole(path)
    assert raised.value.category == category


def test_traces_of_a_killed_launch_vanish_before_the_next_begins(tmp_path: Path):
    spec = tiny_spec().model_copy(update={"mode": "profile", "profile": ProfileSettings()})
    with folder_for_traces(spec, tmp_path / "launch-0.json") as left:
        pass
    left.mkdir()
    (left / "decode.rank0.trace.json.gz").write_bytes(b"half")
    with folder_for_traces(spec, tmp_path / "launch-0.json") as folder:
        assert folder == left
        assert list(left.iterdir()) == []
        folder.rename(tmp_path / "launch-0.traces")
    assert [path.name for path in tmp_path.iterdir()] == ["launch-0.traces"]
