"""Rollout steps whose requests a router distributes among engines."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="rollout",
    title="rollout steps whose requests a router distributes among engines",
    page="rollout.md",
    example="config/rollout.yaml",
    data_parallel="all",
    interleaves=True,
    loras=True,
    is_predicted=True,
    shares=True,
    metrics=("output_tokens_per_s",),
    settings="rollout",
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    iteration_fields=Lazy(f"{__name__}.record:ITERATION"),
    replica_fields=Lazy(f"{__name__}.record:REPLICA"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    flags=Lazy(f"{__name__}.problems:FLAGS"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    hooks=Lazy(f"{__name__}.hooks:HOOKS"),
    numbers=Lazy(f"{__name__}.numbers:NUMBERS"),
    columns=Lazy(f"{__name__}.numbers:columns_of"),
    tables=Lazy(f"{__name__}.report:part_of"),
)
