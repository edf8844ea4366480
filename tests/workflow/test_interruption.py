"""A run that is asked to end keeps what was measured, and two runs never write into one folder of results."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock
import psutil
import pytest
import stand_in
from workspace import TINY, Workspace, with_stand_in

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path
from rollout_bench.core import interrupts

DEADLINE_S = 120.0


def test_a_terminated_run_keeps_whole_records_and_the_next_continues(tmp_path: Path):
    workspace = with_stand_in(tmp_path, measure_s=0.5, launches=4)
    run = workspace.start("--cores", "1", "results/summary.md")
    workspace.wait_until(run, lambda: len(stand_in.starts(workspace.path)) >= 3)
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=DEADLINE_S) == interrupts.TERMINATED
    assert workspace.output.count("no further launch is started; one that has begun may finish") == 1
    assert "INCOMPLETE" in workspace.output
    assert "Error" not in workspace.output
    results = workspace.path / "results"
    measured = workspace.records
    assert 3 <= len(measured) < 8
    assert {f"{name}.json" for name in stand_in.starts(workspace.path)} == measured
    for name in measured:
        record = read_record(results / name)
        assert record.valid
        assert read_sequences(sequences_path(results / name), record)
    assert [path for path in results.rglob("*") if path.name.endswith(".tmp") or ".started" in path.parts[:-1]] == []
    stand_in.install(tmp_path / "engine")
    workspace.ran("results/summary.md")
    assert len(workspace.records) == len(stand_in.starts(workspace.path)) == 8, "a launch was measured twice"


def command_lines(processes: Iterable[psutil.Process]) -> Iterator[str]:
    """Yield the command line of each process that has not ended."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())


def test_ctrl_c_gives_one_line_and_the_interrupt_status(tmp_path: Path):
    workspace = with_stand_in(tmp_path, measure_s=0.5)
    python = tmp_path / "engine" / "python"
    answers = python.read_text()
    python.write_text("#!/bin/sh\nwhile kill -0 $PPID 2>/dev/null; do sleep 0.1; done\n")
    command = [sys.executable, "-m", "snakemake", "-n"]
    plan = subprocess.Popen(command, cwd=workspace.path, stderr=subprocess.PIPE, text=True)
    while not any(str(tmp_path) in words for words in command_lines(psutil.Process(plan.pid).children())):
        assert plan.poll() is None  # it asks the engine's Python, which does not answer
    plan.send_signal(signal.SIGINT)
    assert plan.communicate(timeout=DEADLINE_S)[1].endswith("interrupted: nothing was started\n")
    assert plan.returncode == interrupts.INTERRUPTED
    python.write_text(answers)
    run = workspace.start("--cores", "1", "results/summary.md")
    workspace.wait_until(run, lambda: stand_in.starts(workspace.path))
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=DEADLINE_S) == interrupts.INTERRUPTED


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, interrupts.INTERRUPTED), (signal.SIGTERM, interrupts.TERMINATED)]
)
def test_a_signal_to_run_and_launch_ends_both_without_words_of_snakemake(
    number: signal.Signals, status: int, tmp_path: Path
):
    settings = {**stand_in.CONFIG, "quants": ["bf16"], "launches": 2}
    workspace = Workspace(tmp_path / "workspace", settings).with_made_engine({1: "hang"})
    run = workspace.start("--cores", "1", "results/summary.md")
    workspace.wait_until(run, lambda: workspace.records and "initializing" in workspace.under_way)
    os.killpg(run.pid, number)
    assert run.wait(timeout=DEADLINE_S) == status
    assert f"interrupted by {number.name}: the engine was ended, nothing was written" in workspace.output
    assert "INCOMPLETE: 1 of 2" in workspace.output
    assert "Error" not in workspace.output
    assert "Exception" not in workspace.output


def test_ctrl_c_ends_a_starting_engine_and_leaves_nothing(tmp_path: Path):
    settings = {**stand_in.CONFIG, "quants": ["bf16"], "launches": 1}
    workspace = Workspace(tmp_path / "workspace", settings).with_made_engine({0: "hang"})
    run = workspace.start("--cores", "1", "results/summary.md")
    workspace.wait_until(run, lambda: "initializing" in workspace.under_way)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=DEADLINE_S) == interrupts.INTERRUPTED
    deadline = time.monotonic() + 30
    while (left := workspace.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert workspace.records == workspace.failures == set()
    workspace.behave({})
    workspace.ran("results/summary.md")
    assert len(workspace.records) == 1


def test_a_clone_sharing_results_of_a_run_is_refused(tmp_path: Path):
    runs, shares = Workspace(tmp_path / "runs", TINY), Workspace(tmp_path / "shares", TINY)
    results = runs.path / "results"
    results.mkdir()
    (shares.path / "results").symlink_to(results)
    with filelock.FileLock(results / ".lock"):  # as a run of the first holds it
        done = shares.snakemake("results/summary.md")
    assert done.returncode == 1
    message = f"{results}: another workflow is running that writes its results there\n"
    message += "  -> wait until it ends, or work in another folder\n"
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not runs.records
