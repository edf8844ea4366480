"""Reading ahead: which folder, which files, when it begins, and that it ends at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from docs_pages import REPOSITORY
from launching import tiny_spec
from synthetic_records import make_record

from rollout_bench.measure.launch import read_ahead
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import PhaseBegins, Ready
from rollout_bench.measure.launch.read_ahead import CHUNK_BYTES, ReadAhead, next_weights, weight_files
from rollout_bench.measure.launch.recorder import Measurement
from rollout_bench.measure.machine.readings import Surroundings
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.schedule import schedule

RECORDS = [f"results/offline/{name}/launch-{launch}.json" for launch in (0, 1) for name in ("a", "b", "c")]


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    experiments = [{"experiment": name, "weights": f"./models/{name}"} for name in ("a", "b")]
    experiments.append({"experiment": "c", "weights": None})
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
    path = tmp_path / "plan.json"
    launches = [{"record": record, "expected_s": 1.0} for record in RECORDS]
    path.write_text(json.dumps({"launches": launches, "experiments": experiments}))
    return path


ENDLESS = 1 << 36
"""Bytes of a file (one hole) that takes so long to read that whoever is to stop in the middle of it can't be late."""


@pytest.fixture
def plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "available_bytes", lambda: 4 * ENDLESS)


def large(folder: Path, size: int = 3 * CHUNK_BYTES + 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def wait_until_read(reading: ReadAhead, size: int) -> None:
    deadline = time.monotonic() + 60
    while reading.bytes_read < size and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_next_launch_that_is_missing_is_read(plan: Path) -> None:
    first, second = Path(RECORDS[0]), Path(RECORDS[1])
    assert next_weights(plan, first, "models/a") == Path("models/b")
    second.parent.mkdir(parents=True)
    second.touch()
    assert next_weights(plan, first, "models/a") is None  # c reads no weights
    Path(RECORDS[2]).parent.mkdir(parents=True)
    Path(RECORDS[2]).touch()
    assert next_weights(plan, first, "models/a") is None  # a again, which this launch loads itself
    assert next_weights(plan, first, "models/b") == Path("models/a")
    assert next_weights(plan, Path(RECORDS[-1]), "models/c") is None
    assert next_weights(plan, Path("other.json"), "models/c") is None
    assert next_weights(None, first, "models/a") is None


def test_in_a_job_of_slurm_nothing_is_read(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert next_weights(plan, Path(RECORDS[0]), "models/a") is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "[" * 100_000, '{"launches": 3}', '{"launches": [{"record": 1}], "experiments": []}',
     '{"launches": [{"record": "x/a/0"}, {"record": "x/b/0"}], "experiments": [{"experiment": "b", "weights": 7}]}',
     '{"launches": [{"record": "x/a/0"}, {"record": "x/b/0"}], "experiments": [3]}'],
)  # fmt: skip
def test_a_garbled_plan_names_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    assert next_weights(path, Path("x/a/0"), "models/a") is None
    assert next_weights(tmp_path / "none.json", Path("x/a/0"), "models/a") is None


def test_only_files_of_weights_in_one_format_are_read(tmp_path: Path) -> None:
    for name in ("b.bin", "config.json", "2.safetensors", "1.safetensors"):
        (tmp_path / name).touch()
    assert [path.name for path in weight_files(tmp_path)] == ["1.safetensors", "2.safetensors"]
    assert weight_files(tmp_path / "none") == []


def test_reading_waits_until_this_launch_s_own_weights_are_loaded(tmp_path: Path) -> None:
    size = large(tmp_path / "next").stat().st_size
    log = tmp_path / "log"
    log.write_text("INFO Starting to load model\n")
    reading = ReadAhead(tmp_path / "next", log)
    reading.start()
    time.sleep(0.6)
    assert reading.bytes_read == 0
    log.write_text("INFO Loading weights took 0.11 seconds\n")
    wait_until_read(reading, size)
    reading.stop()
    assert reading.bytes_read == size


@pytest.mark.usefixtures("plenty_of_memory")
def test_stopping_ends_the_thread_in_the_middle_of_a_file(tmp_path: Path) -> None:
    size = large(tmp_path / "next", ENDLESS).stat().st_size
    reading = ReadAhead(tmp_path / "next", None)
    reading.start()
    wait_until_read(reading, 1)
    reading.stop()
    assert 0 < reading.bytes_read < size
    assert not reading._thread.is_alive()


@pytest.mark.usefixtures("plenty_of_memory")
def test_reading_begins_with_the_engine_s_construction_and_ends_before_any_iteration(tmp_path: Path) -> None:
    spec = tiny_spec()
    reading = ReadAhead(large(tmp_path / "next", ENDLESS).parent, None)
    progress = Progress(spec, 0, tmp_path / "launch-0.json", None)
    measurement = Measurement(spec, 0, progress, Surroundings("cpu", [{}], lambda: ([], set())), reading)
    measurement.take(PhaseBegins(phase="importing"))
    assert not reading._thread.is_alive()
    measurement.take(PhaseBegins(phase="initializing"))
    wait_until_read(reading, 1)
    told = make_record()
    facts = {"environment": told.environment, "engine": told.engine, "flags": [], "processes": {}}
    measurement.take(Ready(import_s=1.0, init_s=1.0, **facts))
    assert not reading._thread.is_alive()
    assert 0 < reading.bytes_read < ENDLESS


def test_stopping_what_was_never_started_or_still_waits_is_no_matter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    for reading in (ReadAhead(None, None), ReadAhead(tmp_path, log), ReadAhead(tmp_path / "none", None)):
        reading.start()
        reading.stop()
        assert reading.bytes_read == 0
    ReadAhead(tmp_path, log).stop()


def test_weights_that_would_push_out_what_is_needed_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = large(tmp_path / "next").stat().st_size
    for available, expected in ((2 * size - 1, 0), (2 * size, size)):
        monkeypatch.setattr(read_ahead, "available_bytes", lambda available=available: available)
        reading = ReadAhead(tmp_path / "next", None)
        reading.start()
        wait_until_read(reading, expected)
        reading._thread.join()
        assert reading.bytes_read == expected


def test_the_plan_names_the_folder_of_every_experiment_that_reads_one() -> None:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    matrix = expand(read_config(config), probe_engine(None))
    plan = schedule(read_config(config), matrix).plan_file(estimate=False)
    assert [e.weights for e in plan.experiments] == [e.model_path for e in matrix.experiments]
    (model,) = config["models"]
    config["model_settings"][model].setdefault("engine_args", {})["load_format"] = "dummy"
    without = schedule(read_config(config), expand(read_config(config), probe_engine(None))).plan_file(estimate=False)
    assert {e.weights for e in without.experiments} == {None}


def test_a_plan_of_an_earlier_version_is_read() -> None:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    plan = schedule(read_config(config), expand(read_config(config), probe_engine(None))).plan_file(estimate=False)
    old = plan.model_dump(mode="json") | {"schema_version": 2}
    for experiment in old["experiments"]:
        del experiment["weights"]
    assert {e.weights for e in PlanFile.model_validate(old).experiments} == {None}
