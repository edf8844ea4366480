"""Figures of online experiments: latency, the sweep, goodput."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rollout_bench.analysis.stats.intervals import Array, ecdf, mean, t_interval
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import table_of
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.numbers import plain_percent
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.style import (
    QUIET,
    ROOM,
    QuantStyle,
    legend,
    message_figure,
    new_figure,
    nothing,
    quant_styles,
    thousands,
    title_panel,
)

MAX_COLUMNS = 4
"""Maximum number of panels side by side on a slide."""

Column = tuple[str, str, str]
"""Platform, model and workload: the key of a column of panels."""


def online_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of online experiments with a valid launch."""
    return [row for row in rows if mode_of(row.experiment.mode).has_loads and row.used]


def nothing_online(rows: Sequence[Row], otherwise: str) -> str:
    """Return the message of an empty figure of the online experiments among `rows`, as in `nothing`."""
    return nothing([row for row in rows if mode_of(row.experiment.mode).has_loads], otherwise)


def column_of(row: Row) -> Column:
    """Return the column of `row`; each load of a sweep has a separate one."""
    return table_of(row.experiment)


def whole_column_of(row: Row) -> Column:
    """Return the column of `row`; all loads of a sweep share one."""
    return table_of(row.experiment.whole)


def spread(columns: Sequence[Column]) -> tuple[list[Column], str]:
    """Return at most `MAX_COLUMNS` of `columns`, evenly spaced from the first to the last; and a note on the others."""
    unique = list(dict.fromkeys(columns))
    if len(unique) <= MAX_COLUMNS:
        return unique, ""
    places = [round(place * (len(unique) - 1) / (MAX_COLUMNS - 1)) for place in range(MAX_COLUMNS)]
    left_out = f"Not shown for want of room: {len(unique) - MAX_COLUMNS} of {len(unique)} models and loads."
    return [unique[place] for place in places], left_out


def title_columns(line: Sequence[Axes], columns: Sequence[Column]) -> None:
    """Write the title of each column above its panel in the first line, without parts that all columns share."""
    for axes, (platform, model, workload) in zip(line, columns, strict=True):
        parts = [model] if len({other[1] for other in columns}) > 1 else []
        parts += [workload, *([platform] if len({other[0] for other in columns}) > 1 else [])]
        title_panel(axes, ", ".join(parts), len(columns))


def models_of(columns: Sequence[Column]) -> str:
    """Return a note on the model if all columns share it, so that no panel names it."""
    models = {model for _, model, _ in columns}
    return f"Model {models.pop()}." if len(models) == 1 else ""


def draw_grid(
    figure: Figure, columns: Sequence[Column], measures: Sequence[str], share_x: bool = True, share_y: bool = True
) -> list[list[Axes]]:
    """Return axes [measures][columns], the columns titled; `measures` are the labels of the vertical axes.

    Panels of a column share the horizontal axis if `share_x`; panels of a line share the vertical axis if `share_y`.
    """
    grid = figure.subplots(
        len(measures),
        len(columns),
        squeeze=False,
        sharex="col" if share_x else "none",
        sharey="row" if share_y else "none",
    )
    title_columns(grid[0], columns)
    for line, measure in zip(grid, measures, strict=True):
        line[0].set_ylabel(measure)
    return [list(line) for line in grid]


LATENCY_TITLE = "Distribution of latency"

LATENCY_MEASURES = {"ttft_s": "TTFT ms", "itl_s": "ITL ms"}

BEYOND = 0.995
"""Share of the values that the horizontal axis covers, so that one straggler does not compress the others."""


def latency_figure(rows: Sequence[Row], where: str, alarm: str) -> Figure:
    """Draw the distribution of TTFT and of ITL: one line per quantization, a column of panels per model and load."""
    if not online_rows(rows):
        return message_figure(LATENCY_TITLE, nothing_online(rows, "Nothing is measured online yet."), alarm=alarm)
    rows = online_rows(rows)
    values = {(place, measure): _pooled(row, measure) for place, row in enumerate(rows) for measure in LATENCY_MEASURES}
    if not any(array.size for array in values.values()):
        return message_figure(LATENCY_TITLE, "No request has a TTFT or an ITL.", alarm=alarm)
    columns, left_out = spread([column_of(row) for row in rows])
    notes = [
        "Share of all requests (TTFT) and of all gaps between pieces of answers (ITL) of the valid launches that took "
        f"at most so long. Axes end where {100 * BEYOND:g} % of the slowest quant's lie, or a little later.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(LATENCY_TITLE, notes, alarm)
    styles = quant_styles(rows)
    legend(figure, styles)
    grid = figure.subplots(len(LATENCY_MEASURES), len(columns), squeeze=False, sharey=True)
    for line, (measure, label) in zip(grid, LATENCY_MEASURES.items(), strict=True):
        for axes, column in zip(line, columns, strict=True):
            shown = {row.label: values[place, measure] for place, row in enumerate(rows) if column_of(row) == column}
            _draw_latency(axes, shown, styles)
            axes.set_xlabel(label)
    title_columns(grid[0], columns)
    figure.supylabel("share that took at most so long", fontsize=15)
    return figure


def _pooled(row: Row, measure: str) -> Array:
    used = {launch.launch for launch in row.used}
    launches = [requests for launch, requests in row.experiment.requests.items() if launch in used]
    return 1000 * np.concatenate([launch.known(measure) for launch in launches] or [np.empty(0)])


def _draw_latency(axes: Axes, shown: dict[str, Array], styles: dict[str, QuantStyle]) -> None:
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
        # A marker on each line, so that lines remain distinct in greyscale.
        for at in (0.25, 0.5, 0.75):
            axes.plot(x[np.searchsorted(share, at)], at, styles[label].marker, color=styles[label].colour, markersize=7)
    end = max(float(np.quantile(values, BEYOND)) for values in there.values())
    begin = min(float(values.min()) for values in there.values())
    margin = 0.04 * (end - begin) or 0.05 * end
    axes.set_xlim(max(0.0, begin - margin), end + margin)
    axes.xaxis.set_major_formatter(thousands())


SWEEP_TITLE = "Throughput and latency over the sweep"

SWEEP_MEASURES = {"ttft_s": "TTFT ms", "tpot_s": "TPOT ms"}

FAR = 20.0
"""Ratio of largest to smallest latency in a row of panels from which its axis is logarithmic."""


def sweep_figure(rows: Sequence[Row], settings: ComparisonSettings, where: str, alarm: str) -> Figure:
    """Draw mean TTFT and TPOT over output tok/s, a curve for each quantization through the loads of its sweep."""
    swept = [row for row in rows if row.experiment.part is not None]
    rows = online_rows(swept)
    if not rows:
        return message_figure(SWEEP_TITLE, nothing(swept, "No sweep is measured yet."), alarm=alarm)
    measures = {m: label for m, label in SWEEP_MEASURES.items() if any(_values(row, m) for row in rows)} or {
        "e2el_s": "E2EL ms"
    }
    columns, left_out = spread([whole_column_of(row) for row in rows])
    notes = [
        "Point: one load of the sweep, mean over launches; lines join loads in their order. Cross: its "
        f"{plain_percent(settings.confidence)} t interval in both directions. Hollow: the server kept less than "
        f"{plain_percent(KEPT_UP)} of the rate.",
        left_out,
        models_of(columns),
        where,
    ]
    figure = new_figure(SWEEP_TITLE, notes, alarm)
    styles = quant_styles(rows)
    legend(figure, styles)
    grid = draw_grid(figure, columns, list(measures.values()))
    for line, measure in zip(grid, measures, strict=True):
        for axes, column in zip(line, columns, strict=True):
            for label, style in styles.items():
                swept = [row for row in rows if whole_column_of(row) == column and row.label == label]
                _draw_sweep(axes, swept, measure, style, settings.confidence)
            axes.xaxis.set_major_formatter(thousands())
        _scale(line, [value for row in rows for value in _values(row, measure)])
    for axes in grid[-1]:
        axes.set_xlabel("output tok/s")
        axes.set_xlim(0, ROOM * axes.get_xlim()[1])
    return figure


def _draw_sweep(axes: Axes, swept: Sequence[Row], measure: str, style: QuantStyle, confidence: float) -> None:
    points = []
    for row in swept:
        values = _values(row, measure)
        rates = [launch.output_tokens_per_s for launch in row.used]
        if not values:
            continue
        middle = mean(rates), mean(values)
        points.append(middle)
        across, up = t_interval(rates, confidence), t_interval(values, confidence)
        if across and up:
            look = {"color": style.colour, "linewidth": 1.5, "alpha": 0.7}
            axes.plot(across, [middle[1]] * 2, **look)  # type: ignore[arg-type]
            axes.plot([middle[0]] * 2, [max(up[0], 0.02 * middle[1]), up[1]], **look)  # type: ignore[arg-type]
        axes.plot(
            *middle,
            style.marker,
            color=style.colour,
            markerfacecolor="white" if _behind(row) else style.colour,
            markersize=9,
            zorder=3,
        )
    axes.plot([x for x, _ in points], [y for _, y in points], color=style.colour, linewidth=2)


def _values(row: Row, measure: str) -> list[float]:
    return [1000 * value for value in values_of(measure, row.used).values()]


def _behind(row: Row) -> bool:
    kept = list(values_of("kept_up_share", row.used).values())
    return bool(kept) and mean(kept) < KEPT_UP


def _scale(line: Sequence[Axes], values: Sequence[float]) -> None:
    if values and max(values) > FAR * min(values) > 0:
        line[0].set_yscale("log")
    else:
        line[0].set_ylim(0, ROOM * line[0].get_ylim()[1])
    line[0].yaxis.set_major_formatter(thousands())
