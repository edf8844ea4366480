"""Blocks under Snakemake: one job for what is compared, whose records stay whatever happens to the job."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import stand_in
from workspace import Workspace

DEADLINE_S = 120.0

CONFIG = {**stand_in.IN_BLOCKS, "launches": 3, "interleave": "auto"}


def workspace(folder: Path, measure_s: float = 0.0, **changes) -> Workspace:
    """Return a workspace in which the stand-in measures two quants in three blocks."""
    engine = {"python": stand_in.install(folder / "engine", measure_s)}
    return Workspace(folder / "workspace", {**CONFIG, "engine": engine, **changes})


def stamps(space: Workspace) -> dict[str, tuple[int, bytes]]:
    """Return when each record was written, and what it holds."""
    paths = [space.path / "results" / name for name in space.records]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three blocks of two quants, all of them measured, which nobody changes."""
    space = workspace(tmp_path_factory.mktemp("measured"))
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    return space


@pytest.fixture
def space(measured: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of it for one test."""
    space = Workspace(tmp_path / "workspace")
    shutil.copytree(measured.path, space.path, dirs_exist_ok=True)
    return space


def summarised(space: Workspace) -> bool:
    return (space.path / "results" / "summary.json").exists()


def test_one_job_measures_a_block_and_leaves_nothing_but_records(tmp_path: Path):
    space = workspace(tmp_path)
    assert space.planned("results/summary.md") == {"block": 3, "checkpoint": 2, "summary": 1}
    assert len(space.in_blocks("results/summary.md")) == 6
    assert not (space.path / "results").exists(), "a dry run wrote something"
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    assert len(space.records) == len(stand_in.starts(space.path)) == 6
    indices = [name.rpartition("-")[2] for name in stand_in.starts(space.path)]
    assert indices == ["0", "0", "1", "1", "2", "2"], "blocks run whole, one after the other"
    assert not (space.path / "results" / "blocks").exists()
    assert space.planned("results/summary.md") == {}


def test_what_a_block_lacks_is_measured_and_what_it_has_is_not_touched(space: Workspace):
    deleted = [name for name in space.records if "_w8a8_" in name and name.endswith("launch-1.json")]
    (space.path / "results" / deleted[0]).unlink()
    before = stamps(space)
    assert space.in_blocks("results/summary.md") == set(deleted)
    assert space.snakemake("--cores", "1", "results/summary.md").returncode == 0
    assert {name: stamp for name, stamp in stamps(space).items() if name in before} == before
    assert len(space.records) == 6
    assert len(stand_in.starts(space.path)) == 7


def test_records_stay_where_another_of_their_block_fails_and_the_other_blocks_run(tmp_path: Path):
    space = workspace(tmp_path)
    (space.path / stand_in.FAILING).write_text("w8a8")
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode != 0
    assert len(space.records) == 3, done.stdout
    assert "Removing output files" not in done.stdout
    assert summarised(space), "a run that failed writes the summary of what there is"
    before = stamps(space)
    assert len(space.in_blocks("results/summary.md")) == 3
    (space.path / stand_in.FAILING).unlink()
    assert space.snakemake("--cores", "1", "results/summary.md").returncode == 0
    assert {name: stamp for name, stamp in stamps(space).items() if name in before} == before
    assert len(space.records) == len(stand_in.starts(space.path)) == 6


@pytest.mark.parametrize("how", ["--forceall", "--rerun-incomplete", "--touch", "--keep-incomplete"])
def test_no_option_deletes_or_rewrites_a_record_or_measures_it_again(space: Workspace, how: str):
    gone = next(name for name in sorted(space.records) if name.endswith("launch-2.json"))
    (space.path / "results" / gone).unlink()
    before = stamps(space)
    done = space.snakemake("--cores", "1", how, "results/summary.md")
    assert done.returncode == 0 or how == "--touch", done.stdout
    after = stamps(space)
    assert {name: stamp for name, stamp in after.items() if name in before} == before
    # what --touch marks as done without a record is measured by the next run all the same
    assert space.snakemake("--cores", "1", "results/summary.md").returncode == 0
    assert len(space.records) == 6
    assert len(stand_in.starts(space.path)) == 7


def test_a_run_that_was_killed_leaves_its_records_and_the_next_one_goes_on(tmp_path: Path):
    space = workspace(tmp_path, measure_s=0.6)
    run, began = space.start("--cores", "1", "results/summary.md"), time.monotonic()
    while len(space.records) < 3:
        assert run.poll() is None, space.output
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=DEADLINE_S)
    while [process for process in space.processes() if process.pid != run.pid]:
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.1)  # the stand-in does not die with its parent; a real block does
    left = stamps(space)
    assert 3 <= len(left) < 6
    assert (space.path / "results" / "blocks").exists(), "a mark was there that the next run must not trust"
    done_again = next(name for name in sorted(space.records) if name.endswith("launch-0.json"))
    gone = space.path / "results" / done_again
    marks = list((space.path / "results" / "blocks").rglob("launch-*"))
    gone.unlink()  # its block has a mark
    assert marks
    started = len(stand_in.starts(space.path))
    stand_in.install(tmp_path / "engine")
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    kept = {name: stamp for name, stamp in left.items() if name != str(gone)}
    assert {name: stamp for name, stamp in stamps(space).items() if name in kept} == kept
    assert len(stand_in.starts(space.path)) == started + 6 - len(kept)


def test_batches_divide_blocks_and_the_last_one_finds_all_of_them(tmp_path: Path):
    space = workspace(tmp_path)
    for number in (1, 2, 3):
        done = space.snakemake("--cores", "1", "--batch", f"summary={number}/3", "results/summary.md")
        assert done.returncode == 0, done.stdout
        assert len(space.records) == len(stand_in.starts(space.path)) == 2 * number
    assert summarised(space)


def test_a_launch_of_a_block_is_not_measured_by_itself_and_the_two_lines_say_how_it_would_be(tmp_path: Path):
    space = workspace(tmp_path)
    record = sorted(space.in_blocks("results/summary.md"))[0]
    done = space.snakemake("--cores", "1", f"results/{record}")
    assert done.returncode == 1
    assert f"results/{record}: is measured in turn with what it is compared with" in done.stdout
    assert "Traceback" not in done.stdout
    done = space.snakemake("--cores", "1", f"results/{record}", "--config", "interleave=false")
    assert done.returncode == 0, done.stdout
    assert space.records == {record}


def test_without_interleaving_every_launch_has_a_job(tmp_path: Path):
    space = workspace(tmp_path, interleave=False)
    assert space.planned("results/summary.md") == {"launch": 6, "checkpoint": 2, "summary": 1}


def test_launches_auto_asks_for_whole_blocks(tmp_path: Path):
    precision = {"half_width": 0.0001, "max_launches": 4}
    space = workspace(tmp_path, launches="auto", precision=precision, quants=["bf16", "w8a8", "w8a16"])
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    counts = [name.rpartition("-")[2] for name in stand_in.starts(space.path)]
    assert counts == sorted(counts)
    assert {counts.count(index) for index in counts} == {3}
    assert len(counts) > 9, "more than the least was wanted"
    assert not (space.path / "results" / "blocks").exists()


def test_the_plan_says_what_is_interleaved_or_why_not(tmp_path: Path):
    space = workspace(tmp_path)
    assert "interleaved: offline cpu tiny small: bf16, w8a8: both engines alive at once, started in turn" in (
        space.snakemake("--cores", "1", "plan").stdout
    )
    huge = {"kv_cache_memory_bytes": int(0.6 * psutil.virtual_memory().total)}  # one engine fits the machine
    space.overlay({"workload_settings": {"small": {"engine_args": huge}}})
    said = space.snakemake("--cores", "1", "plan").stdout
    assert "not interleaved: offline cpu tiny small: bf16, w8a8: 2 engines take" in said
    done = space.snakemake("-n", "--config", "interleave=true")
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if "interleave" in line]
    assert len(lines) == 2, done.stdout
    assert lines[0].startswith("config: interleave: offline cpu tiny small: bf16, w8a8: 2 engines take ")
    space.overlay({"workload_settings": {"small": {"engine_args": {"kv_cache_memory_bytes": 1 << 50}}}})
    refused = space.snakemake("--cores", "1", "plan").stdout
    assert "config: tiny bf16 small (offline) does not fit: " in refused
    assert "-> set kv_cache_memory_bytes in engine_args to less" in refused


def spoil(space: Workspace) -> None:
    """Make launch 1 of w8a8 invalid."""
    doubtful = next(name for name in sorted(space.records) if "_w8a8_" in name and name.endswith("launch-1.json"))
    record = json.loads((space.path / "results" / doubtful).read_text())
    record["validity"] = [{"code": "cpu_shared", "severity": "invalid", "sentence": "Others used 50 % of the cores."}]
    stand_in.seal(record)
    (space.path / "results" / doubtful).write_text(json.dumps(record))


def discard(space: Workspace, *options: str) -> None:
    """Make the summary, and move what is invalid aside."""
    assert space.snakemake("--cores", "1", "results/summary.md").returncode == 0
    command = [sys.executable, "-m", "rollout_bench", "discard", "--invalid", *options]
    subprocess.run(command, cwd=space.path, check=True)


def test_what_is_invalid_is_planned_and_measured_again_with_its_block_and_the_old_records_are_kept_aside(
    space: Workspace,
):
    spoil(space)
    block = {name for name in space.records if name.endswith("launch-1.json")}
    before = stamps(space)
    assert "6 of 6 launches done (1 invalid), 0 to run" in space.snakemake("plan").stdout
    assert space.in_blocks("results/summary.md") == set()
    discard(space, "--dry-run")
    assert stamps(space) == before, "looking moved a record"
    discard(space)
    assert "4 of 6 launches done, 2 to run" in space.snakemake("plan").stdout
    assert space.in_blocks("results/summary.md") == block
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    after = stamps(space)
    assert {name for name in before if after[name] != before[name]} == {
        str(space.path / "results" / name) for name in block
    }
    kept = {
        str(path.relative_to(space.path / "results" / "aside")) for path in space.path.rglob("aside/**/launch-1.json")
    }
    assert {name.partition("/")[2] for name in kept} == block
    assert len(stand_in.starts(space.path)) == 8
    discard(space)
    assert space.in_blocks("results/summary.md") == set(), "there is nothing in doubt any more"
    assert "invalid" not in (space.path / "results" / "summary.txt").read_text().partition("Conclusion")[2][:400]


def without_files(record: Path) -> None:
    """Make a record one of an earlier version, which says nothing of the model's files."""
    content = json.loads(record.read_text())
    del content["model_files"]
    stand_in.seal(content)
    record.write_text(json.dumps(content))


def test_what_was_measured_with_other_files_of_a_model_than_there_are_now_is_measured_again(space: Workspace):
    records = [space.path / "results" / name for name in sorted(space.records)]
    (config,) = space.path.glob("models/synthetic/*w8a8*/config.json")
    of_earlier = next(path for path in records if "_w8a8_" in str(path) and path.stem == "launch-0")
    without_files(of_earlier)
    config.touch()
    assert "6 of 6 launches done, 0 to run" in space.snakemake("plan").stdout
    config.write_text('{"num_hidden_layers": 2}')
    plan = space.snakemake("plan").stdout
    assert f"{config.relative_to(space.path)} changed 20" in plan
    assert "UTC, after 2 launches were measured: measured again" in plan
    assert "2 of 6 launches done, 4 to run" in plan, "the first block says nothing of its files"
    again = {name for name in space.records if not name.endswith("launch-0.json")}
    assert space.in_blocks("results/summary.md") == again
    refused = space.snakemake("--cores", "1", "--touch", "results/summary.md")
    assert "--touch: does not go with measuring launches again" in refused.stdout
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    assert "changed 20" in done.stdout
    assert len(list(space.path.glob("results/aside/*/offline/*/launch-?.json"))) == 4
    assert "6 of 6 launches done, 0 to run" in space.snakemake("plan").stdout
    shutil.rmtree(config.parent)  # it is built again as the stand-in builds all
    assert "to run" in space.snakemake("plan").stdout


SETTINGS = {"few": {"engine_args": {"max_num_seqs": 4}}, "many": {"engine_args": {"max_num_seqs": 64}}}


def test_what_would_be_no_pair_with_launches_that_are_there_is_measured_together_with_them_where_that_is_asked_for(
    tmp_path: Path,
):
    settings = {"quants": ["bf16"], "setting_settings": SETTINGS, "baseline": {"quant": None, "setting": "default"}}
    space = workspace(tmp_path, settings=["default", "few"], **settings)
    assert space.snakemake("--cores", "1", "results/summary.md").returncode == 0
    others = ("--config", "settings=[default,many]")
    assert len(space.in_blocks("results/summary.md", *others)) == 3, "the default's are there"
    space.overlay({"settings": ["default", "many"]})
    discard(space)
    assert len(space.in_blocks("results/summary.md")) == 6
    done = space.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 0, done.stdout
    summary = (space.path / "results" / "summary.txt").read_text()
    assert "not_interleaved" not in summary
    discard(space)
    assert space.in_blocks("results/summary.md") == set()


@pytest.mark.parametrize("option", [["--touc"], ["-Ft"], ["--batch", "summary=1/2"]])
def test_measuring_launches_again_goes_with_no_option_that_measures_nothing_or_a_part_and_moves_no_record(
    space: Workspace, option: list[str]
):
    (config,) = space.path.glob("models/synthetic/*w8a8*/config.json")
    config.write_text('{"num_hidden_layers": 2}')
    before = stamps(space)
    done = space.snakemake("--cores", "1", *option, "results/summary.md")
    assert done.returncode == 1
    assert f"{option[0]}: does not go with measuring launches again\n  -> leave it out" in done.stdout
    assert stamps(space) == before
