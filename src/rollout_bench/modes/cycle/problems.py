"""Categories of failures that only cycles have."""

from rollout_bench.contracts.problems import FailureKind

_UPDATABLE = "take a quantization that the engine makes from bf16, or another vLLM: [mode cycle](whole-step.md)"

FAILURES = (
    FailureKind(
        "engine_lacks_cycle",
        remedy=_UPDATABLE,
    ),
    FailureKind(
        "not_updatable",
        remedy=_UPDATABLE,
    ),
    FailureKind("no_second_checkpoint"),
    FailureKind("not_drained"),
)
