"""The figure of a step: milliseconds of each category of operators."""

from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import number
from rollout_bench.modes.profile.breakdown import PHASES
from rollout_bench.modes.profile.report import category_word, found_in
from rollout_bench.modes.profile.traces.categories import CATEGORIES
from rollout_bench.report.figures.charts import Bar, Chart, Rows
from rollout_bench.report.figures.drawings import joined, stacked
from rollout_bench.report.parts import Findings

CATEGORY_COLOURS = dict(
    zip(
        CATEGORIES,
        ("#0072b2", "#d55e00", "#882255", "#e69f00", "#f0c987", "#009e73", "#cc79a7", "#8ed3bc", "#7a5195", "#56b4e9",
         "#4d4d4d", "#8c6d31", "#8a8a8a", "#cfcfcf"),
        strict=False,
    )
)  # fmt: skip
"""Category of operators -> colour: Okabe and Ito's palette (2008) and tints of it."""


def steps(findings: Findings) -> Chart:
    """Chart milliseconds of each category of operators in a step without the profiler: a panel for each phase."""
    shown = [each for each in found_in(findings).report.profiled if each.phases]
    if not shown:
        return Chart("", "", "", (), {})
    tables = {each.table for each in shown}
    by_phase = grouped((phase, (each, breakdown_of)) for each in shown for phase, breakdown_of in each.phases.items())
    panels = []
    for phase in sorted(by_phase, key=PHASES.index):
        bars = []
        for each, breakdown_of in by_phase[phase]:
            parts = stacked({category_word(c): breakdown_of.scaled.get(c, 0.0) / 1000 for c in CATEGORIES})
            heading = joined(*each.table) if len(tables) > 1 else ""
            bars.append(Bar(each.quant, heading, parts=parts, text=f"{number(breakdown_of.step_us / 1000)} ms"))
        panels.append(Rows(phase, "ms per step", bars))
    *_, (phase, breakdown) = shown[0].phases.items()
    first = max(CATEGORIES, key=breakdown.share)
    share = f"{100 * breakdown.share(first):.0f} % of a {phase} step"
    title = f"{category_word(first).capitalize()}: {share} ({shown[0].quant})"
    marks = "Bar: a step without the profiler, divided by the shares of its trace."
    keys = {category_word(category): colour for category, colour in CATEGORY_COLOURS.items()}
    return Chart(title, joined(*shown[0].table) if len(tables) == 1 else "", marks, panels, keys)


DRAWINGS = {"steps": steps}
