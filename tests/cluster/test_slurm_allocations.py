"""The devices that a real Slurm grants."""

from slurm import Slurm

from rollout_bench.cluster.slurm import npus_in


def test_the_npus_that_slurm_granted_are_known_by_number(slurm: Slurm):
    with_two = ["srun", "--quiet", "--gres=npu:2", "--nodelist", slurm.names[1]]
    within = 'scontrol -d show job "$SLURM_JOB_ID"'
    first = slurm.run(*with_two, "sh", "-c", within)
    assert npus_in(first, slurm.names[1]) == [0, 1]
    assert npus_in(first, slurm.names[0]) is None
