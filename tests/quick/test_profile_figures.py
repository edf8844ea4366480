"""Figures of profiles: bars that add up, markers where the table says, time lines, and nothing that overlaps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from drawn import assert_texts_are_apart
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_profiles import BF16, W8A8, Parts, make_profiled

from rollout_bench.analysis.inside.profiles import CATEGORIES, HOST_GAP, ROLES
from rollout_bench.analysis.inside.reconciliation import ProfileReport, profile_report
from rollout_bench.contracts.inside import Phase
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.inside.profile_figures import (
    COLOURS,
    FURTHEST,
    roles_figure,
    steps_figure,
    timeline_figure,
)
from rollout_bench.report.figures.style import MAX_LINES, image, settings


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def report(*quants: tuple[str, dict[Phase, Parts]], models: int = 1) -> ProfileReport:
    names = ["qwen3-1.7b", "pangu-7b", "qwen3-30b-a3b", "a-model-with-quite-a-long-name-12b-instruct"]
    profiled = [
        make_profiled(quant, phases, baseline=None if quant == "bf16" else "bf16", model=model)
        for model in names[:models]
        for quant, phases in (("bf16", BF16), *quants)
    ]
    return profile_report(profiled, ComparisonSettings())


def figures(of: ProfileReport) -> list[Figure]:
    return [draw(of, "On a machine.", "") for draw in (steps_figure, roles_figure, timeline_figure)]


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")  # type: ignore[attr-defined]


EVERYTHING: dict[Phase, Parts] = {
    phase: {
        **{("linear", role): 2000.0 for role in ROLES},
        **{(category, ""): 1500.0 for category in CATEGORIES if category != "linear"},
    }
    for phase in ("prefill", "mixed", "decode")
}


@pytest.mark.parametrize(
    ("models", "everything", "setting"),
    [(1, True, ""), (3, False, ""), (4, True, ""), (3, False, " max-num-batched-tokens-8192")],
)
def test_labels_do_not_overlap(models: int, everything: bool, setting: str) -> None:
    quants = [
        ("w8a16" + setting, BF16),
        ("w8a8" + setting, W8A8),
        *([("everything", EVERYTHING)] if everything else []),
    ]
    for figure in figures(report(*quants, models=models)):
        assert_texts_are_apart(figure)


def test_bars_begin_at_zero_and_stack_up_to_the_step() -> None:
    prefill, decode = steps_figure(report(("w8a8", W8A8)), "", "").axes
    assert (prefill.get_title("left"), decode.get_title("left")) == ("prefill", "decode")
    bars = [patch for patch in decode.patches if patch.get_y() > -2]  # type: ignore[attr-defined]
    assert bars[0].get_x() == 0  # type: ignore[attr-defined]
    assert sum(bar.get_width() for bar in bars) == pytest.approx(24)  # type: ignore[attr-defined]
    ends = [bar.get_x() + bar.get_width() for bar in bars]  # type: ignore[attr-defined]
    assert ends[:-1] == pytest.approx([bar.get_x() for bar in bars[1:]])  # type: ignore[attr-defined]
    assert decode.get_xlim()[0] == 0


def test_every_category_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(CATEGORIES)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_a_marker_stands_at_the_speed_up_of_its_part() -> None:
    prefill, decode = roles_figure(report(("w8a8", W8A8)), "", "").axes
    ticks = zip(prefill.get_yticks(), prefill.get_yticklabels(), strict=True)
    labels = {label.get_text(): place for place, label in ticks}
    found = {
        round(float(c.get_offsets()[0][1])): float(c.get_offsets()[0][0])  # type: ignore[index]
        for c in decode.collections
        if isinstance(c, PathCollection)
    }
    assert found[round(labels["linear gate_up"])] == pytest.approx(13 / 6)
    assert found[round(labels["linear + quantize"])] == pytest.approx(18 / 13)
    assert found[round(labels["whole step"])] == pytest.approx(30 / 25)
    assert "quantize" not in labels
    assert min(labels, key=lambda label: labels[label]) == "whole step"


def test_speed_ups_far_off_stand_at_the_edge_and_the_note_says_so() -> None:
    far: dict[Phase, Parts] = {"decode": {**BF16["decode"], ("linear", "gate_up"): 13_000 / (2 * FURTHEST)}}
    figure = roles_figure(report(("w8a8", far)), "", "")
    assert "At the edge" in texts(figure)
    assert "At the edge" not in texts(roles_figure(report(("w8a8", W8A8)), "", ""))
    (axes,) = figure.axes
    assert axes.get_xlim()[1] < 2 * FURTHEST


def test_the_time_line_has_the_categories_in_their_time() -> None:
    (axes,) = timeline_figure(report(), "", "").axes
    spans = {
        tuple(round(float(c), 3) for c in collection.get_facecolor()[0][:3]): [  # type: ignore[index]
            path.get_extents() for path in collection.get_paths()
        ]
        for collection in axes.collections
        if len(collection.get_facecolor())  # type: ignore[arg-type]
    }
    rgb = tuple(round(int(COLOURS["linear"][place : place + 2], 16) / 255, 3) for place in (1, 3, 5))
    assert sum(box.width for box in spans[rgb]) == pytest.approx(18, abs=0.1)
    assert axes.get_xlim()[1] >= 30
    assert HOST_GAP not in texts(timeline_figure(report(), "", ""))


def test_what_is_not_there_is_said() -> None:
    nothing = profile_report([], ComparisonSettings())
    assert all("There is no valid" in texts(figure) for figure in figures(nothing))
    assert "Nothing is compared" in texts(roles_figure(report(), "", ""))
    prefill = profile_report([make_profiled(phases={"prefill": BF16["prefill"]})], ComparisonSettings())
    assert "no valid trace of a decode step yet" in texts(timeline_figure(prefill, "", ""))


def test_what_does_not_fit_is_counted() -> None:
    many = profile_report([make_profiled(f"q{n}") for n in range(MAX_LINES + 2)], ComparisonSettings())
    assert "Not shown for want of room: 2" in texts(steps_figure(many, "", ""))
    four = report(("w8a8", W8A8), models=4)
    assert "1 of 4 models and workloads" in texts(roles_figure(four, "", ""))
    assert len(roles_figure(four, "", "").axes) == 6


def test_notes_and_alarms_are_shown_and_bytes_do_not_change() -> None:
    for draw in (steps_figure, roles_figure, timeline_figure):
        one, other = (draw(report(("w8a8", W8A8)), "On a machine.", "INCOMPLETE.") for _ in range(2))
        assert "On a machine." in texts(one)
        assert "INCOMPLETE." in texts(one)
        assert image(one) == image(other)
