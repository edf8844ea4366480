"""The whole path on the real engine: what is measured, what is measured again, and what is not.

The tests share one workspace and run in order; each engine start costs about 15 s.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from launching import own_flags
from workspace import TINY, Workspace

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which bf16 and w8a8 of a tiny model were measured, one launch each."""
    workspace = Workspace(tmp_path_factory.mktemp("matrix") / "workspace", TINY)
    done = workspace.snakemake()
    assert done.returncode == 0, done.stdout
    return workspace


def record_of(workspace: Workspace, quant: str) -> Path:
    """Return the only record of that quant that was measured by `measured`."""
    (path,) = workspace.path.glob(f"results/offline/tiny_{quant}_short-*/launch-0.json")
    return path


def rows(workspace: Workspace) -> list[dict[str, str]]:
    """Return the rows of summary.csv."""
    with (workspace.path / "results/summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_record_counts_every_token_of_every_sample(measured: Workspace):
    record = read_record(record_of(measured, "bf16"))
    assert [i.warmup for i in record.iterations] == [True, False, False]
    for iteration in record.iterations:
        assert (iteration.requests, iteration.sequences) == (4, 4)
        assert iteration.prompt_tokens == 4 * 16
        assert iteration.output_tokens == 4 * 8
    assert own_flags(record) == []


def test_each_quant_is_proven_by_the_loaded_weights(measured: Workspace):
    bf16 = read_record(record_of(measured, "bf16")).engine
    w8a8 = read_record(record_of(measured, "w8a8")).engine
    assert set(bf16.weights_bytes_by_dtype.linear) == {"bfloat16"}
    assert w8a8.weights_bytes_by_dtype.linear["int8"] * 2 == bf16.weights_bytes_by_dtype.linear["bfloat16"]
    assert list(w8a8.linear_methods) == ["CompressedTensorsW8A8Int8"]


def test_every_sequence_has_its_times_in_order(measured: Workspace):
    path = record_of(measured, "w8a8")
    sequences = read_sequences(sequences_path(path), read_record(path))
    assert len(sequences) == 3 * 4
    for row in sequences:
        assert row.output_tokens == 8
        assert row.finish_reason == "length"
        times = [row.queued_s, row.scheduled_s, row.first_token_s, row.last_token_s]
        assert all(t is not None for t in times)
        assert times == sorted(times)


def test_the_summary_has_a_row_for_each_experiment_and_its_throughput_counts_all_samples(measured: Workspace):
    by_quant = {row["quant"]: row for row in rows(measured)}
    assert set(by_quant) == {"bf16", "w8a8"}
    record = read_record(record_of(measured, "bf16"))
    counted = [i for i in record.iterations if not i.warmup]
    expected = sum(i.output_tokens for i in counted) / sum(i.elapsed_s for i in counted)
    told = by_quant["bf16"]["output_tokens_per_s"]
    # On a machine that does something else the launch is not valid, and has no number.
    assert (float(told) == pytest.approx(expected)) if record.valid else told == ""
    for name in ("summary.md", "summary.html", "summary.txt", "figures/throughput.svg", "figures/speedup.svg"):
        assert (measured.path / "results" / name).stat().st_size > 500


def test_forcing_a_record_that_is_there_is_refused_and_loses_nothing(measured: Workspace):
    record = record_of(measured, "bf16")
    before = record.read_bytes()
    done = measured.snakemake("--force", str(record.relative_to(measured.path)))
    assert done.returncode == 1
    assert f"{record.relative_to(measured.path)}: is measured already" in done.stdout
    assert record.read_bytes() == before


def test_a_second_run_measures_nothing_and_writes_nothing(measured: Workspace):
    before = (measured.path / "results/summary.md").stat().st_mtime_ns
    started = os.times()
    done = measured.snakemake()
    assert "Nothing to be done" in done.stdout
    assert os.times().children_user - started.children_user < 15
    assert (measured.path / "results/summary.md").stat().st_mtime_ns == before


def test_reordering_lists_and_keys_measures_nothing(measured: Workspace):
    assert measured.measurements("--config", "quants=[w8a8,bf16]") == 0


def test_changing_how_tables_and_figures_are_made_measures_nothing(measured: Workspace):
    for part in ("workflow/scripts/summarise.py", "src/rollout_bench/analysis/stats/intervals.py"):
        path = measured.path / part
        path.write_text(path.read_text() + "\n# changed\n")
    assert measured.planned() == {"summary": 1, "figures": 1, "all": 1}


def test_changing_code_on_the_measuring_side_measures_nothing(measured: Workspace):
    path = measured.path / "workflow/scripts/run_launch.py"
    path.write_text(path.read_text() + "\n# changed\n")
    rule = measured.path / "workflow/rules/launch.smk"
    rule.write_text(rule.read_text() + "\n# changed\n")
    assert measured.measurements() == 0


def test_another_selection_rewrites_the_summary_and_measures_nothing(measured: Workspace):
    done = measured.snakemake("--config", "quants=[bf16]")
    assert done.returncode == 0, done.stdout
    assert [row["quant"] for row in rows(measured)] == ["bf16"]
    done = measured.snakemake()
    assert done.returncode == 0, done.stdout
    assert [row["quant"] for row in rows(measured)] == ["bf16", "w8a8"]


def test_losing_what_snakemake_remembers_measures_nothing(measured: Workspace):
    shutil.rmtree(measured.path / ".snakemake")
    assert measured.measurements() == 0


def test_results_copied_into_a_fresh_workspace_are_not_measured_again(measured: Workspace, tmp_path: Path):
    fresh = Workspace(tmp_path / "fresh", TINY)
    shutil.copytree(measured.path / "results", fresh.path / "results")
    assert fresh.measurements() == 0
    assert fresh.measurements("--config", "launches=2") == 2


def test_a_changed_setting_is_measured_anew_and_the_old_result_stays(measured: Workspace):
    assert measured.measurements("--config", "iterations=3") == 2
    assert len(measured.records) == 2


def test_adding_a_quant_measures_that_quant_alone(measured: Workspace):
    assert measured.measurements("--config", "quants=[bf16,w8a8,w8a16]") == 1


def test_a_deleted_record_is_measured_again_and_no_other_and_a_second_workflow_waits_outside(measured: Workspace):
    kept, deleted = record_of(measured, "bf16"), record_of(measured, "w8a8")
    before = kept.read_bytes()
    deleted.unlink()
    assert measured.measurements() == 1
    first = measured.start("results/summary.md")
    log = measured.path / f"logs/offline/{deleted.parent.name}/launch-0.log"
    log.unlink(missing_ok=True)
    while not log.exists():
        assert first.poll() is None
        time.sleep(0.2)
    second = measured.snakemake("results/summary.md")
    first.wait(timeout=600)
    assert first.returncode == 0, measured.output
    assert second.returncode == 1
    two_lines = [line for line in second.stdout.splitlines() if "another workflow" in line or "-> wait" in line]
    assert len(two_lines) == 2
    assert "Traceback" not in second.stdout
    assert deleted.is_file()
    assert kept.read_bytes() == before


def test_the_report_shows_summary_and_figures_offline(measured: Workspace):
    done = measured.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stdout
    html = (measured.path / "report.html").read_text()
    for name in ("summary.html", "throughput.svg", "speedup.svg", "iterations.svg"):
        assert name in html


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda text: text.replace('"elapsed_s": ', '"elapsed": ', 1), "iterations.0.elapsed"),
        (lambda text: text.replace('"prompts": 2', '"prompts": 3', 1), "it was edited"),
    ],
    ids=["field_renamed", "spec_edited"],  # tests/unit/contracts/test_damaged_records.py has the words of all
)
def test_a_record_that_is_not_what_was_written_is_an_error_that_names_file_and_field(
    measured: Workspace, edit, problem: str
):
    record = record_of(measured, "bf16")
    original = record.read_text()
    try:
        record.write_text(edit(original))
        done = measured.snakemake("results/summary.md")
    finally:
        record.write_text(original)
    assert done.returncode == 1
    assert f"{record.relative_to(measured.path)}: " in done.stdout
    assert problem in done.stdout
    assert "Traceback" not in done.stdout


def test_failing_experiments_leave_the_others_alone_and_are_tried_again(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere" / "nowhere"
    overlay = {
        **TINY,
        "models": ["absent", "unknown", "tiny"],
        "quants": ["bf16"],
        "model_settings": {
            **TINY["model_settings"],
            "absent": {"weights": {"bf16": str(elsewhere)}},  # in a folder that is not there when this is planned
            "unknown": {
                "synthetic": {"preset": "qwen3-tiny"},
                "engine_args": {"quantization": "awq"},
            },
        },
    }
    workspace = Workspace(tmp_path / "workspace", overlay)
    done = workspace.snakemake()
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert {path.split("_")[0] for path in workspace.records} == {"offline/tiny"}
    assert {path.split("_")[0] for path in workspace.failures} == {"offline/absent", "offline/unknown"}
    categories = {
        path.parent.name.split("_")[0]: json.loads(path.read_text())["category"]
        for path in workspace.path.glob("results/failures/offline/*/*.json")
    }
    assert categories == {"absent": "missing_weights", "unknown": "unsupported_quantization"}
    summary = (workspace.path / "results/summary.md").read_text()
    assert "INCOMPLETE" in summary
    assert f"there is no model folder {elsewhere}" in " ".join(summary.split())
    assert workspace.measurements() == 2
    shutil.copytree(next(workspace.path.glob("models/synthetic/*bf16")), elsewhere)
    done = workspace.snakemake("--config", "models=[absent,tiny]")
    assert done.returncode == 0, done.stdout
    assert {path.split("_")[0] for path in workspace.failures} == {"offline/unknown"}
    assert "INCOMPLETE" not in (workspace.path / "results/summary.md").read_text()
