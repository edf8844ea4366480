"""The frame of online figures: a column of panels for each model and load, a row for each measure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout_bench.analysis.rows import Row
from rollout_bench.reporting.figures.style import nothing, shorten

MAX_COLUMNS = 4
"""Panels side by side that fit on a slide."""

Column = tuple[str, str, str]
"""Platform, model and workload: what one column of panels shows."""


def online_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of online experiments that have a valid launch."""
    return [row for row in rows if row.experiment.mode == "online" and row.used]


def nothing_online(rows: Sequence[Row], otherwise: str) -> str:
    """As `nothing`, for a figure of the online experiments among `rows`."""
    return nothing([row for row in rows if row.experiment.mode == "online"], otherwise)


def column_of(row: Row) -> Column:
    """The column that `row` belongs to; each load of a sweep has its own."""
    return row.experiment.platform, row.experiment.model, row.experiment.workload


def whole_column_of(row: Row) -> Column:
    """The column that `row` belongs to, all loads of a sweep in one."""
    return row.experiment.platform, row.experiment.model, row.experiment.whole.workload


def spread(columns: Sequence[Column]) -> tuple[list[Column], str]:
    """At most `MAX_COLUMNS` of `columns`, evenly chosen from the first to the last; and what is left out, in words."""
    unique = list(dict.fromkeys(columns))
    if len(unique) <= MAX_COLUMNS:
        return unique, ""
    places = [round(place * (len(unique) - 1) / (MAX_COLUMNS - 1)) for place in range(MAX_COLUMNS)]
    left_out = f"Not shown for want of room: {len(unique) - MAX_COLUMNS} of {len(unique)} models and loads."
    return [unique[place] for place in places], left_out


def title_columns(line: Sequence[Axes], columns: Sequence[Column]) -> None:
    """Names each of `columns` above its panel of the first line, as far as they are not all the same."""
    for axes, (platform, model, workload) in zip(line, columns, strict=True):
        parts = [model] if len({other[1] for other in columns}) > 1 else []
        parts += [workload, *([platform] if len({other[0] for other in columns}) > 1 else [])]
        axes.set_title(shorten(", ".join(parts), 104 // len(columns)), loc="left", fontsize=14)


def models_of(columns: Sequence[Column]) -> str:
    """A note on the model, where it stands above no panel."""
    models = {model for _, model, _ in columns}
    return f"Model {models.pop()}." if len(models) == 1 else ""


def draw_grid(
    figure: Figure, columns: Sequence[Column], measures: Sequence[str], share_x: bool = True, share_y: bool = True
) -> list[list[Axes]]:
    """Axes [measures][columns], the columns titled; `measures` are the labels of the vertical axes.

    Panels of a column share the horizontal axis if `share_x`, those of a line the vertical one if `share_y`.
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
