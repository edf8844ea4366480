"""Figures: no text lies over another, and every launch is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_texts_are_apart
from every_mode import save_every_mode
from matplotlib.figure import Figure
from samples.online import Server, make_online, make_online_spec
from samples.profile import BF16, W8A8, make_profiled
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.answers import shortly_named
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.profile.findings import profile_report
from rollout_bench.modes.profile.report import ProfiledExperiments
from rollout_bench.plan.serving import Slo
from rollout_bench.report.figures import charts
from rollout_bench.report.figures.charts import Bar, Chart, Lines, Rows, draw, figure_settings, plain
from rollout_bench.report.figures.pictures import drawings
from rollout_bench.report.notes import hardware
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
    vars(large)["looked"] = {**small.mode_results, "profile": ProfiledExperiments(profile_report(profiled))}
    return {"small": small, "large": large}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with figure_settings():
        yield


def drawn(name: str, findings: Findings) -> Figure:
    chart = drawings()[name](findings)
    assert chart.panels
    return draw(chart, "INCOMPLETE: 1 of 9 launches measured.", "On a machine.")


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", sorted(drawings().keys() - {"drafts"}))
def test_no_text_lies_over_another(sizes: dict[str, Findings], name: str, size: str) -> None:
    figure = drawn(name, sizes[size])
    assert figure.axes != []
    assert_texts_are_apart(figure)


def test_a_figure_of_nothing_is_not_drawn(tmp_path: Path) -> None:
    assert [name for name, of in drawings().items() if of(Findings(collect(tmp_path, None), tmp_path)).panels] == []
    assert {figure for mode in MODES.values() for figure in mode.figures} == set(drawings())


def test_throughput_bars_begin_at_zero_and_mark_each_launch(sizes: dict[str, Findings]) -> None:
    figure = drawn("throughput", sizes["small"])
    bars = [bar for axes in figure.axes for bar in axes.patches]
    assert {bar.get_x() for bar in bars} == {0}
    assert sum(len(marks.get_offsets()) for axes in figure.axes for marks in axes.collections) >= 2 * len(bars)


def test_the_cross_of_an_invalid_launch_does_not_lengthen_the_axis() -> None:
    bar = Bar("bf16", value=10, points=[9, 11])
    crossed = replace(bar, crosses=[8, 10_000])
    drawn_of = (Chart("", "", "", [Rows("", "tok/s", [each])], {}) for each in (bar, crossed))
    (sound,), (invalid,) = (draw(chart).axes for chart in drawn_of)
    assert invalid.get_xlim() == sound.get_xlim()
    assert [8.0, 0.0] in np.concatenate([marks.get_offsets() for marks in invalid.collections]).tolist()


def test_launches_that_generated_nothing_are_drawn(tmp_path: Path) -> None:
    record = make_record(make_spec())
    nothing = [each.model_copy(update={"output_tokens": 0}) for each in record.iterations]
    save(tmp_path, record.model_copy(update={"iterations": nothing}))
    for name in ("throughput", "iterations"):
        assert drawn(name, Findings(collect(tmp_path, None), tmp_path)).axes != []


@pytest.mark.parametrize(("slower", "is_drawn"), [(1.001, False), (1.02, True)])
def test_iterations_that_do_not_differ_are_not_drawn_on_axes_that_enlarge_noise(
    slower: float, is_drawn: bool, tmp_path: Path
) -> None:
    record = make_record(make_spec())
    alike = [
        each.model_copy(update={"output_tokens": 1000, "elapsed_s": slower if each.index == 2 else 1.0})
        for each in record.iterations
    ]
    save(tmp_path, record.model_copy(update={"iterations": alike}))
    chart = drawings()["iterations"](Findings(collect(tmp_path, None), tmp_path))
    assert bool(chart.panels) == is_drawn


@pytest.mark.parametrize(
    ("loads", "axis", "places"),
    [
        ([LoadPoint(request_rate=2), LoadPoint(request_rate=30)], "requests/s asked", [2, 30]),
        ([LoadPoint(concurrency=4), LoadPoint(concurrency=16)], "requests at once", [4, 16]),
        ([LoadPoint(concurrency=4), LoadPoint(request_rate=8)], "output tok/s", []),
    ],
)
def test_latencies_are_drawn_over_what_the_loads_differ_in(
    loads: list[LoadPoint], axis: str, places: list[float], tmp_path: Path
) -> None:
    save(tmp_path, make_online(make_online_spec(points=loads), 0, Server(), requests=128))
    ttft = drawings()["sweep"](Findings(collect(tmp_path, None), tmp_path)).panels[0]
    assert isinstance(ttft, Lines)
    assert ttft.x == axis
    assert list(ttft.ticks) == places
    if places:
        assert [x for x, _ in ttft.lines[0].points] == places


def test_throughput_is_drawn_of_the_load_with_the_most(tmp_path: Path) -> None:
    loads = [LoadPoint(concurrency=count, stage=stage) for stage, count in enumerate((2, 16, 1), 1)]
    save(tmp_path, make_online(make_online_spec(points=loads), 0, Server(), requests=64))
    chart = drawings()["throughput"](Findings(collect(tmp_path, None), tmp_path))
    assert "stage 2: 16 at once" in chart.content


@pytest.mark.parametrize(
    ("loads", "figures"),
    [([2, 4], {"sweep", "iterations"}), ([2], {"throughput", "iterations"})],
    ids=["sweep", "one load"],
)
def test_throughput_that_rates_set_is_not_drawn_beside_a_sweep(
    loads: list[float], figures: set[str], tmp_path: Path
) -> None:
    points = [LoadPoint(request_rate=rate) for rate in loads]
    save(tmp_path, make_online(make_online_spec(points=points), 0, Server(), requests=64))
    found = Findings(collect(tmp_path, None), tmp_path)
    assert {name for name, of in drawings().items() if of(found).panels} == figures


@pytest.mark.parametrize(
    ("engine", "version", "caption"),
    [
        ("unknown", "unknown", "Measured on a running server."),
        ("unknown", "0.9", "Measured on a running server of version 0.9."),
        ("vllm", "0.33.0", "vllm 0.33.0 on AMD EPYC 9B14"),
    ],
)
def test_a_caption_says_where_it_was_measured(engine: str, version: str, caption: str, tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec(), environment={"engine_name": engine, "engine_version": version}))
    assert hardware(collect(tmp_path, None).launched) == caption


def test_a_sweep_is_named_by_its_values(tmp_path: Path) -> None:
    def swept(setting: str | None, seqs: int, eager: bool) -> Spec:
        spec = make_spec(args={"max_num_seqs": seqs, "enforce_eager": eager})
        return spec.model_copy(update={"setting": setting})

    named = {f"{n}+{str(on).lower()}": (n, on) for n in (8, 16) for on in (True, False)}
    sweep = [swept(f"max-num-seqs-{name.replace('+', '+enforce-eager-')}", *values) for name, values in named.items()]
    for few, labels, of in (
        ([], [*named], "max_num_seqs+enforce_eager"),
        ([swept("few", 32, True)], ["few", *(spec.setting for spec in sweep)], ""),
    ):
        specs = [swept(None, 32, True), *few, *sweep]
        save(tmp_path, *map(make_record, specs))
        rows, values_of = shortly_named(rows_of(collect(tmp_path, make_plan(specs, 1))))
        assert ([row.label for row in rows], values_of) == (["default", *labels], of)


@pytest.mark.parametrize(
    ("tick", "text"), [(102.5, "102.5"), (0.1 + 0.2, "0.3"), (12_500.0, "12,500"), (0.025, "0.025")]
)
def test_a_tick_keeps_all_of_its_digits(tick: float, text: str) -> None:
    assert plain()(tick) == text


def test_a_long_name_keeps_both_ends_and_is_measured_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(charts, "width_of", lambda text, *_: measured.append(text) or float(len(text)))
    assert charts.shorten("a" * 10_000 + "b" * 10_000, 10) == "aaaaaa…bbb"
    assert charts.shorten("short", 10) == "short"
    assert len(measured) < 20
