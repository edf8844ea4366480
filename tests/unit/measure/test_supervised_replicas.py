"""The supervisor lets replicas go together, with a router or without; where one fails, all end and its name is told."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import stand_in_worker
from launching import SETTINGS, tiny_spec

from rollout_bench.commands import measure
from rollout_bench.contracts.failure_kinds import FAILURES
from rollout_bench.contracts.failures import NODE_STATUS
from rollout_bench.contracts.record import Failure
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import MeasuringFailed, UserError
from rollout_bench.core.processes import is_living, members_of, signals_as_descriptor
from rollout_bench.measure.launch import block
from rollout_bench.measure.launch.processes import EngineProcesses, LaunchFailed
from rollout_bench.measure.launch.protocol import Event, IterationDone, Job
from rollout_bench.measure.launch.recorder import Measurement
from rollout_bench.measure.launch.request import LaunchRequest
from rollout_bench.measure.launch.session import LaunchSession
from rollout_bench.modes.rollout.router import Router
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.workloads.requests import Source

pytestmark = pytest.mark.slow

FIXTURES = Path(stand_in_worker.__file__).parent
PATHS = os.pathsep.join([str(FIXTURES), str(FIXTURES.parents[1] / "src")])


@pytest.fixture
def signals() -> Iterator[int]:
    with signals_as_descriptor() as descriptor:
        yield descriptor


def session(
    folder: Path,
    signals: int,
    *hows: str,
    spec: Spec | None = None,
    listen: Callable[[Event], None] = lambda _: None,
    join: Callable[[Sequence[Event]], Event] | None = None,
    timeout_s: float = 30.0,
    **more: Any,
) -> LaunchSession:
    spec = spec or tiny_spec()
    environments = [{**os.environ, "PYTHONPATH": PATHS, "STAND_IN": how} for how in hows]
    processes = EngineProcesses("stand_in_worker", spec.platform, folder / "launch.log", environments, signals, **more)
    return LaunchSession(processes, Job(spec=spec, model="none", launch=0, timeout_s=timeout_s), listen, join)


def left(launched: LaunchSession) -> list[int]:
    """Return the pids of the engine's processes that run."""
    return members_of(launched.processes.pids()[0])


def only_pass(folder: Path, signals: int, *hows: str, **more: Any) -> IterationDone:
    events: list[Event] = []
    launched = session(folder, signals, *hows, listen=events.append, **more)
    launched.run()
    assert left(launched) == []
    return next(event for event in events if isinstance(event, IterationDone))


def times_of(done: IterationDone, what: str) -> list[float]:
    return [float(re.findall(rf"{what} ([\d.]+)", flag.sentence)[0]) for flag in done.flags]


def test_all_replicas_begin_together_and_the_slowest_ends_the_step(tmp_path: Path, signals: int) -> None:
    done = only_pass(tmp_path, signals, "slow", "late")
    assert min(times_of(done, "began")) >= max(times_of(done, "arrived"))
    parts = done.iteration.replicas
    assert max(part.start_offset_s for part in parts) < 0.3  # the late one came 0.4 s later
    assert done.iteration.elapsed_s == max(part.end_s for part in parts) >= 0.3
    assert [part.output_tokens for part in parts] == [10, 11]
    assert {path.name for path in tmp_path.iterdir()} == {"launch.log", "launch.replica-1.log"}


@pytest.mark.parametrize(
    ("hows", "more", "category", "cause", "log"),
    [
        (("", "crash"), {}, "crash", r"^replica 1 of 2: .*signal 9", "launch.replica-1.log"),
        (("fails", ""), {}, "crash", r"^replica 0 of 2: .*there is no such thing", "launch.log"),
        (("", "hangs", "hangs"), {"timeout_s": 6.0}, "timeout", r"^replicas 1, 2 of 3: the launch hung in phase measu",
         "launch.replica-1.log"),
        (("crash",), {}, "crash", r"^(?!replica).*signal 9", "launch.log"),
        (("stops",), {"timeout_s": 6.0}, "timeout", "^the launch hung in phase measuring", "launch.log"),
        (("alone", "dies later"), {"roles": ("generates", "trains")}, "out_of_memory",
         r"^rank 1 of 2 \(trains\): the GPU ran out of memory", "launch.replica-1.log"),
        (("alone", "hangs"), {"roles": ("trains", "trains")}, "crash", "^rank 0 of 2 .*another rank was lost",
         "launch.log"),
    ],
    ids=["killed", "fails", "hang", "alone", "stopped_for_good", "loses_another", "loses_another_unseen"],
)  # fmt: skip
def test_a_replica_that_fails_ends_all_and_is_named(
    tmp_path: Path, signals: int, hows: tuple[str, ...], more: dict[str, Any], category: str, cause: str, log: str
) -> None:
    launched = session(tmp_path, signals, *hows, **more)
    with pytest.raises(LaunchFailed) as failed:
        launched.run()
    assert failed.value.category == category
    assert re.search(cause, failed.value.problem)
    assert failed.value.log == tmp_path / log
    assert left(launched) == []


def test_a_full_disk_under_the_logs_is_the_cause(tmp_path: Path, signals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = session(tmp_path, signals, "crash")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(LaunchFailed, match=r"^the file system of .*launch\.log is full: ") as failed:
        launched.run()
    assert failed.value.category == "disk_full"


def with_before(*command: str) -> Spec:
    spec = tiny_spec()
    return spec.model_copy(update={"engine": spec.engine.model_copy(update={"before": list(command)})})


def test_a_command_runs_before_the_engine_into_its_log(tmp_path: Path, signals: int) -> None:
    # the process that it leaves ends with the engine
    shell = f"echo said by $STAND_IN >&2; sleep 60 & echo $! > {tmp_path}/left"
    launched = session(tmp_path, signals, "slow", "slow", spec=with_before("bash", "-c", shell))
    launched.run()
    assert (tmp_path / "launch.log").read_text().count("said by slow") == 1
    assert launched.processes.prepared_s > 0
    assert not is_living(int((tmp_path / "left").read_text()))


@pytest.mark.parametrize(
    ("command", "category", "cause"),
    [
        (
            ("bash", "-c", "echo no room; exit 3"),
            "before_failed",
            "engine.before: bash -c 'echo no room; exit 3': ended",
        ),
        (("there-is-none",), "before_failed", "engine.before: there-is-none: No such file"),
        (("sleep", "60"), "before_timeout", "engine.before: sleep 60: had not ended"),
    ],
    ids=["status", "missing", "timeout"],
)
def test_a_failing_command_before_the_engine_fails_the_launch(
    tmp_path: Path, signals: int, command: tuple[str, ...], category: str, cause: str
) -> None:
    launched = session(tmp_path, signals, "", spec=with_before(*command), timeout_s=2.0)
    with pytest.raises(LaunchFailed, match=cause) as failed:
        launched.run()
    assert failed.value.category == category
    assert failed.value.remedy
    assert ("no room" in (tmp_path / "launch.log").read_text()) == ("bash" in command)
    assert not [p for p in psutil.Process().children() if p.name() == "sleep"]


PROGRAM = """
import fcntl, os, sys
from pathlib import Path
from test_supervised_replicas import session
held = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
told = lambda event: print(event, flush=True)
session(Path(sys.argv[1]), os.pipe()[0], "hangs", "hangs", listen=told, keep_open=[held]).run()
"""


def test_an_open_lock_lasts_until_a_dead_supervisors_engines_end(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), PATHS])}
    command = [sys.executable, "-c", PROGRAM, tmp_path, tmp_path / "lock"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        next(line for line in supervisor.stdout if "begins" in line)
        engines = [p for p in psutil.Process(supervisor.pid).children() if "stand_in_worker" in " ".join(p.cmdline())]
        assert len(engines) == 2
        supervisor.kill()
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
    assert [engine for engine in engines if engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE] == []


def rollout(**changes: Any) -> Spec:
    share = RolloutSpec(router="round_robin")
    return tiny_spec(measuring={"warmup_iterations": 0}, **changes).model_copy(
        update={"mode": "rollout", "rollout": share}
    )


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_replicas_share_the_prompts_of_one_step(tmp_path: Path, signals: int, replicas: int) -> None:
    spec = rollout()
    router = Router(spec, 0, lambda workload, _: Source(workload, 2048, "none"))
    done = only_pass(tmp_path, signals, *[""] * replicas, spec=spec, router=router)
    assert sorted((row.prompt, row.sample) for row in done.sequences) == [(p, s) for p in range(4) for s in range(2)]
    by_replica = Counter(row.replica for row in done.sequences)
    parts = [part.sequences for part in done.iteration.replicas]
    assert by_replica == ({None: 8} if replicas == 1 else dict(enumerate(parts)))
    assert (len(parts), sum(parts), done.iteration.router.decisions) == (replicas, 8, 8)
    assert done.iteration.client is not None


def failure_of(spec: Spec, how: str, folder: Path, signals: int, monkeypatch: pytest.MonkeyPatch) -> Failure:
    """Return the failure of a launch of the stand-in, as its file has it."""
    monkeypatch.setattr(block, "WORKER", "stand_in_worker")
    monkeypatch.setattr(block, "starter_for", lambda *_: None)
    monkeypatch.setenv("PYTHONPATH", PATHS)
    monkeypatch.setenv("STAND_IN", how)
    (folder / "config.json").touch()
    out = record_path(folder, spec.mode, spec.experiment(), 0)
    request = LaunchRequest(spec, str(folder), 0, out, folder / "launch.log", timeout_s=30.0)
    failed = measure.measure_blocks([request], 0, signals)
    failure = read_failure(failure_path(out))
    assert failed == {out: NODE_STATUS if FAILURES[failure.category].of_node else 1}
    return failure


def rollout_of_two() -> Spec:
    return rollout(engine={"args": {**SETTINGS["engine"]["args"], "data_parallel_size": 2}})


@pytest.mark.parametrize(
    ("method", "error", "category", "phase"),
    [
        ("take", MeasuringFailed("ranks_disagree", "they differ", "report it"), "ranks_disagree", "measuring"),
        ("take", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json"), "disk_full", "measuring"),
        ("take", UserError("workload w: a prompt of its data set has no tokens", "x"), "impossible_load", "measuring"),
        ("take", KeyError("x"), "crash", "measuring"),
        ("write", UserError("a.json: cannot be written", "make room"), "not_written", "writing"),
        ("write", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json"), "disk_full", "writing"),
    ],
)
def test_what_the_supervisor_cannot_do_fails_the_launch_at_the_phase_of_its_engine(
    tmp_path: Path,
    signals: int,
    leases: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: Exception,
    category: str,
    phase: str,
) -> None:
    def fails(_: Measurement, *given: object) -> None:
        if method == "write" or isinstance(given[0], IterationDone):
            raise error

    monkeypatch.setattr(Measurement, method, fails)
    spec = tiny_spec(measuring={"warmup_iterations": 0})
    failure = failure_of(spec, "", tmp_path, signals, monkeypatch)
    assert (failure.category, failure.phase) == (category, phase)
    assert list(leases.glob("*")) == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each replica")
def test_a_failure_names_the_replica_that_died_and_its_log(
    tmp_path: Path, signals: int, leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = failure_of(rollout_of_two(), "crash", tmp_path, signals, monkeypatch)
    assert (failure.category, failure.phase) == ("crash", "measuring")
    assert failure.cause.startswith("replica 1 of 2: ")
    assert failure.log == str(tmp_path / "launch.replica-1.log")
    assert list(leases.glob("*")) == []
