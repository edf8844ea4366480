"""The time of a step by category of operators."""

from rollout_bench.contracts.mode import TRACES, Lazy, Mode

MODE = Mode(
    name="profile",
    title="the time of a step by category of operators",
    page="why-faster.md",
    example="config/profile.yaml",
    side_files=(TRACES,),
    generates=False,
    passes="once",
    launches="one",
    data_parallel="one",
    loras=True,
    settings="profile",
    figures=("steps",),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    record=Lazy(f"{__name__}.record:RECORD"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    tables=Lazy(f"{__name__}.report:part_of"),
    analyse=Lazy(f"{__name__}.report:analyse"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
    commands=Lazy(f"{__name__}.command:COMMANDS"),
)
