"""The time of an engine start, from its process to a first token."""

from rollout_bench.contracts.mode import Lazy, Mode

MODE = Mode(
    name="startup",
    title="the time of an engine start, from its process to a first token",
    page="vllm-developers.md",
    example="config/startup.yaml",
    passes="none",
    metrics=("startup_s",),
    settings="startup",
    figures=("startup",),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    start_fields=Lazy(f"{__name__}.record:STARTUP"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    flags=Lazy(f"{__name__}.problems:FLAGS"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    hooks=Lazy(f"{__name__}.hooks:HOOKS"),
    numbers=Lazy(f"{__name__}.numbers:NUMBERS"),
    tables=Lazy(f"{__name__}.report:part_of"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
    report_fields=Lazy(f"{__name__}.export:more_of"),
)
