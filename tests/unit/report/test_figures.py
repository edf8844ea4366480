"""Figures: every launch is drawn, bars begin at zero, nothing overlaps, gaps are said, bytes do not change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import pytest
from drawn import assert_texts_are_apart
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_records import make_block, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Failure, Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.numbers import number
from rollout_bench.report.figures.save import figure_files
from rollout_bench.report.figures.style import MAX_LINES, settings, shorten, width_of
from rollout_bench.report.figures.timed_figures import iterations_figure, speedup_figure, throughput_figure
from rollout_bench.report.parts import Findings

BF16, W8A8 = make_spec(), make_spec(quant="w8a8")
INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def collected(results: Path, specs: Sequence[Spec], *entries: Record | Failure, launches: int = 2) -> Collection:
    results.mkdir(exist_ok=True)
    save(results, *entries)
    return collect(results, make_plan(specs, launches))


def figures(collection: Collection) -> list[Figure]:
    rows = Findings(collection).drawn
    return [
        throughput_figure(rows, "here", ""),
        speedup_figure(rows, collection.baseline, collection.comparison, "here", ""),
        iterations_figure(rows, "here", ""),
    ]


def matrix(models: int, quants: int, workloads: int) -> list[Spec]:
    names = ["qwen3-1.7b", "pangu-7b", "qwen3-30b-a3b", "a-model-with-quite-a-long-name-12b-instruct"]
    return [
        make_spec(model, quant, workload)
        for model in names[:models]
        for workload in ["verl-default", "long-tail", "a-workload-with-a-long-name"][:workloads]
        for quant in ["bf16", "w8a16", "w8a8"][:quants]
    ]


def measured(specs: Sequence[Spec], launches: int = 2) -> list[Record]:
    return [
        make_record(spec, launch, [(1000 + 300 * place) * (1 + 0.01 * launch * (place + 1))] * 3)
        for place, spec in enumerate(specs)
        for launch in range(launches)
    ]


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 1), (3, 3, 2), (3, 3, 3), (4, 3, 3)])
def test_labels_do_not_overlap(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    specs = matrix(*shape)
    for figure in figures(collected(tmp_path, specs, *measured(specs))):
        assert_texts_are_apart(figure)


def of_settings(*names: str) -> list[Spec]:
    """Return the default and a spec with each setting, each of one number of its own."""
    settings = [make_spec(args={"max_num_seqs": 4 + place}) for place in range(len(names) + 1)]
    return [spec.model_copy(update={"setting": name}) for spec, name in zip(settings, [None, *names], strict=True)]


def figures_of_settings(results: Path, *names: str) -> list[Figure]:
    """Return the figures of the default and of settings with these names, each measured in two launches."""
    specs = of_settings(*names)
    save(results, *measured(specs))
    return figures(collect(results, make_plan(specs, 2, baseline={"setting": "default"})))


def test_names_that_have_room_are_whole_and_tell_settings_apart_as_the_tables_do(tmp_path: Path) -> None:
    names = [f"max-num-batched-tokens-{2**place}" for place in range(9, 14)]
    throughput, speedup, iterations = figures_of_settings(tmp_path, *names)
    for figure in (throughput, speedup, iterations):
        labels = {text.get_text() for text in figure.findobj(Text)}  # type: ignore[attr-defined]
        assert {"default", *names} - labels == ({"default"} if figure is speedup else set())
        assert "bf16" not in labels
        assert_texts_are_apart(figure)
    assert foot(speedup).startswith("Rollout speed-up over default ")


@pytest.mark.parametrize("settings", [1, 11, 22])
def test_names_without_room_are_shortened_and_overlap_nothing(tmp_path: Path, settings: int) -> None:
    names = [f"a-setting-with-a-{'w' * 30}ide-name-of-number-{place}" for place in range(settings)]
    for figure in figures_of_settings(tmp_path, *names):
        assert_texts_are_apart(figure)
        assert re.search(r"a-setting-\S*…\S*-number-0", texts(figure))


def test_a_key_that_has_no_room_says_how_many_are_not_in_it(tmp_path: Path) -> None:
    *_, iterations = figures_of_settings(tmp_path, *map(str, range(MAX_LINES + 2)))
    assert "and 3 more" in texts(iterations)


def test_no_line_of_a_note_goes_beyond_the_edge_however_wide_its_letters_are(tmp_path: Path) -> None:
    rows = rows_of(collected(tmp_path, [BF16], make_record(BF16)))
    figure = throughput_figure(rows, " ".join(["WWWW@WWWW"] * 60), " ".join(["mmm%mmm"] * 60))
    assert_texts_are_apart(figure)
    assert foot(figure).count("WWWW@WWWW") == foot(figure).count("mmm%mmm") == 60


def test_bars_begin_at_zero_and_end_at_the_mean_over_launches(tmp_path: Path) -> None:
    records = [make_record(BF16, launch, [rate]) for launch, rate in enumerate((100.0, 300.0))]
    (axes,) = throughput_figure(rows_of(collected(tmp_path, [BF16], *records)), "", "").axes
    (bar,) = axes.patches
    assert bar.get_x() == 0  # type: ignore[attr-defined]
    assert bar.get_width() == pytest.approx(200)  # type: ignore[attr-defined]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "output tok/s"


def test_every_launch_is_a_point(tmp_path: Path) -> None:
    rates = [100.0, 300.0, 200.0]
    records = [make_record(BF16, launch, [rate]) for launch, rate in enumerate(rates)]
    (axes,) = throughput_figure(rows_of(collected(tmp_path, [BF16], *records, launches=3)), "", "").axes
    points = [c.get_offsets()[0][0] for c in axes.collections if isinstance(c, PathCollection)]  # type: ignore[index]
    assert points == pytest.approx(rates)


def test_every_iteration_is_drawn_and_warmup_is_marked(tmp_path: Path) -> None:
    record = make_record(BF16, 0, [300.0, 310.0], warmup_rates=[100.0, 200.0])
    (axes,) = iterations_figure(rows_of(collected(tmp_path, [BF16], record)), "", "").axes
    line, warmup, measured_points = axes.lines
    assert list(line.get_ydata()) == pytest.approx([100, 200, 300, 310])
    assert list(warmup.get_xdata()) == [0, 1]
    assert warmup.get_markerfacecolor() == "white"
    assert list(measured_points.get_xdata()) == [2, 3]
    (band,) = axes.patches
    assert band.get_width() == pytest.approx(2)  # type: ignore[attr-defined]


def passes_at(figure: Figure) -> list[list[int]]:
    """Return where the measured passes of each line of the figure of iterations stand."""
    (axes,) = figure.axes
    return [list(map(int, line.get_xdata())) for line in axes.lines if line.get_markersize() == 4]  # type: ignore[call-overload]


def test_passes_stand_above_one_another_where_they_are_of_one_block_and_nowhere_else(tmp_path: Path) -> None:
    together = make_block([BF16, W8A8], 0, [[300.0, 310.0], [400.0, 410.0]])
    apart = [make_block([BF16, W8A8], 1, [[300.0, 310.0], [400.0, 410.0]], name=name)[place]
             for place, name in enumerate("ab")]  # fmt: skip
    figure = figures(collected(tmp_path / "together", [BF16, W8A8], *together, launches=1))[2]
    assert passes_at(figure) == [[1, 2], [1, 2]]
    assert "of the same round: what moves all lines alike is in no ratio. Dashed: the next block. Hol" in foot(figure)
    figure = figures(collected(tmp_path / "both", [BF16, W8A8], *together, *apart))[2]
    assert passes_at(figure) == [[1, 2], [1, 2], [4, 5], [7, 8]]
    alone = make_record(W8A8, 1, [400.0, 410.0])
    figure = figures(collected(tmp_path / "alone", [BF16, W8A8], *together, apart[0], alone))[2]
    assert passes_at(figure) == [[1, 2], [1, 2], [4, 5], [7, 8]]
    assert "Dashed: the next block, or a launch outside of blocks." in foot(figure)


@pytest.mark.parametrize("blocks", [True, False])
def test_where_no_launches_took_turns_the_figure_of_iterations_speaks_of_none(tmp_path: Path, blocks: bool) -> None:
    rates = [[300.0, 310.0], [400.0, 410.0]]
    records = [
        make_block([BF16, W8A8], 0, rates, name=spec.quant.name)[place]
        if blocks
        else make_record(spec, 0, rates[place])
        for place, spec in enumerate((BF16, W8A8))
    ]
    figure = figures(collected(tmp_path, [BF16, W8A8], *records, launches=1))[2]
    assert "Line: one valid launch. Hollow" in foot(figure)
    assert not re.search(r"\b(round|block|ratio|turn)", texts(figure))
    assert figure.axes[0].get_xlabel() == "iteration"


def test_blocks_whose_engines_are_compared_with_others_have_nothing_cancelled(tmp_path: Path) -> None:
    save(tmp_path, *make_block([BF16, W8A8], 0, [[300.0, 310.0], [400.0, 410.0]]))
    figure = figures(collect(tmp_path, make_plan([BF16, W8A8], 1, baseline={"quant": "fp8"})))[2]
    assert "of the same round. Dashed" in foot(figure)


def test_a_panel_without_a_valid_launch_is_left_out(tmp_path: Path) -> None:
    def drawn(*invalid: tuple[str, str]) -> list[Figure]:
        """Return the figures where launches of these models under these workloads are invalid."""
        specs = matrix(2, 2, 2)
        spoilt = {spec.key() for spec in specs if (spec.model.name, spec.workload.name) in invalid}
        records = [record.model_copy(update={"validity": [INVALID]} if record.key in spoilt else {})
                   for record in measured(specs)]  # fmt: skip
        return figures(collected(tmp_path / str(len(invalid)), specs, *records))

    *others, iterations = drawn(("pangu-7b", "long-tail"))
    assert [len(figure.axes) for figure in others] == [2, 2]
    assert [axes.get_visible() for axes in iterations.axes] == [True, True, True, False]
    assert [axes.get_xlabel() for axes in iterations.axes] == ["", "iteration", "iteration", ""]
    assert iterations.axes[1].xaxis.get_tick_params()["labelbottom"]
    for figure in drawn(("qwen3-1.7b", "long-tail"), ("pangu-7b", "long-tail")):
        assert "long-tail" not in texts(figure)
        assert "no valid launch" not in texts(figure)


def test_nothing_measured_yet_is_said(tmp_path: Path) -> None:
    for figure in figures(collected(tmp_path, [BF16, W8A8])):
        assert "Nothing is measured yet." in texts(figure)


def test_one_quant_has_nothing_to_compare_with(tmp_path: Path) -> None:
    speedup = figures(collected(tmp_path, [BF16], make_record(BF16)))[1]
    assert "Only bf16 is selected" in texts(speedup)


def test_an_unmeasured_baseline_is_the_reason_given(tmp_path: Path) -> None:
    speedup = figures(collected(tmp_path, [BF16, W8A8], make_record(W8A8)))[1]
    assert "the baseline (quant bf16) is not measured" in texts(speedup)


def test_one_launch_shows_no_spread_and_says_so(tmp_path: Path) -> None:
    throughput, speedup, _ = figures(collected(tmp_path, [BF16, W8A8], make_record(BF16), make_record(W8A8)))
    assert "the spread over launches is not known" in texts(throughput).replace("  ", " ")
    assert "No interval: it takes two pairs of launches" in foot(speedup)


def foot(figure: Figure) -> str:
    """Title and notes, their lines from top to bottom."""
    return " ".join(text.get_text() for text in sorted(figure.texts, key=lambda text: -text.get_position()[1]))


def speedups(results: Path, *rates: float) -> Figure:
    """Return the figure of w8a8 with `rates` over bf16 with 100, 101, ... tok/s."""
    records = [make_record(W8A8, launch, [rate]) for launch, rate in enumerate(rates)]
    records += [make_record(BF16, launch, [100.0 + launch]) for launch in range(len(rates))]
    return figures(collected(results, [BF16, W8A8], *records, launches=len(rates)))[1]


def test_pairs_are_points_and_the_interval_is_a_band(tmp_path: Path) -> None:
    figure = speedups(tmp_path, 120.0, 122.0, 121.0, 124.0)
    (axes,) = figure.axes
    (comparison,) = [r.comparison for r in rows_of(collect(tmp_path, make_plan([W8A8, BF16], 4))) if r.comparison.low]
    pairs, diamond = (c.get_offsets() for c in axes.collections if isinstance(c, PathCollection))
    assert [x for x, _ in pairs] == pytest.approx(list(comparison.pairs.values()))  # type: ignore[union-attr]
    assert diamond[0][0] == pytest.approx(comparison.speedup)  # type: ignore[index]
    band = next(line for line in axes.lines if line.get_linewidth() == 6)
    assert list(band.get_xdata()) == pytest.approx([comparison.low, comparison.high])
    assert "Arrow" not in texts(figure)
    assert "x ^" in texts(figure)


def test_an_interval_without_end_is_cut_with_an_arrow_and_the_points_stay_apart(tmp_path: Path) -> None:
    figure = speedups(tmp_path, 120.0, 140.0)
    (axes,) = figure.axes
    assert {line.get_marker() for line in axes.lines} >= {"<", ">"}
    assert axes.get_xlim()[1] < 4
    assert "Arrow: the interval goes on beyond the axis" in foot(figure)
    assert "x ~ inconclusive" in texts(figure)
    figure.canvas.draw()
    arrows = [line.get_window_extent().padded(5) for line in axes.lines if line.get_marker() in ("<", ">")]
    labels = [*axes.texts, *axes.get_yticklabels()]
    assert not any(arrow.overlaps(label.get_window_extent()) for arrow in arrows for label in labels)


def test_the_value_of_a_bar_stands_at_its_end_and_beside_no_point_beyond_it(tmp_path: Path) -> None:
    def place(*rates: float) -> tuple[float, str]:
        records = [make_record(BF16, launch, [rate]) for launch, rate in enumerate(rates)]
        plan = make_plan([BF16], launches=len(rates))
        save(tmp_path / str(rates), *records)
        (axes,) = throughput_figure(rows_of(collect(tmp_path / str(rates), plan)), "", "").axes
        (value,) = [text for text in axes.texts if text.get_text() == number(sum(rates) / len(rates))]
        return value.xy[0], value.get_horizontalalignment()  # type: ignore[attr-defined]

    assert place(400.0, 400.0) == (pytest.approx(400), "left")
    assert place(400.0, 440.0) == (pytest.approx(400), "right")
    assert place(100.0, 400.0, 800.0) == (pytest.approx(1300 / 3), "left")


def test_failed_missing_and_invalid_launches_are_shown_as_such(tmp_path: Path) -> None:
    w8a16 = make_spec(quant="w8a16")
    fp8 = make_spec(quant="fp8")
    slow = make_record(BF16, 1, [300.0] * 3, flags=[INVALID])
    far = make_record(BF16, 2, [3000.0] * 3, flags=[INVALID])
    entries = [make_record(BF16), slow, far, make_failure(W8A8), make_record(w8a16, flags=[INVALID])]
    throughput = figures(collected(tmp_path, [BF16, W8A8, w8a16, fp8], *entries))[0]
    shown = texts(throughput)
    for word in ("failed", "not measured", "no valid launch", "x: invalid launch"):
        assert word in shown
    (axes,) = throughput.axes
    assert [float(mark.get_offsets()[0, 0]) for mark in axes.collections] == pytest.approx([409.8, 300.0], rel=1e-3)
    assert axes.get_xlim()[1] < 600


def test_an_incomplete_matrix_is_marked(tmp_path: Path) -> None:
    files = figure_files(collected(tmp_path, [BF16], make_record(BF16), launches=2))
    complete = figure_files(collect(tmp_path, make_plan([BF16], launches=1)))
    assert files["throughput.svg"] != complete["throughput.svg"]
    assert b"INCOMPLETE" in files["throughput.svg"]
    assert b"INCOMPLETE" not in complete["throughput.svg"]


def test_what_has_no_room_is_counted(tmp_path: Path) -> None:
    specs = [make_spec(f"model-{place}") for place in range(MAX_LINES + 3)]
    throughput = figures(collected(tmp_path, specs, *measured(specs, 1)))[0]
    assert f"3 of {MAX_LINES + 3} models and quants" in texts(throughput)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    collection = collected(tmp_path, [BF16, W8A8], *measured([BF16, W8A8]))
    first = figure_files(collection)
    with mpl.rc_context({"font.size": 30, "axes.linewidth": 5, "svg.hashsalt": None}):
        assert figure_files(collection) == first
    assert sorted(first) == ["iterations.svg", "speedup.svg", "throughput.svg"]


def test_a_name_is_shortened_only_where_it_does_not_fit_and_keeps_both_ends() -> None:
    name = "qwen3-30b-a3b-instruct"
    assert shorten(name, width_of(name, 12), 12) == name
    short = shorten(name, 0.5 * width_of(name, 12), 12)
    assert short == "qwen3…ruct" or re.fullmatch(r"qwen.*….*uct", short)
    assert width_of(short, 12) <= 0.5 * width_of(name, 12)
    assert len(short) > 8
