"""The events table on disk, and the command that makes it from a record."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_traces import DECODE, LINEARS, event, save, step
from synthetic_records import make_record, make_spec

from rollout_bench.analysis.traces.events import COLUMNS, empty_events, joined, read_events, write_events
from rollout_bench.analysis.traces.trace import read_traces
from rollout_bench.contracts.inside import Profile, TraceFile
from rollout_bench.contracts.record import Launched
from rollout_bench.core.errors import UserError

SCRIPT = Path(__file__).parents[3] / "workflow" / "scripts" / "read_trace.py"
EVENTS = [step(DECODE, 0, 50), event('odd, "name"\n', 5.1234, 20, dims=[[1, 2]], types=["float"]), event("NA", 30, 1)]


def trace_file(name: str, rank: int = 0, source: str = "torch") -> TraceFile:
    return TraceFile.model_validate({"name": name, "phase": "decode", "rank": rank, "source": source, "size_bytes": 1})


def made(folder: Path) -> pd.DataFrame:
    names = [save(folder / f"decode.rank{rank}.trace.json.gz", EVENTS).name for rank in (0, 1)]
    return read_traces(folder, [trace_file(name, rank) for rank, name in enumerate(names)], LINEARS)[0]


def test_a_table_comes_back_as_it_was_written(tmp_path: Path):
    events = made(tmp_path)
    write_events(tmp_path / "events.csv.gz", events)
    again = read_events(tmp_path / "events.csv.gz")
    assert list(again.columns) == list(events.columns) == list(COLUMNS)
    for column in COLUMNS:
        assert again[column].tolist() == events.round(3)[column].tolist()
    assert again["rank"].unique().tolist() == [0, 1]
    assert "NA" in again["name"].tolist()


def test_equal_tables_give_equal_files(tmp_path: Path):
    for name in ("one", "other"):
        write_events(tmp_path / name, made(tmp_path))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_an_empty_table_can_be_kept(tmp_path: Path):
    write_events(tmp_path / "events.csv.gz", joined([]))
    assert read_events(tmp_path / "events.csv.gz").equals(empty_events())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "events.csv.gz"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"trace,phase\n1,2\n", mtime=0), "lacks the column"),
        (gzip.compress(b"trace,rank\na,b\n", mtime=0), "no whole table"),
        (gzip.compress(",".join(COLUMNS).encode() + b"\n" + b"x" * 10_000, mtime=0)[:60], "no whole table"),
    ],
)
def test_a_damaged_table_is_an_error_of_two_lines(tmp_path: Path, content: bytes | None, said: str):
    path = tmp_path / "events.csv.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_events(path)
    assert len(str(error.value).splitlines()) == 2


def profile_record(folder: Path) -> Path:
    """Return a record of a profile launch beside its one trace."""
    launched = make_record(make_spec(), 0, [100.0]).model_dump(mode="json", include=set(Launched.model_fields))
    (folder / "launch-0.traces").mkdir()
    trace = save(folder / "launch-0.traces" / "decode.rank0.trace.json.gz", EVENTS)
    seen = {"phase": "decode", "profiled": True, "elapsed_s": 0.1, "tokens": 2, "sequences": 2}
    profile = Profile.model_validate(
        launched
        | {"linears": [shape.model_dump() for shape in LINEARS], "steps": [seen], "traces_folder": "launch-0.traces"}
        | {"traces": [trace_file(trace.name).model_dump()]}
    )
    (folder / "launch-0.json").write_text(profile.model_dump_json())
    return folder / "launch-0.json"


def test_the_command_reads_the_traces_beside_a_record(tmp_path: Path):
    out = tmp_path / "launch-0.operators.csv.gz"
    done = run(profile_record(tmp_path), "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 3 events\n"
    assert read_events(out)["name"].tolist() == ["step 0", 'odd, "name"\n', "NA"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path: Path):
    record = tmp_path / "launch-0.json"
    record.write_text(json.dumps({"schema_version": 1}))
    done = run(record, "--out", tmp_path / "out.csv.gz")
    assert done.returncode == 1
    assert str(record) in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / "out.csv.gz").exists()
