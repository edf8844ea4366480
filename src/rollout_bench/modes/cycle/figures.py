"""The figure of a step: generation, then each part of the transition."""

from collections.abc import Mapping, Sequence

from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import number
from rollout_bench.modes.cycle.record import PartName
from rollout_bench.report.figures.charts import Bar, Chart, Rows
from rollout_bench.report.figures.drawings import bar_of, content_of, panels_of, range_of, rows_with, stacked
from rollout_bench.report.parts import Findings

PARTS: Mapping[str, tuple[PartName, ...]] = {
    "drain, pause": ("drain", "pause"),
    "sleep": ("sleep",),
    "wake, resume": ("wake_weights", "wake_kv_cache", "resume"),
    "reset prefix cache": ("reset_prefix_cache",),
}
"""Part of a cycle's bar -> the parts of a transition that it sums up."""

CYCLE_COLOURS = {
    "generation": "#b8b8b8",
    "drain, pause": "#cc79a7",
    "sleep": "#7a5195",
    "wake, resume": "#56b4e9",
    "transfer": "#e69f00",
    "quantize": "#d55e00",
    "load": "#0072b2",
    "reset prefix cache": "#009e73",
}


def cycle(findings: Findings) -> Chart:
    """Chart the seconds of a step: generation, then each part of the transition."""
    rows = rows_with(findings, "cycle")
    known = [row for row in rows if "cycle_s" in row.values]
    panels = [
        Rows(title, "s of a step", [_step(row, panel_rows) for row in panel_rows])
        for title, panel_rows in panels_of(rows).items()
        if any("cycle_s" in row.values for row in panel_rows)
    ]
    title = f"The transition takes {range_of([100 * row.values['transition_share'] for row in known], 2)} % of a step"
    marks = "Bar: means over measured iterations, then over valid launches. Point: the whole step of one launch."
    return Chart(title, content_of(findings, rows), marks, panels, CYCLE_COLOURS)


def _step(row: Row, beside: Sequence[Row]) -> Bar:
    values = row.values
    stages = {name: values.get(f"update_{name}_s", 0.0) for name in ("transfer", "quantize", "load")}
    sums = {name: sum(values.get(f"transition_{part}_s", 0.0) for part in parts) for name, parts in PARTS.items()}
    lengths = {"generation": values.get("step_time_s", 0.0), **stages, **sums}
    parts = stacked({name: lengths[name] for name in CYCLE_COLOURS})
    points = list(values_of("whole_step_s", row.used).values())
    return bar_of(row, beside, parts=parts, points=points, text=f"{number(values.get('whole_step_s'), 3)} s")


DRAWINGS = {"cycle": cycle}
