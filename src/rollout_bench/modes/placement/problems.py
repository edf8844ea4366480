"""Flags of launches and categories of failures that only placements have."""

from rollout_bench.contracts.problems import FailureKind, FlagKind

FLAGS = (
    FlagKind(
        "weights_differ",
        "I",
        found="an engine lacks the trainer's weights",
        remedy=(
            "use another quantization, `cycle.update` or vLLM: [what it "
            "means](whole-step.md#did-the-new-weights-arrive)"
        ),
    ),
)

FAILURES = (
    FailureKind("not_trainable"),
    FailureKind("ranks_disagree", remedy="measure with `tensor_parallel_size: 1`, and report it to vLLM"),
    FailureKind(
        "waking_out_of_memory",
        remedy="lower `gpu_memory_utilization`, [how far](whole-step.md#engines-that-sleep-while-the-trainer-works)",
    ),
)
