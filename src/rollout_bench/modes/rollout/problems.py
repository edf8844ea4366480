"""Flags of launches that only rollouts have."""

from rollout_bench.contracts.problems import FlagKind

FLAGS = (
    FlagKind(
        "logprobs_missing",
        "I",
        found="log probabilities are missing or not finite",
        remedy="use an engine that returns them; for NaN check `dtype` and the quantization",
    ),
)
