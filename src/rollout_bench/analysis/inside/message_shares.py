"""How much of a decode step messages take, by launch and batch, and at which batch that would be 5 %."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Literal

import numpy as np

from rollout_bench.analysis.inside.message_links import (
    ENGINE_LINKS,
    FRONT_END_LINKS,
    MessageLaunch,
    MessagesRun,
    answering,
)
from rollout_bench.analysis.stats.intervals import Array, mean, t_interval
from rollout_bench.contracts.messages import Link, MessageRow

MATTERS = 0.05
"""Share of a step from which on messages matter: the issue's own limit."""

REACH = 4
"""Up to how many times the largest batch measured a law is believed."""

MOST_LOG = 50.0
"""Of the end of an interval: more overflows, and is beyond any batch."""

ROUGH = 0.2
"""A law that misses a measured share by more than this part of it is not believed."""


@dataclass(frozen=True)
class LaunchShare:
    """What messages take of a decode step of one launch at one batch: medians over steps.

    Attributes:
        engine_s: core to workers and back, at the worker that answers, in seconds.
        slowest_s: the same at the reader that took longest.
        front_end_s: front end to core and back, in seconds.
        step_s: the step, in seconds.
        engine: `engine_s` over its own step.
        slowest: `slowest_s` over its own step.
        front_end: `front_end_s` over its own step.
    """

    engine_s: float
    slowest_s: float
    front_end_s: float
    step_s: float
    engine: float
    slowest: float
    front_end: float


@dataclass(frozen=True)
class Estimated:
    """The mean over launches with Student's interval; `low` and `high` None for a single launch."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StepShare:
    """What messages take of a decode step at one batch, by launch."""

    batch: int
    launches: Mapping[int, LaunchShare]
    confidence: float

    def estimated(self, field: str) -> Estimated:
        """Return a field of `LaunchShare` over launches."""
        values = [getattr(launch, field) for launch in self.launches.values()]
        ends = t_interval(values, self.confidence) or (None, None)
        return Estimated(mean(values), None if ends[0] is None else max(0.0, ends[0]), ends[1])


Kind = Literal["rises", "falls", "above", "below", "unclear", "rough", "few"]


@dataclass(frozen=True)
class Crossing:
    """At which batch messages take `MATTERS` of a decode step.

    Attributes:
        kind: rises, falls: there, with more above or below it; above, below: at all batches up to `until`; unclear:
            launches disagree; rough: the law misses what was measured; few: less than three batches.
        until: the largest batch that the law is believed for.
        batch: geometric mean over launches; `low` and `high` its interval, None for a single launch.
        miss: the largest part of a measured share that the law misses; `miss_batch` is where.
    """

    kind: Kind
    until: int
    batch: float | None = None
    low: float | None = None
    high: float | None = None
    miss: float = 0.0
    miss_batch: int = 0


@dataclass(frozen=True)
class RunShares:
    """The shares of one experiment, by batch."""

    run: MessagesRun
    steps: tuple[StepShare, ...]

    @cached_property
    def crossing(self) -> Crossing:
        """At which batch messages would take `MATTERS` of a step."""
        return crossing(self.steps)

    @property
    def largest(self) -> StepShare:
        """The batch at which messages take most of a step."""
        return max(self.steps, key=lambda step: step.estimated("engine").value)

    @property
    def matters(self) -> Literal["yes", "no", "open"]:
        """Whether the interval of the largest share lies above or below `MATTERS`; open without an interval."""
        found = self.largest.estimated("engine")
        if found.low is not None and found.low >= MATTERS:
            return "yes"
        return "no" if found.high is not None and found.high < MATTERS else "open"


def run_shares(runs: Sequence[MessagesRun], confidence: float) -> list[RunShares]:
    """Return what messages take of decode steps, of those of `runs` that have some."""
    found = []
    for run in runs:
        steps = []
        for batch in run.batches:
            shares = {launch.record.launch: _share(launch, batch) for launch in run.launches}
            known = {launch: share for launch, share in shares.items() if share is not None}
            if known:
                steps.append(StepShare(batch, known, confidence))
        if steps:
            found.append(RunShares(run, tuple(steps)))
    return found


def _share(launch: MessageLaunch, batch: int) -> LaunchShare | None:
    """Return the shares of a pass; None where no step decodes only."""
    steps = [(step, rows) for step, rows in launch.full_steps("times", batch) if step.phase == "decode"]
    if not steps:
        return None
    engine_s = [_busy_s(rows, ENGINE_LINKS, answering(rows)) for _, rows in steps]
    slowest_s = [_busy_s(rows, ENGINE_LINKS) for _, rows in steps]
    front_end_s = [_busy_s(rows, FRONT_END_LINKS) for _, rows in steps]
    elapsed_s = [step.elapsed_s for step, _ in steps]
    return LaunchShare(
        engine_s=median(engine_s),
        slowest_s=median(slowest_s),
        front_end_s=median(front_end_s),
        step_s=median(elapsed_s),
        engine=_over(engine_s, elapsed_s),
        slowest=_over(slowest_s, elapsed_s),
        front_end=_over(front_end_s, elapsed_s),
    )


def _busy_s(rows: Sequence[MessageRow], links: Sequence[Link], ranks: frozenset[int] = frozenset()) -> float:
    return sum(row.busy_s(ranks) for row in rows if row.link in links)


def _over(taken_s: Sequence[float], elapsed_s: Sequence[float]) -> float:
    return median(taken / elapsed for taken, elapsed in zip(taken_s, elapsed_s, strict=True))


def crossing(steps: Sequence[StepShare]) -> Crossing:
    """Return at which batch messages would take `MATTERS` of a decode step.

    Both times are fitted in each launch as p + q x batch, by least squares of relative deviations; their ratio is
    solved for `MATTERS` from batch 1 to `REACH` times the largest one. Each launch gives one value.
    """
    until = REACH * max(step.batch for step in steps)
    launches = sorted(
        launch
        for launch in set.intersection(*(set(step.launches) for step in steps))
        if all(step.launches[launch].engine_s > 0 for step in steps)
    )
    if len(steps) < 3 or not launches:
        return Crossing("few", until)
    kinds: list[Kind] = []
    places, misses = [], []
    batches = np.array([step.batch for step in steps], dtype=float)
    for launch in launches:
        messages_s = np.array([step.launches[launch].engine_s for step in steps])
        step_s = np.array([step.launches[launch].step_s for step in steps])
        a, b = _line(batches, messages_s)
        c, d = _line(batches, step_s)
        misses.append(np.abs((a + b * batches) / (c + d * batches) / (messages_s / step_s) - 1))
        # above zero where messages take more than MATTERS
        first, last = ((a + b * batch) - MATTERS * (c + d * batch) for batch in (1, until))
        if first * last >= 0:
            kinds.append("above" if min(first, last) >= 0 else "below")
        else:
            kinds.append("rises" if last > 0 else "falls")
            places.append((MATTERS * c - a) / (b - MATTERS * d))
    miss = np.mean(misses, axis=0)
    found = Crossing(kinds[0], until, miss=float(miss.max()), miss_batch=int(batches[miss.argmax()]))
    if found.miss > ROUGH:
        return replace(found, kind="rough")
    if len(set(kinds)) > 1:
        return replace(found, kind="unclear")
    if not places:
        return found
    logs = np.log(places)
    ends = t_interval(logs, steps[0].confidence)
    low, high = (None, None) if ends is None else (float(np.exp(min(end, MOST_LOG))) for end in ends)
    return replace(found, batch=float(np.exp(logs.mean())), low=low, high=high)


def _line(x: Array, y: Array) -> tuple[float, float]:
    (p, q), *_ = np.linalg.lstsq(np.column_stack([1 / y, x / y]), np.ones_like(y), rcond=None)
    return float(p), float(q)
