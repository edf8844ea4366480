"""Placements of engine and trainer: on the same devices or on separate devices."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="placement",
    title="placements of engine and trainer: on the same devices or on separate devices",
    page="whole-step.md",
    example="config/placement.yaml",
    metrics=("placed_step_s",),
    by_device="placed_device_s",
    settings="placement",
    without_loras="its trainer trains and sends all weights; mode cycle measures the update of an adapter alone",
    figures=("placement", "iterations"),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    iteration_fields=Lazy(f"{__name__}.record:ITERATION"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    flags=Lazy(f"{__name__}.problems:FLAGS"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    hooks=Lazy(f"{__name__}.hooks:HOOKS"),
    numbers=Lazy(f"{__name__}.numbers:NUMBERS"),
    columns=Lazy(f"{__name__}.numbers:columns_of"),
    tables=Lazy(f"{__name__}.report:part_of"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
)
