"""The difference between the probabilities of a quantization and of the reference."""

from rollout_bench.contracts.mode import Mode

SCORES = ".scores.jsonl.gz"
"""Ending of a side file with a row per scored sequence."""

MODE = Mode(
    name="drift",
    title="the difference between the probabilities of a quantization and of the reference",
    package=__name__,
    page="drift.md",
    example="configs/drift.yaml",
    side_files=(SCORES,),
    generates=False,
    passes="none",
    launches="least",
    data_parallel="one",
    settings="drift",
    figures=("drift",),
)
