"""Categories of failures that only drift have."""

from rollout_bench.contracts.problems import FailureKind

FAILURES = (
    FailureKind("no_reference", remedy="[if drift fails](drift.md#if-it-fails)"),
    FailureKind("no_room"),
    FailureKind("not_finite"),
    FailureKind("not_scored"),
)
