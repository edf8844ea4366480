"""Categories of failures that only messages have."""

from rollout_bench.contracts.problems import FailureKind

FAILURES = (
    FailureKind(
        "messages_moved",
        remedy="this vLLM schedules differently: leave `messages` out of `modes`, or use vLLM 0.23 to 0.32",
    ),
)
