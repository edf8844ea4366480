"""What the analysis of profiles is made from: one profiled experiment, and what its passes took when measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from rollout_bench.analysis.comparison import Comparison
from rollout_bench.analysis.statistics import mean
from rollout_bench.records.profile import Phase, Profile, Step

PHASES: tuple[Phase, ...] = ("prefill", "mixed", "decode")
"""In the order in which a pass goes through them."""

LINEAR, QUANTIZE, HOST_GAP, OTHER = "linear", "quantize", "host_gap", "other"

CATEGORIES = (
    LINEAR,
    QUANTIZE,
    "attention",
    "kv_cache",
    "norm",
    "activation",
    "rotary",
    "embedding",
    "sampling",
    "communication",
    "memory_copy",
    OTHER,
    HOST_GAP,
)
"""What an operator can be, in the order of tables and figures; `host_gap` is the time without any."""

ROLES = ("qkv", "o", "gate_up", "down", "lm_head", "router", "experts", "other")
"""Of linear layers, in the order of the model."""

Part = tuple[str, str]
"""Category and role, which is empty but for linear layers."""


@dataclass(frozen=True)
class MeasuredPass:
    """What a pass was like where it was measured, without any profiler.

    `elapsed_s` is its mean duration in seconds. `steps` are the engine's steps in it by phase, `tokens` those computed
    in a step of the phase in the mean, `context_tokens` the tokens that attention looked back at in a decode step in
    the mean, over all its sequences, None where nobody knows.
    """

    mode: Literal["offline", "online"]
    elapsed_s: float
    steps: Mapping[Phase, float]
    tokens: Mapping[Phase, float] = field(default_factory=dict)
    context_tokens: float | None = None


@dataclass(frozen=True, eq=False)
class Profiled:
    """One profiled experiment.

    `place` is unique, `quant` the label that tables show. `baseline` is the place of what it is compared with, None
    where it is a baseline itself or has none. `events` are categorised, `times` what `step_times` makes of them, in
    microseconds. `measured` and `comparison` are those of the experiment of the same model, quant and workload that
    was measured: its pass, and its throughput over that of the baseline. Where it was and has no valid launch,
    `unmeasured` says so. `traces` is the folder of the traces relative to the summary, `warnings` what reading and
    categorising had to say.
    """

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    record: Profile
    events: pd.DataFrame
    times: pd.DataFrame
    baseline: str | None = None
    measured: MeasuredPass | None = None
    comparison: Comparison | None = None
    unmeasured: str = ""
    traces: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def table(self) -> tuple[str, str, str]:
        """Platform, model and workload: what stands side by side."""
        return self.platform, self.model, self.workload

    @property
    def device_has_a_clock(self) -> bool:
        """Whether durations are the device's own, which the profiler slows little; on CPU it slows all alike."""
        return self.platform != "cpu"


@dataclass(frozen=True)
class LeftOut:
    """A profiled experiment without a valid launch: `reason` says why, the other fields are those of `Profiled`."""

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    baseline: str | None
    reason: str


@dataclass(frozen=True)
class StepSample:
    """The steps of one phase as the launch timed them: seconds, in order, without and with the profiler.

    `tokens`, `sequences` and `context_tokens` are means over those without, or over all where there are none.
    """

    unprofiled_s: tuple[float, ...]
    profiled_s: tuple[float, ...]
    tokens: float
    sequences: float
    context_tokens: float | None

    @property
    def overhead(self) -> float | None:
        """Mean profiled over mean unprofiled step time; None where one is not known."""
        return mean(self.profiled_s) / mean(self.unprofiled_s) if self.unprofiled_s and self.profiled_s else None

    @property
    def step_s(self) -> float:
        """Mean time of a step: without the profiler, or with it where that is all there is."""
        return mean(self.unprofiled_s or self.profiled_s)


def step_samples(steps: Sequence[Step]) -> dict[Phase, StepSample]:
    """The steps by phase, those phases that have some."""
    return {
        phase: _sample([step for step in steps if step.phase == phase])
        for phase in PHASES
        if any(step.phase == phase for step in steps)
    }


def _sample(steps: Sequence[Step]) -> StepSample:
    unprofiled = [step for step in steps if not step.profiled]
    shown = unprofiled or steps
    contexts = [step.context_tokens for step in shown if step.context_tokens is not None]
    return StepSample(
        unprofiled_s=tuple(step.elapsed_s for step in unprofiled),
        profiled_s=tuple(step.elapsed_s for step in steps if step.profiled),
        tokens=mean([step.tokens for step in shown]),
        sequences=mean([step.sequences for step in shown]),
        context_tokens=mean(contexts) if contexts else None,
    )
