"""What an invalid launch measured is in no table and no figure of profile mode, which says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from synthetic_inside import INVALID, MODES, QUANTS, save_launch

from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.modes import PROFILE
from rollout_bench.report.figures import save
from rollout_bench.report.summary import summarise

ALL = tuple(product(MODES, QUANTS))
"""Every experiment, by mode and quant."""

FIGURES = PROFILE.figures

TABLES = {
    "Where a step's time goes", "Steps, timed and traced", "Speed-up by role",
}  # fmt: skip

OF_TIMED = ("Throughput", "Rates, start-up", "What a launch costs", "Time until", "Tokens generated", "Definitions")
"""Beginnings of headings of what offline mode says for itself."""

OF_STATE = (
    "Rollout benchmark", "Conclusion", "Flags", "Left out", "Measured with", "No verdict", "Verdicts", "Percentiles",
    "How verdicts are reached", "How percentiles are found",
)  # fmt: skip

SLOW = 977.0

Experiments = Sequence[tuple[str, str]]

REASON = "no valid launch: cpu_shared"


@pytest.fixture(scope="module", autouse=True)
def _described() -> Iterator[None]:
    """Yield figures as what is drawn in them: to draw it takes ten times as long as all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "image", described)
        yield


def described(figure: Figure) -> bytes:
    """Return texts of a figure, a line for each, then the limits of its axes, lines, areas and points."""
    drawn: list[object] = [" ".join(text.get_text().split()) for text in figure.findobj(Text)]  # type: ignore[attr-defined]
    drawn += [(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes]
    drawn += [line.get_xydata().tolist() for line in figure.findobj(Line2D)]  # type: ignore[attr-defined]
    drawn += [area.get_bbox().bounds for area in figure.findobj(Rectangle)]  # type: ignore[attr-defined]
    for points in figure.findobj(Collection):
        paths = [path.vertices.tolist() for path in points.get_paths()]  # type: ignore[attr-defined]
        drawn.append((np.asarray(points.get_offsets()).tolist(), paths))  # type: ignore[attr-defined]
    return "\n".join(map(str, drawn)).encode()


def measured(
    results: Path, invalid: Experiments = (), slow: Experiments = (), besides: Experiments = (), launches: int = 1
) -> Path:
    """Return a results folder in which all launches of `invalid` are so, and of `besides` one more than the valid ones.

    Those of `slow` took 977 times as long as they should, and the invalid ones besides, too.
    """
    for mode, quant in ALL:
        flags = [INVALID] if (mode, quant) in invalid else []
        for launch in range(launches):
            times = SLOW if (mode, quant) in slow else 1.0
            save_launch(results, mode, quant, launch + 1, slow=times, flags=flags)
        if (mode, quant) in besides:
            save_launch(results, mode, quant, 0, slow=SLOW, flags=[INVALID])
    return results


def shown(results: Path) -> dict[str, str]:
    """Return all that is shown of a results folder, by name.

    Each section of summary.md, each other file, each figure.
    """
    collection = collect(results, None)
    looked = look(results, collection, rows_of(collection))
    summary = summarise(collection, looked=looked, figures=True)
    parts = re.split(r"^#+ (.*)$", summary.markdown, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    files = {"text": summary.text, "html": summary.html, "csv": summary.csv, **summary.tables}
    drawn = save.figure_files(collection, FIGURES, looked)
    return found | files | {name: drawn[f"{name}.svg"].decode() for name in FIGURES}


def inside(found: dict[str, str]) -> dict[str, str]:
    """Return what of it is of profile mode alone."""
    return {
        name: text
        for name, text in found.items()
        if name not in ("text", "html", "csv") and not name.startswith((*OF_TIMED, *OF_STATE, "No valid launch"))
    }


def kind_of(name: str) -> str:
    """Return the title of a table without what it is of."""
    return name.partition(": ")[0].removesuffix(", ms (%)")


def table(found: dict[str, str], kind: str) -> list[dict[str, str]]:
    """Return the lines of the table whose title begins with `kind`; none where it is left out."""
    texts = [text for name, text in found.items() if name.startswith(kind)]
    lines = [line[2:-2].split(" | ") for text in texts for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]] if lines else []


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return shown(measured(tmp_path_factory.mktemp("sound")))


def test_every_table_and_figure_is_there_where_all_launches_are_valid(sound: dict[str, str]) -> None:
    titles = {kind_of(name) for name in inside(sound)}
    assert titles >= TABLES | {*FIGURES, "profile.csv"}
    assert not any(REASON in text for text in sound.values())
    assert "No valid launch" not in sound
    for kind in TABLES:
        assert "empty because" not in table(sound, kind)[0]


def test_what_a_valid_launch_measured_is_shown(tmp_path: Path, sound: dict[str, str]) -> None:
    """Without this the tests below would hold of tables that show nothing at all."""
    found = inside(shown(measured(tmp_path, slow=[("profile", "w8a8")])))
    differ = {kind_of(name) for name, text in found.items() if inside(sound).get(name) != text}
    assert differ >= TABLES | set(PROFILE.figures) | {"profile.csv"}


@pytest.mark.parametrize(
    "invalid",
    [*([each] for each in ALL), ALL],
    ids=lambda invalid: ", ".join(map(" ".join, invalid)),
)
def test_what_invalid_launches_measured_changes_nothing_that_is_shown(tmp_path: Path, invalid: Experiments) -> None:
    one = shown(measured(tmp_path / "one", invalid))
    other = shown(measured(tmp_path / "other", invalid, slow=invalid))
    if any(mode == "offline" for mode, _ in invalid):
        one, other = inside(one), inside(other)
    assert other.keys() == one.keys()
    for name, text in one.items():
        assert other[name] == text, name


def test_an_invalid_launch_beside_valid_ones_changes_no_number(tmp_path: Path) -> None:
    alone = inside(shown(measured(tmp_path / "alone", launches=2)))
    both = inside(shown(measured(tmp_path / "both", besides=ALL, launches=2)))
    # but the count of launches: valid / measured
    assert {name: text.replace("| 2/3 |", "| 2/2 |") for name, text in both.items()} == alone


@pytest.mark.parametrize("quant", QUANTS)
def test_a_profile_without_a_valid_launch_has_empty_lines_that_say_why(
    tmp_path: Path, sound: dict[str, str], quant: str
) -> None:
    found = shown(measured(tmp_path, [("profile", quant)]))
    (other,) = {*QUANTS} - {quant}
    for kind in ("Where a step's time goes", "Steps, timed and traced"):
        *lines, last = table(found, kind)
        assert last.pop("quant") == quant
        assert last.pop("empty because") == REASON
        assert last.pop("launches", "0/1") == "0/1"
        assert set(last.values()) == {"-"}
        usual = [line | {"empty because": "-"} for line in table(sound, kind) if line["quant"] == other]
        # Only w8a8 has the column of quantizing.
        assert lines == [{name: cell for name, cell in line.items() if name in lines[0]} for line in usual]
    assert table(found, "Speed-up by role") == []
    assert quant not in found["profile.csv"]
    assert found["No valid launch"].strip().startswith(f"- qwen3-90m {quant} small (profile): {REASON}.")
    for name in PROFILE.figures:
        assert f"Left out: qwen3-90m {quant} small (profile), {REASON}." in found[name]
    defined = [text for name, text in found.items() if name.startswith("Definitions")]
    assert sum(text.count("empty because: Why cells of the line are empty.") for text in defined) == 1


def test_profiles_of_which_none_is_valid_have_no_tables_and_figures_that_say_why(tmp_path: Path) -> None:
    found = shown(measured(tmp_path, [("profile", quant) for quant in QUANTS]))
    for kind in TABLES:
        assert table(found, kind) == []
    assert found["profile.csv"].count("\n") == 1
    assert found["No valid launch"].count(REASON) == 2
    for name in PROFILE.figures:
        assert "There is no valid" in found[name]
        assert REASON in found[name]
