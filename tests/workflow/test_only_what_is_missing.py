"""What is measured, measured again or not, and what becomes of damaged results: the stand-in measures, in order."""

import json
import shutil
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace, with_stand_in

from rollout_bench.plan.planfile import is_plan, read_plan


def workspace(folder: Path) -> Workspace:
    """Return a workspace in which a launch of each of two quants is a job of its own."""
    space = with_stand_in(folder, launches=1)
    for model in ("tiny", "tiny-w8a8"):
        (space.path / "models" / model).mkdir(parents=True)
        (space.path / "models" / model / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
        (space.path / "models" / model / "model.safetensors").touch()
    return space


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which both quants are measured; the tests share it and run in order."""
    space = workspace(tmp_path_factory.mktemp("missing"))
    space.ran()
    return space


def record_of(space: Workspace, quant: str) -> Path:
    """Return the only record of a quant."""
    (path,) = space.path.glob(f"results/offline/tiny_{quant}_small-*/launch-0.json")
    return path


def test_a_second_run_measures_nothing_and_writes_nothing(measured: Workspace):
    before = (measured.path / "results" / "summary.md").stat().st_mtime_ns
    assert "Nothing to be done" in measured.snakemake("--cores", "1").stdout
    assert (measured.path / "results" / "summary.md").stat().st_mtime_ns == before


def test_another_order_or_changed_code_measures_nothing(measured: Workspace):
    assert measured.planned("--config", "quants=[w8a8,bf16]").get("measure", 0) == 0
    for part in (
        "src/rollout_bench/commands/measure.py",
        "workflow/rules/measure.smk",
        "src/rollout_bench/report/templates/summary.md.j2",
    ):
        with (measured.path / part).open("a") as file:
            file.write("\n")
    assert measured.planned() == {"summary": 1, "all": 1}


def test_losing_what_snakemake_remembers_measures_nothing(measured: Workspace):
    shutil.rmtree(measured.path / ".snakemake")
    assert measured.measurements() == 0


def test_results_copied_into_a_fresh_clone_are_not_measured_again(measured: Workspace, tmp_path: Path):
    fresh = workspace(tmp_path)
    shutil.copytree(measured.path / "results", fresh.path / "results")
    assert (fresh.measurements(), fresh.measurements("--config", "launches=2")) == (0, 2)


def test_a_changed_setting_or_another_quant_is_measured_anew(measured: Workspace):
    assert measured.measurements("--config", "iterations=4") == 2
    weights = "model_settings={tiny: {weights: {w8a16: tiny-w8a8}}}"
    assert measured.measurements("--config", "quants=[bf16,w8a8,w8a16]", weights) == 1


def test_the_report_shows_summary_and_figures(measured: Workspace):
    measured.ran("--report", "report.html")
    html = (measured.path / "report.html").read_text()
    for name in ("summary.html", "throughput.svg", "speedup.svg", "iterations.svg"):
        assert name in html


@pytest.mark.parametrize("damage", ["{", None])
def test_a_damaged_or_missing_plan_is_written_again(measured: Workspace, damage: str | None) -> None:
    path = measured.path / "results" / "plan.json"
    before = read_plan(path).experiments
    path.unlink() if damage is None else path.write_text(damage)
    measured.ran()
    assert is_plan(path)
    assert read_plan(path).experiments == before
    assert len(stand_in.starts(measured.path)) == 2


def test_an_edited_record_is_reported_and_the_rest_summarised(measured: Workspace) -> None:
    path, summary = record_of(measured, "w8a8"), measured.path / "results" / "summary.txt"
    path.write_text(path.read_text().replace('"prompts": 8', '"prompts": 9', 1))
    for _ in range(2):
        done = measured.snakemake("--cores", "1")
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout
        assert f"{path.relative_to(measured.path)}: sha256: does not match the record" in done.stdout
        assert "move it away to measure that launch again" in done.stdout
        assert "INCOMPLETE: 1 of 2 planned launches measured, 2 experiments; 1 damaged." in summary.read_text()
        assert (measured.path / "results" / "figures" / "throughput.svg").is_file()
    assert len(stand_in.starts(measured.path)) == 2
    path.unlink()
    measured.ran()
    assert "INCOMPLETE" not in summary.read_text()
    assert len(stand_in.starts(measured.path)) == 3
