"""Does what the parts of a step add up to agree with what was measured end to end?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rollout_bench.analysis.profiles.breakdown import Breakdown
from rollout_bench.analysis.profiles.changes import Change, changes
from rollout_bench.analysis.profiles.prediction import (
    Sum,
    pass_time,
    predicted,
    ratio_interval,
    ratio_of_ratios,
)
from rollout_bench.analysis.profiles.profiled import Part, Profiled
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.records.profile import Phase

STAND_INS: dict[Phase, Phase] = {"mixed": "prefill", "prefill": "mixed"}
"""A phase that is not profiled is taken as this one: prompts are most of both."""

Breakdowns = Mapping[Phase, Breakdown]


@dataclass(frozen=True)
class Prediction:
    """The speed-up of the pass that the parts add up to; `low` and `high` its interval, None without any scatter.

    `traces_alone` is what the traced steps say without their unprofiled times as weight. `baseline_s` and `own_s` are
    the steps of a pass in seconds, `changes` its parts in seconds. `taken_for` are phases in place of which others
    were taken, `missing` those of the pass that are not profiled and are left out; `with_profiler` the phases that
    nobody timed without the profiler.
    """

    speedup: float
    low: float | None
    high: float | None
    traces_alone: float
    baseline_s: float
    own_s: float
    changes: tuple[Change, ...]
    taken_for: Mapping[Phase, Phase]
    missing: tuple[Phase, ...]
    with_profiler: tuple[Phase, ...]


@dataclass(frozen=True)
class Reconciliation:
    """`prediction` beside what was measured.

    `ratio` is predicted over measured with its interval. `verdict` is apart where the interval excludes 1 and the two
    are further apart than the relevant difference; unknown where one is missing, and `reason` says which. `reasons`
    are likely ones for being apart, each with its evidence.
    """

    own: Profiled
    baseline: Profiled
    prediction: Prediction | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Literal["agree", "apart", "unknown"] = "unknown"
    reason: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def unmeasured(self) -> bool:
        """Whether a side was launched to be measured, and has no valid launch; `reason` says which and why."""
        return bool(self.own.unmeasured or self.baseline.unmeasured)


def predict(
    own: Profiled, baseline: Profiled, of_own: Breakdowns, of_baseline: Breakdowns, confidence: float
) -> Prediction | None:
    """The prediction from the steps of each side's measured pass; None where no pass is known or nothing in common."""
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
    sides = [(baseline.measured.steps, of_baseline), (own.measured.steps, of_own)]
    parts = [_pass_parts(steps, of, used) for steps, of in sides]
    traced = [_traced(steps, of, used) for steps, of in sides]
    sums = [_sum(steps, of, used) for steps, of in sides]
    interval = ratio_interval(sums[0], sums[1], confidence)
    return Prediction(
        speedup=predicted(parts[0], parts[1]),
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        traces_alone=traced[0] / traced[1],
        baseline_s=sum(parts[0].values()),
        own_s=sum(parts[1].values()),
        changes=tuple(changes(_over_phases(parts[0]), _over_phases(parts[1]))),
        taken_for={phase: stand_in for phase, stand_in in used.items() if phase != stand_in},
        missing=tuple(phase for phase in wanted if phase not in used),
        with_profiler=tuple(p for p in both if not all(_timed(of[p]) for _, of in sides)),
    )


def reconcile(
    own: Profiled,
    baseline: Profiled,
    of_own: Breakdowns,
    of_baseline: Breakdowns,
    settings: ComparisonSettings,
) -> Reconciliation:
    """Compares the prediction with what was measured, as yet without reasons for a difference.

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


def _why_no_prediction(own: Profiled, baseline: Profiled) -> str:
    unmeasured = [f"{side.quant}, {side.unmeasured}" for side in (own, baseline) if side.unmeasured]
    if unmeasured:
        return "; ".join(unmeasured)
    if own.measured is None or baseline.measured is None:
        return "neither offline nor online measured passes of both"
    return "no phase of the pass is profiled in both"


def _timed(breakdown: Breakdown) -> bool:
    return breakdown.sample is not None and bool(breakdown.sample.unprofiled_s)


def _pass_parts(
    steps: Mapping[Phase, float], of: Breakdowns, used: Mapping[Phase, Phase]
) -> dict[tuple[Phase, Part], float]:
    """Seconds of each part in each phase of a pass."""
    return {
        (phase, part): steps.get(phase, 0.0) * us / 1e6
        for phase, stand_in in used.items()
        for part, us in of[stand_in].scaled.items()
    }


def _traced(steps: Mapping[Phase, float], of: Breakdowns, used: Mapping[Phase, Phase]) -> float:
    return sum(steps.get(phase, 0.0) * of[stand_in].traced_us for phase, stand_in in used.items())


def _sum(steps: Mapping[Phase, float], of: Breakdowns, used: Mapping[Phase, Phase]) -> Sum:
    # A phase that stands in for another is one sample with both numbers of steps.
    numbers: dict[Phase, float] = {}
    for phase, stand_in in used.items():
        numbers[stand_in] = numbers.get(stand_in, 0.0) + steps.get(phase, 0.0)
    samples = [(number, of[phase].sample) for phase, number in numbers.items()]
    return pass_time([(n, sample.unprofiled_s or sample.profiled_s) for n, sample in samples if sample is not None])


def _over_phases(parts: Mapping[tuple[Phase, Part], float]) -> dict[Part, float]:
    sums: dict[Part, float] = {}
    for (_, part), seconds in parts.items():
        sums[part] = sums.get(part, 0.0) + seconds
    return sums
