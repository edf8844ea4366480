"""What steps predict for a pass against what was measured end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import special

from rollout_bench.analysis.inside.breakdown import Breakdown, breakdowns, changes
from rollout_bench.analysis.inside.profiles import HOST_GAP, OTHER, LeftOut, Part, ProfiledExperiment
from rollout_bench.analysis.stats.intervals import NO_SPREAD, cv_percent, mean
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.numbers import brief
from rollout_bench.plan.config import ComparisonSettings


@dataclass(frozen=True)
class Sum:
    """A weighted sum of means: `total` in seconds, its variance over `total` squared by term with degrees of freedom.

    `terms` are None where some mean is of a single value, whose scatter nobody knows.
    """

    total: float
    terms: tuple[tuple[float, int], ...] | None


def pass_time(steps: Sequence[tuple[float, Sequence[float]]]) -> Sum:
    """Return the time of a pass, of (number of steps, step times in seconds) by phase.

    Sum of n_p mean(t_p), with the variance n_p^2 s_p^2 / k_p of each term over k_p timed steps. Steps count as
    independent; where they drift, s_p holds the drift, which makes it no smaller.
    """
    total = sum(number * float(np.mean(times)) for number, times in steps)
    if any(len(times) < 2 for number, times in steps if number):
        return Sum(total, None)
    terms = [
        (float(number**2 * np.var(times, ddof=1) / len(times)) / total**2, len(times) - 1)
        for number, times in steps
        if number
    ]
    return Sum(total, tuple(terms))


def ratio_interval(baseline: Sum, own: Sum, confidence: float) -> tuple[float, float] | None:
    """Return the interval of baseline / own, None where the scatter of one is unknown or both have none.

    exp(ln R -+ t sqrt(V)), V the sum of all terms' relative variances (the first-order variance of ln R), t with the
    degrees of freedom V^2 / sum(V_i^2 / f_i) (Satterthwaite, "An approximate distribution of estimates of variance
    components", Biometrics Bulletin 2, 1946). It holds for this launch: what changes from launch to launch is not in.
    """
    if baseline.terms is None or own.terms is None:
        return None
    terms = [*baseline.terms, *own.terms]
    variance = sum(v for v, _ in terms)
    if math.sqrt(variance) < NO_SPREAD:
        return None
    freedom = variance**2 / sum(v**2 / f for v, f in terms)
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    middle = math.log(baseline.total / own.total)
    # A handful of unsteady steps can be worth less than one degree of freedom; beyond e^700 no float goes.
    return math.exp(max(-700.0, middle - half)), math.exp(min(700.0, middle + half))


def ratio_of_ratios(
    one: float, one_interval: tuple[float, float], other: float, other_interval: tuple[float, float]
) -> tuple[float, float]:
    """Return the interval of one / other from the intervals of both, all above 0 and of the same confidence.

    On logarithms: low = x - y - sqrt((x - l)^2 + (u' - y)^2), high = x - y + sqrt((u - x)^2 + (y - l')^2) (Zou and
    Donner, "Construction of confidence limits about effect measures: a general approach", Statistics in Medicine 27,
    2008), which takes them as independent.
    """
    x, y = math.log(one), math.log(other)
    (low, high), (low_, high_) = (tuple(map(math.log, interval)) for interval in (one_interval, other_interval))
    return (
        math.exp(x - y - math.hypot(x - low, high_ - y)),
        math.exp(x - y + math.hypot(high - x, y - low_)),
    )


UNKNOWN = 0.10
"""Share of a step that `other` may take."""

TRACE_OFF = 0.10
"""Fraction by which the steps of a trace may differ from the same steps as they were timed."""

DEVICE_BOUND, HOST_BOUND = 0.2, 0.5
"""The device waits for less than this share of a step: it sets the pace. For more than the other: the host does."""

UNSTEADY_PERCENT = 15.0
"""Coefficient of variation of unprofiled steps from which on they are unsteady."""


@dataclass(frozen=True)
class ProfileFlag:
    """One doubt: `code` for a column of flags, and a sentence with what was seen."""

    code: str
    sentence: str


def doubts(breakdown: Breakdown) -> list[ProfileFlag]:
    """Everything that is doubtful about one phase of a profile."""
    return [*_other(breakdown), *_trace(breakdown), *_untimed(breakdown), *_unsteady_flag(breakdown)]


def agreement(breakdown: Breakdown) -> float | None:
    """Return the duration of a step in the trace over that of a profiled step as it was timed; None where none was."""
    if breakdown.sample is None or not breakdown.sample.profiled_s:
        return None
    return breakdown.traced_us / (1e6 * mean(breakdown.sample.profiled_s))


def bound(breakdown: Breakdown) -> str:
    """Return what sets the pace of a step: device, host, or both."""
    waits = breakdown.share(HOST_GAP)
    return "device" if waits < DEVICE_BOUND else "host" if waits > HOST_BOUND else "both"


def _other(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    share = breakdown.traced_share(OTHER)
    if share > UNKNOWN:
        yield ProfileFlag(
            "other",
            f"{100 * share:.0f} % of the step are operators that no rule knows, over {100 * UNKNOWN:.0f} %",
        )


def _trace(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    ratio = agreement(breakdown)
    if ratio is not None and abs(math.log(ratio)) > math.log1p(TRACE_OFF):
        assert breakdown.sample is not None
        yield ProfileFlag(
            "trace_time",
            f"a step takes {brief(breakdown.traced_us / 1000)} ms in the trace, "
            f"{brief(1000 * mean(breakdown.sample.profiled_s))} ms as it was timed: "
            + ("part of the step is outside the trace" if ratio < 1 else "the trace has more than these steps"),
        )


def _untimed(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    if breakdown.sample is None or not breakdown.sample.unprofiled_s:
        yield ProfileFlag("untimed", "no step was timed without the profiler: its overhead is unknown and in all times")


def _unsteady_flag(breakdown: Breakdown) -> Iterator[ProfileFlag]:
    cv = cv_percent(breakdown.sample.unprofiled_s) if breakdown.sample else None
    if cv is not None and cv >= UNSTEADY_PERCENT:
        yield ProfileFlag("unsteady", f"steps vary by {cv:.0f} % without the profiler")


STAND_INS: dict[Phase, Phase] = {"mixed": "prefill", "prefill": "mixed"}
"""A phase that is not profiled is taken as this one: prompts are most of both."""

Breakdowns = Mapping[Phase, Breakdown]


@dataclass(frozen=True)
class Prediction:
    """The speed-up of the pass that the steps add up to; `low` and `high` its interval, None without any scatter.

    `baseline_s` and `own_s` are the steps of a pass in seconds. `taken_for` are phases in place of which others were
    taken, `missing` those of the pass that are not profiled and are left out.
    """

    speedup: float
    low: float | None
    high: float | None
    baseline_s: float
    own_s: float
    taken_for: Mapping[Phase, Phase]
    missing: tuple[Phase, ...]


@dataclass(frozen=True)
class Reconciliation:
    """`prediction` beside what was measured.

    `ratio` is predicted over measured with its interval. `verdict` is apart where the interval excludes 1 and the two
    are further apart than the relevant difference; unknown where one is missing, and `reason` says which.
    """

    own: ProfiledExperiment
    baseline: ProfiledExperiment
    prediction: Prediction | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Literal["agree", "apart", "unknown"] = "unknown"
    reason: str = ""

    @property
    def unmeasured(self) -> bool:
        """Whether a side was launched to be measured, and has no valid launch; `reason` says which and why."""
        return bool(self.own.unmeasured or self.baseline.unmeasured)


def predict(
    own: ProfiledExperiment,
    baseline: ProfiledExperiment,
    of_own: Breakdowns,
    of_baseline: Breakdowns,
    confidence: float,
) -> Prediction | None:
    """Return the prediction from the steps of each side's measured pass.

    None where no pass is known or nothing in common.
    """
    if own.measured is None or baseline.measured is None:
        return None
    both = [phase for phase in of_own if phase in of_baseline and of_own[phase].sample and of_baseline[phase].sample]
    wanted = [phase for phase in baseline.measured.steps if baseline.measured.steps[phase] > 0]
    wanted += [phase for phase in own.measured.steps if own.measured.steps[phase] > 0 and phase not in wanted]
    used: dict[Phase, Phase] = {}
    for phase in wanted:
        stand_in = phase if phase in both else STAND_INS.get(phase)
        if stand_in in both:
            used[phase] = stand_in
    if not used:
        return None
    sums = [_sum(baseline.measured.steps, of_baseline, used), _sum(own.measured.steps, of_own, used)]
    interval = ratio_interval(sums[0], sums[1], confidence)
    return Prediction(
        speedup=sums[0].total / sums[1].total,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        baseline_s=sums[0].total,
        own_s=sums[1].total,
        taken_for={phase: stand_in for phase, stand_in in used.items() if phase != stand_in},
        missing=tuple(phase for phase in wanted if phase not in used),
    )


def reconcile(
    own: ProfiledExperiment,
    baseline: ProfiledExperiment,
    of_own: Breakdowns,
    of_baseline: Breakdowns,
    settings: ComparisonSettings,
) -> Reconciliation:
    """Compare the prediction with what was measured.

    Each side's interval is taken as known: that of the prediction knows of one launch alone, and where the steps have
    no scatter the measured one stands alone.
    """
    prediction = predict(own, baseline, of_own, of_baseline, settings.confidence)
    if prediction is None:
        return Reconciliation(own, baseline, None, reason=_why_no_prediction(own, baseline))
    measured = own.comparison
    if measured is None or measured.speedup is None:
        why = measured.reason if measured is not None and measured.reason else "no measured speed-up"
        return Reconciliation(own, baseline, prediction, reason=why)
    ratio = prediction.speedup / measured.speedup
    if prediction.missing:
        why = f"{' and '.join(prediction.missing)} steps of the pass are not profiled"
        return Reconciliation(own, baseline, prediction, ratio, reason=why)
    if measured.low is None or measured.high is None:
        why = measured.reason or "the measured speed-up has no interval"
        return Reconciliation(own, baseline, prediction, ratio, reason=why)
    point = (prediction.speedup, prediction.speedup)
    scatter = (prediction.low, prediction.high)
    low, high = ratio_of_ratios(
        prediction.speedup,
        point if scatter[0] is None or scatter[1] is None else (scatter[0], scatter[1]),
        measured.speedup,
        (measured.low, measured.high),
    )
    near = max(ratio, 1 / ratio) < 1 + settings.relevant_difference
    verdict: Literal["agree", "apart"] = "agree" if low <= 1 <= high or near else "apart"
    return Reconciliation(own, baseline, prediction, ratio, low, high, verdict)


def _why_no_prediction(own: ProfiledExperiment, baseline: ProfiledExperiment) -> str:
    unmeasured = [f"{side.quant}, {side.unmeasured}" for side in (own, baseline) if side.unmeasured]
    if unmeasured:
        return "; ".join(unmeasured)
    if own.measured is None or baseline.measured is None:
        return "neither offline nor online measured passes of both"
    return "no phase of the pass is profiled in both"


def _sum(steps: Mapping[Phase, float], of: Breakdowns, used: Mapping[Phase, Phase]) -> Sum:
    # A phase that stands in for another is one sample with both numbers of steps.
    numbers: dict[Phase, float] = {}
    for phase, stand_in in used.items():
        numbers[stand_in] = numbers.get(stand_in, 0.0) + steps.get(phase, 0.0)
    samples = [(number, of[phase].sample) for phase, number in numbers.items()]
    return pass_time([(n, sample.unprofiled_s or sample.profiled_s) for n, sample in samples if sample is not None])


@dataclass(frozen=True, eq=False)
class ProfileReport:
    """`profiled` in order, the phases of each by its place, and a reconciliation for each that has a baseline.

    `left_out` are those without a valid launch. `uncompared` are those that have a baseline and no reconciliation,
    since they are left out themselves or their baseline is, each with the reason.
    """

    profiled: tuple[ProfiledExperiment, ...]
    phases: Mapping[str, Mapping[Phase, Breakdown]]
    reconciliations: tuple[Reconciliation, ...]
    settings: ComparisonSettings
    left_out: tuple[LeftOut, ...] = ()
    uncompared: tuple[tuple[ProfiledExperiment | LeftOut, str], ...] = ()

    def of(self, profiled: ProfiledExperiment) -> Mapping[Phase, Breakdown]:
        """Return the phases of one of them."""
        return self.phases[profiled.place]

    @property
    def pairs(self) -> list[tuple[ProfiledExperiment, ProfiledExperiment]]:
        """Each that is compared, and with what."""
        return [(found.own, found.baseline) for found in self.reconciliations]


def profile_report(
    profiled: Sequence[ProfiledExperiment], settings: ComparisonSettings, left_out: Sequence[LeftOut] = ()
) -> ProfileReport:
    """Return analyses `profiled`; what one is compared with must be among them, or it is not compared."""
    by_place = {each.place: each for each in profiled}
    without = {each.place: each for each in left_out}
    if len(by_place | without) < len(profiled) + len(left_out):
        raise ValueError("two profiles have the same place")
    phases = {each.place: breakdowns(each) for each in profiled}
    found = []
    for own in profiled:
        baseline = by_place.get(own.baseline or "")
        if baseline is not None and baseline is not own:
            found.append(reconcile(own, baseline, phases[own.place], phases[baseline.place], settings))
    uncompared: list[tuple[ProfiledExperiment | LeftOut, str]] = [
        (own, f"{left.quant}: {left.reason}")
        for own in profiled
        if (left := without.get(own.baseline or "")) is not None
    ]
    uncompared += [(each, each.reason) for each in left_out if each.baseline in by_place | without]
    return ProfileReport(tuple(profiled), phases, tuple(found), settings, tuple(left_out), tuple(uncompared))


COLUMNS = (
    "platform",
    "model",
    "workload",
    "quant",
    "phase",
    "category",
    "role",
    "step_us",
    "us",
    "share",
    "traced_us",
    "calls",
    "speedup",
    "saved_us",
)
"""`us` of a part and `step_us` of all are without the profiler, `traced_us` with it; `share` is us / step_us. `calls`
are those of a step. `speedup` and `saved_us` compare `us` with the baseline's, empty where there is none."""


def profile_table(report: ProfileReport) -> pd.DataFrame:
    """Return a row for each part of each phase of each profile, also for parts that only its baseline has.

    See `COLUMNS`.
    """
    baselines = {own.place: baseline for own, baseline in report.pairs}
    rows = [
        row
        for each in report.profiled
        for phase in report.of(each)
        for row in _rows(report, each, phase, baselines.get(each.place))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(
    report: ProfileReport, own: ProfiledExperiment, phase: Phase, baseline: ProfiledExperiment | None
) -> list[tuple[object, ...]]:
    breakdown = report.of(own)[phase]
    other = None if baseline is None else report.of(baseline).get(phase)
    compared = {} if other is None else {c.part: c for c in changes(other.scaled, breakdown.scaled)}
    parts: list[Part] = list(compared) or list(breakdown.scaled)
    rows: list[tuple[object, ...]] = []
    for part in parts:
        change, us = compared.get(part), breakdown.scaled.get(part, 0.0)
        rows.append(
            (
                own.platform,
                own.model,
                own.workload,
                own.quant,
                phase,
                *part,
                breakdown.step_us,
                us,
                us / breakdown.step_us if breakdown.step_us else None,
                breakdown.parts.get(part, 0.0),
                breakdown.calls.get(part, 0.0),
                change.speedup if change else None,
                change.saved if change else None,
            )
        )
    return rows
