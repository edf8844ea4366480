"""The figure of a placement: the activities of each device in a step."""

from collections.abc import Mapping, Sequence

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import first_few, number, ratio
from rollout_bench.modes.placement.costs import typical_step
from rollout_bench.report.figures.charts import Bar, Chart, Rows
from rollout_bench.report.figures.drawings import content_of, rows_with
from rollout_bench.report.headings import names_among
from rollout_bench.report.parts import Findings

ACTIVITY_COLOURS = {
    "generate": "#0072b2",
    "gather": "#cc79a7",
    "train": "#e69f00",
    "reduce, optimize": "#d55e00",
    "update, reset": "#009e73",
    "sleep, wake": "#56b4e9",
}
"""Activities of a placement -> colour; white is waiting."""


def placement(findings: Findings) -> Chart:
    """Chart the activities of each device in the step with the median time: a panel for each placement."""
    rows = rows_with(findings, "placement")
    typical_steps = [(row, step) for row in rows if (step := typical_step(row)) is not None]
    pieces = {activity: name for name in ACTIVITY_COLOURS for activity in name.split(", ")}
    longest = 1.02 * max((step.elapsed_s for _, step in typical_steps), default=0.0)
    names = names_among([row for row, _ in typical_steps])
    panels = []
    for row, step in typical_steps:
        bars = [
            Bar(
                f"device {rank.rank}",
                parts=[(pieces[span.activity], span.began_s, span.elapsed_s) for span in rank.spans],
                text=f"waits {number(100 * max(0.0, 1 - rank.busy_s() / step.elapsed_s), 2)} %",
            )
            for rank in step.ranks
        ]
        panels.append(
            Rows(
                f"{names[row.experiment.place]}: {number(step.elapsed_s, 3)} s",
                "s after the step began",
                bars,
                (0, longest),
            )
        )
    takes = [f"{number(step.elapsed_s, 3)} s ({names[row.experiment.place]})" for row, step in typical_steps]
    title = _verdict([row for row, _ in typical_steps], names) or f"A step takes {first_few(takes, 3)}"
    marks = "The step with the median time of all valid launches. Blank: the device waits."
    return Chart(title, content_of(findings, rows), marks, panels, ACTIVITY_COLOURS)


def _verdict(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Return the conclusion on the times of a step in a sentence; empty without a verdict or a single baseline."""
    compared = [(names[row.experiment.place], row.comparisons.get("placed_step_s")) for row in rows]
    baselines = [name for name, one in compared if one is not None and one.is_baseline]
    decided = [(name, one) for name, one in compared if one is not None and one.verdict in ("faster", "slower")]
    if not decided or len(baselines) != 1:
        return ""
    if len(decided) == 1:
        ((name, one),) = decided
        ends = f" [{ratio(one.low)}, {ratio(one.high)}]" if one.low and one.high else ""
        return f"{name}: a step is {ratio(one.speedup or 1)}x as fast as {baselines[0]}{ends}"
    each = [f"{ratio(one.speedup or 1)}x ({name})" for name, one in decided]
    return f"A step is {first_few(each, 3)} as fast as {baselines[0]}"


DRAWINGS = {"placement": placement}
