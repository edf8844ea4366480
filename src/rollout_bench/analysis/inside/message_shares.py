"""Share of a decode step that messages need, by launch and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rollout_bench.analysis.inside.message_links import (
    ENGINE_LINKS,
    FRONT_END_LINKS,
    MessageLaunch,
    MessagesRun,
    answering,
)
from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.contracts.messages import Link, MessageRow


@dataclass(frozen=True)
class LaunchShare:
    """Time of messages in a decode step of one launch at one batch size, as medians over steps.

    Attributes:
        engine_s: core to workers and back, at the worker that answers, in seconds.
        slowest_s: core to workers and back, at the slowest reader, in seconds.
        front_end_s: front end to core and back, in seconds.
        step_s: the step, in seconds.
        engine: `engine_s` over the time of the same step.
        slowest: `slowest_s` over the time of the same step.
        front_end: `front_end_s` over the time of the same step.
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
    """Mean over launches with Student's t interval; `low` and `high` are None for a single launch."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StepShare:
    """Shares of messages in a decode step at one batch size, by launch."""

    batch: int
    launches: Mapping[int, LaunchShare]
    confidence: float

    def estimated(self, field: str) -> Estimated:
        """Return the mean of a `LaunchShare` field over launches, with its interval."""
        values = [getattr(launch, field) for launch in self.launches.values()]
        ends = t_interval(values, self.confidence) or (None, None)
        return Estimated(mean(values), None if ends[0] is None else max(0.0, ends[0]), ends[1])


@dataclass(frozen=True)
class RunShares:
    """The shares of one experiment, by batch size."""

    run: MessagesRun
    steps: tuple[StepShare, ...]

    @property
    def largest(self) -> StepShare:
        """The shares at the batch size at which `engine` is largest."""
        return max(self.steps, key=lambda step: step.estimated("engine").value)


def run_shares(runs: Sequence[MessagesRun], confidence: float) -> list[RunShares]:
    """Return the shares of messages in decode steps, for each of `runs` that has decode steps."""
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
    """Return the shares of a pass; None if it has no decode step."""
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
