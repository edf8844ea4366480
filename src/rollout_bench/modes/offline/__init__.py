"""Throughput through `LLM.generate()`."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="offline",
    title="throughput through LLM.generate()",
    package=__name__,
    page="trust.md",
    example="config.yaml",
    data_parallel="all",
    interleaves=True,
    shares=True,
    metrics=("output_tokens_per_s",),
)
