"""Whole training steps: generation, sleep, wake-up and weight sync."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="cycle",
    title="whole training steps: generation, sleep, wake-up and weight sync",
    page="whole-step.md",
    example="config/cycle.yaml",
    metrics=("whole_step_s", "output_tokens_per_s", "cycle_s"),
    settings="cycle",
    loras=True,
    figures=("cycle", "throughput", "speedup", "settings", "iterations"),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    iteration_fields=Lazy(f"{__name__}.record:ITERATION"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    numbers=Lazy(f"{__name__}.numbers:NUMBERS"),
    columns=Lazy(f"{__name__}.numbers:columns_of"),
    tables=Lazy(f"{__name__}.report:part_of"),
    transition_s=Lazy(f"{__name__}.numbers:transition_s"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
)
