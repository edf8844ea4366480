"""Profiles side by side: their phases, their flags, and a table of every part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.stats.intervals import cv_percent, mean
from rollout_bench.contracts.record import Flag
from rollout_bench.core.numbers import in_sentence
from rollout_bench.modes.profile.breakdown import HOST_GAP, OTHER, Breakdown, changes
from rollout_bench.modes.profile.profiles import ProfiledExperiment

UNKNOWN = 0.10
"""Largest share of a step for `other` without a flag."""

TRACE_OFF = 0.10
"""Largest relative difference between traced and timed steps without a flag."""

DEVICE_BOUND, HOST_BOUND = 0.2, 0.5
"""The device sets the pace if it waits for less than the first share of a step; the host, for more than the second."""

UNSTEADY_PERCENT = 15.0
"""Coefficient of variation, in percent, from which unprofiled steps are flagged as unsteady."""


def doubts(breakdown: Breakdown) -> list[Flag]:
    """Return all flags of one phase of a profile."""
    sentences: dict[str, str] = {}
    other, ratio, cv = breakdown.traced_share(OTHER), agreement(breakdown), cv_percent(breakdown.unprofiled_s)
    if other > UNKNOWN:
        unknown = f"{100 * other:.0f} % of the step are operators that no rule knows"
        sentences["other"] = f"{unknown}, over {100 * UNKNOWN:.0f} %"
    if ratio is not None and abs(math.log(ratio)) > math.log1p(TRACE_OFF):
        sentences["trace_time"] = (
            f"a step takes {in_sentence(breakdown.total_us / 1000)} ms in the trace, "
            f"{in_sentence(1000 * mean(breakdown.profiled_s))} ms as it was timed: "
            + ("part of the step is outside the trace" if ratio < 1 else "the trace has more than these steps")
        )
    if not breakdown.unprofiled_s:
        sentences["untimed"] = "no step was timed without the profiler: its overhead is unknown and in all times"
    if cv is not None and cv >= UNSTEADY_PERCENT:
        sentences["unsteady"] = f"steps vary by {cv:.0f} % without the profiler"
    return [Flag(code=code, severity="warning", sentence=sentence) for code, sentence in sentences.items()]


def agreement(breakdown: Breakdown) -> float | None:
    """Return the traced duration of a step over the timed duration of profiled steps; None if none was timed."""
    return breakdown.total_us / (1e6 * mean(breakdown.profiled_s)) if breakdown.profiled_s else None


def bound(breakdown: Breakdown) -> str:
    """Return the bound of a step: device, host, or both."""
    waits = breakdown.share(HOST_GAP)
    return "device" if waits < DEVICE_BOUND else "host" if waits > HOST_BOUND else "both"


@dataclass(frozen=True)
class ProfileReport:
    """`profiled` in order, and each pair of a profile with its baseline.

    `left_out` are the experiments without a valid launch. `uncompared` are the experiments with a baseline but without
    a pair, because they or their baseline are left out, each with the reason.
    """

    profiled: tuple[ProfiledExperiment, ...]
    pairs: tuple[tuple[ProfiledExperiment, ProfiledExperiment], ...]
    left_out: tuple[ProfiledExperiment, ...]
    uncompared: tuple[tuple[ProfiledExperiment, str], ...]


def profile_report(read: Sequence[ProfiledExperiment]) -> ProfileReport:
    """Return the analysis of profiles; one is compared only if its baseline is among them and has a valid launch."""
    by_place = {each.place: each for each in read}
    compared = [(each, by_place[each.baseline]) for each in read if each.baseline in by_place]
    return ProfileReport(
        profiled=tuple(each for each in read if not each.reason),
        pairs=tuple((own, other) for own, other in compared if not (own.reason or other.reason)),
        left_out=tuple(each for each in read if each.reason),
        uncompared=(
            *((own, f"{other.quant}: {other.reason}") for own, other in compared if other.reason and not own.reason),
            *((own, own.reason) for own, _ in compared if own.reason),
        ),
    )


COLUMNS = (
    "platform",
    "model",
    "workload",
    "quant",
    "phase",
    "category",
    "step_us",
    "us",
    "share",
    "traced_us",
    "calls",
    "speedup",
    "saved_us",
)
"""`us` of a part and `step_us` of the step are without the profiler, `traced_us` with it. `share` is us / step_us.
`calls` are per step. `speedup` and `saved_us` compare `us` with the baseline's; empty without a baseline."""


def profile_table(report: ProfileReport) -> pd.DataFrame:
    """Return a row for each part of each phase of each profile, including parts that only the baseline has.

    The columns are `COLUMNS`.
    """
    baselines = {profiled.place: baseline for profiled, baseline in report.pairs}
    rows = []
    for profiled in report.profiled:
        for phase, breakdown in profiled.phases.items():
            other = baselines[profiled.place].phases.get(phase) if profiled.place in baselines else None
            rows += [
                (
                    profiled.platform,
                    profiled.model,
                    profiled.workload,
                    profiled.quant,
                    phase,
                    change.part,
                    breakdown.step_us,
                    change.own,
                    change.own / breakdown.step_us if breakdown.step_us else None,
                    breakdown.parts.get(change.part, 0.0),
                    breakdown.calls.get(change.part, 0.0),
                    change.speedup,
                    change.saved_us if other else None,
                )
                for change in changes(other.scaled if other else {}, breakdown.scaled)
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
