"""Several launches in one allocation of a real Slurm, and the devices that it grants."""

from __future__ import annotations

from pathlib import Path

from slurm import Slurm
from workflows import ON_SLURM, OnSlurm

from rollout_bench.cluster.slurm import npus_in


def test_launches_of_an_experiment_share_a_job_and_what_was_measured_before_a_failure_stays(
    slurm: Slurm, tmp_path: Path
):
    cluster = {"cpus_per_device": 1, "device_resource": "gpu", "launches_per_job": 2, "runtime_min": 7}
    overlay = {"quants": ["bf16"], "launches": 4, "cluster": cluster}
    workflow = OnSlurm(tmp_path / "workflow", slurm, overlay).with_made_engine({1: "no driver at first"})
    done = workflow.snakemake(*ON_SLURM, "results/summary.md")
    assert done.returncode == 0, done.stdout
    assert [len(workflow.starts(launch)) for launch in range(4)] == [1, 2, 1, 1]
    jobs = [slurm.job(job) for job, _ in workflow.jobs().values()]
    assert len(jobs) == 2
    for job in jobs:
        assert job["TimeLimit"] == "00:14:00"
        assert job["JOB_GRES"] == "gpu:fake:1"
        assert job["NumCPUs"] == "1"


def test_the_npus_that_slurm_granted_are_known_by_number(slurm: Slurm):
    with_two = ["srun", "--quiet", "--gres=npu:2", "--nodelist", slurm.names[1]]
    within = 'scontrol -d show job "$SLURM_JOB_ID"'
    first = slurm.run(*with_two, "sh", "-c", within)
    assert npus_in(first, slurm.names[1]) == [0, 1]
    assert npus_in(first, slurm.names[0]) is None
