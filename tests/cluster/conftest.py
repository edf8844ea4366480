"""A Slurm of two nodes for the tests here; without Slurm on this machine they are skipped, but not in CI."""

import os
from collections.abc import Iterator

import pytest
from slurm import Slurm, missing, running

REQUIRED = "ROLLOUT_BENCH_TESTS_NEED_SLURM"
"""Set where tests must fail, not be skipped, if there is no Slurm: .ci/run sets it."""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes of two GPUs and eight NPUs."""
    if missing() or os.geteuid() != 0:
        end = pytest.fail if REQUIRED in os.environ else pytest.skip
        end("no Slurm here, or not root, as its nodes need; to run them: apt-get install slurm-wlm, sudo make test")
    with running(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm
