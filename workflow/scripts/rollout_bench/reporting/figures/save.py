"""All figures of a results folder, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.analysis.experiments import Collection
from rollout_bench.analysis.rows import rows_of
from rollout_bench.files import write_whole
from rollout_bench.reporting.figures.iterations import iterations_figure
from rollout_bench.reporting.figures.speedup import speedup_figure
from rollout_bench.reporting.figures.style import image, settings
from rollout_bench.reporting.figures.throughput import throughput_figure
from rollout_bench.reporting.machines import hardware
from rollout_bench.reporting.notes import completeness

NAMES = ("throughput", "speedup", "iterations")
"""The figures; each is saved as <name>.svg and <name>.png."""


def figure_files(collection: Collection) -> dict[str, bytes]:
    """File name -> content of every figure of `collection`; the same bytes for the same records."""
    rows = rows_of(collection)
    alarm = "" if collection.complete else completeness(collection)
    where = hardware(collection.experiments)
    files = {}
    with settings():
        figures = {
            "throughput": throughput_figure(rows, where, alarm),
            "speedup": speedup_figure(rows, collection.baseline, collection.comparison, where, alarm),
            "iterations": iterations_figure(rows, where, alarm),
        }
        for name, figure in figures.items():
            for kind in ("svg", "png"):
                files[f"{name}.{kind}"] = image(figure, kind)
    return files


def save_figures(collection: Collection, folder: Path) -> None:
    """Writes `figure_files` into `folder`; nothing where one can't be drawn."""
    for name, content in figure_files(collection).items():
        write_whole(folder / name, content)
