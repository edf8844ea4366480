"""Time of a step by category, and its change by a quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.inside.profiles import (
    CATEGORIES,
    HOST_GAP,
    LINEAR,
    OTHER,
    PHASES,
    QUANTIZE,
    ProfiledExperiment,
    StepSample,
    step_samples,
)
from rollout_bench.contracts.inside import Phase


@dataclass(frozen=True)
class Breakdown:
    """A phase of one profiled experiment; times are microseconds of one step, as means over `steps` of all ranks.

    `parts` are the traced times, and their sum is `total_us`. `calls` counts operators. `scaled` are the parts without
    the profiler's overhead, and their sum is the time of an unprofiled step.
    """

    phase: Phase
    steps: int
    parts: Mapping[str, float]
    calls: Mapping[str, float]
    scaled: Mapping[str, float]
    sample: StepSample | None

    @property
    def total_us(self) -> float:
        """Sum of all traced parts: the duration of a traced step."""
        return sum(self.parts.values())

    @property
    def step_us(self) -> float:
        """Sum of all parts without the profiler."""
        return sum(self.scaled.values())

    def share(self, category: str) -> float:
        """Return the category's share of the step without the profiler, from 0 to 1."""
        return self.scaled.get(category, 0.0) / self.step_us if self.step_us else 0.0

    def traced_share(self, category: str) -> float:
        """Return the category's share of the traced step."""
        return self.parts.get(category, 0.0) / self.total_us if self.total_us else 0.0


def breakdowns(profiled: ProfiledExperiment) -> dict[Phase, Breakdown]:
    """Return the breakdown of each traced phase."""
    samples = step_samples(profiled.record.steps)
    of_phase = dict(list(profiled.times.groupby("phase")))
    return {
        phase: _breakdown(phase, of_phase[phase], profiled, samples.get(phase)) for phase in PHASES if phase in of_phase
    }


def _breakdown(phase: Phase, times: pd.DataFrame, profiled: ProfiledExperiment, sample: StepSample | None) -> Breakdown:
    steps = times.groupby(["trace", "rank", "step"]).ngroups
    parts = _per_step(times.groupby("category", sort=False)["us"].sum(), steps)
    device = device_rows(profiled.events[profiled.events["phase"] == phase])
    return Breakdown(
        phase=phase,
        steps=steps,
        parts=parts,
        calls=_per_step(device.groupby("category", sort=False).size(), steps),
        scaled=unprofiled(parts, 1e6 * sample.step_s if sample else None, profiled.platform != "cpu"),
        sample=sample,
    )


def device_rows(events: pd.DataFrame) -> pd.DataFrame:
    """Return the operators that the device ran inside steps."""
    return events[(events["where"] == "device") & (events["step"] >= 0)]


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
    found = {str(category): float(value) / steps for category, value in sums.items()}
    return dict(sorted(found.items(), key=lambda item: CATEGORIES.index(item[0])))


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
    def saved(self) -> float:
        """The time saved; negative if the part became slower."""
        return self.baseline - self.own


def changes(baseline: Mapping[str, float], own: Mapping[str, float]) -> list[Change]:
    """Return the change of every part that either side has; the savings add up to the whole saving."""
    parts = sorted({*baseline, *own}, key=CATEGORIES.index)
    return [Change(part, baseline.get(part, 0.0), own.get(part, 0.0)) for part in parts]


def linear_with_quantize(found: list[Change]) -> Change:
    """Return the linear layers with quantizing and dequantizing: the net effect of the quantization."""
    both = [change for change in found if change.part in (LINEAR, QUANTIZE)]
    return Change("linear + quantize", sum(change.baseline for change in both), sum(change.own for change in both))


def unknown(profiled: ProfiledExperiment, breakdown: Breakdown) -> list[tuple[str, float]]:
    """Return the operators of category `other` in a phase with their shares of the traced step, the largest first."""
    rows = device_rows(profiled.events[profiled.events["phase"] == breakdown.phase])
    sums = rows[rows["category"] == OTHER].groupby("name")["self_us"].sum()
    total = breakdown.total_us * breakdown.steps
    found = [(str(name), float(us) / total if total else 0.0) for name, us in sums.items()]
    return sorted(found, key=lambda each: (-each[1], each[0]))
