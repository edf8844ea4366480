"""The supervisor lets its router share a step out among replicas, and names the replica that fails in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stand_in_replica
from launching import SETTINGS, tiny_spec

from rollout_bench.contracts.spec import Spec, WorkloadSpec
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import members_of, signals_as_descriptor
from rollout_bench.measure.launch import attempt
from rollout_bench.measure.launch.protocol import Event, IterationDone, Job
from rollout_bench.measure.launch.supervisor import EngineLaunch
from rollout_bench.modes.rollout.router import Router
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.workloads.requests import Source

FIXTURES = Path(stand_in_replica.__file__).parent
PATHS = os.pathsep.join([str(FIXTURES), str(FIXTURES.parents[1] / "src")])


@pytest.fixture
def signals() -> Iterator[int]:
    with signals_as_descriptor() as descriptor:
        yield descriptor


def rollout(**changes: Any) -> Spec:
    share = RolloutSpec(router="round_robin")
    return tiny_spec(measuring={"warmup_iterations": 0}, **changes).model_copy(
        update={"mode": "rollout", "rollout": share}
    )


def usual_source(workload: WorkloadSpec, vocabulary: int) -> Source:
    return Source(workload, vocabulary, "none")


def launch(
    folder: Path, signals: int, *hows: str, source: Callable[[WorkloadSpec, int], Source] = usual_source
) -> EngineLaunch:
    spec = rollout()
    return EngineLaunch(
        module="stand_in_replica",
        job=Job(spec=spec, model="none", launch=0, timeout_s=30),
        log=folder / "launch.log",
        environments=[{**os.environ, "PYTHONPATH": PATHS, "STAND_IN": how} for how in hows],
        timeout_s=30.0,
        signals=signals,
        router=Router(spec, 0, source),
    )


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_replicas_share_the_prompts_of_one_step(tmp_path: Path, signals: int, replicas: int) -> None:
    told: list[Event] = []
    launched = launch(tmp_path, signals, *[""] * replicas)
    launched.run(told.append)
    assert members_of(launched.processes()[0]) == []
    done = next(event for event in told if isinstance(event, IterationDone))
    assert sorted((row.prompt, row.sample) for row in done.sequences) == [(p, s) for p in range(4) for s in range(2)]
    parts = done.iteration.replicas or []
    assert sum(part.sequences for part in parts) == done.iteration.sequences == 8
    assert len(parts) == replicas
    replica_of = {(row.prompt, row.sample): row.replica for row in done.sequences}
    assert set(replica_of.values()) == ({None} if replicas == 1 else set(range(replicas)))
    assert done.iteration.router is not None
    assert done.iteration.router.decisions == 8
    assert done.iteration.client is not None


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each replica")
def test_a_failure_names_the_replica_that_died_and_its_log(
    tmp_path: Path, signals: int, leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "WORKER", "stand_in_replica")
    monkeypatch.setenv("PYTHONPATH", PATHS)
    monkeypatch.setenv("STAND_IN", "crash")
    spec = rollout(engine={"args": {**SETTINGS["engine"]["args"], "data_parallel_size": 2}})
    (tmp_path / "config.json").touch()
    out = record_path(tmp_path, spec.mode, spec.experiment(), 0)
    launched = attempt.Assignment(spec, str(tmp_path), 0, out, tmp_path / "launch.log", timeout_s=30.0)
    with pytest.raises(UserError):
        attempt.attempt(launched, signals, lambda: None)
    failure = read_failure(failure_path(out))
    assert (failure.category, failure.phase) == ("crash", "measuring")
    assert failure.cause.startswith("replica 1 of 2: ")
    assert failure.log == str(tmp_path / "launch.replica-1.log")
    assert list(leases.glob("*")) == []
