"""The time of a step by category of operators."""

from rollout_bench.contracts.mode import TRACES, Mode

MODE = Mode(
    name="profile",
    title="the time of a step by category of operators",
    package=__name__,
    page="why-faster.md",
    example="configs/profile.yaml",
    side_files=(TRACES,),
    generates=False,
    passes="once",
    launches="one",
    data_parallel="one",
    settings="profile",
    figures=("steps",),
)
