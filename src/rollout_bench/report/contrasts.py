"""What a comparison says of two values that are told apart in a sentence, as templates/contrast.md.j2 writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.partners import EXECUTOR
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.metrics import METRICS, MetricName
from rollout_bench.contracts.record import Record
from rollout_bench.core.numbers import several
from rollout_bench.plan.quants import confounders


@dataclass(frozen=True)
class Contrast:
    """What a comparison says of two values of one thing, all else being the same.

    Attributes:
        group: what both have in common.
        name: of what is compared.
        own: what sentences call the value that is compared.
        other: the same of the baseline's.
        metric: what they are compared by; empty where that is how long a step takes.
        factor: how many times as long a step takes, or the speed-up in `metric`; None where nobody can say.
        interval: its ends; empty without one.
        comparison: what it is taken from.
        why: why there is no verdict.
        settings: those in which they differ, as (name, own, the baseline's).
        besides: whether they differ in what sentences call them, too.
    """

    group: str
    name: str
    own: str
    other: str
    metric: str
    factor: float | None
    interval: tuple[float, ...]
    comparison: Comparison
    why: str
    settings: tuple[tuple[str, str, str], ...]
    besides: bool


def contrast(
    row: Row,
    metric: MetricName,
    *,
    group: str,
    own: str,
    other: str,
    of_time: bool,
    settings: tuple[tuple[str, str, str], ...] = (),
    besides: bool = True,
) -> Contrast:
    """Return what the comparison of `row` in `metric` says; `of_time`: its ratio is that of the times of steps."""
    found = row.comparisons[metric]
    ends = tuple(end for end in (found.low, found.high) if end is not None)
    return Contrast(
        group=group,
        name=row.name,
        own=own,
        other=other,
        metric="" if of_time else METRICS[metric].header,
        factor=1 / found.speedup if of_time and found.speedup else found.speedup,
        interval=tuple(1 / end if end else math.inf for end in reversed(ends)) if of_time else ends,
        comparison=found,
        why=found.reason or f"it needs {several(found.launches_missing, 'more launch')} of each side",
        settings=settings,
        besides=besides,
    )


def engine_settings(own: Record, theirs: Record) -> Iterator[tuple[str, str, str]]:
    """Yield what of the settings of two engines differs, without blocks: their number varies from start to start."""
    return (each for each in other_settings(own, theirs) if not each[0].endswith("num_gpu_blocks"))


CALLED = {"args": "engine_args", "variables": "engine.environment"}
"""What a config calls the facts of `confounders`."""


def other_settings(one: Record, other: Record) -> Iterator[tuple[str, str, str]]:
    """Yield the settings in which two engines differ, as (name, of one, of the other).

    Of settings that nobody set, those that the engines resolved differently are told, too.
    """
    for fact, values in confounders(one.spec, other.spec).items():
        place, dot, name = fact.partition(".")
        yield f"{CALLED[place]}{dot}{name}", *values
    own, theirs = (
        {name: value for name, value in record.engine.resolved.items() if name not in record.spec.engine.args}
        for record in (one, other)
    )
    for name in sorted(own.keys() & theirs.keys() - {EXECUTOR}):
        if own[name] != theirs[name]:
            yield f"vLLM's own {name}", str(own[name]), str(theirs[name])
