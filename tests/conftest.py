"""Shared by all tests: helpers can be imported, nothing of the clone or its user is touched, slowness fails nothing."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]
GUARD = Path(__file__).parent / "fixtures" / "guard"

gc.set_threshold(50_000)  # as in guard/sitecustomize.py

THOROUGH = "ROLLOUT_BENCH_TESTS_THOROUGH"
"""How many times as many examples each property test tries, others in each run; without it they are the same in all."""

# By default an example may take 200 ms, and making it a second: on a machine with other work to do some take longer.
settings.register_profile(
    "however_slow",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=40 * int(os.environ.get(THOROUGH, "1")),
    derandomize=THOROUGH not in os.environ,  # what nobody has changed does not begin to fail by itself
)
settings.load_profile("however_slow")


def pytest_collection_finish() -> None:
    """Leave out of all garbage collections what was imported and collected: pytest asks for several as it ends."""
    gc.freeze()


HELD = ("results", "models", "logs", ".snakemake")
"""What runs leave in the clone."""

SET_BY_USERS = ("ROLLOUT_BENCH_", "SLURM_", "SNAKEMAKE_", "TORCHINDUCTOR_", "TRITON_", "VLLM_", "XDG_")
"""How variables begin that change what is measured, or where anything is kept; those of the tests themselves stay."""


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Yield the folder that tests work in, with links to what git holds; HOME and leases are of this session, too.

    Yields the file in which `keep_out` notes what was refused, in this process and in those that tests start.
    """
    import keep_out

    from rollout_bench.measure.machine.leases import DEFAULT, VARIABLE

    session = tmp_path_factory.mktemp("session")
    project = session / "project"
    project.mkdir()
    for name in LINKED:
        (project / name).symlink_to(REPOSITORY / name)
    held = [REPOSITORY / name for name in HELD] + [DEFAULT, Path.home() / ".cache" / "rollout-bench"]
    guarded = [str(path) for path in (session / "refused", REPOSITORY, *held)]
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(SET_BY_USERS) and not name.startswith("ROLLOUT_BENCH_TESTS_"):
                patch.delenv(name)
        patch.setattr("rollout_bench.plan.matrix.emulates_bf16", lambda: False)  # whatever runs the tests
        patch.setattr(os, "fsync", lambda _: None)  # no test loses what a machine without power would
        patch.setenv("HOME", str(shared_home(tmp_path_factory, request.config)))
        patch.setenv(VARIABLE, str(session / "leases"))
        patch.setenv(keep_out.VARIABLE, "\n".join(guarded))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH")])))
        patch.chdir(project)
        end = keep_out.watch(*guarded)
        yield session
        end()


LINKED = ("config.yaml", "config", "docs", "src", "workflow")
"""What tests name by a relative path."""


def shared_home(tmp_path_factory: pytest.TempPathFactory, config: pytest.Config) -> Path:
    """Make the HOME of this run of pytest, one for all its processes; what engines compile outlives it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "home"
    caches = home / ".cache" / "rollout-bench"
    caches.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (caches / "compile").symlink_to(config.cache.mkdir("compile"))
    return home


@pytest.fixture(autouse=True)
def kept_out(elsewhere: Path) -> Iterator[None]:
    """Fail a test that touched what the clone or its user holds, or left something where all tests work."""
    yield
    os.environ.pop("PYTHONSAFEPATH", None)  # a command called in this process sets it for all that it starts
    refused = elsewhere / "refused"
    if refused.exists():
        lines = refused.read_text()
        refused.unlink()
        pytest.fail(f"touched what no test may depend on:\n{lines}", pytrace=False)
    left = {path.name for path in (elsewhere / "project").iterdir()} - set(LINKED)
    assert not left, "left behind in the working folder of all tests: use tmp_path"
