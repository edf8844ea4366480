"""A Slurm of two nodes for each file of tests here; without Slurm on this machine they are skipped, but not in CI."""

import os
from collections.abc import Iterator

import pytest
from slurm import Slurm, missing, running

REQUIRED = "ROLLOUT_BENCH_TESTS_NEED_SLURM"
"""Set where tests must fail, not be skipped, if there is no Slurm: .ci/run sets it."""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes of four GPUs and eight NPUs."""
    lacks = "no Slurm here; to run them: apt-get install slurm-wlm, then make test" if missing() else ""
    if not lacks and os.geteuid() != 0:
        lacks = "a node of Slurm needs root; to run them: sudo make test"
    if lacks and REQUIRED in os.environ:
        pytest.fail(lacks)
    if lacks:
        pytest.skip(lacks)
    with running(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm
