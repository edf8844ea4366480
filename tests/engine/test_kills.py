"""Whatever is killed, whenever: nothing keeps running, no half record, nothing lost, and the next call goes on."""

from __future__ import annotations

import shutil
import signal

import pytest
from kills import kill_once
from workspace import TINY, Workspace

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

MANY, FEW = 100, 2
"""Iterations: so many that a kill hits the launch while it measures, or so few that it is soon over."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("kills") / "workspace", {**TINY, "quants": ["bf16"]})


@pytest.mark.parametrize(
    ("victim", "kill", "moment", "iterations", "records"),
    [
        ("snakemake", signal.SIGKILL, "iteration 1/", MANY, 0),
        ("snakemake", signal.SIGTERM, "initializing", FEW, 1),  # snakemake lets the job that runs finish
        ("snakemake's group", signal.SIGINT, "initializing", FEW, 0),
        ("measuring command", signal.SIGKILL, "iteration 1/", MANY, 0),
        ("measuring command", signal.SIGTERM, "importing", FEW, 0),
        # test_launch_failures.py and test_online_failures.py kill what has a process of its own besides
    ],
    ids=lambda x: getattr(x, "name", str(x)).replace(" ", "_"),
)
def test_a_kill_leaves_no_process_and_no_half_record(
    workspace: Workspace, victim: str, kill: signal.Signals, moment: str, iterations: int, records: int
):
    workspace.overlay({"iterations": iterations})
    shutil.rmtree(workspace.path / "results", ignore_errors=True)
    outcome = kill_once(workspace, victim, kill, moment=moment)
    assert outcome.victim == victim, workspace.output
    assert outcome.troubles == ()
    assert len(workspace.records) == records


def test_after_all_kills_the_next_call_goes_on(workspace: Workspace):
    workspace.overlay({"iterations": FEW})
    done = workspace.snakemake("results/summary.md")
    assert done.returncode == 0, done.stdout
    assert len(workspace.records) == 1
