"""Rollout steps whose requests a router distributes among engines."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="rollout",
    title="rollout steps whose requests a router distributes among engines",
    package=__name__,
    page="rollout.md",
    example="configs/rollout.yaml",
    data_parallel="all",
    interleaves=True,
    shares=True,
    metrics=("output_tokens_per_s",),
    settings="rollout",
)
