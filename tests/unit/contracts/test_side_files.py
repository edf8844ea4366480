"""Side files that are missing, damaged or swapped: noted, never waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_online import make_online, make_online_spec, save_online
from synthetic_records import make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.side_files import read_sequences, write_rows
from rollout_bench.contracts.store import read_record, record_path, sequences_path
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch.outcome import LaunchOutcome

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")
ONLINE = make_online_spec()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return a launch, with its side file in `tmp_path`."""
    save(tmp_path, make_record(BF16))
    return read_record(at(tmp_path))


def at(results: Path, launch: int = 0, mode: str = "offline") -> Path:
    return record_path(results, mode, (ONLINE if mode == "online" else BF16).experiment(), launch)


def refused(path: Path, record: Record) -> str:
    with pytest.raises(UserError) as error:
        read_sequences(path, record)
    assert len(str(error.value).splitlines()) == 2
    return error.value.problem.removeprefix(f"{path}: ")


def test_nobody_waits_for_a_pipe_or_folder_in_its_place(record: Record, tmp_path: Path) -> None:
    path = sequences_path(at(tmp_path))
    path.unlink()
    assert refused(path, record) == "is missing"
    os.mkfifo(path)
    assert refused(path, record) == "is no file"
    path.unlink()
    path.mkdir()
    assert refused(path, record) == "is no file"


def test_rows_that_were_not_written_with_the_record_are_refused(record: Record, tmp_path: Path) -> None:
    path = sequences_path(at(tmp_path))
    rows = read_sequences(path, record)
    assert len(rows) == sum(iteration.sequences for iteration in record.iterations)
    write_rows(path, [*rows[:-1], rows[-1].model_copy(update={"output_tokens": 31})])
    assert refused(path, record).startswith("is not the one that was written with the record")
    unlike = record.model_copy(update={"side_files_sha256": {path.name: write_rows(path, record.iterations)}})
    assert refused(path, unlike) == "iteration: Field required"


def test_swapped_side_files_are_noted_and_their_launches_left_out(tmp_path: Path) -> None:
    save(tmp_path, *(make_record(BF16, launch, [400.0 + launch] * 3) for launch in range(3)))
    one, other = sequences_path(at(tmp_path, 0)), sequences_path(at(tmp_path, 2))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    collection = collect(tmp_path, None)
    (pooled,) = pool_sequences(collection)
    assert [reason.split(",")[0] for reason in pooled.reasons] == [
        f"launch {launch} is not among them" for launch in (0, 2)
    ]
    assert all("is not the one that was written with the record" in reason for reason in pooled.reasons)
    assert len(pooled.values["e2el_s"]) == 3 * 32
    assert collection.damaged == []
    assert len(collection.experiments[0].records) == 3


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda _: b"no gzip", lambda _: b""])
def test_a_damaged_online_side_file_costs_only_the_latencies(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    save_online(tmp_path, *(make_online(ONLINE, launch) for launch in range(2)))
    path = sequences_path(at(tmp_path, 1, "online"))
    path.write_bytes(damage(path.read_bytes()))
    collection = collect(tmp_path, None)
    (experiment,), (pooled,) = collection.experiments, pool_sequences(collection)
    assert (len(experiment.records), len(pooled.launches["e2el_s"])) == (2, 1)
    assert pooled.reasons[0].startswith(f"launch 1 is not among them, {path}: ")


@pytest.mark.parametrize("mode", MODES)
def test_files_of_an_unrecorded_try_are_cleared_before_the_next(tmp_path: Path, mode: str):
    out = record_path(tmp_path, mode, BF16.experiment(), 0)
    out.parent.mkdir(parents=True)
    outcome = LaunchOutcome(BF16.model_copy(update={"mode": mode}), 0, out, tmp_path / "log")
    left = [out.with_suffix(ending) for ending in MODES[mode].side_files]
    for path in left:
        path.write_text("") if path.suffix == ".gz" else (path / "deep").mkdir(parents=True)
    other = out.with_name("launch-1.sequences.jsonl.gz")
    other.write_text("")
    out.write_text("{}")
    outcome.clear()
    assert all(path.exists() for path in left), "those of a record stay"
    out.unlink()
    outcome.clear()
    assert list(out.parent.iterdir()) == [other]
