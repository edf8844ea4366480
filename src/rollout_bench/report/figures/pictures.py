"""The figures of a report as SVG, and its numbers as JSON for the explorer in summary.html."""

import json
from collections.abc import Callable

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import MODES
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.report.figures.charts import Chart, figure_settings, svg_figure
from rollout_bench.report.figures.drawings import DRAWINGS, row_colours
from rollout_bench.report.notes import completeness, hardware, left_out, left_out_alarm
from rollout_bench.report.parts import Findings, Picture


def pictures_of(findings: Findings) -> list[Picture]:
    """Return the figures that have data, in the order of a summary; the same bytes for the same records.

    Raises:
        UserError: a side file is damaged; the message names file and line.
    """
    where = hardware(findings.collection.launched)
    found = []
    with figure_settings():
        for name, function in drawings().items():
            chart = function(findings)
            if chart.panels:
                found.append(Picture(name, chart.title, svg_figure(chart, _alarm(name, findings), where)))
    return found


def drawings() -> dict[str, Callable[[Findings], Chart]]:
    """Return the figures of modes that generate, those of several modes, and those of the other modes, by name."""
    by_mode = {mode: mode.drawings.get() for mode in MODES.values() if mode.drawings}
    timed = {name: draw for mode, each in by_mode.items() if mode.generates for name, draw in each.items()}
    others = {name: draw for mode, each in by_mode.items() if not mode.generates for name, draw in each.items()}
    return {**timed, **DRAWINGS, **others}


def _alarm(name: str, findings: Findings) -> str:
    """Return the warning of a figure: launches that are missing, and launches that it leaves out."""
    collection = findings.collection
    modes = [mode for mode in MODES.values() if name in mode.figures]
    incomplete = "" if collection.complete else completeness(collection)
    alarms = [left_out_alarm(findings.left_out, mode.name) for mode in modes]
    if any(mode.generates for mode in modes):
        alarms = [left_out(findings.rows)]
    return " ".join(filter(None, (incomplete, *alarms)))


def explorer_data(findings: Findings) -> str:
    """Return the rows with the numbers of their launches, in plain units; safe inside of a script element.

    The explorer opens on the first number, so that those with a verdict come first. Ratios, intervals and verdicts are
    those of the summary. An unknown number is missing.
    """
    rows = findings.drawn
    known = {name for row in rows for launch in row.launches for name in launch.values}
    numbers = [
        {"name": name, "header": of.header, "factor": of.factor, "digits": of.digits}
        for name, of in NUMBERS.items()
        if name in known
    ]
    judged = {name for row in rows for name, found in row.comparisons.items() if found.verdict is not None}
    numbers.sort(key=lambda number: number["name"] not in judged)
    colour = row_colours(findings)
    content = {"numbers": numbers, "rows": [_row(row, colour[row.label]) for row in rows if row.launches]}
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _row(row: Row, colour: str) -> dict[str, object]:
    experiment = row.experiment
    other = row.against.other
    return {
        "mode": experiment.mode,
        "platform": experiment.platform,
        "model": experiment.model,
        "workload": experiment.workload,
        "label": row.label,
        "colour": colour,
        "baseline": "" if other is None else f"{other.quant} {other.setting}".removesuffix(" default"),
        "means": row.values,
        "launches": [
            {"launch": each.launch, "valid": each.valid, "flags": [f.code for f in each.flags], "values": each.values}
            for each in row.launches
        ],
        "compared": {
            metric: {
                "ratio": found.speedup,
                "low": found.low,
                "high": found.high,
                "verdict": "bounded" if found.is_bounded else found.verdict,
            }
            for metric, found in row.comparisons.items()
            if found.verdict is not None
        },
    }
