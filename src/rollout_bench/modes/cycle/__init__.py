"""Whole training steps: generation, sleep, wake-up and weight sync."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="cycle",
    title="whole training steps: generation, sleep, wake-up and weight sync",
    package=__name__,
    page="whole-step.md",
    example="configs/cycle.yaml",
    metrics=("whole_step_s", "output_tokens_per_s", "cycle_s"),
    settings="cycle",
    figures=("cycle", "throughput", "speedup", "settings", "iterations"),
)
