"""The roofline: where points and roofs lie, and that every phase has a panel."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest

from rollout_bench.analysis.bounds.architecture import Architecture
from rollout_bench.analysis.bounds.cost import Coding, decode_batch, plain, prefill_batch, step_costs
from rollout_bench.analysis.bounds.limits import DeviceLimits
from rollout_bench.report.figures.inside.roofline import Point, draw_roofline, points_of, roofline_figure
from rollout_bench.report.figures.style import QuantStyle, image, settings

DEMO = Architecture(768, 12, 12, 4, 64, 2048, 16384, True)
HERE = DeviceLimits("AMD EPYC", "measured", 20e9, {"bfloat16": 250e9, "int8": 480e9, "float32": 99e9})
STYLES = {"bf16": QuantStyle("#0072B2", "o"), "w8a8": QuantStyle("#E69F00", "s")}


def points() -> list[Point]:
    """Return points of two quants in two phases; each class takes a millisecond a step."""
    found = []
    for quant, coding in (("bf16", plain("bfloat16")), ("w8a8", Coding(8, 2, "int8", "bfloat16"))):
        for phase, batch in (("prefill", prefill_batch(32, 64)), ("decode", decode_batch(32, 80))):
            costs = step_costs(DEMO, coding, batch)
            found += points_of(costs, {(c.category, c.role): 1e-3 for c in costs}, phase, quant)
    return found


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield
    plt.close("all")


def test_a_class_is_a_point_where_it_computes_and_was_timed():
    costs = step_costs(DEMO, plain("bfloat16"), decode_batch(32, 80))
    seconds = {("linear", "down"): 0.002, ("attention", ""): 0.001, ("kv_cache", ""): 0.001, ("linear", "o"): 0.0}
    found = {point.name: point for point in points_of(costs, seconds, "decode", "bf16")}
    assert set(found) == {"down", "attention"}
    assert found["down"].flops_per_s == 2 * 32 * 2048 * 768 * 12 / 0.002
    moved = 12 * 2 * (2048 * 768 + 32 * (2048 + 768))
    assert found["down"].intensity == pytest.approx(2 * 32 * 2048 * 768 * 12 / moved)


def test_both_matrices_of_experts_are_one_point():
    costs = step_costs(DEMO, plain("bfloat16"), decode_batch(1, 1))
    twice = [cost for cost in costs if cost.role == "o"] * 2
    (point,) = points_of(twice, {("linear", "o"): 1.0}, "decode", "bf16")
    assert point.flops == 2 * twice[0].flops


def test_roofs_are_those_of_the_data_types_in_use_and_meet_the_slope():
    axes = plt.figure().add_subplot()
    draw_roofline(axes, points(), HERE, STYLES)
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2]
    (slope, *roofs) = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines]
    assert [roof[0] for roof in roofs] == [(12.5, 250.0), (24.0, 480.0)]
    assert all(y == pytest.approx(20 * x) for x, y in slope)
    assert slope[-1] == (24.0, pytest.approx(480.0))
    texts = {text.get_text() for text in axes.texts}
    assert texts == {"memory 20.0 GB/s", "bfloat16 250 GFLOP/s", "int8 480 GFLOP/s"}
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert all(left < p.intensity < right and bottom < p.flops_per_s / 1e9 < top for p in points())


def test_every_phase_has_a_panel_and_every_class_a_marker():
    figure = roofline_figure(points(), HERE, STYLES, "CPU: AMD EPYC.", "")
    assert [axes.get_title("left") for axes in figure.axes] == ["prefill", "decode"]
    classes, quants = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert classes == ["qkv", "o", "gate_up", "down", "lm_head", "attention"]
    assert quants == ["bf16", "w8a8"]
    assert len(image(figure)) > 10_000


def test_without_limits_there_are_points_and_no_roof():
    figure = roofline_figure(points(), None, STYLES, "", "")
    assert not [line for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 2]
    assert "The machine's limits" in " ".join(text.get_text() for text in figure.texts)
    assert image(figure)


def test_without_points_the_figure_says_so():
    assert "There is no valid profile" in " ".join(
        t.get_text() for t in roofline_figure([], HERE, STYLES, "", "").texts
    )
