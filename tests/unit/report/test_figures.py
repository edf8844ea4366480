"""Figures: no text lies over another, and every launch is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from drawn import assert_texts_are_apart
from every_mode import save_every_mode
from matplotlib.figure import Figure
from synthetic_profiles import BF16, W8A8, make_profiled
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.answers import shortly_named
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.modes import MODES
from rollout_bench.modes.profile.findings import profile_report
from rollout_bench.modes.profile.report import Found
from rollout_bench.plan.serving import Slo
from rollout_bench.report.figures.charts import draw, settings
from rollout_bench.report.figures.pictures import drawings
from rollout_bench.report.parts import Findings

MODELS = ("qwen3-1.7b", "pangu-7b", "qwen3-30b-a3b", "a-model-with-quite-a-long-name-12b-instruct")


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Findings]:
    """Return what a report has of one model in every mode, and the same of four, one with a long name."""
    results = tmp_path_factory.mktemp("results")
    for launch in (0, 1):
        save_every_mode(results, launch)
    collection = replace(collect(results, None), slo=Slo(ttft_ms=100))
    many = [
        replace(each, model=model, experiment=f"{model}/{each.experiment}")
        for model in MODELS
        for each in collection.experiments
    ]
    profiled = [
        make_profiled(quant, phases, baseline=None if quant == "bf16" else "bf16", model=model)
        for model in MODELS
        for quant, phases in (("bf16", BF16), ("w8a8 max-num-batched-tokens-8192", W8A8))
    ]
    small, large = Findings(collection, results), Findings(replace(collection, experiments=tuple(many)), results)
    vars(large)["looked"] = {**small.looked, "profile": Found(profile_report(profiled))}
    return {"small": small, "large": large}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def drawn(name: str, findings: Findings) -> Figure:
    chart = drawings()[name](findings)
    assert chart.panels
    return draw(chart, "INCOMPLETE: 1 of 9 launches measured.", "On a machine.")


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", drawings())
def test_no_text_lies_over_another(sizes: dict[str, Findings], name: str, size: str) -> None:
    figure = drawn(name, sizes[size])
    assert figure.axes != []
    assert_texts_are_apart(figure)


@pytest.mark.parametrize("name", drawings())
def test_a_figure_of_nothing_is_not_drawn(name: str, tmp_path: Path) -> None:
    assert not drawings()[name](Findings(collect(tmp_path, None), tmp_path)).panels


def test_throughput_bars_begin_at_zero_and_mark_each_launch(sizes: dict[str, Findings]) -> None:
    figure = drawn("throughput", sizes["small"])
    bars = [bar for axes in figure.axes for bar in axes.patches]
    assert {bar.get_x() for bar in bars} == {0}  # type: ignore[attr-defined]
    marks = sum(len(marks.get_offsets()) for axes in figure.axes for marks in axes.collections)  # type: ignore[arg-type]
    assert marks >= 2 * len(bars)


def test_launches_that_generated_nothing_are_drawn(tmp_path: Path) -> None:
    record = make_record(make_spec())
    nothing = [each.model_copy(update={"output_tokens": 0}) for each in record.iterations]
    save(tmp_path, record.model_copy(update={"iterations": nothing}))
    for name in ("throughput", "iterations"):
        assert drawn(name, Findings(collect(tmp_path, None), tmp_path)).axes != []


def test_every_mode_names_figures_that_can_be_drawn() -> None:
    assert {figure for mode in MODES.values() for figure in mode.figures} == set(drawings())


def test_a_sweep_is_named_by_its_values(tmp_path: Path) -> None:
    swept = [
        make_spec(args={"max_num_seqs": seqs, "enforce_eager": eager}).model_copy(
            update={"setting": f"max-num-seqs-{seqs}+enforce-eager-{str(eager).lower()}"}
        )
        for seqs in (8, 16)
        for eager in (True, False)
    ]
    default = make_spec(args={"max_num_seqs": 32, "enforce_eager": True})
    for few in ([], [default.model_copy(update={"setting": "few"})]):
        specs = [default, *few, *swept]
        save(tmp_path, *(make_record(spec) for spec in specs))
        named, values_of = shortly_named(rows_of(collect(tmp_path, make_plan(specs, 1))))
        names = [spec.setting for spec in swept] if few else ["8+true", "8+false", "16+true", "16+false"]
        assert [row.label for row in named] == ["default", *(["few"] if few else []), *names]
        assert values_of == ("" if few else "max_num_seqs+enforce_eager")
