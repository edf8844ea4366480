"""Figures of online experiments: which there are, what a line is, that nothing overlaps, and that gaps are said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_texts_are_apart
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.intervals import ecdf
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.modes import MODES, PROFILE
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.serving import Slo
from rollout_bench.report.figure_names import NAMES, figure_names, names_of
from rollout_bench.report.figures.online_figures import goodput_figure, latency_figure, sweep_figure
from rollout_bench.report.figures.save import figure_files, save_figures
from rollout_bench.report.figures.style import settings
from rollout_bench.report.figures.timed_figures import speedup_figure

REPOSITORY = Path(__file__).resolve().parents[3]
SWEEP = [LoadPoint(request_rate=rate) for rate in (4.0, 16.0, 40.0)]
BF16, W8A8 = (make_online_spec(quant=quant, points=SWEEP) for quant in ("bf16", "w8a8"))
LIMITS = Slo(ttft_ms=200)


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def collected(results: Path, *specs: Spec, launches: int = 2, slo: Slo = LIMITS) -> Collection:
    results.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        server = Server(step_s=0.008) if spec.quant.name == "w8a8" else Server()
        if spec.load is None:
            save(results, *(make_record(spec, launch) for launch in range(launches)))
        else:
            save_online(results, *(make_online(spec, launch, server) for launch in range(launches)))
    return collect(results, make_plan(specs, launches).model_copy(update={"slo": slo}))


def figures(results: Path, collection: Collection) -> dict[str, Figure]:
    rows, compared = rows_of(collection), collection.comparison
    return {
        "latency": latency_figure(rows, "here", ""),
        "sweep": sweep_figure(rows, compared, "here", ""),
        "goodput": goodput_figure(rows, collection.slo, compared, "here", ""),
        "speedup": speedup_figure(rows, collection.baseline, compared, "here", ""),
    }


def words(figure: Figure) -> str:
    """Title and notes, their lines from top to bottom."""
    texts = sorted(figure.texts, key=lambda text: -text.get_position()[1])
    return " ".join(" ".join(text.get_text() for text in texts).split())


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3)])
def test_labels_do_not_overlap(tmp_path: Path, shape: tuple[int, int]) -> None:
    models, workloads = shape
    specs = [
        make_online_spec(model, quant, workload, points=points)
        for model in ("qwen3-1.7b", "a-model-with-quite-a-long-name-12b-instruct")[:models]
        for workload, points in [("chat", SWEEP), ("closed", [LoadPoint(concurrency=8)]), ("long-tail", SWEEP)][
            :workloads
        ]
        for quant in ("bf16", "w8a16", "w8a8")
    ]
    for figure in figures(tmp_path, collected(tmp_path, *specs)).values():
        assert_texts_are_apart(figure)


def test_the_figures_that_are_declared_are_those_that_have_data(tmp_path: Path) -> None:
    closed = make_online_spec(workload="closed", points=[LoadPoint(concurrency=8)])
    for specs, slo in [([make_spec()], LIMITS), ([make_spec(), closed], Slo()), ([BF16, W8A8], LIMITS)]:
        collection = collected(tmp_path / str(len(specs)) / str(slo == LIMITS), *specs, slo=slo)
        assert figure_names(rows_of(collection), collection) == names_of(
            {s.mode for s in specs}, [s.load for s in specs], bool(slo.named), has_comparisons=BF16 in specs
        )
    timed = ("throughput", "speedup", "iterations")
    assert names_of({"offline"}, [None], has_limits=True) == timed
    assert names_of({"offline", "online"}, [None, closed.load], has_limits=False) == (*timed, "latency")
    there = {"has_limits": True, "has_replicas": True, "has_lengths": True}
    every = names_of(MODES, [BF16.load], goes_through="max_num_seqs", **there)
    assert every == NAMES
    assert names_of({"profile"}, [], has_limits=False) == PROFILE.figures


def test_every_figure_that_is_named_is_written_though_there_is_no_data(tmp_path: Path) -> None:
    collection = collected(tmp_path / "results", make_spec())
    names = save_figures(tmp_path / "results", collection, tmp_path / "figures", NAMES)
    assert names == list(NAMES)
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{name}.svg" for name in NAMES}
    assert "Nothing is measured online yet." in words_of_all(figures(tmp_path / "results", collection)["latency"])


def words_of_all(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())  # type: ignore[attr-defined]


def test_the_share_of_requests_is_drawn_for_each_quant(tmp_path: Path) -> None:
    collection = collected(tmp_path, BF16, W8A8)
    figure = latency_figure(rows_of(collection), "", "")
    lightest = collection.experiments[0]
    values = 1000 * np.concatenate([requests.known("ttft_s") for requests in lightest.requests.values()])
    line = figure.axes[0].lines[0]
    x, share = ecdf(values)
    assert list(line.get_xdata()) == pytest.approx(list(x))
    assert list(line.get_ydata()) == pytest.approx(list(share))
    assert (share[-1], len(figure.axes)) == (1, 6)


def test_an_empirical_distribution_by_hand() -> None:
    x, share = ecdf([3.0, 1.0, 3.0, 2.0])
    assert (list(x), list(share)) == ([1, 2, 3], [0.25, 0.5, 1])


def test_the_sweep_has_a_curve_for_each_quant_and_hollow_points_where_it_fell_behind(tmp_path: Path) -> None:
    rows = rows_of(collected(tmp_path, BF16, W8A8))
    figure = sweep_figure(rows, collect(tmp_path, None).comparison, "", "")
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(curves) == 2
    assert all(np.all(np.diff(np.asarray(curve.get_xdata(), dtype=float)) > 0) for curve in curves)
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, False, True] * 2
    assert figure.axes[-1].get_xlabel() == "output tok/s"


def test_no_point_of_the_sweep_is_cut_by_its_axes(tmp_path: Path) -> None:
    rows = rows_of(collected(tmp_path, BF16, W8A8))
    for axes in sweep_figure(rows, collect(tmp_path, None).comparison, "", "").axes:
        points = [line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]  # type: ignore[index]
        assert points
        assert max(x for x, _ in points) < 0.97 * axes.get_xlim()[1]
        assert max(y for _, y in points) < 0.97 * axes.get_ylim()[1]


def test_goodput_is_a_bar_within_what_succeeded(tmp_path: Path) -> None:
    collection = collected(tmp_path, BF16)
    figure = goodput_figure(rows_of(collection), LIMITS, collection.comparison, "", "")
    bars = [bar.get_height() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert all(0 <= good <= all_of_it for all_of_it, good in zip(bars[::2], bars[1::2], strict=True))
    assert bars[4] > 2 * bars[5]  # at 40 req/s most wait too long
    assert "TTFT 200 ms" in words(figure)
    assert "slo has no limit" in words(goodput_figure([], Slo(), collection.comparison, "", ""))


def test_of_a_sweep_the_speed_up_shows_the_heaviest_load(tmp_path: Path) -> None:
    figure = figures(tmp_path, collected(tmp_path, BF16, W8A8))["speedup"]
    assert len(figure.axes) == 1
    assert "small @ 40 req/s" in figure.axes[0].get_title(loc="left")
    assert "Of a sweep its heaviest load." in words(figure)


def test_a_load_at_a_rate_shows_the_speed_up_of_the_first_token(tmp_path: Path) -> None:
    specs = [make_online_spec(quant=quant, points=SWEEP[:1]) for quant in ("bf16", "w8a8")]
    figure = figures(tmp_path, collected(tmp_path, *specs))["speedup"]
    assert figure.axes[0].get_xlabel() == "TTFT speed-up (x bf16)"


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    collection = collected(tmp_path, BF16)
    names = ("latency", "sweep", "goodput")
    first = figure_files(collection, names)
    assert figure_files(collection, names) == first
    assert sorted(first) == sorted(f"{name}.svg" for name in names)
