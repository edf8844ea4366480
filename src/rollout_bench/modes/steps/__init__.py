"""The time of single steps of an engine, by the work in them, from which `rollout-bench predict` predicts rollouts."""

from rollout_bench.contracts.mode import STEPS, Mode

MODE = Mode(
    name="steps",
    title="the time of single steps, by the work in them",
    package=__name__,
    page="settings.md",
    example="configs/steps.yaml",
    side_files=(STEPS,),
    generates=False,
    passes="none",
    launches="least",
    data_parallel="one",
    settings="steps",
    figures=(),
)
