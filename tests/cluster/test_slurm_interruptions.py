"""Submissions that are killed, nodes that fail, jobs that are preempted: what is left is measured, nothing twice."""

import os
import signal
import time
from pathlib import Path

import stand_in
from slurm import Slurm
from workflows import ON_SLURM, OnSlurm, until


def made(slurm: Slurm, folder: Path, launches: int, **cluster: object) -> OnSlurm:
    """Return launches of one experiment, of half a minute each until `hurry`."""
    overlay = {"quants": ["bf16"], "launches": launches, "cluster": {"cpus_per_device": 1, **cluster}}
    overlay["engine"] = {"python": stand_in.install(folder / "engine", measure_s=30.0)}
    return OnSlurm(folder / "workflow", slurm, overlay)


def hurry(workflow: OnSlurm) -> None:
    """From now on measurements take no time."""
    stand_in.install(workflow.path.parent / "engine")


def test_jobs_of_a_killed_submission_are_named_and_measured_once(slurm: Slurm, tmp_path: Path):
    workflow = made(slurm, tmp_path, launches=2)
    run = workflow.start(*ON_SLURM, "results/summary.md")
    until("jobs that run", lambda: len(workflow.starts()) == 2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    left = {job for job, state in workflow.jobs().values() if state == "RUNNING"}
    assert len(left) == 2
    hurry(workflow)
    refused = workflow.snakemake(*ON_SLURM, "results/summary.md")
    assert refused.returncode == 1
    assert f"scancel {' '.join(sorted(left, key=int))}" in refused.stdout
    slurm.run("scancel", *left)
    until("an end of the jobs", lambda: "RUNNING" not in {state for _, state in workflow.jobs().values()})
    done = workflow.snakemake(*ON_SLURM, "results/summary.md")
    assert done.returncode == 0, done.stdout
    assert len(workflow.records) == len(stand_in.held(workflow.path)) == 2


def test_a_launch_runs_again_once_its_failed_node_is_back(slurm: Slurm, tmp_path: Path):
    workflow = made(slurm, tmp_path, launches=1)
    run = workflow.start(*ON_SLURM, "results/summary.md")
    until("a job that runs", lambda: workflow.starts())
    nodes = ",".join(slurm.names)
    slurm.run("scontrol", "update", f"node={nodes}", "state=down", "reason=test")
    hurry(workflow)
    until("jobs that wait again", lambda: {state for _, state in workflow.jobs().values()} == {"PENDING"})
    time.sleep(8)  # until what ran is killed; Slurm would give the nodes two minutes for it
    slurm.run("scontrol", "update", f"node={nodes}", "state=resume")
    workflow.run_requeued()
    assert run.wait(timeout=120) == 0, workflow.output
    assert len(workflow.records) == len(stand_in.held(workflow.path)) == 1


def test_a_launch_that_was_preempted_runs_again(slurm: Slurm, tmp_path: Path):
    cluster = {"cpus_per_device": 8, "device_resource": "gpu"}
    overlay = {"quants": ["bf16"], "launches": 1, "cluster": cluster}
    workflow = OnSlurm(tmp_path / "workflow", slurm, overlay).with_made_engine({0: "hang"})
    run = workflow.start(
        *ON_SLURM, "results/summary.md", "--default-resources", "mem_mb=0", "disk_mb=0", "slurm_partition=batch"
    )
    until("a launch that hangs", lambda: workflow.starts())
    workflow.behave({})
    urgent = ["--partition=urgent", "--cpus-per-task=8", "--nodes=2", "--output=/dev/null"]
    slurm.run("sbatch", *urgent, "--wrap=true")
    until("the failure", lambda: list(workflow.path.glob("results/failures/*/*/*.json")))
    assert workflow.failure(0).category == "preempted"
    until("a job that waits again", lambda: workflow.job(0)[1] == "PENDING")
    workflow.run_requeued()
    assert run.wait(timeout=120) == 0, workflow.output
    assert len(workflow.records) == 1
    assert not workflow.failures
