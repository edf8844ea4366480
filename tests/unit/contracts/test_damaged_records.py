"""Records, failures, plans and side files that are damaged, edited, copied or moved are named and left out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samples.online import make_online, make_online_spec
from samples.profile import BF16 as PARTS_OF
from samples.profile import make_profile, make_steps
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.side_files import read_sequences, write_rows
from rollout_bench.contracts.store import (
    checksum,
    failure_path,
    find_results,
    read_launched,
    read_record,
    record_path,
    sequences_path,
    write_launched,
)
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch.outcome import LaunchOutcome
from rollout_bench.plan.planfile import is_plan, read_plan, write_plan

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")
Change = Callable[[dict[str, Any]], object]


def at(results: Path, launch: int = 0) -> Path:
    return record_path(results, "offline", BF16.experiment(), launch)


def edit(path: Path, change: Change, *, hashed: bool = False) -> None:
    """Edit a record; where `hashed` as somebody would who knows of its checksum."""
    content = json.loads(path.read_text())
    change(content)
    if hashed:
        content["sha256"] = checksum(content)
    path.write_text(json.dumps(content))


def found(results: Path) -> TimedExperiment:
    """Return the bf16 experiment, of which three launches are planned; the records of w8a8 are always read."""
    bf16, w8a8 = collect(results, make_plan([BF16, W8A8], launches=3)).experiments
    assert len(w8a8.records) == 3
    return bf16


def assert_only_the_first_is_damaged(results: Path, words: str) -> None:
    bf16 = found(results)
    assert ([record.launch for record in bf16.records], bf16.missing, bf16.failures) == ([1, 2], (), ())
    (damaged,) = bf16.damaged
    assert damaged.launch == 0
    assert damaged.error.problem.startswith(f"{words}")
    assert len(str(damaged.error).splitlines()) == 2


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three launches of each of two quants."""
    folder = tmp_path / "results"
    save(folder, *(make_record(spec, launch) for spec in (BF16, W8A8) for launch in range(3)))
    return folder


def in_place(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:500]), "is not whole JSON: "),
    "empty": (lambda path: path.write_bytes(b""), "is not whole JSON: "),
    "nuls": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is not whole JSON: "),
    "not_utf8": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"bench-1", b"bench-\xff")),
        "is not whole JSON",
    ),
    "nested": (lambda path: path.write_text("[" * 200_000), "is not valid JSON: it is nested too deeply"),
    "5000_digits": (
        lambda path: path.write_text(path.read_text().replace('"launch": 0', f'"launch": {"9" * 5000}')),
        "is not whole JSON: ",
    ),
    "a_time_of_nothing": (
        lambda path: edit(path, lambda record: last(record).update(elapsed_s=5e-324), hashed=True),
        "has 5e-324, which nothing here measures",
    ),
    "a_time_without_end": (
        lambda path: edit(path, lambda record: record.update(wall_s=1e308), hashed=True),
        "has 1e+308, which nothing here measures",
    ),
    "a_list": (lambda path: path.write_text("[]"), "file: "),
    "a_folder": (lambda path: in_place(path, path.mkdir), "cannot be read: Is a directory"),
    "a_pipe": (lambda path: in_place(path, lambda: os.mkfifo(path)), "cannot be read: it is not a regular file"),
    "a_link_to_itself": (lambda path: in_place(path, lambda: path.symlink_to(path)), "cannot be read: "),
    "a_link_to_nothing": (lambda path: in_place(path, lambda: path.symlink_to("nowhere")), "cannot be read: No such"),
    "of_another_experiment": (
        lambda path: path.write_bytes(record_path(path.parents[2], "offline", W8A8.experiment(), 0).read_bytes()),
        f"key: says {W8A8.key()}",
    ),
    "of_another_launch": (
        lambda path: path.write_bytes(path.with_name("launch-2.json").read_bytes()),
        "launch: says 2",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_named_and_left_out(results: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(at(results))
    assert_only_the_first_is_damaged(results, f"{at(results)}: {words}")


def last(record: dict[str, Any]) -> dict[str, Any]:
    return record["iterations"][-1]


IMPOSSIBLE: dict[str, tuple[Change, str]] = {
    "field_missing": (lambda record: record.pop("wall_s"), "wall_s"),
    "field_too_much": (lambda record: record.update(comment="edited"), "comment"),
    "schema": (lambda record: record.update(schema_version=0), "schema_version"),
    "tokens_below_0": (lambda record: last(record).update(output_tokens=-1), "iterations.3.output_tokens"),
    "tokens_beyond_all": (lambda record: last(record).update(output_tokens=10**18), "iterations.3.output_tokens"),
    "no_cores": (lambda record: record["environment"].update(cpu_cores=-1), "environment.cpu_cores"),
    "side_file_elsewhere": (
        lambda record: record.update(side_files_sha256={"../../x": "0" * 64}),
        "side_files_sha256.../../x.[key]",
    ),
    "side_file_without_a_name": (lambda record: record.update(side_files_sha256={"": ""}), "side_files_sha256..[key]"),
    "infinite": (lambda record: last(record).update(elapsed_s=float("inf")), "iterations.3.elapsed_s"),
    "no_time": (lambda record: last(record).update(elapsed_s=0.0), "iterations.3.elapsed_s"),
    "nan": (lambda record: record["startup"].update(init_s=float("nan")), "startup.init_s"),
    "launch_edited": (lambda record: record.update(launch=7), "launch"),
    "all_warmup": (lambda record: record.update(iterations=record["iterations"][:1]), "iterations"),
    "of_another_version": (lambda record: record.update(measurement_version=1), "measurement_version"),
    "no_moment": (lambda record: record.update(started_at="yesterday <b>"), "started_at"),
    "no_zone": (lambda record: record.update(started_at="2025-02-03T00:00:00"), "started_at"),
    "other_zone": (lambda record: record.update(started_at="2025-02-03T00:00:00+02:00"), "started_at"),
    "no_checksum": (lambda record: record.update(side_files_sha256=[]), "side_files_sha256"),
}


EDITS: dict[str, Change] = {
    "spec": lambda record: record["spec"]["workload"].update(prompts=99),
    "elapsed": lambda record: last(record).update(elapsed_s=last(record)["elapsed_s"] / 3),
    "tokens": lambda record: last(record).update(output_tokens=7),
    "moment": lambda record: record.update(started_at="2025-01-01T00:00:01Z"),
    "flag": lambda record: record.update(
        validity=[{"code": "seen", "severity": "warning", "sentence": "No such thing."}]
    ),
    "machine": lambda record: record["environment"].update(hostname="bench-2"),
    "checksum": lambda record: record.update(sha256="0" * 64),
    "no_checksum": lambda record: record.pop("sha256"),
}


@pytest.mark.parametrize(
    ("change", "field", "hashed"),
    [
        *((change, field, True) for change, field in IMPOSSIBLE.values()),
        *((e, "sha256", False) for e in EDITS.values()),
    ],
    ids=[*IMPOSSIBLE, *(f"edited_{name}" for name in EDITS)],
)
def test_an_impossible_value_or_an_edit_takes_no_part(results: Path, change: Change, field: str, hashed: bool) -> None:
    edit(at(results), change, hashed=hashed)
    assert_only_the_first_is_damaged(results, f"{at(results)}: {field}: ")


def test_the_records_of_every_mode_are_protected(tmp_path: Path) -> None:
    made = make_profile(steps=make_steps(PARTS_OF))
    path = tmp_path / "launch-0.json"
    write_launched(path, made)
    assert read_launched(path, "profile").sha256 is not None
    edit(path, lambda record: record.update(wall_s=record["wall_s"] + 1))
    with pytest.raises(UserError, match="sha256: "):
        read_launched(path, "profile")


def test_a_renumbered_copy_takes_no_part_and_its_original_does(results: Path) -> None:
    for launch in (1, 2):
        at(results, launch).write_bytes(at(results).read_bytes())
        edit(at(results, launch), lambda record, launch=launch: record.update(launch=launch))
    bf16 = found(results)
    assert ([record.launch for record in bf16.records], [damaged.launch for damaged in bf16.damaged]) == ([0], [1, 2])


def test_a_record_is_read_as_written_with_its_checksums(tmp_path: Path) -> None:
    record = make_record(BF16)
    save(tmp_path, record)
    read = read_record(at(tmp_path))
    assert read.sha256 == checksum(json.loads(at(tmp_path).read_text()))
    assert list(read.side_files_sha256 or {}) == [sequences_path(at(tmp_path)).name]
    assert read.model_copy(update={"sha256": None, "side_files_sha256": None}) == record


def test_a_damaged_failure_is_named_and_the_rest_is_collected(results: Path) -> None:
    at(results).unlink()
    save(results, make_failure(BF16, 0))
    failure_path(at(results)).write_text("{")
    assert_only_the_first_is_damaged(results, f"{failure_path(at(results))}: is not whole JSON")


def test_what_lies_in_the_wrong_place_is_named(results: Path) -> None:
    save(results, make_failure(W8A8, 0))
    path = failure_path(record_path(results, "offline", W8A8.experiment(), 0))
    path.rename(path.with_name("launch-4.json"))
    renamed = at(results).parent.with_name(f"other_bf16_small-{BF16.key()}")
    at(results).parent.rename(renamed)
    damaged = {
        each.experiment: [one.error.problem for one in each.damaged] for each in collect(results, None).experiments
    }
    assert ["spec: says" in problem for problem in damaged[renamed.name]] == [True] * 3
    assert ["launch: says 0" in problem for problem in damaged[W8A8.experiment()]] == [True]


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 5', b"\0" * 100, b"[" * 200_000, b"{}", b"\xff"])
def test_a_damaged_plan_is_no_plan_and_gives_two_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    assert not is_plan(path)
    with pytest.raises(UserError, match=rf"^{path}: .*\n.*the workflow writes a damaged one again"):
        read_plan(path)
    write_plan(path, make_plan([BF16]))
    assert is_plan(path)


def test_a_plan_that_names_a_folder_elsewhere_reads_nothing_there(results: Path) -> None:
    plan = make_plan([BF16], launches=3)
    elsewhere = plan.experiments[0].model_copy(
        update={"experiment": f"../../{results.name}/offline/{BF16.experiment()}"}
    )
    (experiment,) = collect(results, plan.model_copy(update={"experiments": [elsewhere]})).experiments
    assert (experiment.records, len(experiment.missing)) == ((), 3)


def test_looping_links_and_undecodable_folder_names_hold_no_results(results: Path) -> None:
    before = find_results(results)
    for folder in (results, results / "offline"):
        (folder / "loop").symlink_to("loop")
        (Path(os.fsdecode(os.fsencode(folder) + b"/a\xff-deadbeef"))).mkdir()
    assert find_results(results) == before


ONLINE = make_online_spec()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return a launch, with its side file in `tmp_path`."""
    save(tmp_path, make_record(BF16))
    return read_record(at(tmp_path))


def refused(path: Path, record: Record) -> str:
    with pytest.raises(UserError) as error:
        read_sequences(path, record)
    assert len(str(error.value).splitlines()) == 2
    return error.value.problem.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("put", "problem"), [(lambda path: None, "is missing"), (os.mkfifo, "is no file"), (Path.mkdir, "is no file")]
)
def test_nobody_waits_for_a_pipe_or_folder_in_its_place(
    record: Record, tmp_path: Path, put: Callable[[Path], object], problem: str
) -> None:
    path = sequences_path(at(tmp_path))
    path.unlink()
    put(path)
    assert refused(path, record) == problem


def test_rows_that_were_not_written_with_the_record_are_refused(record: Record, tmp_path: Path) -> None:
    path = sequences_path(at(tmp_path))
    rows = read_sequences(path, record)
    assert len(rows) == sum(iteration.sequences for iteration in record.iterations)
    write_rows(path, [*rows[:-1], rows[-1].model_copy(update={"output_tokens": 31})])
    assert refused(path, record).startswith("is not the one that was written with the record")
    unlike = record.model_copy(update={"side_files_sha256": {path.name: write_rows(path, record.iterations)}})
    assert refused(path, unlike) == "iteration: Field required"


@pytest.mark.parametrize(
    "damage", [lambda content, _: content[:-40], lambda *_: b"no gzip", lambda *_: b"", lambda _, other: other]
)
def test_a_damaged_or_swapped_side_file_costs_only_the_latencies(
    tmp_path: Path, damage: Callable[[bytes, bytes], bytes]
) -> None:
    save(tmp_path, *(make_online(ONLINE, launch) for launch in range(2)))
    other, path = (sequences_path(record_path(tmp_path, "online", ONLINE.experiment(), n)) for n in (0, 1))
    path.write_bytes(damage(path.read_bytes(), other.read_bytes()))
    collection = collect(tmp_path, None)
    (experiment,), (pooled,) = collection.experiments, pool_sequences(collection)
    assert (len(experiment.records), collection.damaged, len(pooled.launches["e2el_s"])) == (2, [], 1)
    reason = f"launch 1 is not among them, {path}: is not the one that was written with the record"
    assert pooled.reasons[0].startswith(reason)


@pytest.mark.parametrize("mode", MODES)
def test_files_of_an_unrecorded_try_are_cleared_before_the_next(tmp_path: Path, mode: str):
    out = record_path(tmp_path, mode, BF16.experiment(), 0)
    out.parent.mkdir(parents=True)
    outcome = LaunchOutcome(BF16.model_copy(update={"mode": mode}), 0, out, tmp_path / "log")
    other = out.with_name("launch-1.sequences.jsonl.gz")
    for path in (out, other, *(out.with_suffix(ending) for ending in MODES[mode].side_files)):
        path.write_text("") if path.suffix in (".gz", ".json") else (path / "deep").mkdir(parents=True)
    before = set(out.parent.iterdir())
    outcome.clear()
    assert set(out.parent.iterdir()) == before, "those of a record stay"
    out.unlink()
    outcome.clear()
    assert list(out.parent.iterdir()) == [other]
