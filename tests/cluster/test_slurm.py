"""Launches as jobs of a real Slurm: each measured once, whatever becomes of controller, submission, node or job.

One Slurm and three runs: one whose launches fail, one that is killed, loses its nodes and is preempted, whose tests run
in order, and one that goes well though the controller is restarted. That is the last, since Slurm 22.05 never frees the
devices of jobs that run meanwhile.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
import stand_in
from slurm import Slurm
from workflows import ON_SLURM, OnSlurm, until

from rollout_bench.cluster.ownership import claim_path, read_claim
from rollout_bench.cluster.slurm import npus_in

BEHAVIOUR = {
    0: "hang",  # until somebody kills the measuring command
    1: "no memory for kv",
    2: "no driver at first",
    3: "hang",  # until its time limit
    4: "hang",  # until somebody cancels its job
    5: "take 1 GiB",  # where 500 MB were asked for
}
CATEGORIES = {0: "killed", 1: "no_kv_cache_memory", 3: "time_limit", 4: "cancelled", 5: "out_of_memory"}


@pytest.fixture(scope="module")
def failed(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> OnSlurm:
    """Six launches that are not measured, or not at first."""
    workflow = OnSlurm(tmp_path_factory.mktemp("failures"), slurm, {"quants": ["bf16"], "launches": 6})
    workflow.with_made_engine(BEHAVIOUR)
    run = workflow.start(*ON_SLURM, "results/summary.md", "--default-resources", "mem_mb=500", "disk_mb=0")
    until("launches that hang", lambda: all(workflow.starts(launch) for launch in (0, 3, 4)))
    slurm.run("scontrol", "update", f"job={workflow.job(3)[0]}", "EndTime=now+1")
    slurm.run("scancel", workflow.job(4)[0])
    (spec,) = workflow.path.glob("results/offline/*/spec.json")
    os.kill(read_claim(claim_path(spec.with_name("launch-0.json"))).pid, signal.SIGKILL)
    assert run.wait(timeout=200) == 1, workflow.output
    return workflow


def test_failures_tell_category_node_and_job_and_are_not_retried(failed: OnSlurm):
    for launch, category in CATEGORIES.items():
        failure = failed.failure(launch)
        assert failure.category == category
        assert failure.node in failed.slurm.names
        assert failure.job is not None
        assert failure.fix
        assert len(failed.starts(launch)) == 1


def test_a_launch_whose_node_was_at_fault_is_tried_again(failed: OnSlurm):
    assert len(failed.starts(2)) == 2
    assert [name.rpartition("/")[2] for name in failed.records] == ["launch-2.json"]


def test_the_summary_names_failures_and_the_next_run_retries_them(failed: OnSlurm):
    summary = (failed.path / "results" / "summary.txt").read_text()
    assert "1 of 6 planned launches measured" in summary
    assert "the job ran into its time limit" in summary
    assert not list(failed.path.glob("results/.started/*/*/*")), "a claim was left"
    assert failed.measurements(*ON_SLURM) == 5


@pytest.fixture(scope="module")
def interrupted(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> OnSlurm:
    """Two launches that hang, in jobs that outlived the Snakemake that had submitted them."""
    overlay = {"quants": ["bf16"], "launches": 2}
    workflow = OnSlurm(tmp_path_factory.mktemp("interrupted"), slurm, overlay)
    workflow.with_made_engine({0: "hang", 1: "hang"})
    run = workflow.start(*ON_SLURM, "results/summary.md")
    until("jobs that run", lambda: len(workflow.starts()) == 2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert [state for _, state in workflow.jobs().values()] == ["RUNNING"] * 2
    return workflow


def test_what_a_killed_submission_left_running_is_cancelled(interrupted: OnSlurm):
    left = {job for job, _ in interrupted.jobs().values()}
    interrupted.start(*ON_SLURM, "results/summary.md")
    until("jobs that run anew", lambda: len(interrupted.starts()) == 4)
    assert "Cancelling what an earlier run has left on the cluster: job" in interrupted.output
    assert left.isdisjoint(job for job, _ in interrupted.jobs().values())


def test_launches_of_a_node_that_goes_down_run_again(interrupted: OnSlurm):
    nodes = f"node={','.join(interrupted.slurm.names)}"
    interrupted.slurm.run("scontrol", "update", nodes, "state=down", "reason=test")
    until("jobs that wait again", lambda: {state for _, state in interrupted.jobs().values()} == {"PENDING"})
    until("failures", lambda: len(interrupted.failures) == 2)
    assert {interrupted.failure(launch).category for launch in range(2)} == {"node_failure"}
    time.sleep(4)  # until Slurm has killed what is left; it would give the nodes two minutes for it
    interrupted.slurm.run("scontrol", "update", nodes, "state=resume")
    interrupted.run_requeued()
    until("jobs that run anew", lambda: len(interrupted.starts()) == 6)


def test_a_launch_that_was_preempted_runs_again(interrupted: OnSlurm):
    interrupted.behave({})
    urgent = ["--partition=urgent", "--cpus-per-task=8", "--nodes=2", "--output=/dev/null", "--wrap=true"]
    interrupted.slurm.run("sbatch", *urgent)
    until("preemption", lambda: [interrupted.failure(launch).category for launch in range(2)] == ["preempted"] * 2)
    until("jobs that wait again", lambda: {state for _, state in interrupted.jobs().values()} == {"PENDING"})
    interrupted.run_requeued()
    assert interrupted.running.wait(timeout=120) == 0, interrupted.output
    assert len(interrupted.records) == 2
    assert not interrupted.failures


@pytest.fixture(scope="module")
def measured(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> OnSlurm:
    """Ten launches, two in a job, during which the controller is killed and started again."""
    folder = tmp_path_factory.mktemp("jobs")
    engine = {"python": stand_in.install(folder / "engine", measure_s=1.0)}
    overlay = {**stand_in.IN_BLOCKS, "launches": 5, "interleave": True, "engine": engine}
    workflow = OnSlurm(folder / "workflow", slurm, overlay)
    run = workflow.start(*ON_SLURM, "results/summary.md")
    until("jobs that run", lambda: len(workflow.starts()) >= 2)
    slurm.stop_controller()
    slurm.start_controller()
    assert run.wait(timeout=200) == 0, workflow.output
    return workflow


def test_each_launch_is_measured_once_though_the_controller_restarted(measured: OnSlurm):
    assert len(measured.records) == len(measured.starts()) == len(set(measured.starts())) == 10
    assert "10 of 10 planned launches measured" in (measured.path / "results" / "summary.txt").read_text()
    assert measured.measurements(*ON_SLURM) == 0


def test_a_block_is_one_job_and_no_two_share_a_device(measured: OnSlurm):
    assert sum(comment.startswith("rule_block") for comment in measured.jobs()) == 5
    held = stand_in.held(measured.path)
    assert len(held) == 10
    for one in held:
        for other in held:
            apart = one.node != other.node or one.device != other.device
            assert one == other or apart or one.ended_s <= other.began_s or other.ended_s <= one.began_s


def test_the_npus_that_slurm_granted_are_known_by_number(slurm: Slurm):
    with_two = ["srun", "--quiet", "--gres=npu:2", "--nodelist", slurm.names[1]]
    within = slurm.run(*with_two, "sh", "-c", 'scontrol -d show job "$SLURM_JOB_ID"')
    assert [npus_in(within, name) for name in slurm.names] == [None, [0, 1]]
