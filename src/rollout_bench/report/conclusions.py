"""First section of a summary: the verdict of each comparison, its interval, its flags, and the next step."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.cycles.proofs import LASTING
from rollout_bench.analysis.timed.answers import Trend, compared_rows, lines_over, standing, trends
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison
from rollout_bench.analysis.timed.experiments import Collection, invalid_codes
from rollout_bench.analysis.timed.partners import why_not_measured
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import AXES, DEFAULT_SETTING, names_of
from rollout_bench.contracts.metrics import METRICS
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import percent, plain_percent, ratio, several
from rollout_bench.plan.quants import words_of
from rollout_bench.report.headings import on_unnamed_endpoint
from rollout_bench.report.prose import some

MOST = 6
"""Maximum number of comparisons with a conclusion; the tables have all."""


@dataclass(frozen=True)
class Conclusion:
    """Result of one comparison.

    Attributes:
        title: names that all of its configurations share; empty if there is only one comparison.
        metric: the compared metric.
        words: words for better and for worse configurations.
        baseline: the baseline.
        better: names with ratio and interval, the best first.
        worse: names with ratio and interval of worse configurations, the worst last.
        small: configurations with a significant difference that is too small to matter.
        undetected: inconclusive configurations, with ratio and interval.
        unknown: names with the reason for a missing verdict.
        best: the best of three or more configurations; empty if undetermined.
        all_judged: whether every compared configuration could have been the best.
        ties: configurations that are not distinguishable from the best.
        also: other differences between the engines -> names of the configurations with them.
        doubts: problems of the launches.
        next: the next step; empty if there is none.
        command: command for the next step; empty if there is none.
    """

    title: str
    metric: str
    words: tuple[str, str]
    baseline: str
    better: Sequence[str]
    worse: Sequence[str]
    small: Sequence[str]
    undetected: Sequence[str]
    unknown: Sequence[str]
    best: str
    all_judged: bool
    ties: Sequence[str]
    also: Mapping[str, Sequence[str]]
    doubts: Sequence[str]
    next: str
    command: str


def conclusion_values(rows: Sequence[Row], collection: Collection) -> dict[str, object]:
    """Return the values for templates/conclusion.md.j2."""
    groups = compared_rows(rows)
    lacking = [row for row in rows if why_not_measured(row.experiment) or _is_refused(row)]
    beside = [[row for row in lacking if _would_be_beside(row, base, collection)] for base, _ in groups]
    found = [
        _conclusion(base, _by_told_metric(others), own, collection, len(groups) > 1)
        for (base, others), own in zip(groups[:MOST], beside, strict=False)
    ]
    compared = [row for base, others in groups for row in (base, *others)]
    told = {row.experiment.place for row in (*compared, *(row for own in beside for row in own))}
    if any(row.experiment.place not in told and (row.launches or row.experiment.failures) for row in lacking):
        found.append(_without_numbers([row for row in rows if row.experiment.place not in told], collection))
    name, lines = lines_over(rows)
    return {
        "conclusions": found,
        "unnamed": bool(rows) and not found and all(map(on_unnamed_endpoint, rows)),
        "more": max(0, len(groups) - MOST),
        "confidence": collection.comparison.confidence,
        "through": name,
        # with a baseline of one setting, the table's column shows the trend
        "trends": [] if "setting" in collection.baseline else [_trend(each) for each in trends(lines)][:MOST],
    }


def _is_refused(row: Row) -> bool:
    return row.against.other is None and row.comparison.verdict == "unknown"


def _would_be_beside(row: Row, base: Row, collection: Collection) -> bool:
    own, theirs = row.experiment, base.experiment
    return (own.mode, own.platform, names_of(own, collection.baseline)) == (
        theirs.mode,
        theirs.platform,
        names_of(theirs, collection.baseline),
    )


def _without_numbers(rows: Sequence[Row], collection: Collection) -> Conclusion:
    step, command = _next(rows, [], collection)
    return Conclusion(
        title="",
        metric="",
        words=("", ""),
        baseline="",
        better=[],
        worse=[],
        small=[],
        undetected=[],
        unknown=[f"{row.label} ({_why(row)})" for row in rows if _is_refused(row)],
        best="",
        all_judged=False,
        ties=[],
        also={},
        doubts=list(_doubts(rows)),
        next=step,
        command=command,
    )


def _by_told_metric(others: Sequence[Row]) -> list[Row]:
    """Return `others`, which share a baseline, with the first metric that has a verdict moved to the front.

    If requests arrive at a rate, the load determines the throughput, so only latencies have a verdict.
    """
    metrics = list(others[0].comparisons)
    told = next((m for m in metrics if any(row.comparisons[m].verdict is not None for row in others)), metrics[0])
    return [replace(row, comparisons={told: row.comparisons[told], **row.comparisons}) for row in others]


def _trend(trend: Trend) -> tuple[str, bool, list[tuple[str, str]]]:
    line = trend.line
    ends = [(f"{value:,.6g}", _ratio(row.comparison)) for value, row in trend.ends]
    return f"{line.label} ({line.model} {line.workload})", trend.sure, ends


def _conclusion(
    base: Row, others: Sequence[Row], lacking: Sequence[Row], collection: Collection, several_groups: bool
) -> Conclusion:
    """Return the conclusion of `others` against `base`; `lacking` are this comparison's rows without numbers."""
    settings = collection.comparison
    everyone = [base, *others, *lacking]
    axes = _told_apart_by(everyone, collection.baseline)
    by_verdict = grouped((row.comparison.verdict or "unknown", row) for row in others)
    better = sorted(by_verdict.get("faster", ()), key=_speedup, reverse=True)
    worse = sorted(by_verdict.get("slower", ()), key=_speedup, reverse=True)
    undetected = by_verdict.get("undetected", [])
    stop = None if collection.precision is None else stop_of(collection.precision, settings.confidence)
    stands = standing(base, others, settings, stop)
    metric = METRICS[next(iter(others[0].comparisons))]
    step, command = _next(everyone, undetected, collection)
    return Conclusion(
        title=_in_common(everyone, axes) if several_groups else "",
        metric=metric.header.removesuffix(" ms"),
        words=metric.words,
        baseline=_side(base, axes),
        better=[f"{_side(row, axes)} {_ratio(row.comparison)}" for row in better],
        worse=[f"{_side(row, axes)} {_ratio(row.comparison)}" for row in worse],
        small=[f"{_side(row, axes)} {_ratio(row.comparison)}" for row in by_verdict.get("irrelevant", ())],
        undetected=[f"{_side(row, axes)} {_ratio(row.comparison)}" for row in undetected],
        unknown=[f"{_side(row, axes)} ({_why(row)})" for row in (*by_verdict.get("unknown", ()), *lacking)],
        best="" if stands is None else _side(stands.best, axes),
        all_judged=stands is not None and stands.complete and not lacking,
        ties=[] if stands is None else [_side(row, axes) for row in stands.ties],
        also=_also(others, axes),
        doubts=list(_doubts(everyone)),
        next=step,
        command=command,
    )


def _also(rows: Sequence[Row], axes: Sequence[str]) -> dict[str, list[str]]:
    told = (
        ({d.fact: (d.own, d.other) for d in row.against.differences if d.fact.startswith(("args.", "variables."))}, row)
        for row in rows
    )
    return grouped((words_of(facts), _side(row, axes)) for facts, row in told if facts)


def _told_apart_by(rows: Sequence[Row], baseline: Iterable[str]) -> tuple[str, ...]:
    axes = tuple(axis for axis in AXES if axis in baseline)
    told = tuple(axis for axis in axes if len({getattr(row.experiment.whole, axis) for row in rows}) > 1)
    return told or axes


def _side(row: Row, axes: Sequence[str]) -> str:
    names = {axis: row.quant_label if axis == "quant" else getattr(row.experiment.whole, axis) for axis in axes}
    if len(names) > 1 and names.get("setting") == DEFAULT_SETTING:
        del names["setting"]
    return " ".join(names.values()) or row.label


def _in_common(rows: Sequence[Row], axes: Sequence[str]) -> str:
    first = rows[0].experiment
    names = [getattr(first, each) for each in ("model", "quant", "workload", "setting") if each not in axes]
    return ", ".join([" ".join(name for name in names if name != DEFAULT_SETTING), first.mode, first.platform])


def _speedup(row: Row) -> float:
    return row.comparison.speedup or 1.0


def _ratio(comparison: Comparison) -> str:
    assert comparison.speedup is not None
    ends = [ratio(end) for end in (comparison.low, comparison.high) if end is not None]
    return f"{ratio(comparison.speedup)}x" + (f" [{', '.join(ends)}]" if ends else "")


def _why(row: Row) -> str:
    comparison = row.comparison
    reason = why_not_measured(row.experiment) or comparison.reason
    if reason:
        return reason
    return f"needs {several(comparison.launches_missing, 'more launch')} of each side"


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    launches = [launch for row in rows for launch in row.launches]
    codes = Counter(code for launch in launches for code in invalid_codes(launch.flags))
    invalid = sum(not launch.valid for launch in launches)
    if invalid:
        told = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        yield f"{invalid} of {several(len(launches), 'launch')} invalid and left out of all numbers ({told})"
    failed = sum(len(row.experiment.failures) for row in rows)
    if failed:
        yield f"{several(failed, 'launch')} failed"
    damaged = sum(len(row.experiment.damaged) for row in rows)
    if damaged:
        yield f"{several(damaged, 'record')} damaged"
    few = [row for row in rows if row.comparison.carried_by_few]
    if few:
        yield f"a few slow passes carry the difference of {some([row.label for row in few])}"


_DISCARD = "rollout-bench discard --invalid"
_AGAIN = "move what is in doubt aside, and run the same command again"


def _next(rows: Sequence[Row], undetected: Sequence[Row], collection: Collection) -> tuple[str, str]:
    if any(row.experiment.damaged for row in rows):
        return f"look under Damaged, then {_AGAIN}", _DISCARD
    failures = [failure for row in rows for failure in row.experiment.failures if failure.category not in LASTING]
    if failures or any(row.experiment.missing for row in rows):
        look = "look under Failed, then " if failures else ""
        return f"{look}run the same command again, which measures what is missing", ""
    codes = [invalid_codes(launch.flags) for row in rows for launch in row.launches]
    invalid = [own for own in codes if own and not LASTING.intersection(own)]
    if invalid:
        return f"look under Flags, then {_AGAIN}", _DISCARD
    if any(not launch.paired for row in rows for launch in row.launches):
        return f"what is no fair pair is to be measured together: {_AGAIN}", _DISCARD
    if collection.precision is not None:
        return "", ""
    launches = max(len(row.launches) for row in rows)
    lacking = [row for row in rows if row.comparison.verdict == "unknown" and not row.comparison.reason]
    if any(row.comparison.launches_missing for row in lacking):
        command = _command(f"launches={max(launches, MIN_PAIRS) + 1}", collection)
        return f"measure at least {MIN_PAIRS + 1} launches", command
    widths = [width for row in undetected if (width := row.comparison.half_width) is not None]
    if not widths:
        return "", ""
    half = math.expm1(max(widths) / 2)
    step = (
        f"four times the launches, {4 * launches}, would narrow the intervals to about {percent(half)} or less on"
        " each side. It is a further look at the same launches: with n looks, false findings are up to n times"
        f" {plain_percent(1 - collection.comparison.confidence)}"
    )
    return step, _command(f"launches={4 * launches}", collection)


def _command(change: str, collection: Collection) -> str:
    """Return the command that measures with `change`; other options of the original command line are unknown here."""
    files = f"--configfile {shlex.join(collection.files)} " if collection.files else ""
    return f"snakemake {files}--config {change}"
