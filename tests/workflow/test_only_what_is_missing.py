"""What is measured, what is measured again and what is not: the stand-in measures, and the tests run in order."""

import json
import shutil
from pathlib import Path

import pytest
import stand_in
from workspace import Workspace


def workspace(folder: Path) -> Workspace:
    """Return a workspace in which a launch of each of two quants is a job of its own."""
    engine = {"python": stand_in.install(folder / "engine")}
    space = Workspace(folder / "workspace", {**stand_in.CONFIG, "launches": 1, "engine": engine})
    for model in ("tiny", "tiny-w8a8"):
        (space.path / "models" / model).mkdir(parents=True)
        (space.path / "models" / model / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    return space


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Both quants, measured."""
    space = workspace(tmp_path_factory.mktemp("missing"))
    done = space.snakemake("--cores", "1")
    assert done.returncode == 0, done.stdout
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
    assert measured.planned("--config", "quants=[w8a8,bf16]").get("launch", 0) == 0
    for part in ("scripts/run_launch.py", "rules/launch.smk", "scripts/summarise.py"):
        with (measured.path / "workflow" / part).open("a") as file:
            file.write("\n# changed\n")
    assert measured.planned() == {"summary": 1, "all": 1}


def test_losing_what_snakemake_remembers_measures_nothing(measured: Workspace):
    shutil.rmtree(measured.path / ".snakemake")
    assert measured.measurements() == 0


def test_results_copied_into_a_fresh_clone_are_not_measured_again(measured: Workspace, tmp_path: Path):
    fresh = workspace(tmp_path)
    shutil.copytree(measured.path / "results", fresh.path / "results")
    assert fresh.measurements() == 0
    assert fresh.measurements("--config", "launches=2") == 2


def test_a_changed_setting_or_another_quant_is_measured_anew(measured: Workspace):
    assert measured.measurements("--config", "iterations=4") == 2
    weights = "model_settings={tiny: {weights: {w8a16: tiny-w8a8}}}"
    assert measured.measurements("--config", "quants=[bf16,w8a8,w8a16]", weights) == 1


def test_forcing_a_record_is_refused_and_loses_nothing(measured: Workspace):
    record = record_of(measured, "bf16")
    before = record.read_bytes()
    done = measured.snakemake("--cores", "1", "--force", str(record.relative_to(measured.path)))
    assert done.returncode == 1
    assert f"{record.relative_to(measured.path)}: is measured already" in done.stdout
    assert record.read_bytes() == before


def test_a_failing_launch_leaves_others_alone_and_is_tried_again(measured: Workspace):
    kept, deleted = record_of(measured, "bf16"), record_of(measured, "w8a8")
    before = kept.read_bytes()
    deleted.unlink()
    (measured.path / stand_in.FAILING).write_text("w8a8")
    done = measured.snakemake("--cores", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert {path.split("_")[1] for path in measured.failures} == {"w8a8"}
    summary = (measured.path / "results" / "summary.txt").read_text()
    assert summary.startswith("INCOMPLETE: 1 of 2 planned launches")
    assert "the stand-in was told to fail" in summary
    (measured.path / stand_in.FAILING).unlink()
    assert measured.snakemake("--cores", "1").returncode == 0
    assert deleted.is_file()
    assert kept.read_bytes() == before
    assert len(stand_in.starts(measured.path)) == 3
    assert not (measured.path / "results" / "summary.txt").read_text().startswith("INCOMPLETE")


def test_the_report_shows_summary_and_figures(measured: Workspace):
    done = measured.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stdout
    html = (measured.path / "report.html").read_text()
    for name in ("summary.html", "throughput.svg", "speedup.svg", "iterations.svg"):
        assert name in html


def test_an_edited_record_is_an_error_naming_file_and_field(measured: Workspace):
    renamed, edited = record_of(measured, "bf16"), record_of(measured, "w8a8")
    renamed.write_text(renamed.read_text().replace('"elapsed_s": ', '"elapsed": ', 1))
    edited.write_text(edited.read_text().replace('"prompts": 8', '"prompts": 9', 1))
    done = measured.snakemake("--cores", "1", "results/summary.md")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    for record, problem in ((renamed, "iterations.0.elapsed"), (edited, "the record was edited")):
        (line,) = {line for line in done.stdout.splitlines() if f"{record.relative_to(measured.path)}: " in line}
        assert problem in line
