"""The foot of a summary on its percentiles: the method, what they miss, and what they can't know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rollout_bench.analysis.latencies import PERCENTILES, Distribution
from rollout_bench.analysis.percentiles import CONFIDENCE, samples_needed
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.sequences import PooledSequences
from rollout_bench.reporting.numbers import plain_percent, sentence

Found = Sequence[Mapping[str, Distribution]]
"""The distributions of each row's sequences, by measure."""


OFFLINE = {
    "E2EL": "Time from the beginning of the iteration, when all sequences are submitted at once, until the last token "
    "of a sequence, in seconds. It includes waiting in the engine's queue.",
    "TTFT": "Time from the beginning of the iteration until the first token of a sequence, in seconds. It includes "
    "waiting in the engine's queue.",
}

STEPS = (
    "Online, percentiles are taken of each launch and then averaged; those of all launches pooled, with intervals, are "
    "in summary.csv. Inter-token latencies count, besides, as no more independent values than there are requests, or "
    "steps of the engine, as they resemble each other: whatever is in the batch waits for the same step."
)


def percentile_notes(rows: Sequence[Row], pooled: Sequence[PooledSequences], found: Found) -> tuple[str, ...]:
    """The items of the section, each a sentence or a few; the method only where there is a table."""
    offline = any(row.experiment.mode != "online" for row in rows)
    online = any(row.experiment.mode == "online" for row in rows)
    of_mode = ", offline" if online else ""
    definitions = [f"{name}{of_mode}: {text}" for name, text in OFFLINE.items()] if offline else []
    method = (*rule(), *([STEPS] if online else []), *definitions) if any(found) else ()
    return (*method, *_reasons(rows, pooled))


def _reasons(rows: Sequence[Row], pooled: Sequence[PooledSequences]) -> Iterator[str]:
    """What is missing from the percentiles of each experiment, and why."""
    for row, sequences in zip(rows, pooled, strict=False):
        for reason in sequences.reasons:
            yield f"{row.name}: {sentence(reason)}"


def rule() -> tuple[str, ...]:
    """The method in plain words, every number defined."""
    confidence = plain_percent(CONFIDENCE)
    needed = ", ".join(f"p{p} {samples_needed(p / 100)}" for p in PERCENTILES)
    return (
        f"A percentile is shown where it can be claimed: the second largest value is no less than it with {confidence} "
        f"confidence (MLPerf's early stopping). That takes so many independent values: {needed}.",
        f"In brackets: {confidence} interval from order statistics (binomial ranks), which assumes no distribution, "
        "each taken alone.",
        "Independent: sequences of an iteration resemble each other, and iterations of a launch. A sample counts as so "
        "many independent values as its intraclass correlation leaves (design effect of clusters), by iteration or by "
        "launch, whichever leaves fewer. A batch that runs in step counts as one.",
    )
