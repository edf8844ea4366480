"""One process measures a launch at a time, what a dead one left is found out, and the plan says who measures."""

import contextlib
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_spec

from rollout_bench.cluster import claims, slurm
from rollout_bench.cluster.claims import Owner, claimed, read_claim, running_launches
from rollout_bench.commands.plan import show
from rollout_bench.contracts.progress import LaunchProgress, write_progress
from rollout_bench.contracts.store import claim_path, failure_path, read_failure, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import group_of
from rollout_bench.measure.launch.progress import Progress

SPEC = make_spec()


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return record_path(tmp_path / "results", SPEC.mode, SPEC.experiment(), 0)


def leave_claim(record: Path, **fields: object) -> None:
    """Leave a claim: of a process that was killed, since no process of this pid began when the machine did."""
    host = fields.get("host", socket.gethostname())
    own = {"host": host, "node": host, "pid": os.getpid(), "started_ticks": 0, "job": None, "until_s": 1e12}
    path = claim_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Owner.model_validate({**own, "log": "l.log", **fields}).model_dump_json())


def contend(record: Path, start, outcomes, over) -> None:
    start.wait()
    try:
        with claimed(record, Path("a.log"), 60.0):
            outcomes.put("won")
            over.wait()
    except UserError as error:
        outcomes.put(error.problem)


def test_exactly_one_of_many_competing_processes_gets_the_launch(record: Path):
    fork = multiprocessing.get_context("fork")
    start, queue, over = fork.Barrier(12), fork.Queue(), fork.Event()
    processes = [fork.Process(target=contend, args=(record, start, queue, over)) for _ in range(12)]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=60) for _ in processes]
    over.set()
    for process in processes:
        process.join(timeout=60)
    assert (outcomes.count("won"), sum("is being measured by process" in line for line in outcomes)) == (1, 11)
    assert not list(claim_path(record).parent.iterdir())


def test_a_dead_process_is_reported_and_its_claim_taken_over(record: Path):
    leave_claim(record)
    write_progress(record, LaunchProgress(text="waiting for devices"))
    with claimed(record, Path("a.log"), 60.0):
        assert read_claim(claim_path(record)).pid == os.getpid()
    failure = read_failure(failure_path(record))
    assert (failure.category, failure.phase) == ("killed", "waiting for devices")


@pytest.mark.parametrize(
    ("left", "variable", "is_free"),
    [
        ({"job": "7"}, "NONE", False),
        ({"until_s": 1.0}, "NONE", True),
        ({"job": "7"}, "SLURM_JOB_ID", True),
        ({"job": "7"}, "ROLLOUT_BENCH_JOB", True),
    ],
    ids=["unreachable", "beyond_its_limit", "own_job_rerun", "own_pod_rerun"],
)
def test_a_claim_on_another_machine_holds_until_it_may_end(
    record: Path, monkeypatch: pytest.MonkeyPatch, left: dict[str, object], variable: str, is_free: bool
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(variable, "7")
    leave_claim(record, host="elsewhere", **left)
    with contextlib.nullcontext() if is_free else pytest.raises(UserError, match="job 7"):  # noqa: SIM117
        with claimed(record, Path("a.log"), 60.0):
            assert read_claim(claim_path(record)).host == socket.gethostname()
            assert failure_path(record).exists() == (variable == "NONE")


@pytest.mark.parametrize("job", [None, "7"])
def test_a_later_run_reports_only_unmeasured_launches_as_killed(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None
):
    monkeypatch.setenv("ROLLOUT_BENCH_JOB", "7")
    leave_claim(record, job=job)
    measured = record.with_name("launch-1.json")
    leave_claim(measured)
    measured.parent.mkdir(parents=True)
    measured.write_text("{}")
    assert claims.fail_dead_claims(tmp_path / "results") == [record]
    assert read_failure(failure_path(record)).log == "l.log"
    assert not failure_path(measured).exists()
    assert claims.fail_dead_claims(tmp_path / "results") == []


@pytest.mark.parametrize(
    ("message", "category", "state"),
    [
        ("", "time_limit", "DEADLINE"),
        ("", "node_failure", "BOOT_FAIL"),
        ("", "cancelled", "CANCELLED"),
        (
            "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
            "time_limit",
            "FAILED",
        ),
        (
            "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
            "preempted",
            "FAILED",
        ),
        (
            "error: *** JOB 1 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
            "node_failure",
            "FAILED",
        ),
        (
            "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes",
            "out_of_memory",
            "FAILED",
        ),
        (
            "slurmstepd: error: StepId=5.0 exceeded memory limit (553209856 > 524288000), being killed",
            "out_of_memory",
            "FAILED",
        ),
        (
            "slurmstepd: error: *** STEP 4.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***",
            "cancelled",
            "FAILED",
        ),
    ],
)
def test_a_jobs_log_or_state_tells_why_it_ended(message: str, category: str, state: str, tmp_path: Path):
    log = tmp_path / "12.log"
    log.write_text(f"before\n{message}\nafter")
    assert slurm.cause_of(slurm.SlurmJob(state, ""), [tmp_path, log]).category == category


def test_a_process_taken_over_leaves_its_successors_claim_alone(record: Path):
    with claimed(record, Path("a.log"), 60.0):
        leave_claim(record, host="elsewhere")
    assert read_claim(claim_path(record)).host == "elsewhere"


def test_a_later_run_leaves_the_claims_of_the_living_alone(record: Path, tmp_path: Path):
    with claimed(record, Path("a.log"), 60.0):
        assert claims.fail_dead_claims(tmp_path / "results") == []
        assert read_claim(claim_path(record)).pid == os.getpid()


def test_giving_up_a_dead_claim_spares_a_newer_one(record: Path):
    leave_claim(record)
    dead = read_claim(claim_path(record))
    leave_claim(record, host="elsewhere")
    claims.give_up(claim_path(record), dead)
    assert read_claim(claim_path(record)).host == "elsewhere"


def test_a_controller_that_fails_to_answer_once_makes_nobody_dead(record: Path, monkeypatch: pytest.MonkeyPatch):
    answers = iter([None, slurm.SlurmJob("RUNNING", "")])
    monkeypatch.setattr(slurm, "ask", lambda job: next(answers))
    monkeypatch.setattr(slurm, "answers", lambda: True)
    leave_claim(record, host="elsewhere", job="7")
    assert read_claim(claim_path(record)).lives()


def test_a_launch_under_way_is_named_with_its_progress(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_claim(record, started_ticks=group_of(os.getpid()).started)
    Progress(SPEC, 0, record).say("iteration 3/8, 87 tok/s")
    capsys.readouterr()
    show(make_plan([SPEC], launches=2), record.parents[2])
    name = f"{SPEC.mode} {SPEC.model.name} {SPEC.quant.name} {SPEC.workload.name}"
    line = f"under way: {name}, launch 0: iteration 3/8, 87 tok/s (process {os.getpid()} on {socket.gethostname()})"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("dead", "count"),
    [({}, 0), ({"host": "elsewhere", "until_s": 1.0}, 0), ({"host": "elsewhere"}, 1)],
    ids=["killed", "over", "on another machine"],
)
def test_a_claim_counts_as_long_as_its_process_may_live(record: Path, dead: dict, count: int) -> None:
    leave_claim(record, **dead)
    assert len(running_launches(record.parents[2])) == count
