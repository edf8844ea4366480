"""The figure of a rollout's engines: how full the KV cache of each is, over a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Iteration, ServerSample
from rollout_bench.contracts.spec import says_cache_use
from rollout_bench.core.mappings import grouped
from rollout_bench.report.figures.online_figures import LEAST, Samples
from rollout_bench.report.figures.style import (
    QUIET,
    ROOM,
    label_styles,
    legend,
    message_figure,
    new_figure,
    nothing,
    title_panel,
)

KV_CACHE_TITLE = "KV cache in use, over a step"

ACROSS = 4
"""Configurations side by side that fit on a slide."""

Looks = Mapping[int, Sequence[ServerSample]]
"""What each engine said of itself in one pass, by its number."""


def kv_cache_figure(rows: Sequence[Row], samples: Samples, where: str, alarm: str) -> Figure:
    """Draw the share of each engine's KV cache in use in a typical step: a panel per configuration, a line per engine.

    A typical step: the one with the median time.
    """
    asked = [row for row in rows if row.used and says_cache_use(row.experiment.records[0].spec)]
    drawn = [(row, *found) for row in asked if (found := typical_looks(row, samples)) is not None]
    if not drawn:
        message = "Steps were too short for their engines to be looked at." if asked else "No engine was looked at."
        return message_figure(KV_CACHE_TITLE, nothing(rows, message), alarm=alarm)
    shown = drawn[:ACROSS]
    styles = label_styles(f"replica {number}" for number in range(max(1 + max(looks) for *_, looks in shown)))
    notes = [
        "Line: the engine of one replica in the measured iteration with the median time of all valid launches.",
        "Dashed: the step is over.",
        f"Not shown for want of room: {len(drawn) - ACROSS} of {len(drawn)}." if len(drawn) > ACROSS else "",
        where,
    ]
    figure = new_figure(KV_CACHE_TITLE, notes, alarm)
    if len(styles) > 1:
        legend(figure, styles)
    (grid,) = figure.subplots(1, len(shown), squeeze=False, sharey=True)
    names = [(row.experiment.model, row.experiment.workload) for row, *_ in shown]
    for axes, (row, step, looks), name in zip(grid, shown, names, strict=True):
        for number, said in sorted(looks.items()):
            use = [100 * (sample.kv_cache_use or 0.0) for sample in said]
            axes.step(
                [sample.at_s for sample in said], use, where="post",
                color=styles[f"replica {number}"].colour, linewidth=2,
            )  # fmt: skip
        axes.axvline(step.elapsed_s, color=QUIET, linestyle="--", linewidth=1)
        axes.set_xlim(0, ROOM * max(step.elapsed_s, *(said[-1].at_s for said in looks.values())))
        axes.tick_params(axis="x", pad=8)  # or the zeros of both axes touch
        axes.set_xlabel("s after the step began")
        title_panel(axes, ", ".join([*(name if len(set(names)) > 1 else ()), row.label]), len(shown))
    grid[0].set_ylim(bottom=0)
    grid[0].set_ylabel("% of the KV cache")
    return figure


def typical_looks(row: Row, samples: Samples) -> tuple[Iteration, Looks] | None:
    """Return the step with the median time of all that were looked at, of two the shorter one, and what was seen."""
    used = {launch.launch for launch in row.used}
    found: list[tuple[Iteration, Looks]] = []
    for record in row.experiment.records:
        said = samples.get((row.experiment.whole.place, record.launch), ()) if record.launch in used else ()
        for step in record.iterations:
            looks = grouped(
                (sample.replica or 0, sample)
                for sample in said
                if sample.iteration == step.index and sample.kv_cache_use is not None
            )
            if not step.warmup and max(map(len, looks.values()), default=0) >= LEAST:
                found.append((step, looks))
    found.sort(key=lambda each: each[0].elapsed_s)
    return found[(len(found) - 1) // 2] if found else None
