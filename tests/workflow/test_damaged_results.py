"""What snakemake does about results that are damaged: it says so each time, makes the rest, and mends the plan."""

import json
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace

from rollout_bench.plan.planfile import is_plan, read_plan


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two launches, measured by the instant stand-in."""
    folder = tmp_path_factory.mktemp("damaged")
    python = stand_in.install(folder / "stand-in")
    workspace = Workspace(folder / "clone", {**stand_in.CONFIG, "launches": 1, "engine": {"python": python}})
    for model in ("tiny", "tiny-w8a8"):
        model_folder = workspace.path / "models" / model
        model_folder.mkdir(parents=True)
        (model_folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    done = workspace.snakemake("--cores", "1")
    assert done.returncode == 0, done.stdout
    assert len(workspace.records) == 2
    return workspace


def record(workspace: Workspace) -> Path:
    return workspace.path / "results" / sorted(workspace.records)[1]


@pytest.mark.parametrize("damage", ["{", None])
def test_a_damaged_or_missing_plan_is_written_again(measured: Workspace, damage: str | None) -> None:
    path = measured.path / "results" / "plan.json"
    before = read_plan(path).fingerprint
    path.unlink() if damage is None else path.write_text(damage)
    done = measured.snakemake("--cores", "1")
    assert done.returncode == 0, done.stdout
    assert is_plan(path)
    assert read_plan(path).fingerprint == before
    assert len(stand_in.starts(measured.path)) == 2


def test_a_damaged_record_is_reported_and_the_rest_summarised(measured: Workspace) -> None:
    path, summary = record(measured), measured.path / "results" / "summary.txt"
    path.write_bytes(path.read_bytes()[:-40])
    for _ in range(2):
        done = measured.snakemake("--cores", "1")
        assert done.returncode == 1, done.stdout
        assert f"{path.relative_to(measured.path)}: is not whole JSON" in done.stdout
        assert "delete it to measure that launch again" in done.stdout
        assert "INCOMPLETE: 1 of 2 planned launches measured, 2 experiments; 1 damaged." in summary.read_text()
        assert (measured.path / "results" / "figures" / "throughput.svg").is_file()
    assert len(stand_in.starts(measured.path)) == 2
    path.unlink()
    done = measured.snakemake("--cores", "1")
    assert done.returncode == 0, done.stdout
    assert "INCOMPLETE" not in summary.read_text()
    assert len(stand_in.starts(measured.path)) == 3
