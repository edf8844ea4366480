"""Latency through an OpenAI-compatible server."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="online",
    title="latency through an OpenAI-compatible server",
    package=__name__,
    page="serving.md",
    example="configs/online.yaml",
    has_loads=True,
    shares=True,
    metrics=("output_tokens_per_s", "ttft_s", "tpot_s"),
    figures=("sweep", "throughput", "speedup", "settings", "iterations"),
)
