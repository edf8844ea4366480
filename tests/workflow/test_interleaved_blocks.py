"""Blocks under Snakemake: one job for what is compared, whose records stay whatever happens to the job."""

import shutil
import signal
import time
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace, with_stand_in

DEADLINE_S = 120.0

CONFIG = {**stand_in.IN_BLOCKS, "launches": 3, "interleave": "auto"}

SUMMARY = "results/summary.md"


def workspace(folder: Path, measure_s: float = 0.0, **changes) -> Workspace:
    """Return a workspace in which the stand-in measures two quants in three blocks."""
    return with_stand_in(folder, measure_s, **{**CONFIG, **changes})


def stamps(space: Workspace) -> dict[str, tuple[int, bytes]]:
    """Return when each record was written, and what it holds."""
    paths = {name: space.path / "results" / name for name in space.records}
    return {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in paths.items()}


def changed(space: Workspace, before: dict[str, tuple[int, bytes]]) -> set[str]:
    """Return records that are no longer what they were."""
    after = stamps(space)
    return {name for name, stamp in before.items() if after.get(name) != stamp}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three blocks of two quants, all of them measured, which nobody changes."""
    space = workspace(tmp_path_factory.mktemp("measured"))
    space.ran(SUMMARY)
    return space


@pytest.fixture
def space(measured: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of it for one test."""
    space = Workspace(tmp_path / "workspace")
    shutil.copytree(measured.path, space.path, dirs_exist_ok=True)
    return space


def test_one_job_measures_a_block_and_leaves_records_alone(measured: Workspace, tmp_path: Path):
    fresh = workspace(tmp_path)
    assert fresh.planned(SUMMARY) == {"measure": 3, "checkpoint": 2, "summary": 1}
    assert not (fresh.path / "results").exists(), "a dry run wrote something"
    assert fresh.planned(SUMMARY, "--config", "interleave=false") == {"measure": 6, "checkpoint": 2, "summary": 1}
    indices = [name.rpartition("-")[2] for name in stand_in.starts(measured.path)]
    assert indices == ["0", "0", "1", "1", "2", "2"], "blocks run whole, one after the other"
    assert len(measured.records) == 6
    assert not (measured.path / "results" / "blocks").exists()


@pytest.mark.parametrize("options", [(), ("--forceall", "--rerun-incomplete", "--keep-incomplete")])
def test_a_block_that_lost_a_record_is_measured_whole_again(space: Workspace, options: tuple[str, ...]):
    (lost,) = [name for name in space.records if "_w8a8_" in name and name.endswith("launch-1.json")]
    partner = {name for name in space.records if name.endswith("launch-1.json")} - {lost}
    (space.path / "results" / lost).unlink()
    before = stamps(space)
    assert "records that are measured again were moved to results/aside/" in space.ran(*options, SUMMARY)
    assert (changed(space, before), len(space.records), len(stand_in.starts(space.path))) == (partner, 6, 8)


def test_a_killed_run_leaves_its_records_and_the_next_continues(tmp_path: Path):
    space = workspace(tmp_path, measure_s=0.6)
    run, began = space.start("--cores", "1", SUMMARY), time.monotonic()
    space.wait_until(run, lambda: len(space.records) >= 3)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=DEADLINE_S)
    while [process for process in space.processes() if process.pid != run.pid]:
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.1)  # the stand-in does not die with its parent; a real block does
    assert list((space.path / "results" / "blocks").rglob("launch-*")), "the next run must not trust this mark"
    gone = next(name for name in sorted(space.records) if name.endswith("launch-0.json"))
    (space.path / "results" / gone).unlink()  # its block has a mark
    left, started = stamps(space), len(stand_in.starts(space.path))
    assert 2 <= len(left) < 5
    ends = [name.rpartition("/")[2] for name in left]
    torn = {name for name, end in zip(left, ends, strict=True) if ends.count(end) == 1}
    stand_in.install(tmp_path / "engine")
    space.ran(SUMMARY)
    assert changed(space, left) == torn
    assert len(stand_in.starts(space.path)) == started + 6 - len(left) + len(torn)


def test_batches_are_refused(tmp_path: Path):
    done = workspace(tmp_path).snakemake("--cores", "1", "--batch", "summary=1/2")
    assert done.returncode == 1
    assert "--batch: the missing launches are others after each call\n  -> divide by --config" in done.stdout


def test_launches_of_a_model_s_other_files_are_measured_again(space: Workspace):
    (config,) = space.path.glob("models/synthetic/*w8a8*/config.json")
    config.touch()
    assert "6 of 6 launches done, 0 to run" in space.bench("plan").stdout
    config.write_text('{"num_hidden_layers": 2}')
    before = stamps(space)
    assert space.snakemake("--cores", "1", "--touch", SUMMARY).returncode == 0
    assert changed(space, before) == set()
    said = space.ran(SUMMARY)
    assert f"{config.relative_to(space.path)} changed 20" in said
    assert "UTC, after 3 launches were measured: measured again" in said
    assert len(list(space.path.glob("results/aside/*/offline/*/launch-?.json"))) == 6
    assert "6 of 6 launches done, 0 to run" in space.bench("plan").stdout
