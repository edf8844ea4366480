"""The table of speed, drift and accuracy: what a quantization gains, and what it costs the policy."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rollout_bench.analysis.inside.trades import Answers, Trade, TradeOff
from rollout_bench.analysis.stats.divergence import NEAR, Bounded
from rollout_bench.analysis.stats.intervals import share_interval
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.numbers import MISSING, ratio
from rollout_bench.report.headings import ENERGY_USED, Column, Line, View, interval_text, speedup_columns, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.drift_tables import bounded_text, excess_text, scored_text, verdict_text

MOST = 8
"""Sentences for each reference; the table has all."""

DRIFT = (
    Column(
        "scored",
        "How many sequences were scored at once; of the reference itself the line that is its floor.",
        lambda line: MISSING if line["drifted"] is None else scored_text(line["drifted"]),
        words=True,
    ),
    Column(
        "mean |d|",
        "How far the log probability of a token is from the one that the reference of drift gave it, on average, in "
        "nats, with the interval over sequences; of the reference itself how far it is from itself, the floor.",
        lambda line: MISSING if line["drifted"] is None else bounded_text(line["drifted"].found.size),
    ),
    Column(
        "drift verdict",
        "As in the tables of drift: whether the mean |d| is above the floor. Where it is with another batch only, or "
        "on tokens of its own, the verdict says so.",
        lambda line: (
            line["undrifted"]
            if line["worst"] is None
            else " ".join(filter(None, [verdict_text(line["worst"]), line["where"]]))
        ),
        words=True,
    ),
    Column(
        "KL k3",
        "Estimate of KL(reference || quant), in nats per token.",
        lambda line: MISSING if line["drifted"] is None else bounded_text(line["drifted"].found.k3),
    ),
    Column(
        f"outside [{NEAR[0]:g}, {NEAR[1]:g}] %",
        "Share of tokens whose ratio of probabilities is outside, in percent.",
        lambda line: MISSING if line["drifted"] is None else bounded_text(line["drifted"].found.outside, 100),
    ),
)

ACCURACY = (
    Column(
        "accuracy %",
        "Share of problems with one right answer that were answered rightly, greedily, in percent, with its interval "
        "(Clopper and Pearson). Of models that the project trained.",
        lambda line: line["accuracy"] or MISSING,
        known="accuracy",
    ),
    Column(
        "answers",
        "differ: another share is right than under the baseline of speed (Fisher's exact test, each quant taken "
        "alone).",
        lambda line: line["answers"] or MISSING,
        words=True,
        known="accuracy",
    ),
)


def trade_part(findings: Findings) -> SummaryPart:
    """Return what to choose, in sentences, the table of speed, drift and accuracy, and trade.csv.

    Nothing where no experiment was both timed and scored.
    """
    found = findings.trade_offs
    if not found:
        return SummaryPart()
    tables = list(_views(findings))
    confidence = findings.collection.comparison.confidence
    made = sections(
        "trade",
        found=found,
        most=MOST,
        named=len(found) > 1,
        near=NEAR,
        confidence=confidence,
        bounded=bounded_text,
        excess=excess_text,
        where=where_text,
        speed=speed_text,
        accuracy=lambda answers: accuracy_text(answers, confidence),
    )
    return SummaryPart(
        answers=made[:1],
        tables=tables,
        sections=made[1:],
        definitions=definitions("Definitions, speed and drift", tables),
        files={"trade.csv": trade_table(found)},
    )


def where_text(one: Trade) -> str:
    """Return where it drifts, if not where the table shows its drift: `on tokens of its own, 1 at once`."""
    if one.elsewhere is None:
        return ""
    return f"{'on tokens of its own, ' if one.elsewhere.own else ''}{scored_text(one.elsewhere)}"


def speed_text(one: Trade) -> str:
    """Return `1.21x [1.15, 1.27]`."""
    assert one.speed.speedup is not None, "only what is compared is a trade"
    return f"{ratio(one.speed.speedup)}x{interval_text(one.speed)}"


def accuracy_text(answers: Answers | None, confidence: float) -> str:
    """Return `81.3 [79.0, 83.5]`, in percent; empty where it is not known."""
    if answers is None:
        return ""
    right, judged = answers
    return bounded_text(Bounded(right / judged, *share_interval(right, judged, confidence)), 100)


def _views(findings: Findings) -> Iterator[View]:
    settings = findings.collection.comparison
    for trade_off in findings.trade_offs:
        own = trade_off.baseline.row.experiment
        columns = speedup_columns(settings, own.mode, findings.apart, findings.typical(mode_of(own.mode)))
        speed = dict(zip(settings.metrics_of(own.mode), columns, strict=True))[trade_off.baseline.metric]
        lines = [_line(one, trade_off, settings.confidence) for one in (trade_off.baseline, *trade_off.others)]
        joules = ENERGY_USED[0]
        title = f"{own.mode}, {own.platform}"
        if not trade_off.of_reference:
            title += f", speed-up over {trade_off.baseline.label}, drift from {trade_off.reference.label}"
        yield view("Speed, drift and accuracy: ", title, (speed, *DRIFT, *ACCURACY, joules), lines)


def _line(one: Trade, trade_off: TradeOff, confidence: float) -> Line:
    differ = trade_off.answers_differ(one)
    first = "(reference)" if trade_off.of_reference else "(baseline)"
    return {
        **one.row.axes,
        "comparisons": one.row.comparisons,
        "footnotes": dict.fromkeys(one.row.comparisons),
        "drifted": one.drifted,
        "worst": one.worst,
        "where": where_text(one),
        "undrifted": "no floor" if trade_off.of_reference else MISSING,
        "accuracy": accuracy_text(one.answers, confidence) or None,
        "answers": first
        if one is trade_off.baseline
        else {None: None, True: "differ", False: "no difference found"}[differ],
        ENERGY_USED[0].known: one.energy_j_per_token,
    }


def trade_table(found: list[TradeOff]) -> pd.DataFrame:
    """Return a line for each experiment, the baseline first; the columns end in their units."""
    lines = []
    for trade_off in found:
        for one in (trade_off.baseline, *trade_off.others):
            own, speed, drifted = one.row.experiment, one.speed, one.drifted
            size = None if drifted is None else drifted.found.size
            k3 = None if drifted is None else drifted.found.k3
            lines.append(
                {
                    "mode": own.mode,
                    "platform": own.platform,
                    **one.row.axes,
                    "baseline": trade_off.baseline.label,
                    "reference": trade_off.reference.label,
                    "speedup": 1.0 if speed.is_baseline else speed.speedup,
                    "speedup_low": speed.low,
                    "speedup_high": speed.high,
                    "speed_verdict": "baseline" if speed.is_baseline else speed.verdict,
                    "batch": None if drifted is None else drifted.batch,
                    "mean_abs_d_nats": None if size is None else size.value,
                    "mean_abs_d_low_nats": None if size is None else size.low,
                    "mean_abs_d_high_nats": None if size is None else size.high,
                    "kl_k3_nats": None if k3 is None else k3.value,
                    "drifts": None if one.worst is None else one.worst.drifts,
                    "right": None if one.answers is None else one.answers[0],
                    "judged": None if one.answers is None else one.answers[1],
                    "answers_differ": trade_off.answers_differ(one),
                    "energy_j_per_token": one.energy_j_per_token,
                }
            )
    return pd.DataFrame(lines).astype({"batch": "Int64", "right": "Int64", "judged": "Int64"})
