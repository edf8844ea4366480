"""Shared by all tests: the helpers beside this file can be imported, and launches lease from a folder of their own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))


@pytest.fixture(autouse=True, scope="session")
def own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests don't wait for what else measures on this machine; where they must, the variable is set from outside."""
    with pytest.MonkeyPatch.context() as patch:
        if "ROLLOUT_BENCH_LEASES" not in os.environ:
            patch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path_factory.mktemp("leases")))
        yield
