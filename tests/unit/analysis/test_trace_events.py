"""The events table on disk."""

from pathlib import Path

import pandas as pd
from made_traces import DECODE, event, save, step

from rollout_bench.modes.profile.record import TraceFile
from rollout_bench.modes.profile.traces.events import COLUMNS, write_events
from rollout_bench.modes.profile.traces.trace import read_traces

EVENTS = [step(DECODE, 0, 50), event('odd, "name"\n', 5.1234, 20, types=["float"]), event("NA", 30, 1)]


def trace_file(name: str, rank: int = 0, source: str = "torch") -> TraceFile:
    return TraceFile.model_validate({"name": name, "phase": "decode", "rank": rank, "source": source, "size_bytes": 1})


def made(folder: Path) -> pd.DataFrame:
    names = [save(folder / f"decode.rank{rank}.trace.json.gz", EVENTS).name for rank in (0, 1)]
    return read_traces(folder, [trace_file(name, rank) for rank, name in enumerate(names)], [])


def test_a_table_comes_back_as_it_was_written(tmp_path: Path):
    events = made(tmp_path)
    write_events(tmp_path / "events.csv.gz", events)
    again = pd.read_csv(tmp_path / "events.csv.gz", keep_default_na=False)
    assert list(again.columns) == list(events.columns) == list(COLUMNS)
    for column in COLUMNS:
        assert again[column].tolist() == events.round(3)[column].tolist()
    assert again["rank"].unique().tolist() == [0, 1]
    assert "NA" in again["name"].tolist()
