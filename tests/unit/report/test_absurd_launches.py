"""One invalid launch whose numbers are absurd shows up in no table, file or figure of any mode, by the registries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from every_mode import save_every_mode
from matplotlib.collections import Collection as Marks
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from synthetic_inside import INVALID

from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.modes import MODES, named
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.serving import Slo
from rollout_bench.report.figure_names import DRAWINGS
from rollout_bench.report.figures.style import settings
from rollout_bench.report.headings import View, told
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import SPANNING

PARTS = tuple(dict.fromkeys([*(mode.tables for mode in MODES.values()), *SPANNING]))

STATE = {"launches", "flags"}
"""Columns that tell of invalid launches, not of what they measured."""

CROSS = "x: invalid launch, not in the mean, and not shown where it lies beyond the axis."
"""What figure throughput says of the only mark that an invalid launch has."""

Three = dict[str, Findings]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Three:
    """Return what a report has of three folders.

    sound: two valid launches of each experiment. spoilt: an absurd one besides, invalid. taken: the same, valid.
    """
    folders = {name: tmp_path_factory.mktemp(name) for name in ("sound", "spoilt", "taken")}
    for folder in folders.values():
        for launch in (1, 2):
            save_every_mode(folder, launch)
    save_every_mode(folders["spoilt"], 0, absurd=True, flags=[INVALID])
    save_every_mode(folders["taken"], 0, absurd=True)
    return {name: findings(folder) for name, folder in folders.items()}


def findings(results: Path) -> Findings:
    comparison = ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "startup_s"]})
    collection = replace(collect(results, None), slo=Slo(ttft_ms=100), comparison=comparison)
    assert collection.damaged == []
    looked = look(results, collection, rows_of(collection))
    assert looked.problems == ()
    return Findings(collection, pool_sequences(results, collection), looked, results)


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def numbers(tables: list[View]) -> dict[str, list[dict[str, str]]]:
    """Return the lines of each table by its title, without columns of `STATE`."""
    return {
        table.title: [
            {
                column.header: cell
                for column, cell in zip(table.columns, line, strict=True)
                if column.header not in STATE
            }
            for line in table.cells
        ]
        for table in tables
    }


@pytest.mark.parametrize("part", PARTS)
def test_no_table_shows_a_number_of_an_invalid_launch(found: Three, part: str) -> None:
    shown = {name: numbers(told(named(part)(each).tables)) for name, each in found.items()}
    assert shown["sound"] != {}
    assert shown["spoilt"] == shown["sound"]
    assert shown["taken"] != shown["sound"]  # or the line above would hold of tables that show nothing


@pytest.mark.parametrize("part", PARTS)
def test_no_file_for_programs_has_a_number_of_an_invalid_launch(found: Three, part: str) -> None:
    files = {
        name: {file: frame.to_csv() for file, frame in named(part)(each).files.items()} for name, each in found.items()
    }
    assert files["spoilt"] == files["sound"]


def test_the_table_for_programs_counts_an_invalid_launch_and_has_no_number_of_it(found: Three) -> None:
    frames = {name: each.frame for name, each in found.items()}
    assert set(frames["spoilt"]["launches_invalid"]) == {1}
    counts = [column for column in frames["sound"] if column.startswith("launches_")]
    texts = {name: frame.drop(columns=[*counts, "flags"]).to_csv() for name, frame in frames.items()}
    assert texts["spoilt"] == texts["sound"]
    assert texts["taken"] != texts["sound"]
    assert not any(pd.isna(frames["sound"]["output_tokens_per_s"]))


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_figure_shows_a_number_of_an_invalid_launch(found: Three, name: str) -> None:
    figures = {each: drawn(name, here) for each, here in found.items()}
    assert figures["sound"].axes != []
    described = {each: description(figure, name == "throughput") for each, figure in figures.items()}
    assert described["spoilt"] == described["sound"]
    assert described["taken"] != described["sound"]


def drawn(name: str, here: Findings) -> Figure:
    drawing = DRAWINGS[name]
    figure: Figure = named(drawing.function)(*(attrgetter(of)(here) for of in drawing.of), "here", "")
    return figure


def description(figure: Figure, crosses: bool) -> str:
    """Return what `figure` says and shows, in data coordinates; without the `crosses` of invalid launches."""
    lines = sorted(figure.texts, key=lambda text: -text.get_position()[1])
    said = " ".join(" ".join(text.get_text() for text in lines).replace("\n", " ").split())
    shown: list[object] = [" ".join(said.replace(CROSS, "").split())]
    for axes in figure.axes:
        shown += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim(), axes.get_ylim()]
        shown += [text.get_text() for text in axes.texts]
        shown += [np.asarray(line.get_xydata(), dtype=float).tolist() for line in axes.lines]
        shown += [area.get_bbox().bounds for area in axes.patches if isinstance(area, Rectangle)]
        shown += [marks_of(marks) for marks in axes.collections if not (crosses and is_cross(marks))]
    return "\n".join(map(str, shown))


def marks_of(marks: Marks) -> tuple[object, object]:
    paths = [np.asarray(path.vertices, dtype=float).tolist() for path in marks.get_paths()]
    return np.asarray(marks.get_offsets(), dtype=float).tolist(), paths


def is_cross(marks: Marks) -> bool:
    """Return whether it is drawn by two strokes, as an x is."""
    return all(len(path.vertices) == 4 for path in marks.get_paths())
