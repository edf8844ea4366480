"""Categories of failures that only profiles have."""

from rollout_bench.contracts.problems import FailureKind

_FEWER_STEPS = "set fewer `profile.steps`, free space, or ask for more `output_tokens`"

FAILURES = (
    FailureKind("no_trace", remedy=_FEWER_STEPS),
    FailureKind("torn_trace", remedy=_FEWER_STEPS),
    FailureKind("empty_trace", remedy=_FEWER_STEPS),
    FailureKind("no_steps", remedy=_FEWER_STEPS),
)
