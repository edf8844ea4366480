"""The summary tells what a start costs, which part of it, and whether caches make it shorter."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from drawn import assert_texts_are_apart
from matplotlib.text import Text
from synthetic_records import make_plan, save
from synthetic_starts import COLD, start_record, start_spec

from rollout_bench.analysis.starts.loading_report import loading_report
from rollout_bench.analysis.starts.start_costs import start_costs
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.starts import PhaseName
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.startup_figures import startup_figure
from rollout_bench.report.figures.style import settings
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise

COLD_SPEC, WARM_SPEC = start_spec("cold"), start_spec("warm")

WARM: dict[PhaseName, float] = {"process": 0.4, "import": 6.6, "config": 0.1, "cached_graphs": 3.0, "first_token": 0.1}

BASELINE = {"setting": "caches-cold"}


def launches(results: Path, spec: Spec, phases: Mapping[PhaseName, float]) -> None:
    """Write launches whose phases are about as long."""
    warm = spec.startup is not None and spec.startup.caches == "warm"
    for launch, factor in enumerate((1.01, 1.0, 0.995, 1.0) if warm else (1.0, 1.01, 0.99, 1.0)):
        save(results, start_record(spec, launch, {name: seconds * factor for name, seconds in phases.items()}))


def summary(results: Path, *specs: Spec) -> Summary:
    return summarise(collect(results, make_plan(specs, 4, baseline=BASELINE)))


def said(made: Summary, heading: str) -> list[str]:
    return [item for section in made.answers if section.heading == heading for item in section.items]


@pytest.fixture
def made(tmp_path: Path) -> Summary:
    launches(tmp_path, COLD_SPEC, COLD)
    launches(tmp_path, WARM_SPEC, WARM)
    return summary(tmp_path, COLD_SPEC, WARM_SPEC)


def test_the_first_sentences_say_what_a_start_costs_and_which_part(made: Summary) -> None:
    cold, warm, verdict = said(made, "What a start costs, and which part")
    assert cold.startswith(
        "bf16 caches-cold: 36.2 s from the launch's beginning to a first token. Most of it is Inductor (20.0 s, 55 %), "
        "config (9.00 s, 25 %) and import (6.60 s, 18 %); no phase explains 0.10 s (0.28 %)."
    )
    assert "Most of it is import" in warm
    assert verdict.startswith("With caches-warm a start takes 0.2")
    assert "as long as with caches-cold: it is faster." in verdict


def test_the_table_has_verdicts_on_start_up(made: Summary) -> None:
    assert "start-up speed-up" in made.markdown
    header, *lines = csv.reader(io.StringIO(made.csv))
    verdicts = [line[header.index("startup_s_verdict")] for line in lines]
    assert verdicts == ["baseline", "faster"]


def test_phases_and_rest_of_each_launch_are_the_whole_in_startup_csv(made: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(made.tables["startup.csv"])))
    assert len(rows) == 8
    for row in rows:
        parts = [float(row[f"{name}_s"]) for name in (*COLD, "cached_graphs") if row[f"{name}_s"]]
        assert sum(parts) + float(row["rest_s"]) == pytest.approx(float(row["until_token_s"]), rel=1e-9)


def test_each_launch_has_the_loading_time_report_of_llm_ds_nop(made: Summary) -> None:
    texts = {name: text for name, text in made.tables.items() if name.startswith("loading/")}
    assert len(texts) == 8
    assert all(name.endswith(".yaml") for name in texts)
    report = yaml.safe_load(texts[f"loading/{COLD_SPEC.experiment()}.launch-0.yaml"])
    assert list(report) == ["version", "scenario", "vllm_metrics", "extra_metrics", "time"]
    assert report["scenario"]["load_format"] == "auto"
    assert report["time"]["stop"] - report["time"]["start"] == pytest.approx(report["time"]["duration"])
    (metrics,) = report["vllm_metrics"]
    assert [each["title"] for each in metrics["categories"]] == [
        "Detect Platform",
        "LLM Imports",
        "Get Model Info",
        "Worker Initialization",
        "Model Loading",
        "Pytorch Compilation",
        "CUDA Graph Capture",
        "API Server Starts",
    ]
    elapsed = {each["title"]: each["elapsed"] for each in metrics["categories"]}
    assert (elapsed["LLM Imports"], elapsed["Get Model Info"]) == (6.6, 9.0)
    compiled = next(each for each in metrics["categories"] if "categories" in each)
    assert {each["title"]: each["elapsed"] for each in compiled["categories"]} == {"Dynamo": 0.0, "Inductor": 20.0}
    assert (metrics["compile_graph"], metrics["torch_compile"]) == (20.0, 20.0)
    assert "load_cached_compiled_graph" not in metrics


def test_the_times_of_a_warm_launcher_begin_with_the_word() -> None:
    record = start_record(start_spec(), phases={"config": 9.0, "engine_ready": 0.5, "first_token": 0.1}, after_s=30.0)
    report = yaml.safe_load(loading_report(record))
    launched = datetime.fromisoformat(record.started_at).timestamp()
    (metrics,) = report["vllm_metrics"]
    assert metrics["vllm_start_timestamp"] == pytest.approx(launched + 30.0)
    assert metrics["vllm_ready_timestamp"] == pytest.approx(launched + 39.5)
    assert report["time"]["start"] == pytest.approx(launched)


def test_an_invalid_launch_is_in_no_number(tmp_path: Path) -> None:
    launches(tmp_path, COLD_SPEC, COLD)
    flag = Flag(code="caches_not_as_asked", severity="invalid", sentence="They were cold.")
    save(tmp_path, start_record(COLD_SPEC, 3, {"import": 500.0}, flags=[flag]))
    (row,) = rows_of(collect(tmp_path, make_plan([COLD_SPEC], 4, baseline=BASELINE)))
    found = start_costs(row)
    assert found is not None
    assert [number for number, _ in found.launches] == [0, 1, 2]
    assert found.until_token_s == pytest.approx(36.2, rel=0.01)


def test_the_waterfall_has_a_panel_for_each_start_and_its_texts_are_apart(tmp_path: Path) -> None:
    specs = [start_spec(caches, setting=f"{caches}-{n}") for caches in ("cold", "warm") for n in range(4)]
    for spec in specs:
        launches(tmp_path, spec, WARM if spec.startup and spec.startup.caches == "warm" else COLD)
    collection = collect(tmp_path, make_plan(specs, 4, baseline={"setting": "cold-0"}))
    rows = Findings(collection).drawn
    assert "startup" in figure_names(rows, collection)
    with settings():
        figure = startup_figure(rows, "here", "")
        assert_texts_are_apart(figure)
    shown = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(shown) == 6
    texts = " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())
    assert "Not shown for want of room: 2 of" in texts


def test_the_figure_of_nothing_says_so() -> None:
    with settings():
        assert startup_figure([], "here", "").texts
