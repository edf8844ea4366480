"""One process measures a launch at a time, what a dead one left is found out, and the plan says who measures."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_spec

from rollout_bench.cluster import ownership, slurm
from rollout_bench.cluster.ownership import Owner, claimed, read_claim, under_way
from rollout_bench.commands.plan import show
from rollout_bench.contracts.store import claim_path, failure_path, read_failure, record_path, word_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import group_of
from rollout_bench.measure.launch.progress import Progress

EXPERIMENT = "offline/tiny_bf16_small-00000000"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "results" / EXPERIMENT / "launch-0.json"


def nobody(*_: object) -> None:
    raise AssertionError("no claim was to be taken over")


def left_by_a_dead_process(
    record: Path, host: str = socket.gethostname(), job: str | None = None, until_s: float = 1e12
) -> None:
    """Leave the claim of a process that was killed: no process of this pid began when the machine did."""
    path = claim_path(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    dead = Owner(host=host, node=host, pid=os.getpid(), started_ticks=0, job=job, until_s=until_s, log="l.log")
    path.write_text(dead.model_dump_json())


def test_a_claim_excludes_others_until_it_is_given_up(record: Path):
    with claimed(record, Path("a.log"), 60.0, nobody):
        assert read_claim(claim_path(record)).pid == os.getpid()
        with (
            pytest.raises(UserError, match=f"is being measured by process {os.getpid()}"),
            claimed(record, Path("b.log"), 60.0, nobody),
        ):
            pass
    assert not list(claim_path(record).parent.iterdir())


def contend(record: Path, start, told, over) -> None:
    start.wait()
    try:
        with claimed(record, Path("a.log"), 60.0, nobody):
            told.put("won")
            over.wait()
    except UserError as error:
        told.put(error.problem)


def test_exactly_one_of_many_competing_processes_gets_the_launch(record: Path):
    fork = multiprocessing.get_context("fork")
    start, told, over = fork.Barrier(12), fork.Queue(), fork.Event()
    processes = [fork.Process(target=contend, args=(record, start, told, over)) for _ in range(12)]
    for process in processes:
        process.start()
    said = [told.get(timeout=60) for _ in processes]
    over.set()
    for process in processes:
        process.join(timeout=60)
    assert (said.count("won"), sum("is being measured by process" in line for line in said)) == (1, 11)
    assert not list(claim_path(record).parent.iterdir())


def test_a_dead_process_is_reported_and_its_claim_taken_over(record: Path):
    left_by_a_dead_process(record)
    word_path(record).write_text("waiting for devices\n")
    with claimed(record, Path("a.log"), 60.0, ownership.tell_of_dead):
        assert read_claim(claim_path(record)).pid == os.getpid()
    failure = read_failure(failure_path(record))
    assert (failure.category, failure.phase) == ("killed", "waiting for devices")


def test_a_claim_on_an_unreachable_machine_holds(record: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    left_by_a_dead_process(record, host="elsewhere", job="7")
    with pytest.raises(UserError, match="job 7"), claimed(record, Path("a.log"), 60.0, nobody):
        pass


def test_a_remote_claim_expires_with_the_limit_of_its_launch(record: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    left_by_a_dead_process(record, host="elsewhere", until_s=1.0)
    with claimed(record, Path("a.log"), 60.0, ownership.tell_of_dead):
        assert read_claim(claim_path(record)).pid == os.getpid()


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "ROLLOUT_BENCH_JOB"])
def test_a_job_rerun_elsewhere_takes_over_its_own_claim(record: Path, monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(variable, "7")
    left_by_a_dead_process(record, host="elsewhere", job="7")
    with claimed(record, Path("a.log"), 60.0, ownership.tell_of_dead):
        pass


def test_a_later_run_reports_only_unmeasured_launches_as_killed(record: Path, tmp_path: Path):
    left_by_a_dead_process(record)
    measured = record.with_name("launch-1.json")
    left_by_a_dead_process(measured)
    measured.parent.mkdir(parents=True)
    measured.write_text("{}")
    assert ownership.tell_of_claims(tmp_path / "results") == [record]
    assert read_failure(failure_path(record)).log == "l.log"
    assert not failure_path(measured).exists()
    assert ownership.tell_of_claims(tmp_path / "results") == []


def test_the_log_explains_a_job_that_ended_before_its_launch(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    log = ownership.JOB_LOGS / "rule_launch" / "offline_tiny_bf16_small-00000000_0" / "12.log"
    log.parent.mkdir(parents=True)
    log.write_text("/shared/.venv/bin/python: No such file or directory\n\n")
    earlier = log.stat().st_mtime + 1
    assert (ownership.tell_of_jobs([record], since_s=earlier), ownership.tell_of_jobs([record], since_s=0)) == (
        [],
        [record],
    )
    failure = read_failure(failure_path(record))
    assert (failure.category, failure.job) == ("not_begun", "12")
    assert "No such file or directory" in failure.cause


@pytest.mark.parametrize(
    ("said", "category"),
    [
        ("slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***", "time_limit"),
        ("slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***", "preempted"),
        (
            "error: *** JOB 1 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
            "node_failure",
        ),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes", "out_of_memory"),
        ("slurmstepd: error: StepId=5.0 exceeded memory limit (553209856 > 524288000), being killed", "out_of_memory"),
        ("slurmstepd: error: *** STEP 4.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***", "cancelled"),
    ],
)
def test_slurms_words_in_a_jobs_log_tell_why_it_ended(said: str, category: str):
    assert slurm.cause_in_log(f"before\n{said}\nafter").category == category


def test_a_process_taken_over_leaves_its_successors_claim_alone(record: Path):
    with claimed(record, Path("a.log"), 60.0, nobody):
        left_by_a_dead_process(record, host="elsewhere")
    assert read_claim(claim_path(record)).host == "elsewhere"


def test_a_later_run_leaves_the_claims_of_the_living_alone(record: Path, tmp_path: Path):
    with claimed(record, Path("a.log"), 60.0, nobody):
        assert ownership.tell_of_claims(tmp_path / "results") == []
        assert read_claim(claim_path(record)).pid == os.getpid()


def test_giving_up_a_dead_claim_spares_a_newer_one(record: Path):
    left_by_a_dead_process(record)
    dead = read_claim(claim_path(record))
    left_by_a_dead_process(record, host="elsewhere")
    ownership.give_up(claim_path(record), dead)
    assert read_claim(claim_path(record)).host == "elsewhere"


def test_a_controller_that_fails_to_answer_once_makes_nobody_dead(record: Path, monkeypatch: pytest.MonkeyPatch):
    answers = iter([None, slurm.SlurmJob("RUNNING", "n1", "")])
    monkeypatch.setattr(slurm, "ask", lambda job: next(answers))
    monkeypatch.setattr(slurm, "answers", lambda: True)
    left_by_a_dead_process(record, host="elsewhere", job="7")
    assert read_claim(claim_path(record)).lives()


SPEC = make_spec()


@pytest.fixture
def record_1(tmp_path: Path) -> Path:
    """Return where the record of launch 1 is to lie."""
    return record_path(tmp_path, SPEC.mode, SPEC.experiment(), 1)


def claim(record_1: Path, *, ticks: int | None = None, host: str = "", until_s: float = 1e12) -> None:
    """Leave a claim on a launch: of this process, unless it is told otherwise."""
    started = group_of(os.getpid()).started if ticks is None else ticks
    here = socket.gethostname()
    owner = Owner(
        host=host or here, node="n1", pid=os.getpid(), started_ticks=started, job=None, until_s=until_s, log="l.log"
    )
    path = claim_path(record_1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(owner.model_dump_json())


def test_a_launch_under_way_is_named_with_its_progress(
    record_1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim(record_1)
    Progress(SPEC, 1, record_1, None).phase("iteration 3/8, 87 tok/s")
    capsys.readouterr()
    show(make_plan([SPEC], launches=2), tmp_path)
    name = f"{SPEC.mode} {SPEC.model.name} {SPEC.quant.name} {SPEC.workload.name}"
    line = f"under way: {name}, launch 1: iteration 3/8, 87 tok/s (process {os.getpid()} on n1)"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("dead", "there"),
    [({"ticks": 0}, 0), ({"host": "elsewhere", "until_s": 1.0}, 0), ({"host": "elsewhere"}, 1)],
    ids=["killed", "over", "on another machine"],
)
def test_a_claim_counts_as_long_as_its_process_may_live(record_1: Path, tmp_path: Path, dead: dict, there: int) -> None:
    claim(record_1, **dead)
    assert len(under_way(tmp_path)) == there
