"""The Pareto front: who is on it by property and by simulation, and what its figure shows and leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import make_plan, make_record, make_spec, save
from synthetic_rollouts import rollout_spec

from rollout_bench.analysis.stats.best import surely_better
from rollout_bench.analysis.stats.blocks import contrasts
from rollout_bench.analysis.stats.front import may_be_on_front, on_front
from rollout_bench.analysis.timed.answers import fronts
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import Spec, have_front
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.pareto_figures import pareto_figure
from rollout_bench.report.figures.style import settings

TRIALS = 500
LAUNCHES = 4
STARTS = ComparisonSettings(metrics=["output_tokens_per_s", "startup_s"])
INVALID = Flag(code="cpu_shared", severity="invalid", sentence="Others used the cores.")

FOUND = {"default": (1000.0, 20.0), "quick": (500.0, 2.0), "slow": (400.0, 30.0), "near": (999.0, 20.02)}
"""Setting -> output tok/s, and seconds of start-up besides the import: two on the front, one behind, one too near."""

CONFIGURATIONS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


@given(CONFIGURATIONS)
def test_none_on_the_front_is_dominated_and_each_off_it_is_by_one_on_it(values: list[tuple[int, int]]) -> None:
    there = on_front(values)
    front = [one for one, on_it in zip(values, there, strict=True) if on_it]
    assert front
    for one, on_it in zip(values, there, strict=True):
        assert on_it != any(dominates(other, one) for other in front)


@given(CONFIGURATIONS, st.integers(1, 5), st.integers(-3, 3))
def test_the_unit_of_a_metric_does_not_matter(values: list[tuple[int, int]], factor: int, offset: int) -> None:
    assert on_front([(factor * one + offset, other) for one, other in values]) == on_front(values)


def sure(logs: np.ndarray, level: float) -> np.ndarray:
    found = contrasts(logs[:, 1:] - logs[:, :1])
    spread = float(found.pooled_error[0] * np.sqrt(found.pairs[0] / 2))
    return surely_better(logs, spread, int(found.freedom), level)


@pytest.mark.parametrize("blocks", [3, 6])
def test_who_truly_is_on_the_front_is_ruled_out_at_most_as_often_as_promised(blocks: int) -> None:
    truths = np.array([[0.0, 1.0, 2.0, 1.0, 1.0], [2.0, 1.0, 0.0, 1.0, 0.5]])
    on_it = on_front(truths.T)
    assert on_it == [True, True, True, True, False]
    noise = np.random.default_rng(blocks).normal(size=(TRIALS, 2, blocks, 5)) + truths[:, None]
    kept = np.array([may_be_on_front([sure(metric, 0.025) for metric in table]) for table in noise])
    for place in np.flatnonzero(on_it):
        missed = int((~kept[:, place]).sum())
        assert stats.binomtest(missed, TRIALS).proportion_ci(0.999).low <= 0.05


def test_who_is_far_behind_in_both_is_ruled_out_and_who_is_in_one_is_not() -> None:
    truths = np.array([[0.0, 9.0, -9.0], [9.0, 0.0, -9.0]])
    noise = np.random.default_rng(1).normal(size=(100, 2, 6, 3)) + truths[:, None]
    kept = [may_be_on_front([sure(metric, 0.025) for metric in table]) for table in noise]
    assert kept == [[True, True, False]] * 100


def started(record: Record, init_s: float) -> Record:
    return record.model_copy(update={"startup": record.startup.model_copy(update={"init_s": init_s})})


def records(spec: Spec, place: int, rate: float, init_s: float) -> list[Record]:
    """Return launches of a configuration that scatter by some tenths of a per cent, each configuration in its way."""
    return [
        started(
            make_record(spec, launch, [rate * (1 + 0.001 * ((3 * launch + 5 * place) % 7 - 3))] * 2),
            init_s * (1 + 0.001 * ((5 * launch + 2 * place) % 7 - 3)),
        )
        for launch in range(LAUNCHES)
    ]


def specs_of(names: Sequence[str]) -> list[Spec]:
    return [make_spec().model_copy(update={"setting": None if name == "default" else name}) for name in names]


def measured(results: Path, found: Mapping[str, tuple[float, float]] = FOUND, *besides: Record) -> Collection:
    specs = specs_of(list(found))
    for place, (spec, (rate, init_s)) in enumerate(zip(specs, found.values(), strict=True)):
        save(results, *records(spec, place, rate, init_s))
    save(results, *besides)
    return collect(results, make_plan(specs, LAUNCHES + 1, baseline={"setting": "default"}, comparison=STARTS))


def drawn(collection: Collection) -> Figure:
    return pareto_figure(rows_of(collection), collection.comparison, collection.precision, "here", "")


def words(figure: Figure) -> str:
    texts = sorted(figure.texts, key=lambda text: -text.get_position()[1])
    return " ".join(" ".join(text.get_text() for text in texts).split())


def points(axes: Axes) -> list[tuple[float, float]]:
    """Return the places of the markers."""
    marked = [line for line in axes.lines if line.get_marker() != "None"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marked]  # type: ignore[index]


def test_each_configuration_stands_on_the_front_near_it_or_behind_it(tmp_path: Path) -> None:
    collection = measured(tmp_path)
    (front,) = fronts(rows_of(collection), collection.comparison)
    assert front.metric == "startup_s"
    assert front.named("front") == ["bf16", "bf16 quick"]
    assert front.named("close") == ["bf16 near"]
    assert front.named("behind") == ["bf16 slow"]


def test_the_figure_says_who_is_on_the_front_and_joins_them(tmp_path: Path) -> None:
    figure = drawn(measured(tmp_path))
    said = words(figure)
    assert said.startswith("On the front: bf16, bf16 quick")
    assert "On the front of throughput and start-up s: bf16, bf16 quick; can't be told from it: bf16 near." in said
    (axes,) = figure.axes
    assert len(points(axes)) == 4
    (step,) = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    assert list(step.get_xdata()) == pytest.approx([500, 1000], rel=0.01)
    assert list(step.get_ydata()) == pytest.approx([10, 28], rel=0.01)
    assert [line.get_markerfacecolor() for line in axes.lines].count("white") == 1
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["1  bf16", "2  bf16 quick", "3  bf16 slow", "4  bf16 near"]
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == ["1", "2", "3", "4"]


def test_the_key_lies_beside_the_panel_and_all_in_the_figure(tmp_path: Path) -> None:
    figure = drawn(measured(tmp_path))
    figure.canvas.draw()
    (axes,) = figure.axes
    key = figure.legends[0].get_window_extent()
    assert not key.overlaps(axes.get_window_extent())
    assert key.x1 <= figure.bbox.x1
    assert key.y0 >= figure.bbox.y0
    assert key.y1 <= figure.bbox.y1


def test_an_invalid_launch_is_in_no_point(tmp_path: Path) -> None:
    (spec, *_) = specs_of(["default"])
    absurd = started(make_record(spec, LAUNCHES, [1e6] * 2, flags=[INVALID]), 0.001)
    with_it = drawn(measured(tmp_path / "with", FOUND, absurd))
    without = drawn(measured(tmp_path / "without"))
    assert points(with_it.axes[0]) == points(without.axes[0])
    assert words(with_it) == words(without)


def test_a_configuration_without_a_valid_launch_has_no_point(tmp_path: Path) -> None:
    specs = specs_of([*FOUND, "wrong"])
    found = [
        record
        for place, (spec, values) in enumerate(zip(specs, [*FOUND.values(), (1e6, 0.001)], strict=True))
        for record in records(spec, place, *values)
    ]
    save(tmp_path, *found[: 4 * LAUNCHES])
    save(tmp_path, *(record.model_copy(update={"validity": [INVALID]}) for record in found[4 * LAUNCHES :]))
    collection = collect(tmp_path, make_plan(specs, LAUNCHES, baseline={"setting": "default"}, comparison=STARTS))
    (front,) = fronts(rows_of(collection), collection.comparison)
    assert len(front.points) == 4
    assert "wrong" not in words(drawn(collection))


def test_a_single_launch_each_rules_nobody_out(tmp_path: Path) -> None:
    specs = specs_of(list(FOUND))
    save(tmp_path, *(records(spec, 0, *values)[0] for spec, values in zip(specs, FOUND.values(), strict=True)))
    collection = collect(tmp_path, make_plan(specs, 1, baseline={"setting": "default"}, comparison=STARTS))
    (front,) = fronts(rows_of(collection), collection.comparison)
    assert front.named("behind") == []
    assert front.named("close") == ["bf16 near", "bf16 slow"]


def test_it_is_drawn_from_three_configurations_of_the_same_work_on(tmp_path: Path) -> None:
    two = measured(tmp_path / "two", {name: FOUND[name] for name in ("default", "quick")})
    three = measured(tmp_path / "three", {name: FOUND[name] for name in ("default", "quick", "slow")})
    assert "pareto" not in figure_names(rows_of(two), two)
    assert "pareto" in figure_names(rows_of(three), three)
    by_default = replace(three, comparison=ComparisonSettings())
    assert "pareto" not in figure_names(rows_of(by_default), by_default)
    assert "No three configurations do the same work" in words(drawn(two))


def test_configurations_of_different_work_are_on_no_common_front(tmp_path: Path) -> None:
    collection = measured(tmp_path / "of", {name: FOUND[name] for name in ("default", "quick")})
    longer = make_spec(prompts=9).model_copy(update={"setting": "longer"})
    save(tmp_path / "of", *records(longer, 2, 700.0, 5.0))
    specs = [*specs_of(["default", "quick"]), longer]
    collection = collect(
        tmp_path / "of", make_plan(specs, LAUNCHES, baseline={"setting": "default"}, comparison=STARTS)
    )
    assert fronts(rows_of(collection), collection.comparison) == []


def test_steps_that_over_sample_by_other_shares_are_on_no_common_front() -> None:
    plain, more = rollout_spec(), rollout_spec(surplus=True)
    assert not have_front([plain, plain, more])
    assert have_front([more, more, more])


def test_throughput_is_by_device_on_accelerators(tmp_path: Path) -> None:
    specs = [
        make_spec(platform="cuda", args={"tensor_parallel_size": size}).model_copy(update={"setting": name})
        for name, size in ((None, 1), ("tp2", 2), ("tp4", 4))
    ]
    for place, spec in enumerate(specs):
        save(tmp_path, *records(spec, place, 1000.0 * (place + 1), 10.0))
    collection = collect(tmp_path, make_plan(specs, LAUNCHES, baseline={"setting": "default"}, comparison=STARTS))
    (front,) = fronts(rows_of(collection), collection.comparison)
    assert [point.devices for point in front.points] == [1, 2, 4]
    assert [np.mean(point.rates) for point in front.points] == pytest.approx([1000, 1000, 750], rel=0.01)
    assert drawn(collection).axes[0].get_xlabel().startswith("output tok/s per device")


def online(results: Path, point: LoadPoint) -> Collection:
    specs = [make_online_spec(quant=quant, points=[point]) for quant in ("bf16", "w8a16", "w8a8")]
    for place, spec in enumerate(specs):
        server = Server(step_s=0.01 - 0.001 * place)
        save_online(results, *(make_online(spec, launch, server) for launch in range(LAUNCHES)))
    return collect(results, make_plan(specs, LAUNCHES))


def test_online_the_first_other_metric_of_the_config_is_the_other_axis(tmp_path: Path) -> None:
    collection = online(tmp_path, LoadPoint(concurrency=4))
    rows = rows_of(collection)
    assert [front.metric for front in fronts(rows, collection.comparison)] == ["ttft_s"]
    chosen = ComparisonSettings(online_metrics=["output_tokens_per_s", "e2el_s"])
    assert [front.metric for front in fronts(rows, chosen)] == ["e2el_s"]
    alone = ComparisonSettings(online_metrics=["output_tokens_per_s"])
    assert [front.metric for front in fronts(rows, alone)] == ["tpot_s"]
    assert "TTFT ms" in drawn(collection).axes[0].get_ylabel()


def test_a_throughput_that_the_load_sets_is_on_no_front(tmp_path: Path) -> None:
    collection = online(tmp_path, LoadPoint(request_rate=4.0))
    assert fronts(rows_of(collection), collection.comparison) == []
