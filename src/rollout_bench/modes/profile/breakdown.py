"""Time of a step by category, and its change by a quantization."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.contracts.phases import Phase
from rollout_bench.modes.profile.record import Step
from rollout_bench.modes.profile.traces.categories import CATEGORIES

PHASES: tuple[Phase, ...] = ("prefill", "mixed", "decode")
"""In the order of a pass."""

LINEAR, QUANTIZE, HOST_GAP, OTHER = "linear", "quantize", "host_gap", "other"


@dataclass(frozen=True)
class Breakdown:
    """A phase of one profiled experiment; times are microseconds of one step, as means over `steps` of all ranks.

    `parts` are the traced times, and their sum is `total_us`. `calls` counts operators. `scaled` are the parts without
    the profiler's overhead, and their sum is the time of an unprofiled step. `unknown` are the operators of category
    `other` with their shares of the traced step, the largest first. `unprofiled_s` and `profiled_s` are the timed steps
    without and with the profiler. `tokens` is their mean number of tokens, over unprofiled steps if there are any; None
    if no step was timed.
    """

    phase: Phase
    steps: int
    parts: Mapping[str, float]
    calls: Mapping[str, float]
    scaled: Mapping[str, float]
    unknown: tuple[tuple[str, float], ...]
    unprofiled_s: tuple[float, ...]
    profiled_s: tuple[float, ...]
    tokens: float | None

    @property
    def total_us(self) -> float:
        """Sum of all traced parts: the duration of a traced step."""
        return sum(self.parts.values())

    @property
    def step_us(self) -> float:
        """Sum of all parts without the profiler."""
        return sum(self.scaled.values())

    @property
    def overhead(self) -> float | None:
        """Mean profiled over mean unprofiled step time; None if either is unknown."""
        return mean(self.profiled_s) / mean(self.unprofiled_s) if self.unprofiled_s and self.profiled_s else None

    def share(self, category: str) -> float:
        """Return the category's share of the step without the profiler, from 0 to 1."""
        return self.scaled.get(category, 0.0) / self.step_us if self.step_us else 0.0

    def traced_share(self, category: str) -> float:
        """Return the category's share of the traced step."""
        return self.parts.get(category, 0.0) / self.total_us if self.total_us else 0.0


def breakdowns(
    events: pd.DataFrame, times: pd.DataFrame, timed: Sequence[Step], device_clock: bool
) -> dict[Phase, Breakdown]:
    """Return the breakdown of each traced phase.

    Args:
        events: categorised events.
        times: the result of `step_times`.
        timed: the timed steps of the record.
        device_clock: as in `unprofiled`.
    """
    of_phase = dict(list(times.groupby("phase")))
    device = events[(events["where"] == "device") & (events["step"] >= 0)]
    return {
        phase: _breakdown(
            phase,
            of_phase[phase],
            device[device["phase"] == phase],
            [step for step in timed if step.phase == phase],
            device_clock,
        )
        for phase in PHASES
        if phase in of_phase
    }


def _breakdown(
    phase: Phase, times: pd.DataFrame, device: pd.DataFrame, timed: Sequence[Step], device_clock: bool
) -> Breakdown:
    steps = times.groupby(["trace", "rank", "step"]).ngroups
    parts = _per_step(times.groupby("category", sort=False)["us"].sum(), steps)
    without, within = ([step for step in timed if step.profiled == profiled] for profiled in (False, True))
    step_us = 1e6 * mean([step.elapsed_s for step in without or within]) if timed else None
    unknown = device[device["category"] == OTHER].groupby("name")["self_us"].sum()
    total = sum(parts.values()) * steps
    shares = [(str(name), float(us) / total if total else 0.0) for name, us in unknown.items()]
    return Breakdown(
        phase=phase,
        steps=steps,
        parts=parts,
        calls=_per_step(device.groupby("category", sort=False).size(), steps),
        scaled=unprofiled(parts, step_us, device_clock),
        unknown=tuple(sorted(shares, key=lambda each: (-each[1], each[0]))),
        unprofiled_s=tuple(step.elapsed_s for step in without),
        profiled_s=tuple(step.elapsed_s for step in within),
        tokens=mean([step.tokens for step in without or within]) if timed else None,
    )


def unprofiled(parts: Mapping[str, float], step_us: float | None, device_clock: bool) -> dict[str, float]:
    """Return `parts` of a traced step, scaled to the unprofiled step time `step_us`; all in microseconds.

    Without a device clock, the profiler slows everything alike, so each part keeps its share. With one
    (`device_clock`), it slows only the host: operators keep their durations, and the rest of `step_us` is waiting. If
    the operators last longer than `step_us`, they keep their shares of it. If `step_us` is None, the parts are
    returned unchanged.
    """
    total = sum(parts.values())
    if step_us is None or total <= 0:
        return dict(parts)
    run = {part: us for part, us in parts.items() if part != HOST_GAP}
    busy = sum(run.values())
    if not device_clock or busy <= 0:
        # Shares first: the product of a step and a part near the smallest float is rounded by as much as the part.
        return {part: us / total * step_us for part, us in parts.items()}
    factor = min(1.0, step_us / busy)
    return {**{part: us * factor for part, us in run.items()}, HOST_GAP: max(0.0, step_us - busy * factor)}


def _per_step(sums: pd.Series, steps: int) -> dict[str, float]:
    values = {str(category): float(value) / steps for category, value in sums.items()}
    return dict(sorted(values.items(), key=lambda item: CATEGORIES.index(item[0])))


@dataclass(frozen=True)
class Change:
    """One part in the baseline and in the quantization, in the unit of the input.

    `speedup` is baseline over own, or None if either side lacks the part.
    """

    part: str
    baseline: float
    own: float

    @property
    def speedup(self) -> float | None:
        """Baseline over own: above 1 if the part became faster."""
        return self.baseline / self.own if self.baseline > 0 and self.own > 0 else None

    @property
    def saved_us(self) -> float:
        """The time saved; negative if the part became slower."""
        return self.baseline - self.own


def changes(baseline: Mapping[str, float], own: Mapping[str, float]) -> list[Change]:
    """Return the change of every part that either side has; the savings add up to the whole saving."""
    parts = sorted({*baseline, *own}, key=CATEGORIES.index)
    return [Change(part, baseline.get(part, 0.0), own.get(part, 0.0)) for part in parts]
