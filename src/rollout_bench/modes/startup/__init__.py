"""The time of an engine start, from its process to a first token."""

from rollout_bench.contracts.mode import Mode

MODE = Mode(
    name="startup",
    title="the time of an engine start, from its process to a first token",
    package=__name__,
    page="vllm-developers.md",
    example="configs/startup.yaml",
    passes="none",
    metrics=("startup_s",),
    settings="startup",
    figures=("startup",),
)
