"""`launches: auto` without blocks: rounds inside one run, a failure beside them, more precision later."""

import csv
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace

NEVER_NARROW = {
    "launches": "auto",
    "interleave": False,
    "precision": {"half_width": 0.0001, "max_launches": 4},
    "quants": ["bf16", "w8a8", "w8a16"],
    "model_settings": {"tiny": {"synthetic": {"preset": "qwen3-tiny"}}},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, int]:
    """Return a workspace after one run in which w8a8 can't start and no interval gets narrow.

    What it said, its status.
    """
    folder = tmp_path_factory.mktemp("auto")
    engine = {"python": stand_in.install(folder / "engine")}
    workspace = Workspace(folder / "workspace", {**stand_in.CONFIG, **NEVER_NARROW, "engine": engine})
    (workspace.path / stand_in.FAILING).write_text("w8a8")
    done = workspace.snakemake("--cores", "1")
    return workspace, done.stdout, done.returncode


def launches(workspace: Workspace) -> dict[str, list[int]]:
    """Quant -> indices of the launches that are measured."""
    found: dict[str, list[int]] = {}
    for record in sorted(workspace.records):
        name = Path(record).parent.name
        found.setdefault(name.split("_")[1], []).append(int(Path(record).stem.removeprefix("launch-")))
    return found


def test_a_failing_quant_keeps_no_other_from_the_limit(measured: tuple[Workspace, str, int]):
    workspace, said, status = measured
    assert launches(workspace) == {"bf16": [0, 1, 2, 3], "w8a16": [0, 1, 2, 3]}, said
    assert sorted(Path(f).stem for f in workspace.failures) == ["launch-0", "launch-1", "launch-2"]
    assert status != 0
    started = [name.rpartition("-")[2] for name in stand_in.starts(workspace.path)]
    assert started == ["0", "0", "1", "1", "2", "2", "3", "3"], "quants take turns in later rounds too"
    assert (workspace.path / "results/summary.txt").read_text().startswith("INCOMPLETE: 8 of 11 planned launches")


def test_more_precision_reuses_what_is_there(measured: tuple[Workspace, str, int]):
    workspace, _, _ = measured
    both = ["quants=[bf16,w8a16]"]
    assert workspace.measurements("--config", *both, "precision={max_launches: 5}") == 2


def test_nothing_is_left_of_the_rounds(measured: tuple[Workspace, str, int]):
    workspace, _, _ = measured
    assert not (workspace.path / "results/rounds").exists()
    assert not (workspace.path / "logs/rounds").exists()
    with (workspace.path / "results/summary.csv").open() as file:
        planned = {row["quant"]: row["launches_planned"] for row in csv.DictReader(file)}
    assert planned == {"bf16": "4", "w8a8": "3", "w8a16": "4"}
