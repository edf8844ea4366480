"""A member of a block that always fails: the others get all their blocks in one call, which ends with status 1."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace

QUANTS = ["bf16", "w8a8", "w8a16"]
NEVER_NARROW = {"launches": "auto", "precision": {"half_width": 0.0001, "max_launches": 4}}


def workspace(folder: Path, **changes) -> Workspace:
    """Return a workspace in which the stand-in measures three quants in blocks."""
    engine = {"python": stand_in.install(folder / "engine")}
    settings = {"quants": QUANTS, "interleave": "auto", "engine": engine}
    return Workspace(folder / "workspace", {**stand_in.IN_BLOCKS, **settings, **changes})


def counted(space: Workspace) -> dict[str, int]:
    """Quant -> records."""
    return {quant: sum(f"_{quant}_" in name for name in space.records) for quant in QUANTS}


@pytest.fixture(scope="module", params=[({"launches": 3}, 3), (NEVER_NARROW, 4)], ids=["launches_3", "launches_auto"])
def failed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, subprocess.CompletedProcess[str], int]:
    """Return a workspace after a call in which w8a8 failed, that call, and the number of blocks that it made.

    The tests share it and run in order.
    """
    launches, blocks = request.param
    space = workspace(tmp_path_factory.mktemp("failed"), **launches)
    (space.path / stand_in.FAILING).write_text("w8a8")
    return space, space.snakemake("--cores", "1"), blocks


def check_told(space: Workspace, done: subprocess.CompletedProcess[str], measured: dict[str, int]) -> None:
    """Assert what a call says and leaves in which one quant failed."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert counted(space) == measured, done.stdout
    assert len(stand_in.failed(space.path)) == 1, "an engine that was known to fail was started again"
    assert "launch-1.json: is left out of its block, since launch 0 failed in this run" in done.stdout
    assert "1 launch failed; the others of their blocks were measured:" in done.stdout
    assert "the stand-in was told to fail" in done.stdout
    text = (space.path / "results" / "summary.txt").read_text()
    assert text.startswith("INCOMPLETE: ")
    assert "the stand-in was told to fail" in text
    assert not (space.path / "results" / "blocks").exists()


def test_the_others_get_all_their_blocks_in_one_call_which_tells_of_what_failed(failed):
    space, done, blocks = failed
    check_told(space, done, {"bf16": blocks, "w8a8": 0, "w8a16": blocks})


def test_the_next_call_tries_it_again_and_the_one_after_finds_it_mended(failed):
    space, _, blocks = failed
    assert space.planned("results/summary.md"), "a dry run sees what is missing"
    again = space.snakemake("--cores", "1")
    assert again.returncode == 1, again.stdout
    assert len(stand_in.failed(space.path)) == 2
    assert counted(space) == {"bf16": blocks, "w8a16": blocks, "w8a8": 0}
    (space.path / stand_in.FAILING).unlink()
    mended = space.snakemake("--cores", "1")
    assert mended.returncode == 0, mended.stdout
    assert counted(space) == dict.fromkeys(QUANTS, blocks)
    assert space.planned("results/summary.md") == {}


@pytest.mark.parametrize(("launches", "blocks"), [({"launches": 3}, 3), (NEVER_NARROW, 3)])
def test_the_others_get_all_their_blocks_where_the_baseline_fails_but_no_more_for_precision(
    tmp_path: Path, launches: dict, blocks: int
):
    space = workspace(tmp_path, **launches)
    (space.path / stand_in.FAILING).write_text("bf16")
    check_told(space, space.snakemake("--cores", "1"), {"bf16": 0, "w8a8": blocks, "w8a16": blocks})


def test_where_all_of_a_block_fail_its_job_does(tmp_path: Path):
    space = workspace(tmp_path)
    (space.path / stand_in.FAILING).write_text(" ".join(QUANTS))
    done = space.snakemake("--cores", "1", "--quiet", "host", "reason")  # with what Snakemake says of each job
    assert done.returncode == 1
    assert "Error in rule block" in done.stdout
    assert not space.records
