"""Launches as jobs of a real Slurm: each on devices of its own, each measured once, whatever becomes of controller."""

import pytest
import stand_in
from slurm import Slurm
from workflows import ON_SLURM, OnSlurm, until

from rollout_bench.cluster.slurm import npus_in


@pytest.fixture(scope="module")
def measured(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> OnSlurm:
    """Six launches on four GPUs, during which the controller is away until Snakemake asked it in vain."""
    folder = tmp_path_factory.mktemp("jobs")
    python = stand_in.install(folder / "engine", measure_s=2.0)
    workflow = OnSlurm(folder / "workflow", slurm, {"engine": {"python": python}, "launches": 3})
    run = workflow.start(*ON_SLURM, "results/summary.md")
    until("jobs that run", lambda: len(workflow.starts()) >= 2)
    slurm.stop_controller()
    until("a question without an answer", lambda: "Falling back to 'sacct'" in workflow.output)
    slurm.start_controller()
    assert run.wait(timeout=400) == 0, workflow.output
    return workflow


def test_every_launch_is_measured_once_despite_an_absent_controller(measured: OnSlurm):
    assert (len(measured.records), sorted(measured.starts()), len(measured.starts())) == (
        6,
        sorted(set(measured.starts())),
        6,
    )
    assert "6 of 6 planned launches measured" in (measured.path / "results" / "summary.txt").read_text()


def test_no_two_launches_share_a_device_at_a_time(measured: OnSlurm):
    held = stand_in.held(measured.path)
    assert len(held) == 6
    for one in held:
        for other in held:
            apart = one.node != other.node or one.device != other.device
            assert one == other or apart or one.ended_s <= other.began_s or other.ended_s <= one.began_s


def test_the_next_run_measures_nothing(measured: OnSlurm):
    assert measured.measurements(*ON_SLURM) == 0


def test_the_npus_that_slurm_granted_are_known_by_number(slurm: Slurm):
    with_two = ["srun", "--quiet", "--gres=npu:2", "--nodelist", slurm.names[1]]
    first = slurm.run(*with_two, "sh", "-c", 'scontrol -d show job "$SLURM_JOB_ID"')
    assert npus_in(first) == [0, 1]
