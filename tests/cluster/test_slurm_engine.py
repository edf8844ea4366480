"""From the profile to the summary with the real engine, as a user does: a checkpoint and a launch, each a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm import Slurm
from workflows import ON_SLURM, OnSlurm
from workspace import TINY

from rollout_bench.contracts.store import read_record


@pytest.mark.engine
@pytest.mark.untimed
def test_a_real_launch_goes_through_slurm(slurm: Slurm, tmp_path: Path):
    overlay = {**TINY, "quants": ["bf16"], "isolation": None, "cluster": {"cpus_per_device": 2}}
    workflow = OnSlurm(tmp_path / "workflow", slurm, overlay)
    done = workflow.snakemake(*ON_SLURM, "results/summary.md", "--default-resources", "mem_mb=6000", "disk_mb=0")
    assert done.returncode == 0, done.stdout
    (name,) = workflow.records
    record = read_record(workflow.path / "results" / name)
    assert [iteration.output_tokens for iteration in record.iterations] == [32, 32, 32]
    jobs = {comment: slurm.job(job) for comment, (job, _) in workflow.jobs().items()}
    (launch,) = [job for comment, job in jobs.items() if comment.startswith("rule_launch")]
    assert len(jobs) == 2
    assert launch["OverSubscribe"] == "NO"  # the node for itself, as on cpu by default
    assert launch["TimeLimit"] == "00:15:00"  # timeout_s and 5 minutes
