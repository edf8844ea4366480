"""Starts: caches that are found and filled, packages that are needed, and phases that add up to the whole."""

import json
import logging
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec
from planned import REPOSITORY
from samples.startup import start_record, start_spec
from synthetic_records import make_sequences

from rollout_bench.measure.launch import preflight
from rollout_bench.measure.launch.preflight import (
    VARIABLES,
    check_before_start,
    engine_environment,
    with_compile_caches,
)
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import Done, IterationBegins, IterationDone, IterationEnds, Ready
from rollout_bench.measure.launch.recorder import CollectorContext
from rollout_bench.measure.machine import readings
from rollout_bench.measure.machine.device import DeviceReading
from rollout_bench.measure.machine.readings import HostMonitor
from rollout_bench.modes.startup.collector import Collector
from rollout_bench.modes.startup.events import StartObserved
from rollout_bench.modes.startup.hooks import FILLED, is_filled, obstacle, warm_folder
from rollout_bench.modes.startup.notes import TimedLines, read_notes
from rollout_bench.modes.startup.phases import OVER, StartSpan, cache_flags, phases_between
from rollout_bench.modes.startup.record import PhaseName
from rollout_bench.modes.startup.settings import CacheState, StartFormat
from rollout_bench.modes.startup.weight_files import weight_files


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's caches, where the shell sets none of the compilers'."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


def test_warm_caches_are_shared_by_all_starts_that_compile_alike(caches: Path) -> None:
    starts = [start_spec("warm"), start_spec("warm", "auto", "other"), start_spec("warm", "dummy"), start_spec("cold")]
    one, alike, other, cold = (warm_folder(spec, engine_environment(spec, "m/m")) for spec in starts)
    assert one == alike != other
    assert one.is_relative_to(caches)
    assert not (one / FILLED).exists()
    assert cold is None


def test_what_the_shell_sets_moves_no_warm_caches(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = start_spec("warm")
    usual = engine_environment(spec, "m/m")
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "mine" / name))
    moved = engine_environment(spec, "m/m")
    assert [usual[name] for name in VARIABLES] == [moved[name] for name in VARIABLES]
    assert warm_folder(spec, usual) == warm_folder(spec, moved)
    assert not (tmp_path / "mine").exists()


def test_caches_that_were_deleted_are_filled_again(tmp_path: Path) -> None:
    assert not is_filled(tmp_path)
    (tmp_path / FILLED).touch()
    assert not is_filled(tmp_path)
    (tmp_path / "vllm" / "modelinfos").mkdir(parents=True)
    assert not is_filled(tmp_path)
    (tmp_path / "vllm" / "modelinfos" / "info.json").touch()
    assert is_filled(tmp_path)


def test_warm_caches_that_can_lie_nowhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "is_writable", lambda folder: False)
    cause = obstacle(start_spec("warm"), Path("launch-0.json"))
    assert cause.category == "no_room_for_caches"
    assert "XDG_CACHE_HOME" in cause.fix
    assert obstacle(start_spec("cold"), Path("launch-0.json")) is None


def test_a_format_without_its_package_fails_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    monkeypatch.setattr(preflight, "version", lambda name: start_spec().engine.version)
    cause = check_before_start(start_spec(loads="runai_streamer"), "m/m", None)
    assert cause.category == "load_format_missing"
    assert "runai_model_streamer" in cause.cause
    assert "requirements/loading.in" in cause.fix
    assert (REPOSITORY / "requirements" / "loading.in").is_file()


SPEC = tiny_spec()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def folders(environment: dict[str, str], torch: str = "2.13.0+cpu", spec=SPEC) -> dict[str, str]:
    return {name: value for name, value in with_compile_caches(environment, spec, torch).items() if name in VARIABLES}


def test_two_versions_of_engine_torch_or_plugin_never_share(tmp_path: Path) -> None:
    changes = [{}, {"version": "0.33.0"}, {"plugins": {"vllm-ascend": "0.23.0"}}]
    made = [(tiny_spec(engine=change), "2.13.0+cpu") for change in changes]
    made += [(SPEC, "2.14.0"), (tiny_spec(workload={"prompts": 9}), "2.13.0+cpu")]
    found = [folders({"HOME": str(tmp_path)}, torch, spec)["VLLM_CACHE_ROOT"] for spec, torch in made]
    assert len(set(found)) == 4
    assert found[0] == found[4]


def test_a_link_in_the_temporary_folder_is_not_followed(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "trap").mkdir()
    (temporary / f"rollout-bench-{os.getuid()}").symlink_to(tmp_path / "trap")
    assert folders({}) == {}


def test_a_folder_that_others_may_write_is_not_taken(temporary: Path) -> None:
    (temporary / f"rollout-bench-{os.getuid()}").mkdir()
    (temporary / f"rollout-bench-{os.getuid()}").chmod(0o777)
    assert folders({}) == {}


@pytest.mark.parametrize(
    ("caches", "phases", "flagged"),
    [
        ("warm", {"dynamo": 6.6, "inductor": 47.0}, True),
        ("warm", {"cached_graphs": 7.8, "dynamo": 1.2, "inductor": 4.4}, False),  # an artifact that can't be loaded
        ("warm", {"cached_graphs": 3.0}, False),
        ("warm", {"weights": 3.0}, False),
        ("cold", {"dynamo": 1.5, "inductor": 33.0}, False),
    ],
)
def test_a_start_that_compiles_despite_warm_caches_is_flagged(
    caches: CacheState, phases: dict[PhaseName, float], flagged: bool
) -> None:
    flags = cache_flags(caches, start_record(start_spec(caches), phases=phases).startup.course)
    assert [(flag.code, flag.severity) for flag in flags] == [("caches_not_as_asked", "invalid")] * flagged
    assert all("Inductor took 47.0 s" in flag.sentence for flag in flags)


def test_a_record_of_a_start_has_the_flag(tmp_path: Path) -> None:
    made = start_record(start_spec("warm"), phases={"process": 1.0, "inductor": 47.0, "first_token": 0.1})
    (tmp_path / "launch-0.json").touch()
    progress = Progress(made.spec, 0, tmp_path / "launch-0.json")
    collecting = Collector(CollectorContext(made.spec, 0, progress, HostMonitor("cpu", [{}], lambda: ([], set()))))
    began = time.monotonic()
    spans = [StartSpan("inductor", began, began + 47.0)]
    for event in (
        Ready(import_s=1.0, init_s=47.0, environment=made.environment, engine=made.engine, flags=[], processes={}),
        StartObserved(spans=spans, imports=began, began=None, token=began + 48.0, cache_files=44),
        IterationDone(iteration=made.iterations[0], sequences=make_sequences(made), flags=[]),
        Done(),
    ):
        collecting.take(event)
    record, _ = collecting.record("", tmp_path / "launch-0.json")
    (flag,) = (flag for flag in record.validity if flag.code == "caches_not_as_asked")
    assert flag.sentence.endswith("which had 44 files.")
    assert not record.valid


@pytest.mark.parametrize(("load_format", "size"), [("auto", 21), ("fastsafetensors", 20)])
def test_of_two_sets_of_weights_the_one_loaded_is_read(tmp_path: Path, load_format: StartFormat, size: int) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in shards:
        (tmp_path / name).write_bytes(b"x" * 10)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(shards))}))
    assert sum(file.stat().st_size for file in weight_files(str(tmp_path), load_format)) == 20
    (tmp_path / "consolidated.safetensors").write_bytes(b"x" * 21)
    assert sum(file.stat().st_size for file in weight_files(str(tmp_path), load_format)) == size


def test_a_start_reads_its_devices_outside_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def __init__(self, names: list[str] | None, count: int) -> None:
            assert (names, count) == (["3"], 1)

        def read(self) -> list[DeviceReading]:
            time.sleep(0.5)
            return [DeviceReading(time.monotonic(), "GPU-3", {os.getpid(): 1 << 30, 41: 3 << 30})]

    monkeypatch.setattr(readings, "Gpus", Busy)
    made = start_record(start_spec("warm"), phases={"process": 1.0, "inductor": 1.0, "first_token": 0.1})
    progress = Progress(made.spec, 0, tmp_path / "launch-0.json")
    variables = {"CUDA_VISIBLE_DEVICES": "3"}
    around = HostMonitor("cuda", [variables], lambda: ([], {os.getpid()}), devices=1)
    collecting = Collector(CollectorContext(made.spec, 0, progress, around))
    collecting.take(IterationBegins())
    imports = time.monotonic()
    for event in (
        IterationEnds(),
        Ready(import_s=1.0, init_s=47.0, environment=made.environment, engine=made.engine, flags=[], processes={}),
        StartObserved(spans=[], imports=imports, began=None, token=imports + 1.0, cache_files=44),
        IterationDone(iteration=made.iterations[0], sequences=make_sequences(made), flags=[]),
        Done(),
    ):
        collecting.take(event)
    record, _ = collecting.record("", tmp_path / "launch-0.json")
    assert "device_shared" in [flag.code for flag in record.validity]
    assert record.startup.course.phase_s("process") < 0.4


@given(st.lists(st.tuples(st.sampled_from(OVER), st.floats(-5, 105), st.floats(-5, 105)), max_size=12))
def test_phases_and_rest_are_the_whole(spans: list[tuple[str, float, float]]) -> None:
    phases, rest_s = phases_between([StartSpan(*span) for span in spans], 0.0, 100.0)
    assert sum(phase.elapsed_s for phase in phases) + rest_s == pytest.approx(100.0)
    for phase in phases:
        assert 0 <= phase.began_s < phase.ended_s <= 100
        assert phase.elapsed_s <= phase.ended_s - phase.began_s + 1e-9


def test_only_whole_lines_that_matter_are_read_from_the_log(tmp_path: Path) -> None:
    lines = ("Loading weights took 1.25 seconds", "Poller timed out", "KV cache: 5 numbers")
    handler = logging.FileHandler(tmp_path / "notes")
    handler.setFormatter(TimedLines())
    for line in lines:
        handler.emit(logging.makeLogRecord({"msg": line}))
    handler.stream.write("1.0")  # of a process that was killed while it wrote
    handler.close()
    assert [note.text for note in read_notes(tmp_path / "notes")] == [lines[0]]
