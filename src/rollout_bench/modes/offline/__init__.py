"""Throughput through `LLM.generate()`."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="offline",
    title="throughput through LLM.generate()",
    page="trust.md",
    example="config.yaml",
    data_parallel="all",
    interleaves=True,
    loras=True,
    shares=True,
    metrics=("output_tokens_per_s",),
    worker=Lazy(f"{__name__}.worker:measure"),
)
