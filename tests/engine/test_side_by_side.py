"""Launches side by side on cores of their own, and one that waits for a launch that is killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from launching import Launching, tiny_spec
from workspace import TINY, Workspace

from rollout_bench.contracts.store import read_record

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each launch needs a core of its own"),
]


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    return tmp_path / "leases"


def test_the_workflow_runs_as_many_launches_side_by_side_as_there_are_devices(tmp_path: Path, leases: Path):
    workspace = Workspace(tmp_path / "project", {**TINY, "quants": ["bf16"], "launches": 2})
    done = workspace.snakemake("results/summary.md", "--cores", "2", "--config", "isolation=per_device", "devices=2")
    assert done.returncode == 0, done.stdout
    records = [read_record(workspace.path / "results" / name) for name in sorted(workspace.records)]
    places = [record.placement for record in records]
    assert len(places) == 2
    blocks = {core for place in places if place is not None for core in place.visible}
    assert len(blocks) == 2, "both launches were on one block of cores"
    beside = set()
    for number, (record, place) in enumerate(zip(records, places, strict=True)):
        assert place is not None
        assert place.isolation == "per_device"
        assert set(place.neighbours) <= {f"offline/{record.spec.experiment()}/launch-{1 - number}"}
        assert ("shared_node" in {flag.code for flag in record.validity}) == bool(place.neighbours)
        assert record.environment.cpu_cores == len(os.sched_getaffinity(0)) // 2
        assert all(it.host and it.host.cores == record.environment.cpu_cores for it in record.iterations)
        beside |= set(place.neighbours)
    assert beside, "the launch that was measured first had the other beside it, at least while that one started"
    assert "shared_node" in (workspace.path / "results" / "summary.txt").read_text()
    assert list(leases.iterdir()) == []


@pytest.mark.untimed
def test_an_exclusive_launch_begins_when_the_engine_of_a_killed_one_is_gone(tmp_path: Path, leases: Path):
    killed = Launching(tmp_path / "killed", tiny_spec())
    killed.wait_for("importing")
    waits = Launching(tmp_path / "waits", tiny_spec())
    waits.wait_for(r"waiting for devices: offline/tiny_bf16_short-\w{8}/launch-0 \(another workflow\) holds")
    guardian = killed.child("guardian")
    guardian.suspend()
    killed.process.kill()
    time.sleep(1.5)
    assert psutil.Process(waits.process.pid).children() == [], "it began before the guardian had seen to the engine"
    guardian.resume()
    waits.wait_for("importing")
    assert killed.survivors(limit_s=0) == [], "it began while the killed launch's engine was alive"
    assert waits.finish() == 0, waits.said
    place = waits.record().placement
    assert place is not None
    assert (place.isolation, place.neighbours) == ("exclusive", [])
    assert place.waited_s > 0
    assert waits.record().environment.cpu_cores == len(os.sched_getaffinity(0))
    assert list(leases.iterdir()) == []
    killed.finish()
