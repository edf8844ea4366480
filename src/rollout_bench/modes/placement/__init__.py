"""Placements of engine and trainer: on the same devices or on separate devices."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="placement",
    title="placements of engine and trainer: on the same devices or on separate devices",
    package=__name__,
    page="whole-step.md",
    example="configs/placement.yaml",
    metrics=("placed_step_s",),
    by_device="placed_device_s",
    settings="placement",
    figures=("placement", "iterations"),
)
