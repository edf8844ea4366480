"""What messages launches saw of each link: bytes and times of a step, by batch and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.messages import Link, Look, MessageRow, Messages, MessageStep
from rollout_bench.contracts.modes import MESSAGES
from rollout_bench.contracts.side_files import read_messages
from rollout_bench.contracts.store import messages_path, record_path
from rollout_bench.core.errors import UserError

LINKS: tuple[Link, ...] = ("front_end_to_core", "core_to_workers", "workers_to_core", "core_to_front_end")


@dataclass(frozen=True)
class MessageLaunch:
    """One launch: its record, and a row for each message."""

    record: Messages
    rows: Sequence[MessageRow]

    def steps(self, look: Look, batch: int) -> list[tuple[MessageStep, list[MessageRow]]]:
        """Return the steps of a pass, each with its messages."""
        found: list[tuple[MessageStep, list[MessageRow]]] = [
            (step, []) for step in self.record.steps if (step.look, step.batch) == (look, batch)
        ]
        for row in self.rows:
            if (row.look, row.batch) == (look, batch):
                found[row.step][1].append(row)
        return found


@dataclass(frozen=True)
class MessagesRun:
    """An experiment of messages mode with its valid launches."""

    chosen: Chosen
    launches: tuple[MessageLaunch, ...]

    @property
    def batches(self) -> list[int]:
        """Return the batches, the smallest first."""
        return sorted({step.batch for launch in self.launches for step in launch.record.steps})


@dataclass(frozen=True)
class LinkUse:
    """What one link takes of a step of one phase at one batch; each value is the median over steps of all launches.

    `size_bytes` and `distance` are None where contents were not looked at, `distance` too where there is no message
    before.
    """

    batch: int
    phase: Phase
    link: Link
    steps: int
    messages: float
    size_bytes: float | None
    distance: float | None
    busy_s: float
    share: float


def message_runs(results: Path, inside: Sequence[Chosen]) -> tuple[list[MessagesRun], list[str]]:
    """Return the runs of those of `inside` that are of messages mode, and what is wrong with side files."""
    runs, problems = [], []
    for each in inside:
        if each.experiment.mode != MESSAGES.name or each.reason:
            continue
        launches = []
        for record in each.experiment.records:
            assert isinstance(record, Messages), "records are read by their mode"
            path = record_path(results, each.experiment.mode, each.experiment.experiment, record.launch)
            try:
                launches.append(MessageLaunch(record, read_messages(messages_path(path), record)))
            except UserError as error:
                problems.append(str(error).replace("\n", "; "))
        if launches:
            runs.append(MessagesRun(each, tuple(launches)))
    return runs, problems


def link_uses(run: MessagesRun) -> Iterator[LinkUse]:
    """Yield what each link takes of a step, by batch and phase."""
    for batch in run.batches:
        timed = [step for launch in run.launches for step in launch.steps("times", batch)]
        seen = [step for launch in run.launches for step in launch.steps("contents", batch)]
        for phase in dict.fromkeys(step.phase for step, _ in timed):
            for link in LINKS:
                own = [(step, _of(link, rows)) for step, rows in timed if step.phase == phase]
                if not any(rows for _, rows in own):
                    continue
                contents = [_of(link, rows) for step, rows in seen if step.phase == phase]
                busy_s = [sum(row.busy_s for row in rows) for _, rows in own]
                yield LinkUse(
                    batch=batch,
                    phase=phase,
                    link=link,
                    steps=len(own),
                    messages=median(len(rows) for _, rows in own),
                    size_bytes=_median(contents, sent_bytes),
                    distance=_median(contents, _distance),
                    busy_s=median(busy_s),
                    share=median(taken / step.elapsed_s for taken, (step, _) in zip(busy_s, own, strict=True)),
                )


def sent_bytes(row: MessageRow) -> int | None:
    """Return the bytes of a message whose content was looked at."""
    return None if row.content is None else row.content.inline_bytes + row.content.out_of_band_bytes


def _distance(row: MessageRow) -> int | None:
    return None if row.content is None else row.content.distance


def _of(link: Link, rows: Sequence[MessageRow]) -> list[MessageRow]:
    return [row for row in rows if row.link == link]


def _median(steps: Sequence[Sequence[MessageRow]], value: Callable[[MessageRow], int | None]) -> float | None:
    """Return the median over steps of the sum over their messages, of those that have a value."""
    sums = [sum(known) for rows in steps if (known := [v for row in rows if (v := value(row)) is not None])]
    return median(sums) if sums else None
