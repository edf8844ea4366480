"""The devices that a real Slurm grants."""

from slurm import Slurm

from rollout_bench.cluster.slurm import npus_in


def test_the_npus_that_slurm_granted_are_known_by_number(slurm: Slurm):
    with_two = ["srun", "--quiet", "--gres=npu:2", "--nodelist", slurm.names[1]]
    first = slurm.run(*with_two, "sh", "-c", 'scontrol -d show job "$SLURM_JOB_ID"')
    assert npus_in(first) == [0, 1]
