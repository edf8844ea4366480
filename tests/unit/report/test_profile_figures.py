"""The figure of profiles: bars that add up, and nothing that overlaps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from drawn import assert_texts_are_apart
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_profiles import BF16, W8A8, Parts, make_profiled

from rollout_bench.analysis.inside.profile_report import ProfileReport, profile_report
from rollout_bench.analysis.inside.profiles import CATEGORIES, ROLES
from rollout_bench.contracts.inside import Phase
from rollout_bench.report.figures.inside.profile_figures import COLOURS, steps_figure
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
    return profile_report(profiled)


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
    assert_texts_are_apart(steps_figure(report(*quants, models=models), "On a machine.", ""))


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


def test_what_is_not_there_is_said() -> None:
    assert "There is no valid profile yet" in texts(steps_figure(profile_report([]), "", ""))


def test_what_does_not_fit_is_counted() -> None:
    many = profile_report([make_profiled(f"q{n}") for n in range(MAX_LINES + 2)])
    assert "Not shown for want of room: 2" in texts(steps_figure(many, "", ""))


def test_notes_and_alarms_are_shown_and_bytes_do_not_change() -> None:
    one, other = (steps_figure(report(("w8a8", W8A8)), "On a machine.", "INCOMPLETE.") for _ in range(2))
    assert "On a machine." in texts(one)
    assert "INCOMPLETE." in texts(one)
    assert image(one) == image(other)
