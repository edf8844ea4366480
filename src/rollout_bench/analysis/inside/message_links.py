"""Messages of a step on each link: bytes, times and contents, by batch and phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.messages import Link, Look, MessageContent, MessageRow, Messages, MessageStep
from rollout_bench.contracts.modes import MESSAGES
from rollout_bench.contracts.side_files import read_messages
from rollout_bench.contracts.spec import tensor_parallel_size
from rollout_bench.contracts.store import messages_path, record_path
from rollout_bench.core.errors import UserError

ENGINE_LINKS: tuple[Link, ...] = ("core_to_workers", "workers_to_core")
"""A step waits for these links: it starts computing after the message to the workers and ends after their answer."""

FRONT_END_LINKS: tuple[Link, ...] = ("front_end_to_core", "core_to_front_end")
"""Separate threads and a separate process use these links while the engine computes the next step."""

LINKS: tuple[Link, ...] = ("front_end_to_core", "core_to_workers", "workers_to_core", "core_to_front_end")


@dataclass(frozen=True)
class MessageLaunch:
    """The record of one launch, and a row for each message."""

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

    def full_steps(self, look: Look, batch: int) -> list[tuple[MessageStep, list[MessageRow]]]:
        """Return the steps of a pass without decode steps that have fewer sequences than the fullest step.

        Sequences whose prompts were computed in different steps end in different steps.
        """
        steps = self.steps(look, batch)
        most = max((step.sequences for step, _ in steps), default=0)
        return [(step, rows) for step, rows in steps if step.phase != "decode" or step.sequences == most]


@dataclass(frozen=True)
class MessagesRun:
    """An experiment of messages mode with its valid launches."""

    chosen: Chosen
    launches: tuple[MessageLaunch, ...]

    @property
    def batches(self) -> list[int]:
        """Return the batch sizes, in ascending order."""
        return sorted({step.batch for launch in self.launches for step in launch.record.steps})

    @property
    def workers(self) -> int:
        """Return the tensor parallel size."""
        return tensor_parallel_size(self.launches[0].record.spec)

    @property
    def name(self) -> str:
        """Return the name in sentences: model, quantization and workload."""
        return title_of(self.chosen.experiment, self.chosen.label)


@dataclass(frozen=True)
class LinkUse:
    """Use of one link in a step of one phase at one batch size, as medians over the steps of all launches.

    A step's value is the sum over the link's messages. Values from contents are None or missing if the pass for
    contents has no such step. Values that compare with the previous message are None or missing without a previous
    message. `share` is `busy_s`, at the worker that answers, over the step time. `coding_s` is encoding and decoding
    at that worker.
    """

    batch: int
    phase: Phase
    link: Link
    steps: int
    messages: float
    size_bytes: float | None
    distance: float | None
    busy_s: float
    slowest_s: float
    coding_s: float
    share: float
    repeated_bytes: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    formats: Mapping[str, float] = field(default_factory=dict)
    difference_bytes: float | None = None
    difference_s: float | None = None


@dataclass(frozen=True)
class Exchange:
    """Bytes to the workers and back in a step, and distances to the previous step, which are None in the first step."""

    input_bytes: int
    output_bytes: int
    input_distance: int | None
    output_distance: int | None


def message_runs(results: Path, inside: Sequence[Chosen]) -> tuple[list[MessagesRun], list[str]]:
    """Return the runs in messages mode among `inside`, and messages about damaged side files."""
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
    """Yield the use of each link in a step, by batch size and phase."""
    for batch in run.batches:
        timed = [step for launch in run.launches for step in launch.full_steps("times", batch)]
        seen = [step for launch in run.launches for step in launch.full_steps("contents", batch)]
        for phase in dict.fromkeys(step.phase for step, _ in timed):
            for link in LINKS:
                own = [(step, rows, of_link(link, rows)) for step, rows in timed if step.phase == phase]
                if not any(messages for _, _, messages in own):
                    continue
                contents = [
                    [row.content for row in of_link(link, rows) if row.content is not None]
                    for step, rows in seen
                    if step.phase == phase
                ]
                busy_s = [sum(row.busy_s(answering(rows)) for row in messages) for _, rows, messages in own]
                yield LinkUse(
                    batch=batch,
                    phase=phase,
                    link=link,
                    steps=len(own),
                    messages=median(len(messages) for _, _, messages in own),
                    size_bytes=_median(contents, lambda content: content.inline_bytes + content.out_of_band_bytes),
                    distance=_median(contents, lambda content: content.distance),
                    busy_s=median(busy_s),
                    slowest_s=median(sum(row.busy_s() for row in messages) for _, _, messages in own),
                    coding_s=median(
                        sum(_coding_s(row, answering(rows)) for row in messages) for _, rows, messages in own
                    ),
                    share=median(taken / step.elapsed_s for taken, (step, _, _) in zip(busy_s, own, strict=True)),
                    repeated_bytes=_median(contents, lambda content: content.repeated_bytes),
                    parts=_parts(contents),
                    formats=_formats(contents),
                    difference_bytes=_median(contents, _difference_bytes),
                    difference_s=_median(contents, _difference_s),
                )


def exchanges(run: MessagesRun, batch: int) -> Iterator[Exchange]:
    """Yield each step of the first launch's contents pass at `batch`, as sums over the step's messages."""
    for _, rows in run.launches[0].steps("contents", batch):
        there, back = (of_link(link, rows) for link in ENGINE_LINKS)
        yield Exchange(_bytes(there), _bytes(back), _distance(there), _distance(back))


def answering(rows: Sequence[MessageRow]) -> frozenset[int]:
    """Return the ranks of the workers that answer the core in a step; `rows` are all messages of the step."""
    return frozenset(row.rank for row in rows if row.link == "workers_to_core" and row.rank is not None)


def of_link(link: Link, rows: Sequence[MessageRow]) -> list[MessageRow]:
    """Return the `rows` that `link` carried."""
    return [row for row in rows if row.link == link]


def sent_bytes(row: MessageRow) -> int | None:
    """Return the bytes of a message; None if its content was not read."""
    return None if row.content is None else row.content.inline_bytes + row.content.out_of_band_bytes


def _bytes(rows: Sequence[MessageRow]) -> int:
    return sum(sent_bytes(row) or 0 for row in rows)


def _distance(rows: Sequence[MessageRow]) -> int | None:
    known = [row.content.distance for row in rows if row.content is not None and row.content.distance is not None]
    return sum(known) if known else None


def _coding_s(row: MessageRow, ranks: frozenset[int]) -> float:
    reads = [read for read in row.reads or () if read.rank in ranks] or row.reads or []
    return (row.encode_s or 0.0) + max((read.decode_s for read in reads), default=0.0)


Contents = Sequence[Sequence[MessageContent]]
"""For each step, the contents of a link's messages."""


def _parts(contents: Contents) -> dict[str, float]:
    names = dict.fromkeys(part for step in contents for content in step for part in content.fields)
    return {
        name: median(sum(content.fields.get(name, 0) for content in step) for step in contents if step)
        for name in names
    }


def _formats(contents: Contents) -> dict[str, float]:
    """Return the median bytes in each format that can encode all messages; other formats have no complete sum."""
    names = dict.fromkeys(name for step in contents for content in step for name in content.formats)
    return {
        name: median(sum(content.formats[name].size_bytes for content in step) for step in contents if step)
        for name in names
        if all(name in content.formats for step in contents for content in step)
    }


def _difference_bytes(content: MessageContent) -> float | None:
    return None if content.difference is None else content.difference.size_bytes


def _difference_s(content: MessageContent) -> float | None:
    return None if content.difference is None else content.difference.make_s + content.difference.apply_s


def _median(contents: Contents, value: Callable[[MessageContent], float | None]) -> float | None:
    sums = [sum(known) for step in contents if (known := [v for content in step if (v := value(content)) is not None])]
    return median(sums) if sums else None
