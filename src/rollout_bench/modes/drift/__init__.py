"""The difference between the probabilities of a quantization and of the reference."""

from rollout_bench.contracts.mode import Lazy, Mode

SCORES = ".scores.jsonl.gz"
"""Ending of a side file with a row per scored sequence."""

MODE = Mode(
    name="drift",
    title="the difference between the probabilities of a quantization and of the reference",
    page="drift.md",
    example="config/drift.yaml",
    side_files=(SCORES,),
    generates=False,
    passes="none",
    launches="least",
    data_parallel="one",
    loras=True,
    merges=True,
    settings="drift",
    figures=("drift",),
    section=Lazy(f"{__name__}.settings:SECTION"),
    spec=Lazy(f"{__name__}.settings:OWN"),
    record=Lazy(f"{__name__}.record:RECORD"),
    rows=Lazy(f"{__name__}.record:ROWS"),
    planning=Lazy(f"{__name__}.checks:PLANNING"),
    failures=Lazy(f"{__name__}.problems:FAILURES"),
    worker=Lazy(f"{__name__}.worker:measure"),
    collector=Lazy(f"{__name__}.collector:Collector"),
    hooks=Lazy(f"{__name__}.hooks:HOOKS"),
    tables=Lazy(f"{__name__}.report:part_of"),
    analyse=Lazy(f"{__name__}.report:analyse"),
    drifts_nats=Lazy(f"{__name__}.report:drifts_nats"),
    drawings=Lazy(f"{__name__}.figures:DRAWINGS"),
)
