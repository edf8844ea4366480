"""Latency through an OpenAI-compatible server."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="online",
    title="latency through an OpenAI-compatible server",
    page="serving.md",
    example="config/online.yaml",
    has_loads=True,
    loras=True,
    shares=True,
    metrics=("output_tokens_per_s", "ttft_s", "tpot_s", "e2el_s", "e2el_p99_launch_mean_s"),
    figures=("sweep", "throughput", "speedup", "settings", "iterations"),
    flags=Lazy(f"{__name__}.problems:FLAGS"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    numbers=Lazy(f"{__name__}.numbers:NUMBERS"),
    tables=Lazy(f"{__name__}.report:part_of"),
)
