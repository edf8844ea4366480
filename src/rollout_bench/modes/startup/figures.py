"""The figure of a start: its phases."""

from rollout_bench.core.numbers import number
from rollout_bench.modes.startup.costs import phases_of
from rollout_bench.modes.startup.numbers import PHASE
from rollout_bench.report.figures.charts import Bar, Chart, Rows
from rollout_bench.report.figures.drawings import content_of, range_of, rows_with
from rollout_bench.report.headings import names_among
from rollout_bench.report.parts import Findings

START_COLOURS = {"own time": "#0072b2", "phases inside": "#9cc3dd", "no phase": "#d55e00"}


def startup(findings: Findings) -> Chart:
    """Chart the phases of a start, each at its own time: a panel for each experiment."""
    rows = rows_with(findings, "startup")
    known = [row for row in rows if "until_token_s" in row.values]
    longest = 1.02 * max((row.values["until_token_s"] for row in known), default=0.0)
    panels = []
    names = names_among(known)
    for row in known:
        bars, rest_s = [], row.values["rest_s"]
        for name, phase in phases_of(row).items():
            span = phase.ended_s - phase.began_s
            inside = [("phases inside", phase.began_s, span)] if phase.own_s < 0.97 * span else []
            parts = [*inside, ("own time", phase.began_s, min(phase.own_s, span))]
            bars.append(Bar(PHASE[name][0], parts=parts, text=_seconds(phase.own_s)))
        bars.append(Bar("rest", parts=[("no phase", 0, rest_s)], text=_seconds(rest_s)))
        whole = f"{names[row.experiment.place]}: {number(row.values['until_token_s'], 3)} s"
        panels.append(Rows(whole, "s after the launch's beginning", bars, (0, longest)))
    title = (
        f"{range_of([row.values['until_token_s'] for row in known], 3)} s from a launch's beginning to a first token"
    )
    marks = "Means over valid launches. The rest is the time that no phase explains."
    return Chart(title, content_of(findings, rows), marks, panels, START_COLOURS)


def _seconds(seconds: float) -> str:
    return f"{number(seconds, 2)} s" if seconds >= 0.005 else "0"


DRAWINGS = {"startup": startup}
