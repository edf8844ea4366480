"""Speed-up of each part of a step: which operators a quant makes faster and which slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from rollout_bench.analysis.profiles.breakdown import place
from rollout_bench.analysis.profiles.changes import Change, changes, linear_with_quantize
from rollout_bench.analysis.profiles.profiled import HOST_GAP, PHASES, QUANTIZE, Part
from rollout_bench.analysis.profiles.reconciliation import Reconciliation
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.records.profile import Phase
from rollout_bench.reporting.figures.profile_frame import table_title
from rollout_bench.reporting.figures.style import (
    INK,
    QUIET,
    QuantStyle,
    label_styles,
    legend,
    message_figure,
    new_figure,
    shorten,
)
from rollout_bench.reporting.profile_words import part_word

TITLE = "Speed-up of each part of a step"

MAX_PANELS = 6
"""Side by side that fit on a slide: models and workloads, each with its phases."""

SMALL = 0.01
"""Share of a step below which a part is not drawn: its speed-up matters to nobody."""

FURTHEST = 10.0
"""Speed-ups beyond this, either way, are drawn at the edge."""

TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10)

NET: Part = ("linear", "+ quantize")
WHOLE: Part = ("whole step", "")


def roles_figure(report: ProfileReport, where: str, alarm: str) -> Figure:
    """Draws the speed-up of each part over the baseline: a panel for each model and workload and phase."""
    pairs = [pair for pair in report.reconciliations if _phases(report, pair)]
    if not pairs:
        text = "Nothing is compared: it takes profiles of the baseline and of another quant."
        return message_figure(TITLE, text if report.profiled else "There is no valid profile yet.", alarm=alarm)
    tables = list(dict.fromkeys(pair.own.table for pair in pairs))
    phases = [phase for phase in PHASES if any(phase in _phases(report, pair) for pair in pairs)]
    shown = tables[: max(1, MAX_PANELS // len(phases))]
    left = len(tables) - len(shown)
    columns = [(table, phase) for table in shown for phase in phases]
    found = [_found(report, [pair for pair in pairs if pair.own.table == table], phase) for table, phase in columns]
    baselines = dict.fromkeys(pair.baseline.quant for pair in pairs)
    notes = [
        f"Times without the profiler, {', '.join(baselines)}'s over its own; above 1 is faster. The larger the marker, "
        "the more of the baseline's step the part takes. Quantizing is new, so it counts with the linear layers it "
        "serves: linear + quantize.",
        f"Not shown for want of room: {left} of {len(tables)} models and workloads." if left else "",
        f"At the edge: beyond {FURTHEST:.0f}x either way; the table has the number." if _beyond(found) else "",
        where,
    ]
    figure = new_figure(TITLE, notes, alarm)
    styles = label_styles([each.quant for each in report.profiled])
    grid = figure.subplots(1, len(shown) * len(phases), squeeze=False, sharey=True, sharex=True)[0]
    parts = sorted({part for each in found for by in each.values() for part in by}, key=_order)
    for number, (axes, (table, phase), each) in enumerate(zip(grid, columns, found, strict=True)):
        _draw_panel(axes, each, parts, styles, first=number == 0)
        title = f"{table_title(table, tables)}, {phase}" if len(tables) > 1 else phase
        axes.set_title(shorten(title, 96 // len(columns)), loc="left", fontsize=14)
        axes.set_xlabel("speed-up")
    _scale(grid[0], [c for each in found for by in each.values() for c in by.values()], len(columns))
    legend(figure, {label: style for label, style in styles.items() if any(pair.own.quant == label for pair in pairs)})
    return figure


def _phases(report: ProfileReport, pair: Reconciliation) -> list[Phase]:
    return [phase for phase in PHASES if phase in report.of(pair.own) and phase in report.of(pair.baseline)]


def _found(report: ProfileReport, pairs: Sequence[Reconciliation], phase: Phase) -> dict[str, dict[Part, Change]]:
    """By quant the parts that matter, each as shares of the baseline's step."""
    by_quant = {}
    for pair in pairs:
        if phase not in _phases(report, pair):
            continue
        own, baseline = report.of(pair.own)[phase], report.of(pair.baseline)[phase]
        all_parts = changes(
            {part: us / baseline.step_us for part, us in baseline.scaled.items()},
            {part: us / baseline.step_us for part, us in own.scaled.items()},
        )
        drawn = {change.part: change for change in all_parts if max(change.baseline, change.own) >= SMALL}
        if any(change.part[0] == QUANTIZE for change in all_parts):
            drawn[NET] = linear_with_quantize(all_parts)
        whole = Change(WHOLE, sum(c.baseline for c in all_parts), sum(c.own for c in all_parts))
        by_quant[pair.own.quant] = {part: c for part, c in {**drawn, WHOLE: whole}.items() if c.speedup is not None}
    return by_quant


def _beyond(found: Sequence[Mapping[str, Mapping[Part, Change]]]) -> bool:
    ratios = [change.speedup for each in found for by in each.values() for change in by.values() if change.speedup]
    return any(max(ratio, 1 / ratio) > FURTHEST for ratio in ratios)


def _draw_panel(
    axes: Axes,
    found: Mapping[str, Mapping[Part, Change]],
    parts: Sequence[Part],
    styles: Mapping[str, QuantStyle],
    first: bool,
) -> None:
    axes.axvline(1, color=INK, linewidth=1.5, zorder=1)
    heights = {part: -number for number, part in enumerate(parts)}
    for number, (quant, by_part) in enumerate(found.items()):
        # Quants are staggered, so that equal ones do not hide one another.
        off = 0.5 * ((len(found) - 1) / 2 - number) / max(2, len(found))
        for part, change in by_part.items():
            assert change.speedup is not None
            at = min(max(change.speedup, 1 / FURTHEST), FURTHEST)
            axes.plot([1, at], [heights[part] + off] * 2, color=styles[quant].colour, linewidth=2, alpha=0.5)
            axes.scatter(
                at, heights[part] + off, s=40 + 260 * change.baseline, color=styles[quant].colour,
                marker=styles[quant].marker, edgecolors=INK, linewidths=0.6, zorder=3,
            )  # fmt: skip
    axes.set_yticks(list(heights.values()), [_word(part) for part in parts])
    axes.set_ylim(-len(parts) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0, labelleft=first, labelsize=13)
    axes.axhline(-len(parts) + 1.5, color=QUIET, linewidth=0.8)


def _scale(axes: Axes, found: Sequence[Change], panels: int) -> None:
    ratios = [change.speedup for change in found if change.speedup is not None]
    low, high = max(min([0.9, *ratios]), 1 / FURTHEST), min(max([1.1, *ratios]), FURTHEST)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.12, high * 1.12)
    ticks = [tick for tick in TICKS if low / 1.12 <= tick <= high * 1.12]
    step = max(1, -(-len(ticks) * panels // 16))
    middle = ticks.index(1)
    axes.set_xticks([tick for number, tick in enumerate(ticks) if (number - middle) % step == 0])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _order(part: Part) -> tuple[float, int, str]:
    """Linear layers first, then what they come to with quantizing, the whole step last."""
    if part == WHOLE:
        return (99.0, 0, "")
    if part == NET:
        return (0.5, 0, "")
    category, role, name = place(part)
    return (98.0 if part[0] == HOST_GAP else float(category), role, name)


def _word(part: Part) -> str:
    return "linear + quantize" if part == NET else part_word(part)
