"""The time of single steps of an engine, by the work in them, from which `rollout-bench predict` predicts rollouts."""

from rollout_bench.contracts.mode import STEPS, Lazy, Mode

MODE = Mode(
    name="steps",
    title="the time of single steps, by the work in them",
    page="settings.md",
    example="config/steps.yaml",
    side_files=(STEPS,),
    generates=False,
    passes="none",
    launches="least",
    data_parallel="one",
    loras=True,
    settings="steps",
    figures=(),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    record=Lazy(f"{__name__}.record:RECORD"),
    rows=Lazy(f"{__name__}.record:ROWS"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    tables=Lazy(f"{__name__}.report:part_of"),
    analyse=Lazy(f"{__name__}.report:analyse"),
    commands=Lazy(f"{__name__}.commands:COMMANDS"),
)
