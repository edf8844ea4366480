"""How latencies are distributed: which share of requests, and of gaps between tokens, took at most so long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import Array, ecdf
from rollout_bench.reporting.figures.grids import (
    column_of,
    models_of,
    nothing_online,
    online_rows,
    spread,
    title_columns,
)
from rollout_bench.reporting.figures.style import (
    QUIET,
    QuantStyle,
    legend,
    message_figure,
    new_figure,
    quant_styles,
    thousands,
)

TITLE = "Distribution of latency"

MEASURES = {"ttft_s": "TTFT ms", "itl_s": "ITL ms"}

BEYOND = 0.995
"""Share of the values that the horizontal axis reaches to, so that one straggler does not squeeze all others."""


def latency_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draws the distribution of TTFT and of ITL, one line per quant, a column of panels for each model and load."""
    if not online_rows(rows):
        return message_figure(TITLE, nothing_online(rows, "Nothing is measured online yet."), alarm=alarm)
    rows = online_rows(rows)
    values = {(place, measure): _pooled(row, measure) for place, row in enumerate(rows) for measure in MEASURES}
    if not any(array.size for array in values.values()):
        return message_figure(TITLE, "Answers were not streamed: only E2EL is known.", alarm=alarm)
    columns, left_out = spread([column_of(row) for row in rows])
    notes = [
        "Share of all requests (TTFT) and of all gaps between pieces of answers (ITL) of the valid launches that took "
        f"at most so long. Axes end where {100 * BEYOND:g} % of the slowest quant's lie, or a little later.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    grid = figure.subplots(len(MEASURES), len(columns), squeeze=False, sharey=True)
    styles = quant_styles(rows)
    for line, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for axes, column in zip(line, columns, strict=True):
            shown = {
                row.quant_label: values[place, measure] for place, row in enumerate(rows) if column_of(row) == column
            }
            _draw(axes, shown, styles)
            axes.set_xlabel(label)
    title_columns(grid[0], columns)
    figure.supylabel("share that took at most so long", fontsize=15)
    legend(figure, styles)
    return figure


def _pooled(row: Row, measure: str) -> Array:
    used = {launch.launch for launch in row.used}
    launches = [requests for launch, requests in row.experiment.requests.items() if launch in used]
    return 1000 * np.concatenate([launch.known(measure) for launch in launches] or [np.empty(0)])


def _draw(axes: Axes, shown: dict[str, Array], styles: dict[str, QuantStyle]) -> None:
    there = {label: values for label, values in shown.items() if values.size}
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1.02)
    if not there:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=QUIET)
        axes.set_xticks([])
        return
    for label, values in there.items():
        x, share = ecdf(values)
        axes.step(x, share, where="post", color=styles[label].colour, linewidth=2.2)
        # A marker on each line, so that a printed grey is told apart too.
        for at in (0.25, 0.5, 0.75):
            axes.plot(x[np.searchsorted(share, at)], at, styles[label].marker, color=styles[label].colour, markersize=7)
    end = max(float(np.quantile(values, BEYOND)) for values in there.values())
    begin = min(float(values.min()) for values in there.values())
    margin = 0.04 * (end - begin) or 0.05 * end
    axes.set_xlim(max(0.0, begin - margin), end + margin)
    axes.xaxis.set_major_formatter(thousands())
