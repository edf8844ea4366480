"""How launches fail on a real Slurm, and what is told of it: the engine is made up, all else is real."""

import os
import signal

import pytest
from slurm import Slurm
from workflows import ON_SLURM, OnSlurm, until

from rollout_bench.cluster.claims import claim_path, read_claim

LAUNCHES = {
    0: "hang",  # until somebody kills the measuring command
    1: "no memory for kv",
    2: "no driver at first",
    3: "hang",  # until its time limit
    4: "hang",  # until somebody cancels its job
    5: "take 1 GiB",  # where 500 MB were asked for
}


@pytest.fixture(scope="module")
def failed(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> OnSlurm:
    """Six launches that are not measured, or not at first."""
    overlay = {"quants": ["bf16"], "launches": 6}
    workflow = OnSlurm(tmp_path_factory.mktemp("failures"), slurm, overlay).with_made_engine(LAUNCHES)
    run = workflow.start(*ON_SLURM, "results/summary.md", "--default-resources", "mem_mb=500", "disk_mb=0")
    until("launches that hang", lambda: all(workflow.starts(launch) for launch in (0, 3, 4)))
    slurm.run("scontrol", "update", f"job={workflow.job(3)[0]}", "EndTime=now+1")
    slurm.run("scancel", workflow.job(4)[0])
    (spec,) = workflow.path.glob("results/offline/*/spec.json")
    os.kill(read_claim(claim_path(spec.with_name("launch-0.json"))).pid, signal.SIGKILL)
    assert run.wait(timeout=200) == 1, workflow.output
    return workflow


@pytest.mark.parametrize(
    ("launch", "category"),
    [(1, "no_kv_cache_memory"), (3, "time_limit"), (4, "cancelled"), (5, "out_of_memory"), (0, "killed")],
)
def test_a_failure_names_its_job_and_is_not_tried_again(failed: OnSlurm, launch: int, category: str):
    failure = failed.failure(launch)
    assert failure.category == category
    assert failure.node in failed.slurm.names
    assert failure.job is not None
    assert failure.fix
    assert len(failed.starts(launch)) == 1


def test_a_launch_whose_node_was_at_fault_is_tried_again(failed: OnSlurm):
    assert (len(failed.starts(2)), {name.partition("/launch-")[2] for name in failed.records}) == (2, {"2.json"})


def test_the_summary_of_what_there_is_names_the_failures(failed: OnSlurm):
    summary = (failed.path / "results" / "summary.txt").read_text()
    assert "1 of 6 planned launches measured" in summary
    assert "the job ran into its time limit" in summary


def test_the_next_run_wants_failed_launches_and_finds_no_claim(failed: OnSlurm):
    assert not list(failed.path.glob("results/.started/*/*/*"))
    wanted = {name.partition("/launch-")[2] for name in failed.to_measure(*ON_SLURM)}
    # a busy machine makes the one that was measured invalid, so that it is wanted, too
    assert wanted - {"2.json"} == {"0.json", "1.json", "3.json", "4.json", "5.json"}
