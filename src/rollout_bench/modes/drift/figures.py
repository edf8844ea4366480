"""The figure of drift: the distance of each quantization from the reference."""

from rollout_bench.core.numbers import first_few, number
from rollout_bench.modes.drift.drifts import floor_of
from rollout_bench.modes.drift.report import found_in, scored_text
from rollout_bench.report.figures.charts import Bar, Chart, Rows, colours_of
from rollout_bench.report.parts import Findings

BEYOND = {True: "drifts", False: "none found beyond the floor", None: ""}
"""Whether a quantization drifts beyond the noise floor -> words."""


def drift(findings: Findings) -> Chart:
    """Chart mean |d| of each experiment and batch size, with its interval and the noise floor."""
    report = found_in(findings)
    several_references = len({one.reference.place for one in report.drifted}) > 1
    labels = [one.valid.name if several_references else one.valid.label for one in report.drifted]
    named = list(zip(labels, report.drifted, strict=True))
    colours = colours_of(labels, {label for label, one in named if one.of_reference})
    bars = []
    for label, one in named:
        size, floor = one.found.size, floor_of(one, report.drifted)
        mark = None if floor is None else floor.found.size.value
        span = (size.low, size.high) if size.has_ends else None
        text = f"{number(size.value, 3)} {'(reference)' if one.of_reference else BEYOND[one.drifts]}".strip()
        bars.append(Bar(scored_text(one), label, size.value, span, mark=mark, text=text, colour=colours[label]))
    drifting = dict.fromkeys(label for label, one in named if one.drifts)
    title = "No drift beyond the noise floor shown"
    if drifting:
        title = f"Drift beyond the noise floor: {first_few(drifting)}"
    elif all(one.drifts is None for one in report.drifted):
        title = "Drift from the reference, of which no noise floor is known"
    marks = (
        "d: log probability of a token minus the reference's. Band: interval over sequences; without a band it is "
        "unbounded or not known. Grey: the reference against itself. Dashed: its noise floor."
    )
    return Chart(title, "", marks, [Rows("", "mean |d|, nats per token", bars, middle=0)] if bars else [], {})


DRAWINGS = {"drift": drift}
