"""The events table on disk, and the command that makes it from a record."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from made_traces import DECODE, LINEARS, event, save, step

from rollout_bench.analysis.traces.events import COLUMNS, read_events, write_events
from rollout_bench.analysis.traces.trace import read_traces
from rollout_bench.contracts.inside import TraceFile
from rollout_bench.core.errors import UserError

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
