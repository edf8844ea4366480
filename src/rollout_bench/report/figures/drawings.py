"""The charts: a function for each figure; without data for it, it has no panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, compress
from operator import itemgetter
from typing import Any

from rollout_bench.analysis.cycles.placed_costs import typical_step
from rollout_bench.analysis.inside.breakdown import PHASES
from rollout_bench.analysis.inside.drifts import floor_of
from rollout_bench.analysis.inside.message_links import message_of, step_shares
from rollout_bench.analysis.starts.start_costs import phases_of
from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.answers import lines_over
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.launches import LaunchMeasures, values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.traces.categories import CATEGORIES
from rollout_bench.contracts.cycles import PartName
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few, number, percent, plain_percent, ratio
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.numbers.startup import PHASE
from rollout_bench.report.figures.charts import Bar, Chart, Line, Lines, Rows, colours_of
from rollout_bench.report.headings import names_among
from rollout_bench.report.parts import Findings
from rollout_bench.report.tables.drift_tables import scored_text
from rollout_bench.report.tables.message_tables import WAYS
from rollout_bench.report.tables.profile_tables import category_word

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

ACTIVITY_COLOURS = {
    "generate": "#0072b2",
    "gather": "#cc79a7",
    "train": "#e69f00",
    "reduce, optimize": "#d55e00",
    "update, reset": "#009e73",
    "sleep, wake": "#56b4e9",
}
"""Activities of a placement -> colour; white is waiting."""

CATEGORY_COLOURS = dict(
    zip(
        CATEGORIES,
        ("#0072b2", "#d55e00", "#e69f00", "#f0c987", "#009e73", "#cc79a7", "#8ed3bc", "#7a5195", "#56b4e9", "#4d4d4d",
         "#8c6d31", "#8a8a8a", "#cfcfcf"),
        strict=False,
    )
)  # fmt: skip
"""Category of operators -> colour: Okabe and Ito's palette (2008) and tints of it."""

START_COLOURS = {"own time": "#0072b2", "phases inside": "#9cc3dd", "no phase": "#d55e00"}

VERDICTS = {"irrelevant": "real, small", "undetected": "inconclusive", "unknown": "no verdict"}
"""Words of the verdicts for which a metric has none."""

NOTHING = Chart("", "", "", (), {})
"""A chart that is not drawn."""

BEYOND = {True: "drifts", False: "within the noise", None: ""}
"""Whether a quantization drifts beyond the noise floor -> words."""


def throughput(findings: Findings) -> Chart:
    """Chart output tok/s of each experiment: a bar for the mean, a point for each launch."""
    shown, swept = _heaviest(_rows(findings, "throughput"))
    used = [row for row in shown if row.used]
    colours = row_colours(findings)
    panels = [
        Rows(title, "output tok/s", [_rate(row, colours, own) for row in own])
        for title, own in _grouped(shown).items()
        if any(row.used for row in own)
    ]
    marks = "Bar: mean over launches. Point: one launch; warm-up does not count."
    if any(len(row.used) < len(row.launches) for row in used):
        marks += " x: an invalid launch, which counts nowhere; none beyond the axis is shown."
    title = f"{_range([mean(_rates(row)) for row in used])} output tok/s"
    return Chart(title, _content(findings, shown), f"{marks} {swept}", panels, {})


def _rates(row: Row) -> list[float]:
    return [launch.output_tokens_per_s for launch in row.used]


def _bar(row: Row, beside: Sequence[Row], **more: Any) -> Bar:
    """Return the bar of `row` in a panel with `beside`: its names, and `more` if it has a valid launch."""
    heading = row.experiment.model if len({other.experiment.model for other in beside}) > 1 else ""
    return Bar(row.label, heading, **(more if row.used else {"text": _why_empty(row)}))


def _rate(row: Row, colours: Mapping[str, str], beside: Sequence[Row]) -> Bar:
    rates = _rates(row)
    average = mean(rates) if rates else None
    crosses = [launch.output_tokens_per_s for launch in row.launches if not launch.valid]
    look = {"crosses": crosses, "text": number(average), "colour": colours[row.label]}
    return _bar(row, beside, value=average, points=rates, **look)


def _why_empty(row: Row) -> str:
    unmeasured = "failed" if row.experiment.failures else "not measured"
    return "no valid launch" if row.launches else unmeasured


def speedup(findings: Findings) -> Chart:
    """Chart speed-ups over the baseline with their intervals; the metric of a panel is the one with most speed-ups."""
    rows, swept = _heaviest(_rows(findings, "speedup"))
    name = ", ".join(findings.collection.baseline.values()) or "the baseline"
    settings, colours = findings.collection.comparison, row_colours(findings)
    panels: list[Rows] = []
    told: list[tuple[str, MetricName, Comparison]] = []
    for title, own in _grouped(rows).items():
        metric = max(own[0].comparisons, key=lambda m: sum(row.comparisons[m].speedup is not None for row in own))
        compared = [(row, row.comparisons[metric]) for row in own if not row.comparisons[metric].is_baseline]
        if any(comparison.speedup is not None for _, comparison in compared):
            bars = [_ratio(row, one, metric, colours, own) for row, one in compared]
            axis = f"{NUMBERS[metric].speedup} (times {name})"
            panels.append(Rows(title, axis, bars, _limits([one for _, one in compared]), middle=1))
            told += [(f"{row.label} ({title})" if title else row.label, metric, one) for row, one in compared]
    ways = {way for _, _, one in told for way in one.ways}
    unit = "a block" if ways == {"rounds"} else "a pair of launches with the same index"
    marks = (
        f"Diamond: geometric mean of the ratios. Point: {unit}. Band: {plain_percent(settings.confidence)} interval; "
        "the verdicts hold for the whole table. An arrow leads to an end beyond the axis."
    )
    return Chart(_verdict(told, name), _content(findings, rows), f"{marks} {swept}", panels, {})


def _ratio(row: Row, one: Comparison, metric: MetricName, colours: Mapping[str, str], beside: Sequence[Row]) -> Bar:
    if one.speedup is None:
        return _bar(row, beside, text="no speed-up")
    span = None if one.low is None or one.high is None else (one.low, one.high)
    text = f"{ratio(one.speedup)}x {_word(one, metric)}".strip()
    points, colour = list(one.pairs.values()), colours[row.label]
    return _bar(row, beside, value=one.speedup, span=span, points=points, text=text, colour=colour)


def _word(one: Comparison, metric: MetricName) -> str:
    _, better, worse = NUMBERS[metric].words
    return {**VERDICTS, "faster": better, "slower": worse}[one.verdict or "unknown"]


def _verdict(told: Sequence[tuple[str, MetricName, Comparison]], baseline: str) -> str:
    """Return the conclusion on all comparisons in a sentence."""
    found = [(label, metric, one) for label, metric, one in told if one.verdict in ("faster", "slower")]
    if len(found) == 1:
        ((label, metric, one),) = found
        ends = f" [{ratio(one.low)}, {ratio(one.high)}]" if one.low is not None and one.high is not None else ""
        return f"{label}: {_word(one, metric)} than {baseline}, {ratio(one.speedup or 1)}x{ends}"
    if found:
        found.sort(key=lambda each: each[2].speedup or 1, reverse=True)
        told_by = grouped((_word(one, metric), f"{label} {ratio(one.speedup or 1)}x") for label, metric, one in found)
        return ". ".join(f"{word.capitalize()} than {baseline}: {first_few(own, 3)}" for word, own in told_by.items())
    if any(one.verdict in ("undetected", "irrelevant") for _, _, one in told):
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
    """Chart output tok/s of each iteration, launch after launch."""
    shown, swept = _heaviest([row for row in _rows(findings, "iterations") if row.used])
    panels = []
    for title, own in _grouped(shown, by_model=True).items():
        begins = _begins([launch for row in own for launch in row.used])
        lines = [_course(row, launch, begins[launch.launch]) for row in own for launch in row.used]
        panels.append(Lines(title, "iteration, launch after launch", "output tok/s", lines, from_zero=False))
    measured = [launch.iteration_output_tokens_per_s for row in shown for launch in row.used]
    most = max((max(rates) / min(rates) - 1 for rates in measured if min(rates) > 0), default=0.0)
    marks = f"Line: one launch. Hollow: warm-up, which never counts. The vertical axes do not begin at zero. {swept}"
    title = f"Iterations of a launch differ by up to {percent(most)}"
    return Chart(title, _content(findings, shown), marks, panels, row_colours(findings))


def _begins(launches: Sequence[LaunchMeasures]) -> dict[int, int]:
    """Return the place of each launch's first iteration: after the longest launch of the previous index."""
    counts = [(each.launch, len(each.warmup_output_tokens_per_s) + len(each.passes)) for each in launches]
    longest = {index: 1 + max(own) for index, own in sorted(grouped(counts).items())}
    return dict(zip(longest, accumulate(longest.values(), initial=0), strict=False))


def _course(row: Row, launch: LaunchMeasures, begin: int) -> Line:
    warm = launch.warmup_output_tokens_per_s
    points = [(begin + n, rate) for n, rate in enumerate((*warm, *launch.iteration_output_tokens_per_s))]
    return Line(row.label, points, hollow=points[: len(warm)])


def sweep(findings: Findings) -> Chart:
    """Chart mean latencies over output tok/s: a line for each quantization through the loads of a sweep."""
    used = [row for row in _rows(findings, "sweep") if row.experiment.part is not None and row.used]
    names = {"ttft_s": "TTFT ms", "tpot_s": "TPOT ms", "e2el_s": "E2EL ms"}
    measures = [measure for measure in names if any(measure in row.values for row in used)]
    panels = [
        Lines(title, "output tok/s", names[measure], _through(own, measure))
        for title, own in _grouped(used, whole=True).items()
        for measure in measures[:2]
    ]
    marks = (
        f"Point: a load, mean over launches. Hollow: the server kept less than {plain_percent(KEPT_UP)} of the rate."
    )
    title = f"{_range([mean(_rates(row)) for row in used])} output tok/s over the loads"
    return Chart(title, _content(findings, used, whole=True), marks, panels, row_colours(findings))


def _through(rows: Sequence[Row], measure: str) -> list[Line]:
    """Return a line through the loads of each label; loads with which the server did not keep up are hollow."""
    lines = []
    for label, own in grouped((row.label, row) for row in rows if measure in row.values).items():
        points = [(mean(_rates(row)), 1000 * row.values[measure]) for row in own]
        kept = [row.values.get("kept_up_share", 1) >= KEPT_UP for row in own]
        hollow = [point for point, kept_up in zip(points, kept, strict=True) if not kept_up]
        lines.append(Line(label, points, hollow=hollow))
    return lines


def over_setting(findings: Findings) -> Chart:
    """Chart output tok/s over the swept number of the settings, with its interval."""
    name, lines = lines_over(findings.rows)
    confidence = findings.collection.comparison.confidence
    panels: dict[str, list[Line]] = {}
    for one in lines:
        rates = [(value, _rates(row)) for value, row in one.rows]
        bands = [(value, *band) for value, each in rates if (band := t_interval(each, confidence))]
        circles = [(value, rate) for value, each in rates for rate in each]
        line = Line(one.label, [(value, mean(each)) for value, each in rates], bands, circles)
        panels.setdefault(_joined(one.mode, one.platform, one.model, one.workload), []).append(line)
    values = sorted({value for one in lines for value, _ in one.rows})
    log = "x" if values and values[0] > 0 and values[-1] / values[0] >= 8 else ""
    marks = (
        f"Point: mean over launches. Band: {plain_percent(confidence)} interval of that mean alone. Circle: one "
        "launch. The tables say which of them differ."
    )
    title = f"{_range([y for own in panels.values() for line in own for _, y in line.points])} output tok/s over {name}"
    drawn = [Lines(title, name, "output tok/s", own, values, log) for title, own in panels.items()]
    return Chart(title, "", marks, drawn, colours_of(one.label for one in lines))


def cycle(findings: Findings) -> Chart:
    """Chart the seconds of a step: generation, then each part of the transition."""
    rows = _rows(findings, "cycle")
    known = [row for row in rows if "cycle_s" in row.values]
    panels = [
        Rows(title, "s of a step", [_step(row, own) for row in own])
        for title, own in _grouped(rows).items()
        if any("cycle_s" in row.values for row in own)
    ]
    title = f"The transition takes {_range([100 * row.values['transition_share'] for row in known], 2)} % of a step"
    marks = "Bar: means over measured iterations, then over valid launches. Point: the whole step of one launch."
    return Chart(title, _content(findings, rows), marks, panels, CYCLE_COLOURS)


def _step(row: Row, beside: Sequence[Row]) -> Bar:
    values = row.values
    stages = {name: values.get(f"update_{name}_s", 0.0) for name in ("transfer", "quantize", "load")}
    sums = {name: sum(values.get(f"transition_{part}_s", 0.0) for part in parts) for name, parts in PARTS.items()}
    lengths = {"generation": values.get("step_time_s", 0.0), **stages, **sums}
    parts = _after_one_another({name: lengths[name] for name in CYCLE_COLOURS})
    points = list(values_of("whole_step_s", row.used).values())
    return _bar(row, beside, parts=parts, points=points, text=f"{number(values.get('whole_step_s'), 3)} s")


def placement(findings: Findings) -> Chart:
    """Chart the activities of each device in the step with the median time: a panel for each placement."""
    rows = _rows(findings, "placement")
    found = [(row, step) for row in rows if (step := typical_step(row)) is not None]
    pieces = {activity: name for name in ACTIVITY_COLOURS for activity in name.split(", ")}
    longest = 1.02 * max((step.elapsed_s for _, step in found), default=0.0)
    names = names_among([row for row, _ in found])
    panels = []
    for row, step in found:
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
    takes = [f"{number(step.elapsed_s, 3)} s ({names[row.experiment.place]})" for row, step in found]
    title = f"A step takes {first_few(takes, 3)}"
    marks = "The step with the median time of all valid launches. Blank: the device waits."
    return Chart(title, _content(findings, rows), marks, panels, ACTIVITY_COLOURS)


def startup(findings: Findings) -> Chart:
    """Chart the phases of a start, each at its own time: a panel for each experiment."""
    rows = _rows(findings, "startup")
    known = [row for row in rows if "until_token_s" in row.values]
    longest = 1.02 * max((row.values["until_token_s"] for row in known), default=0.0)
    panels = []
    names = names_among(known)
    for row in known:
        bars, rest_s = [], row.values["rest_s"]
        for name, phase in phases_of(row).items():
            span = phase.ended_s - phase.began_s
            inside = [("phases inside", phase.began_s, span)] if phase.own_s < 0.97 * span else []
            parts = [*inside, ("own time", phase.began_s, min(phase.own_s, span))]
            bars.append(Bar(PHASE[name][0], parts=parts, text=_seconds(phase.own_s)))
        bars.append(Bar("rest", parts=[("no phase", 0, rest_s)], text=_seconds(rest_s)))
        whole = f"{names[row.experiment.place]}: {number(row.values['until_token_s'], 3)} s"
        panels.append(Rows(whole, "s after the launch's beginning", bars, (0, longest)))
    title = f"{_range([row.values['until_token_s'] for row in known], 3)} s from a launch's beginning to a first token"
    marks = "Means over valid launches. The rest is the time that no phase explains."
    return Chart(title, _content(findings, rows), marks, panels, START_COLOURS)


def _seconds(seconds: float) -> str:
    return f"{number(seconds, 2)} s" if seconds >= 0.005 else "0"


def steps(findings: Findings) -> Chart:
    """Chart milliseconds of each category of operators in a step without the profiler: a panel for each phase."""
    shown = [each for each in findings.inside.profiles.profiled if each.phases]
    if not shown:
        return NOTHING
    tables = {each.table for each in shown}
    by_phase = grouped((phase, (each, found)) for each in shown for phase, found in each.phases.items())
    panels = []
    for phase in sorted(by_phase, key=PHASES.index):
        bars = []
        for each, found in by_phase[phase]:
            parts = _after_one_another({category_word(c): found.scaled.get(c, 0.0) / 1000 for c in CATEGORIES})
            heading = _joined(*each.table) if len(tables) > 1 else ""
            bars.append(Bar(each.quant, heading, parts=parts, text=f"{number(found.step_us / 1000)} ms"))
        panels.append(Rows(phase, "ms per step", bars))
    *_, (phase, own) = shown[0].phases.items()
    first = max(CATEGORIES, key=own.share)
    title = f"{category_word(first).capitalize()}: {100 * own.share(first):.0f} % of a {phase} step ({shown[0].quant})"
    marks = "Bar: a step without the profiler, divided by the shares of its trace."
    keys = {category_word(category): colour for category, colour in CATEGORY_COLOURS.items()}
    return Chart(title, _joined(*shown[0].table) if len(tables) == 1 else "", marks, panels, keys)


def messages(findings: Findings) -> Chart:
    """Chart the bytes of each step of the largest batch: a panel for each experiment."""
    runs = findings.inside.messages
    panels, most = [], 0
    for run in runs:
        batch = run.batches[-1]
        own = [s for s in run.launches[0].steps if (s.look, s.batch) == ("contents", batch)]
        sent = {word: [(s.index, message_of(s, way).size_bytes) for s in own] for way, word in WAYS.items()}
        most = max(most, *(size for points in sent.values() for _, size in points))
        lines = [Line(word, points) for word, points in sent.items()]
        panels.append(Lines(f"{run.name}, batch {batch}", "step", "bytes", lines, log="y"))
    title = f"A step sends up to {most:,d} bytes to the workers or back"
    marks = "The first launch of each experiment, at its largest batch."
    return Chart(title, "", marks, panels, colours_of(WAYS.values()))


def message_shares(findings: Findings) -> Chart:
    """Chart the share of messages in a decode step over the batch size."""
    confidence = findings.collection.comparison.confidence
    found = [(run, shares) for run in findings.inside.messages if (shares := step_shares(run, confidence))]
    lines = [
        Line(
            run.name,
            [(float(share.batch), 100 * share.value) for share in shares],
            [(float(share.batch), 100 * min(share.launches), 100 * max(share.launches)) for share in shares],
        )
        for run, shares in found
    ]
    batches = sorted({float(share.batch) for _, shares in found for share in shares})
    marks = "Line: pickling and unpickling, mean over launches. Band: from the lowest launch to the highest."
    panel = Lines("", "sequences at once", "% of a decode step", lines, batches, "x")
    title = f"Messages take {_range([y for line in lines for _, y in line.points], 2)} % of a decode step"
    return Chart(title, "", marks, [panel] if lines else [], colours_of(run.name for run, _ in found))


def drift(findings: Findings) -> Chart:
    """Chart mean |d| of each experiment and batch size, with its interval and the noise floor."""
    report = findings.inside.drift
    several_references = len({one.reference.place for one in report.drifted}) > 1
    labels = [one.name if several_references else one.chosen.label for one in report.drifted]
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
    title = (
        f"Drift beyond the noise floor: {first_few(drifting)}" if drifting else "No drift beyond the noise floor shown"
    )
    marks = (
        "d: log probability of a token minus the reference's. Band: interval over sequences; without a band it is "
        "unbounded or not known. Grey: the reference against itself. Dashed: its noise floor."
    )
    return Chart(title, "", marks, [Rows("", "mean |d|, nats per token", bars, middle=0)] if bars else [], {})


def _rows(findings: Findings, figure: str) -> list[Row]:
    return [row for row in findings.drawn if figure in mode_of(row.experiment.mode).figures]


def row_colours(findings: Findings) -> dict[str, str]:
    """Return the colour of each label, in all charts of a report: grey for the baseline."""
    rows = findings.drawn
    grey = {row.label for row in rows if row.comparison.is_baseline}
    labels = dict.fromkeys(row.label for row in rows)
    return colours_of(labels, grey if grey < labels.keys() else ())


def _grouped(rows: Sequence[Row], by_model: bool = False, whole: bool = False) -> dict[str, list[Row]]:
    """Return the rows of each panel by its title: the parts of mode, platform and workload that differ."""
    names = [_names(row, by_model, whole) for row in rows]
    differing = [len(set(values)) > 1 for values in zip(*names, strict=True)]
    return grouped((_joined(*compress(own, differing)), row) for row, own in zip(rows, names, strict=True))


def _names(row: Row, by_model: bool, whole: bool) -> tuple[str, ...]:
    own = row.experiment.whole if whole else row.experiment
    return (own.model if by_model or whole else "", own.workload, own.mode, own.platform)


def _content(findings: Findings, rows: Sequence[Row], whole: bool = False) -> str:
    """Return the names that all rows share: model, workload and mode; and how settings are named."""
    shared = [{_names(row, True, whole)[place] for row in rows} for place in range(3)]
    named = _joined(*(names.pop() for names in shared if len(names) == 1))
    return f"{named}. Settings are values of {findings.values_of}." if findings.values_of else named


def _joined(*names: str) -> str:
    return ", ".join(filter(None, names))


def _heaviest(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return `rows` with only the last load of each sweep, since each load would need a panel; and a note about it."""
    loads = [(row.experiment.part.number, row) for row in rows if row.experiment.part is not None]
    last = {row.experiment.whole.place: row for _, row in sorted(loads, key=itemgetter(0))}
    shown = [row for row in rows if last.get(row.experiment.whole.place, row) is row]
    return shown, "Of a sweep its heaviest load." if len(shown) < len(rows) else ""


def _after_one_another(lengths: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return each part with a length above zero, its beginning and its length."""
    begins = accumulate(lengths.values(), initial=0.0)
    return [(name, begin, length) for (name, length), begin in zip(lengths.items(), begins, strict=False) if length > 0]


def _range(values: Sequence[float], digits: int = 4) -> str:
    low, high = (number(end, digits) for end in (min(values, default=None), max(values, default=None)))
    return low if low == high else f"{low} to {high}"


DRAWINGS: Mapping[str, Callable[[Findings], Chart]] = {
    "placement": placement,
    "startup": startup,
    "cycle": cycle,
    "speedup": speedup,
    "throughput": throughput,
    "iterations": iterations,
    "sweep": sweep,
    "settings": over_setting,
    "steps": steps,
    "messages": messages,
    "message_shares": message_shares,
    "drift": drift,
}
"""Name of a figure -> its function, in the order of a summary."""
