"""Which part of a launch has a limit of its own, and what it means that it took longer."""

from __future__ import annotations

from dataclasses import dataclass

from rollout_bench.engines.events import Limits
from rollout_bench.engines.failures import Cause

STARTS = ("starting", "importing", "initializing")
"""Phases that together are the start."""

_CATEGORIES = {
    "start": ("start_timeout", "was not ready", "raise timeouts.start_s if the model is large or the machine slow"),
    "warmup": ("warmup_timeout", "had not finished a warm-up pass", "raise timeouts.warmup_s, or send less"),
    "measuring": ("iteration_timeout", "had not finished a pass", "raise timeouts.iteration_s, or send less"),
    "stopping": ("stop_timeout", "had not ended", "raise timeouts.stop_s; what was measured before is not kept"),
}


@dataclass(frozen=True)
class Step:
    """A part of a launch: when it has to be over, on the monotonic clock, and what it means if it is not."""

    deadline: float
    overrun: Cause


def step_of(phase: str, limits: Limits, began: float) -> Step | None:
    """The limit of what is done in `phase` and began at `began`; None where it has none of its own."""
    name = "start" if phase in STARTS else phase
    limit_s = {
        "start": limits.start_s,
        "warmup": limits.warmup_s,
        "measuring": limits.iteration_s,
        "stopping": limits.stop_s,
    }.get(name)
    if limit_s is None:
        return None
    category, what, fix = _CATEGORIES[name]
    cause = f"the engine {what} after {limit_s:g} s"
    return Step(began + limit_s, Cause(category, cause, f"read the end of the log for where it hung; {fix}"))
