"""Shared by all tests: helpers can be imported, launches lease from a folder of their own, slowness fails nothing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

# By default an example may take 200 ms, and making it a second: on a machine with other work to do some take longer.
settings.register_profile("however_slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("however_slow")


@pytest.fixture(autouse=True, scope="session")
def own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests don't wait for what else measures on this machine; where they must, the variable is set from outside."""
    with pytest.MonkeyPatch.context() as patch:
        if "ROLLOUT_BENCH_LEASES" not in os.environ:
            patch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path_factory.mktemp("leases")))
        yield
