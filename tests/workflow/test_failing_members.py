"""A quant that always fails: the others get all their launches in one call, which ends with status 1."""

import csv
import subprocess
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace, with_stand_in

QUANTS = ["bf16", "w8a8", "w8a16"]
PRECISION = {"half_width": 0.0001, "max_launches": 4}
LEFT_OUT = "launch-1.json: is not tried, since launch 0 failed in this run"


def workspace(folder: Path, **changes) -> Workspace:
    """Return a workspace in which the stand-in measures three quants in blocks."""
    return with_stand_in(folder, **{**stand_in.IN_BLOCKS, "quants": QUANTS, "interleave": "auto", **changes})


def counted(space: Workspace) -> dict[str, int]:
    """Quant -> records."""
    return {quant: sum(f"_{quant}_" in name for name in space.records) for quant in QUANTS}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, subprocess.CompletedProcess[str]]:
    """Return a workspace after a call in which w8a8 failed and no interval got narrow, and that call.

    The tests share it and run in order.
    """
    space = workspace(tmp_path_factory.mktemp("failed"), launches="auto", precision=PRECISION)
    (space.path / stand_in.FAILING).write_text("w8a8")
    return space, space.snakemake("--cores", "1")


def check_told(space: Workspace, done: subprocess.CompletedProcess[str], measured: dict[str, int]) -> None:
    """Assert what a call says and leaves in which one quant failed."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert counted(space) == measured, done.stdout
    assert len(stand_in.failed(space.path)) == 1, "an engine that was known to fail was started again"
    assert LEFT_OUT in done.stdout
    assert "1 launch failed:" in done.stdout
    assert "the stand-in was told to fail" in done.stdout
    text = (space.path / "results" / "summary.txt").read_text()
    assert text.startswith("INCOMPLETE: ")
    assert "the stand-in was told to fail" in text
    assert not (space.path / "results" / "blocks").exists()


def test_the_others_get_all_their_blocks_in_one_call(failed):
    space, done = failed
    check_told(space, done, {"bf16": 4, "w8a8": 0, "w8a16": 4})


def test_the_next_call_tries_it_again_until_it_is_mended(failed):
    space, _ = failed
    again = space.snakemake("--cores", "1")
    assert again.returncode == 1, again.stdout
    assert (len(stand_in.failed(space.path)), counted(space)) == (2, {"bf16": 4, "w8a16": 4, "w8a8": 0})
    (space.path / stand_in.FAILING).unlink()
    space.ran()
    assert counted(space) == dict.fromkeys(QUANTS, 4)
    assert space.to_measure("results/summary.md"), "it was measured alone, which makes no pairs"
    space.ran()
    assert space.planned("results/summary.md") == {}


def test_the_others_get_their_blocks_where_the_baseline_fails(tmp_path: Path):
    space = workspace(tmp_path, launches=3)
    (space.path / stand_in.FAILING).write_text("bf16")
    (space.path / "mine.yaml").write_text("interleave: auto")  # changes nothing, and gives the summary a name
    done = space.snakemake("--cores", "1", "--configfile", "mine.yaml")
    check_told(space, done, {"bf16": 0, "w8a8": 3, "w8a16": 3})
    texts = {path.read_text() for path in space.path.glob("results/**/summary.txt")}
    assert len(texts) == 1, "its own summary and the one in front differ"
    assert (space.path / "results" / "summaries" / "mine" / "figures" / "throughput.svg").is_file()


def test_where_all_fail_for_one_cause_the_rest_is_left_out(tmp_path: Path):
    space = workspace(tmp_path, launches=3)
    (space.path / stand_in.FAILING).write_text(" ".join(QUANTS))
    done = space.snakemake("--cores", "1")
    assert done.returncode == 1
    assert len(stand_in.failed(space.path)) == len(QUANTS), "a block was started again that cannot succeed"
    assert "Error in rule" not in done.stdout, done.stdout
    assert "CalledProcessError" not in done.stdout
    assert not space.records
    (line_of_failures,) = [line for line in done.stdout.splitlines() if " launches failed: " in line]
    assert line_of_failures.startswith("  No result: 3 launches failed: the stand-in was told to fail -> "), (
        line_of_failures
    )


@pytest.fixture(scope="module")
def never_narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, subprocess.CompletedProcess[str]]:
    """Return a workspace after one call in which w8a8 can't start and no interval gets narrow, and that call."""
    space = workspace(tmp_path_factory.mktemp("auto"), launches="auto", precision=PRECISION, interleave=False)
    (space.path / stand_in.FAILING).write_text("w8a8")
    return space, space.snakemake("--cores", "1")


def test_a_failing_quant_keeps_no_other_from_the_limit(never_narrow):
    workspace, done = never_narrow
    assert counted(workspace) == {"bf16": 4, "w8a8": 0, "w8a16": 4}, done.stdout
    assert [Path(f).stem for f in workspace.failures] == ["launch-0"], "it was tried again in the same run"
    assert done.returncode != 0
    started = [name.rpartition("-")[2] for name in stand_in.starts(workspace.path)]
    assert started == ["0", "0", "1", "1", "2", "2", "3", "3"], "quants take turns in later rounds too"
    assert (workspace.path / "results/summary.txt").read_text().startswith("INCOMPLETE: 8 of 11 planned launches")


def test_more_precision_reuses_what_is_there(never_narrow):
    workspace, _ = never_narrow
    both = ["quants=[bf16,w8a16]"]
    assert workspace.measurements("--config", *both, "precision={max_launches: 5}") == 2


def test_the_rounds_leave_nothing_but_a_plan(never_narrow):
    workspace, _ = never_narrow
    assert not [*workspace.path.glob("*/rounds")]
    with (workspace.path / "results/summary.csv").open() as file:
        planned = {row["quant"]: row["launches_planned"] for row in csv.DictReader(file)}
    assert planned == {"bf16": "4", "w8a8": "3", "w8a16": "4"}
