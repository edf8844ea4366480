"""Comparison of two values in one sentence, for templates/contrast.md.j2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.partners import EXECUTOR
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Record
from rollout_bench.core.numbers import several
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.quants import confounders


@dataclass(frozen=True)
class Contrast:
    """Comparison of two values of one setting, with everything else equal.

    Attributes:
        group: names that both sides share.
        name: name of the compared row.
        own: name of its value in sentences.
        other: name of the baseline's value in sentences.
        metric: the compared metric; empty if it is the time of a step.
        factor: step time over the baseline's step time, or the speed-up in `metric`; None if unknown.
        interval: both ends; empty without an interval.
        comparison: the comparison itself.
        why: reason for a missing verdict.
        settings: differing settings, as (name, own, the baseline's).
        besides: whether the named values differ as well.
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
    """Return the comparison of `row` in `metric` as a contrast; `of_time`: the ratio is step time over step time."""
    found = row.comparisons[metric]
    ends = tuple(end for end in (found.low, found.high) if end is not None)
    return Contrast(
        group=group,
        name=row.name,
        own=own,
        other=other,
        metric="" if of_time else NUMBERS[metric].header,
        factor=1 / found.speedup if of_time and found.speedup else found.speedup,
        interval=tuple(1 / end if end else math.inf for end in reversed(ends)) if of_time else ends,
        comparison=found,
        why=found.reason or f"it needs {several(found.launches_missing, 'more launch')} of each side",
        settings=settings,
        besides=besides,
    )


CALLED = {"args": "engine_args", "variables": "engine.environment"}
"""Names of the facts of `confounders` in a config."""


def engine_settings(one: Record, other: Record) -> Iterator[tuple[str, str, str]]:
    """Yield the settings in which two engines differ, as (name, of one, of the other).

    Settings that are not set but that the engines resolved differently are included, except for the number of blocks,
    which varies from start to start.
    """
    for fact, values in confounders(one.spec, other.spec).items():
        place, dot, name = fact.partition(".")
        yield f"{CALLED[place]}{dot}{name}", *values
    own, theirs = (
        {name: value for name, value in record.engine.resolved.items() if name not in record.spec.engine.args}
        for record in (one, other)
    )
    for name in sorted(own.keys() & theirs.keys() - {EXECUTOR}):
        if own[name] != theirs[name] and not name.endswith("num_gpu_blocks"):
            yield f"vLLM's own {name}", str(own[name]), str(theirs[name])
