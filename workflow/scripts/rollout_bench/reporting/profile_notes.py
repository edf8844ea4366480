"""The foot of a summary on its profiles: what the tables can't say in a line, doubts, and where the traces are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.profiles.changes import Change, other_shapes
from rollout_bench.analysis.profiles.checks import UNKNOWN, doubts
from rollout_bench.analysis.profiles.operators import unknown
from rollout_bench.analysis.profiles.profiled import LINEAR, QUANTIZE, LeftOut, Profiled
from rollout_bench.analysis.profiles.reconciliation import Prediction, Reconciliation
from rollout_bench.analysis.profiles.report import ProfileReport
from rollout_bench.records.profile import Phase
from rollout_bench.reporting.notes import Section
from rollout_bench.reporting.numbers import number, percent, ratio, sentence, several
from rollout_bench.reporting.profile_columns import SHARES, saved
from rollout_bench.reporting.profile_words import category_word, operator_word
from rollout_bench.reporting.view import View

OPEN = (
    "Open a trace, a file that ends in .json.gz, in Perfetto's viewer in a browser (ui.perfetto.dev, 'Open trace "
    "file'); it stays on this machine. docs/how-to/profile.md says what to look for."
)

_UNKNOWN_NAMES = 5
"""Operators that no rule knows which a note names."""

_CAUSES = 5
"""Categories that a note on what is saved names."""

_TELL = 0.02
"""By how much the traces alone may be off the prediction before a note says why."""


def profile_notes(report: ProfileReport, tables: Sequence[View]) -> list[Section]:
    """The sections below the tables of `profile_views`, without those that have nothing to say."""
    if not report.profiled:
        return []
    sections = [
        Section("Predicted and measured", tuple(_reconciled(report))),
        Section("Doubts about profiles", tuple(_doubts(report))),
        Section("Traces", (OPEN,), tuple((f"Traces of {_name(each)}", each.traces) for each in report.profiled)),
        Section("Definitions, profile", tuple(_definitions(tables))),
    ]
    return [section for section in sections if section.items]


def _name(profiled: Profiled | LeftOut) -> str:
    return f"{profiled.model} {profiled.quant} {profiled.workload}"


def _reconciled(report: ProfileReport) -> Iterator[str]:
    for pair in report.reconciliations:
        name = f"{_name(pair.own)} over {pair.baseline.quant}"
        yield f"{name}: {_verdict(pair)}"
        if pair.prediction is not None:
            yield f"{name}: {_net(pair.prediction)}"
            yield from _traces_alone(report, pair, pair.prediction)
            yield from _stand_ins(name, pair)
    for own, reason in report.uncompared:
        yield f"{_name(own)}: predicted and measured are not compared: {sentence(reason)}"


def _verdict(pair: Reconciliation) -> str:
    if pair.verdict == "unknown" or pair.ratio is None:
        return f"predicted and measured are not compared: {sentence(pair.reason)}"
    apart = "the same" if round(pair.ratio, 3) == 1 else f"{percent(max(pair.ratio, 1 / pair.ratio) - 1)} apart"
    far = "" if pair.low is None or pair.high is None else f" (ratio {ratio(pair.low)} to {ratio(pair.high)})"
    if pair.verdict == "agree":
        return f"what its steps add up to agrees with what was measured, {apart}{far}."
    numbered = [f"({place}) {sentence(reason)}" for place, reason in enumerate(pair.reasons, 1)]
    why = f"Likely: {' '.join(numbered)}" if numbered else "Nothing in the profiles says why."
    return f"what its steps add up to is not what was measured, {apart}{far}. {why}"


def _net(prediction: Prediction) -> str:
    """What the pass saves and where, the largest parts first."""
    by_category: dict[str, Change] = {}
    for change in prediction.changes:
        sums = by_category.get(change.part[0], Change(change.part, 0.0, 0.0))
        by_category[change.part[0]] = Change(change.part, sums.baseline + change.baseline, sums.own + change.own)
    total_s = prediction.baseline_s - prediction.own_s
    by_saved = {category: saved(change) for category, change in by_category.items() if saved(change)}
    ordered = sorted(by_saved.items(), key=lambda item: -abs(item[1]))
    told = [f"{category_word(category)} {_signed(seconds)}" for category, seconds in ordered[:_CAUSES]]
    rest = sum(seconds for _, seconds in ordered[_CAUSES:])
    told += [f"all else {_signed(rest)}"] if rest else []
    kernels = [by_saved.get(category, 0.0) for category in (LINEAR, QUANTIZE) if category in by_category]
    net = f" Linear and quantize together: {_signed(sum(kernels))}." if len(kernels) == 2 else ""
    return (
        f"of the {number(prediction.baseline_s, 3)} s that the baseline's steps of a pass take it saves "
        f"{_signed(total_s)} s: {', '.join(told) or 'nothing anywhere'}.{net}"
    )


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "+" if seconds > 0 else "") + number(abs(seconds), 3)


def _traces_alone(report: ProfileReport, pair: Reconciliation, prediction: Prediction) -> Iterator[str]:
    off = prediction.traces_alone / prediction.speedup
    if max(off, 1 / off) < 1 + _TELL:
        return
    told = [
        f"{phase} steps {ratio(own)}x as long for {pair.own.quant}, {ratio(other)}x for {pair.baseline.quant}"
        for phase in report.of(pair.own)
        for own, other in ((_overhead(report, pair.own, phase), _overhead(report, pair.baseline, phase)),)
        if own is not None and other is not None
    ]
    if told:
        yield (
            f"{_name(pair.own)} over {pair.baseline.quant}: the traces alone would say "
            f"{ratio(prediction.traces_alone)}x. The profiler makes {'; '.join(told)}."
        )


def _overhead(report: ProfileReport, profiled: Profiled, phase: Phase) -> float | None:
    breakdown = report.of(profiled).get(phase)
    return breakdown.sample.overhead if breakdown is not None and breakdown.sample is not None else None


def _stand_ins(name: str, pair: Reconciliation) -> Iterator[str]:
    assert pair.prediction is not None
    for phase, stand_in in pair.prediction.taken_for.items():
        yield f"{name}: {phase} steps are not profiled, {stand_in} steps are taken for them."
    shapes = other_shapes(pair.own, pair.baseline)
    if shapes:
        yield f"{name}: linear layers of other shapes ({', '.join(shapes)}), whose speed-up is not of the same work."


def _doubts(report: ProfileReport) -> Iterator[str]:
    for each in report.profiled:
        for phase, breakdown in report.of(each).items():
            for doubt in doubts(breakdown):
                yield f"{_name(each)}, {phase}: {doubt.code}: {sentence(doubt.sentence)}"
            if breakdown.traced_share("other") > UNKNOWN:
                names = unknown(each, breakdown)
                told = ", ".join(
                    f"{operator_word(operator.name)} ({number(100 * operator.share, 2)} %)"
                    for operator in names[:_UNKNOWN_NAMES]
                )
                more = len(names) - _UNKNOWN_NAMES
                yield f"{_name(each)}, {phase}: operators that no rule knows: {told}" + (
                    f" and {several(more, 'other')}." if more > 0 else "."
                )
        if each.record.truncated:
            yield f"{_name(each)}: {sentence(each.record.truncated)}"
        for warning in each.warnings:
            yield f"{_name(each)}: {sentence(warning)}"


def _definitions(tables: Sequence[View]) -> Iterator[str]:
    """Of the columns of `tables`, each once; columns of several phases share theirs."""
    yield SHARES
    told: set[str] = set()
    for column in (column for table in tables for column in table.columns):
        if column.definition and not {column.header, column.definition} & told:
            told |= {column.header, column.definition}
            yield f"{column.header}: {column.definition}"
