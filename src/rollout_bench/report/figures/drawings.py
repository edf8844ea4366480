"""The charts: a function for each figure; without data for it, it has no panels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from operator import itemgetter
from typing import Any

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.answers import SweepLine, compared_rows, lines_over
from rollout_bench.analysis.timed.comparison import BOUND, Comparison
from rollout_bench.analysis.timed.drafting import BreakEven, break_evens
from rollout_bench.analysis.timed.latencies import LAST, PERCENTILES
from rollout_bench.analysis.timed.launches import LaunchMeasures
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import with_setting
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few, number, plain_percent, ratio
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.report.figures.charts import Bar, Chart, Line, Lines, Rows, colours_of
from rollout_bench.report.parts import Findings
from rollout_bench.report.service import rate_lines, states_at_rates

VERDICTS = {"irrelevant": "real, small", "undetected": "inconclusive", "unknown": "no verdict"}
"""Words of the verdicts for which a metric has none."""


def throughput(findings: Findings) -> Chart:
    """Chart output tok/s of each experiment: a bar for the mean, a point for each launch.

    Loads of a sweep at a request rate are not shown: the rate sets their throughput, and the sweep has its own figure.
    """
    shown, swept = _busiest([row for row in rows_with(findings, "throughput") if not _swept_at_a_rate(row)])
    used = [row for row in shown if row.used]
    colours = row_colours(findings)
    panels = [
        Rows(title, "output tok/s", [_rate(row, colours, panel_rows) for row in panel_rows])
        for title, panel_rows in panels_of(shown).items()
        if any(row.used for row in panel_rows)
    ]
    marks = "Bar: mean over launches. Point: one launch; warm-up does not count."
    if any(len(row.used) < len(row.launches) for row in used):
        marks += " x: an invalid launch, which counts nowhere; none beyond the axis is shown."
    named = sorted((mean(_rates(row)), row.label) for row in used)
    title = f"{range_of([rate for rate, _ in named])} output tok/s"
    if len(panels) == 1 and len(named) > 1:
        (low, fewest), (high, most) = named[0], named[-1]
        title = f"Most output tok/s: {most}, {number(high)}; fewest: {fewest}, {number(low)}"
    return Chart(title, content_of(findings, shown), f"{marks} {swept}", panels, {})


def _swept_at_a_rate(row: Row) -> bool:
    load = row.experiment.point
    return row.experiment.part is not None and load is not None and isinstance(load.request_rate, float)


def _rates(row: Row) -> list[float]:
    return [launch.output_tokens_per_s for launch in row.used]


def bar_of(row: Row, beside: Sequence[Row], **more: Any) -> Bar:
    """Return the bar of `row` in a panel with `beside`: its names, and `more` if it has a valid launch."""
    heading = row.experiment.model if len({other.experiment.model for other in beside}) > 1 else ""
    empty = "no valid launch" if row.launches else "failed" if row.experiment.failures else "not measured"
    return Bar(row.label, heading, **(more if row.used else {"text": empty}))


def _rate(row: Row, colours: Mapping[str, str], beside: Sequence[Row]) -> Bar:
    rates = _rates(row)
    average = mean(rates) if rates else None
    crosses = [launch.output_tokens_per_s for launch in row.launches if not launch.valid]
    look = {"crosses": crosses, "text": number(average), "colour": colours[row.label]}
    return bar_of(row, beside, value=average, points=rates, **look)


def speedup(findings: Findings) -> Chart:
    """Chart speed-ups over the baseline with their intervals; the metric of a panel is the one with most speed-ups."""
    rows, swept = _busiest(rows_with(findings, "speedup"))
    name = ", ".join(findings.collection.baseline.values()) or "the baseline"
    settings, colours = findings.collection.comparison, row_colours(findings)
    panels: list[Rows] = []
    comparisons: list[tuple[str, MetricName, Comparison]] = []
    for title, panel_rows in panels_of(rows).items():
        metric = max(
            panel_rows[0].comparisons, key=lambda m: sum(row.comparisons[m].speedup is not None for row in panel_rows)
        )
        compared = [(row, row.comparisons[metric]) for row in panel_rows if not row.comparisons[metric].is_baseline]
        if any(comparison.speedup is not None for _, comparison in compared):
            bars = [_ratio(row, one, metric, colours, panel_rows) for row, one in compared]
            axis = f"{NUMBERS[metric].speedup} (times {name})"
            panels.append(Rows(title, axis, bars, _limits([one for _, one in compared]), middle=1))
            comparisons += [(f"{row.label} ({title})" if title else row.label, metric, one) for row, one in compared]
    ways = {way for _, _, one in comparisons for way in one.ways}
    unit = "a block" if ways == {"rounds"} else "a pair of launches with the same index"
    marks = (
        f"Diamond: geometric mean of the ratios. Point: {unit}. Band: {plain_percent(settings.confidence)} interval; "
        "the verdicts hold for the whole table. An arrow leads to an end beyond the axis."
    )
    return Chart(_verdict(comparisons, name), content_of(findings, rows), f"{marks} {swept}", panels, {})


def _ratio(row: Row, one: Comparison, metric: MetricName, colours: Mapping[str, str], beside: Sequence[Row]) -> Bar:
    if one.speedup is None:
        return bar_of(row, beside, text="no speed-up")
    span = None if one.low is None or one.high is None else (one.low, one.high)
    text = f"{ratio(one.speedup)}x {_word(one, metric)}".strip()
    points, colour = list(one.pairs.values()), colours[row.label]
    return bar_of(row, beside, value=one.speedup, span=span, points=points, text=text, colour=colour)


def _word(one: Comparison, metric: MetricName) -> str:
    _, better, worse = NUMBERS[metric].words
    if one.is_bounded:
        return f"within {plain_percent(BOUND)}"
    return {**VERDICTS, "faster": better, "slower": worse}[one.verdict or "unknown"]


def _verdict(comparisons: Sequence[tuple[str, MetricName, Comparison]], baseline: str) -> str:
    """Return the conclusion on all comparisons in a sentence."""
    found = [(label, metric, one) for label, metric, one in comparisons if one.verdict in ("faster", "slower")]
    if len(found) == 1:
        ((label, metric, one),) = found
        ends = f" [{ratio(one.low)}, {ratio(one.high)}]" if one.low is not None and one.high is not None else ""
        return f"{label}: {_word(one, metric)} than {baseline}, {ratio(one.speedup or 1)}x{ends}"
    if found:
        found.sort(key=lambda each: each[2].speedup or 1, reverse=True)
        by_verdict = grouped(
            (_word(one, metric), f"{label} {ratio(one.speedup or 1)}x") for label, metric, one in found
        )
        return ". ".join(
            f"{word.capitalize()} than {baseline}: {first_few(labels, 3)}" for word, labels in by_verdict.items()
        )
    if any(one.verdict in ("undetected", "irrelevant") for _, _, one in comparisons):
        return f"No relevant difference from {baseline} shown"
    return f"No verdict on differences from {baseline} yet"


def _limits(comparisons: Iterable[Comparison]) -> tuple[float, float]:
    """Return the ends of the axis: at most the span of points and 1, and as much again on each side."""
    known = [one for one in comparisons if one.speedup is not None]
    points = [1.0, *(one.speedup or 1 for one in known), *(pair for one in known for pair in one.pairs.values())]
    ends = [end for one in known for end in (one.low, one.high) if end is not None]
    width = max(max(points) - min(points), 0.05)
    first = max(min([*points, *ends]), min(points) - width, 0.0)
    last = min(max([*points, *ends]), max(points) + width)
    margin = 0.05 * (last - first) or 0.05
    return max(0.0, first - margin), last + margin


def iterations(findings: Findings) -> Chart:
    """Chart output tok/s of each iteration, launch after launch, where there are several in a launch, which differ."""
    several = [row for row in rows_with(findings, "iterations") if any(len(each.passes) > 1 for each in row.used)]
    if not any(_varies(launch) for row in several for launch in row.used):
        several = []  # on axes that do not begin at zero, noise would fill the figure
    shown, swept = _busiest(several)
    panels = []
    for title, panel_rows in panels_of(shown, by_model=True).items():
        begins = _begins([launch for row in panel_rows for launch in row.used])
        lines = [_course(row, launch, begins[launch.launch]) for row in panel_rows for launch in row.used]
        panels.append(Lines(title, "iteration, launch after launch", "output tok/s", lines, from_zero=False))
    measured = [launch.iteration_output_tokens_per_s for row in shown for launch in row.used]
    most = max((max(rates) / min(rates) - 1 for rates in measured if min(rates) > 0), default=0.0)
    marks = f"Line: one launch. Hollow: warm-up, which never counts. The vertical axes do not begin at zero. {swept}"
    title = f"Within a launch, the fastest iteration is up to {ratio(1 + most)}x as fast as the slowest"
    return Chart(title, content_of(findings, shown), marks, panels, row_colours(findings))


VARIES = 1.005
"""Ratio of the fastest to the slowest iteration of a launch from which it is drawn; it is told with three digits."""


def _varies(launch: LaunchMeasures) -> bool:
    rates = launch.iteration_output_tokens_per_s
    return len(rates) > 1 and max(rates) >= VARIES * min(rates)


def _begins(launches: Sequence[LaunchMeasures]) -> dict[int, int]:
    """Return the place of each launch's first iteration: after the longest launch of the previous index."""
    counts = [(each.launch, len(each.warmup_output_tokens_per_s) + len(each.passes)) for each in launches]
    longest = {index: 1 + max(lengths) for index, lengths in sorted(grouped(counts).items())}
    return dict(zip(longest, accumulate(longest.values(), initial=0), strict=False))


def _course(row: Row, launch: LaunchMeasures, begin: int) -> Line:
    warm = launch.warmup_output_tokens_per_s
    points = [(begin + n, rate) for n, rate in enumerate((*warm, *launch.iteration_output_tokens_per_s))]
    return Line(row.label, points, hollow=points[: len(warm)])


def sweep(findings: Findings) -> Chart:
    """Chart latencies over the loads of a sweep, a line for each quantization.

    They are means; of a measure with a limit they are the percentile that must not exceed it.
    """
    swept = [row for row in rows_with(findings, "sweep") if row.experiment.part is not None]
    used = [row for row in swept if row.used]
    slo = findings.collection.slo
    limits = {name.removesuffix("_ms") + "_s": limit for name, limit in slo.named.items()}
    percent = next((percent for percent in PERCENTILES if percent >= 100 * slo.attainment), LAST)
    drawn = [_Latency(measure, limits.get(measure), percent) for measure in ("ttft_s", "tpot_s", "e2el_s")]
    drawn = [each for each in drawn if any(each.measure in row.values for row in used)]
    drawn = [each for each in drawn if each.limit_ms is not None] or drawn[:2]
    panels = [
        _latencies(title, panel_rows, each, findings)
        for title, panel_rows in panels_of(used, whole=True).items()
        for each in drawn
    ]
    marks = "Point: a load, mean over launches."
    if any(line.hollow for panel in panels for line in panel.lines):
        marks += " Hollow: the server is not shown to keep up with the rate."
    if limits:
        marks += " Dashed: the limit."
    sustained = rate_lines(swept, slo)
    ranges = [
        f"{each.measure.removesuffix('_s').upper()} "
        f"{range_of([1000 * row.values[each.measure] for row in used if each.measure in row.values])} ms"
        for each in drawn
    ]
    title = f"Mean {', '.join(ranges)} over the loads"
    if sustained:
        title = "; ".join(sustained[:3]) + (f"; {len(sustained) - 3} more" if len(sustained) > 3 else "")
    return Chart(title, content_of(findings, used, whole=True), marks, panels, row_colours(findings))


@dataclass(frozen=True)
class _Latency:
    """A latency in a figure: its mean, or if it has a limit, in ms, the percentile `percent`."""

    measure: str
    limit_ms: float | None
    percent: int

    @property
    def name(self) -> str:
        what = "mean" if self.limit_ms is None else f"p{self.percent}"
        return f"{what} {self.measure.removesuffix('_s').upper()} ms"

    def of(self, row: Row, findings: Findings) -> float | None:
        """Return the value of a load in ms, None if it is not known."""
        found = row.values.get(self.measure)
        if self.limit_ms is not None:
            known = findings.latencies_of(row).get(self.measure)
            found = None if known is None else known.by_launch.get(self.percent)
        return None if found is None else 1000 * found


WIDE = 8
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""


def _latencies(title: str, rows: Sequence[Row], latency: _Latency, findings: Findings) -> Lines:
    """Return a line through the loads of each label; loads with which the server did not keep up are hollow.

    The horizontal axis is what the loads differ in, or the throughput where that is no single number.
    """
    loads = [row.experiment.point for row in rows]
    rates = [load.request_rate for load in loads if load is not None and isinstance(load.request_rate, float)]
    limits = [float(load.concurrency) for load in loads if load is not None and load.concurrency is not None]
    count = len({row.experiment.point_label for row in rows})
    axis, places, ticks = "output tok/s", [mean(_rates(row)) for row in rows], list[float]()
    for asked, known in (("requests at once", limits), ("requests/s asked", rates)):
        if len(known) == len(rows) and len(set(known)) == count:
            axis, places, ticks = asked, known, sorted(set(known))
    kept_up = states_at_rates(rows)
    drawn = [
        (row.label, (place, height), "kept_up_share" in row.values and kept_up[row.experiment.place] != "keeps up")
        for row, place in zip(rows, places, strict=True)
        if (height := latency.of(row, findings)) is not None
    ]
    lines = [
        Line(label, [point for point, _ in points], hollow=[point for point, behind in points if behind])
        for label, points in grouped((label, (point, behind)) for label, point, behind in drawn).items()
    ]
    heights = [height for _, (_, height), _ in drawn] + ([latency.limit_ms] if latency.limit_ms else [])
    log = "".join(axis for axis, of in (("x", ticks), ("y", heights)) if of and max(of) >= WIDE * min(of))
    return Lines(title, axis, latency.name, lines, ticks, log, limit=latency.limit_ms)


def setting_curve(findings: Findings) -> Chart:
    """Chart output tok/s over the swept number of the settings, with its interval."""
    name, lines = lines_over(findings.rows)
    confidence = findings.collection.comparison.confidence
    panels: dict[str, list[Line]] = {}
    for one in lines:
        rates = [(value, _rates(row)) for value, row in one.rows]
        bands = [(value, *band) for value, each in rates if (band := t_interval(each, confidence))]
        circles = [(value, rate) for value, each in rates for rate in each]
        line = Line(one.label, [(value, mean(each)) for value, each in rates], bands, circles)
        panels.setdefault(joined(one.mode, one.platform, one.model, one.workload), []).append(line)
    values = sorted({value for one in lines for value, _ in one.rows})
    log = "x" if values and 0 < values[0] <= values[-1] / WIDE else ""
    marks = (
        f"Point: mean over launches. Band: {plain_percent(confidence)} interval of that mean alone. Circle: one "
        "launch. The tables say which of them differ."
    )
    rates_shown = [y for panel_lines in panels.values() for line in panel_lines for _, y in line.points]
    title = f"{range_of(rates_shown)} output tok/s over {name}"
    drawn = [Lines(label, name, "output tok/s", panel_lines, values, log) for label, panel_lines in panels.items()]
    gains = _gains(lines, name, values, log)
    if gains:
        marks += f" Speed-up: over the baseline at the same {name}; its band is the interval of the verdict."
    return Chart(title, "", marks, [*drawn, *gains], colours_of(one.label for one in lines))


def _gains(lines: Sequence[SweepLine], name: str, values: Sequence[float], log: str) -> list[Lines]:
    """Return the panels of speed-ups over the swept number `name`, where each of its values has a baseline."""
    panels: dict[str, list[Line]] = {}
    for one in lines:
        baselines = {row.against.other.place for _, row in one.rows if row.against.other is not None}
        compared = [(value, row.comparison) for value, row in one.rows]
        points = [(value, each.speedup) for value, each in compared if each.speedup and not each.is_baseline]
        if len(baselines) > 1 and len(points) > 1:
            bands = [(value, each.low, each.high) for value, each in compared if each.low and each.high]
            title = joined(one.mode, one.platform, one.model, one.workload)
            panels.setdefault(title, []).append(Line(one.label, points, bands))
    return [Lines(title, name, "speed-up", of, values, log, from_zero=False, limit=1) for title, of in panels.items()]


def drafts(findings: Findings) -> Chart:
    """Chart the accepted length from which drafts pay over the sequences of a pass."""
    confidence = findings.collection.comparison.confidence
    found: dict[str, dict[str, list[tuple[int, BreakEven]]]] = {}
    for base, others in compared_rows(rows_with(findings, "drafts")):
        load, where = base.experiment.records[0].spec.workload, base.experiment
        panel = found.setdefault(joined(where.mode, where.platform, where.model), {})
        for one in [each for each in break_evens(others, confidence) if not each.unknown]:
            label = with_setting(base.quant_label, f"{one.drafts.method}, {one.drafts.tokens or 'any'} tokens")
            panel.setdefault(label, []).append((load.prompts * load.samples_per_prompt, one))
    panels: list[Lines] = []
    for title, by_label in found.items():
        # one break-even for each number of sequences, and two numbers
        several = {
            label: sorted(of, key=itemgetter(0)) for label, of in by_label.items() if len(dict(of)) == len(of) > 1
        }
        lines = [
            Line(label, [(count, one.at) for count, one in of], [(count, one.low, one.high) for count, one in of])
            for label, of in several.items()
        ]
        ticks = sorted({count for of in several.values() for count, _ in of})
        if lines:
            panels.append(
                Lines(title, "sequences of a pass", "accepted length that pays", lines, ticks, "x", from_zero=False)
            )
    names = [line.label for panel in panels for line in panel.lines]
    needs = [one for panel in panels for line in panel.lines for one in line.points]
    ends = [f"{number(at, 3)} with {count:,.0f} sequences" for count, at in (needs[:1] + needs[-1:])]
    title = f"Drafts pay from an accepted length of {', '.join(ends)}"
    marks = f"Band: {plain_percent(confidence)} interval. Drafts of which more is accepted are faster than none."
    return Chart(title, "", marks, panels, colours_of(names))


def rows_with(findings: Findings, figure: str) -> list[Row]:
    """Return the rows of the modes that have this figure."""
    return [row for row in findings.drawn if figure in mode_of(row.experiment.mode).figures]


def row_colours(findings: Findings) -> dict[str, str]:
    """Return the colour of each label, in all charts of a report: grey for the baseline."""
    rows = findings.drawn
    grey = {row.label for row in rows if row.comparison.is_baseline}
    labels = dict.fromkeys(row.label for row in rows)
    return colours_of(labels, grey if grey < labels.keys() else ())


def panels_of(rows: Sequence[Row], by_model: bool = False, whole: bool = False) -> dict[str, list[Row]]:
    """Return the rows of each panel by its title: the parts of mode, platform and workload that differ."""
    names = [_names(row, by_model, whole) for row in rows]
    differing = [len(set(values)) > 1 for values in zip(*names, strict=True)]
    return grouped((joined(*compress(row_names, differing)), row) for row, row_names in zip(rows, names, strict=True))


def _names(row: Row, by_model: bool, whole: bool) -> tuple[str, ...]:
    experiment = row.experiment.whole if whole else row.experiment
    return (experiment.model if by_model or whole else "", experiment.workload, experiment.mode, experiment.platform)


def content_of(findings: Findings, rows: Sequence[Row], whole: bool = False) -> str:
    """Return the names that all rows share: model, workload and mode; and how settings are named."""
    shared = [{_names(row, True, whole)[place] for row in rows} for place in range(3)]
    named = joined(*(names.pop() for names in shared if len(names) == 1))
    return f"{named}. Settings are values of {findings.values_of}." if findings.values_of else named


def joined(*names: str) -> str:
    """Return the names that are not empty, with commas."""
    return ", ".join(filter(None, names))


def _busiest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return `rows` with one load of each sweep, that with the most output tok/s of any row; and a note about it.

    Each load would need a panel.
    """
    best: dict[tuple[str, ...], tuple[float, str]] = {}
    for row in rows:
        if row.experiment.part is not None and row.used:
            key = _sweep(row)
            best[key] = max(best.get(key, (0.0, "")), (mean(_rates(row)), row.experiment.point_label))
    shown = [
        row
        for row in rows
        if row.experiment.part is None or row.experiment.point_label == best.get(_sweep(row), (0.0, ""))[1]
    ]
    return shown, "Of a sweep its load with the highest throughput." if len(shown) < len(rows) else ""


def _sweep(row: Row) -> tuple[str, ...]:
    """Return what the loads of a sweep share, over all quantizations."""
    return _names(row, by_model=True, whole=True)


def stacked(lengths: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return each part with a length above zero, its beginning and its length."""
    begins = accumulate(lengths.values(), initial=0.0)
    return [(name, begin, length) for (name, length), begin in zip(lengths.items(), begins, strict=False) if length > 0]


def range_of(values: Sequence[float], digits: int = 4) -> str:
    """Return `low to high`, or the only value."""
    low, high = (number(end, digits) for end in (min(values, default=None), max(values, default=None)))
    return low if low == high else f"{low} to {high}"


DRAWINGS: Mapping[str, Callable[[Findings], Chart]] = {
    "sweep": sweep,
    "speedup": speedup,
    "throughput": throughput,
    "iterations": iterations,
    "settings": setting_curve,
    "drafts": drafts,
}
"""Name of a figure of several modes -> its function, in the order of a summary."""
