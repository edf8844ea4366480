"""The figures of a report as SVG."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.contracts.modes import MODES
from rollout_bench.report.figures.charts import draw, image, settings
from rollout_bench.report.figures.drawings import DRAWINGS
from rollout_bench.report.notes import completeness, hardware, left_out, left_out_alarm
from rollout_bench.report.parts import Findings


@dataclass(frozen=True)
class Picture:
    """A figure: the `name` of its file without .svg, its conclusion as `title`, and its content."""

    name: str
    title: str
    svg: bytes


def pictures_of(findings: Findings) -> list[Picture]:
    """Return the figures that have data, in the order of a summary; the same bytes for the same records.

    Raises:
        UserError: a side file is damaged; the message names file and line.
    """
    where = hardware(findings.collection.launched)
    found = []
    with settings():
        for name, function in DRAWINGS.items():
            chart = function(findings)
            if chart is not None:
                found.append(Picture(name, chart.title, image(draw(chart, _alarm(name, findings), where))))
    return found


def _alarm(name: str, findings: Findings) -> str:
    """Return the warning of a figure: launches that are missing, and launches that it leaves out."""
    collection = findings.collection
    modes = [mode for mode in MODES.values() if name in mode.figures]
    incomplete = "" if collection.complete else completeness(collection)
    if any(mode.generates for mode in modes):
        return " ".join(filter(None, (incomplete, left_out(findings.rows))))
    alarms = (left_out_alarm(findings.inside.left_out, mode.name) for mode in modes)
    return " ".join(filter(None, (incomplete, *alarms)))
