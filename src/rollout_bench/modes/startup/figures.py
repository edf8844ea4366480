"""The figure of a start: its phases."""

from collections.abc import Iterator

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import number
from rollout_bench.modes.startup.numbers import PHASE
from rollout_bench.modes.startup.record import StartPhase, start_phases
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
        for phase in sorted(_mean_phases(row), key=lambda phase: phase.began_s):
            span = phase.ended_s - phase.began_s
            inside = [("phases inside", phase.began_s, span)] if phase.elapsed_s < 0.97 * span else []
            parts = [*inside, ("own time", phase.began_s, min(phase.elapsed_s, span))]
            bars.append(Bar(PHASE[phase.name][0], parts=parts, text=_seconds(phase.elapsed_s)))
        bars.append(Bar("rest", parts=[("no phase", 0, rest_s)], text=_seconds(rest_s)))
        whole = f"{names[row.experiment.place]}: {number(row.values['until_token_s'], 3)} s"
        panels.append(Rows(whole, "s after the launch's beginning", bars, (0, longest)))
    title = (
        f"{range_of([row.values['until_token_s'] for row in known], 3)} s from a launch's beginning to a first token"
    )
    marks = "Means over valid launches. The rest is the time that no phase explains."
    return Chart(title, content_of(findings, rows), marks, panels, START_COLOURS)


def _mean_phases(row: Row) -> Iterator[StartPhase]:
    """Yield each phase with its means over the valid launches that had it."""
    courses = [course for record in row.experiment.records if record.valid and (course := start_phases(record))]
    for name in PHASE:
        if phases := [phase for course in courses if (phase := course.phase(name))]:
            parts = ("began_s", "ended_s", "elapsed_s")
            yield StartPhase(name=name, **{part: mean([getattr(each, part) for each in phases]) for part in parts})


def _seconds(seconds: float) -> str:
    return f"{number(seconds, 2)} s" if seconds >= 0.005 else "0"


DRAWINGS = {"startup": startup}
