"""Messages of a step between engine core and workers: bytes, times and shares, by batch and phase."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import get_args

from rollout_bench.analysis.stats.intervals import mean, t_interval
from rollout_bench.analysis.timed.experiments import ValidExperiment
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.spec import tensor_parallel_size
from rollout_bench.modes.messages.record import FormatName, Messages, MessageStep, Purpose, StepMessage, Way


@dataclass(frozen=True)
class MessagesRun:
    """An experiment of messages mode with the records of its valid launches."""

    valid: ValidExperiment
    launches: tuple[Messages, ...]

    @property
    def batches(self) -> list[int]:
        """Return the batch sizes, in ascending order."""
        return sorted({step.batch for launch in self.launches for step in launch.steps})

    @property
    def workers(self) -> int:
        """Return the tensor parallel size."""
        return tensor_parallel_size(self.launches[0].spec)

    def steps(self, purpose: Purpose, batch: int, phase: Phase) -> list[MessageStep]:
        """Return the steps of all launches in one phase of a pass, without decode steps with fewer sequences than most.

        Sequences whose prompts were computed in different steps end in different steps.
        """
        return [step for launch in self.launches for step in steps_of(launch, purpose, batch, phase)]


def steps_of(launch: Messages, purpose: Purpose, batch: int, phase: Phase) -> list[MessageStep]:
    """Return the steps of one launch, as `MessagesRun.steps` does."""
    steps = [step for step in launch.steps if (step.purpose, step.batch) == (purpose, batch)]
    most = max((step.sequences for step in steps), default=0)
    return [step for step in steps if step.phase == phase and (phase != "decode" or step.sequences == most)]


@dataclass(frozen=True)
class MessageUse:
    """Messages of one way in a step of one phase at one batch size, as medians over the steps of all launches.

    `coding_s` is pickling and unpickling; `share` is that over the time of a step without probes. `distance` is None
    without a previous message. `broadcast_s` is a broadcast of as many bytes; None with one worker.
    """

    batch: int
    phase: Phase
    way: Way
    steps: int
    size_bytes: float
    distance: float | None
    coding_s: float
    broadcast_s: float | None
    share: float
    fields: Mapping[str, float]


def message_runs(inside: Sequence[ValidExperiment]) -> list[MessagesRun]:
    """Return the runs of the experiments `inside`."""
    return [
        MessagesRun(each, tuple(record for record in each.experiment.records if isinstance(record, Messages)))
        for each in inside
        if not each.reason
    ]


def message_uses(run: MessagesRun) -> Iterator[MessageUse]:
    """Yield the messages of each way in a step, by batch size and phase."""
    for batch in run.batches:
        for phase in get_args(Phase):
            step_s = [step.elapsed_s for step in run.steps("times", batch, phase)]
            contents = run.steps("contents", batch, phase)
            for way in get_args(Way) if step_s and contents else ():
                messages = [message_of(step, way) for step in contents]
                coding_s = _median(messages, lambda message: message.coding_s) or 0.0
                names = dict.fromkeys(name for message in messages for name in message.fields)
                yield MessageUse(
                    batch=batch,
                    phase=phase,
                    way=way,
                    steps=len(contents),
                    size_bytes=_median(messages, lambda message: message.size_bytes) or 0.0,
                    distance=_median(messages, lambda message: message.distance),
                    coding_s=coding_s,
                    broadcast_s=_median(messages, lambda message: message.broadcast_s),
                    share=coding_s / median(step_s),
                    fields={name: median(message.fields.get(name, 0) for message in messages) for name in names},
                )


@dataclass(frozen=True)
class FormatUse:
    """Both messages of a decode step in one format at one batch size, as medians over the steps of all launches.

    `size_bytes` is by way, and `share` is `coding_s` over the time of a step without probes.
    """

    batch: int
    name: FormatName | None
    size_bytes: Mapping[Way, float]
    coding_s: float
    share: float


def format_uses(run: MessagesRun) -> Iterator[FormatUse]:
    """Yield the messages of a decode step in vLLM's format (without a name), then in the others, by batch size."""
    for batch in run.batches:
        step_s = [step.elapsed_s for step in run.steps("times", batch, "decode")]
        contents = run.steps("contents", batch, "decode")
        messages = {way: [message_of(step, way) for step in contents] for way in get_args(Way)}
        is_known = step_s and any(each.formats for sent in messages.values() for each in sent)
        for name in (None, *get_args(FormatName)) if is_known else ():
            costs = {
                way: [(each if name is None else each.formats.get(name)) for each in sent]
                for way, sent in messages.items()
            }
            if all(None not in each for each in costs.values()):
                coding_s = sum(median(each.coding_s for each in sent if each) for sent in costs.values())
                sizes = {way: median(each.size_bytes for each in sent if each) for way, sent in costs.items()}
                yield FormatUse(batch, name, sizes, coding_s, coding_s / median(step_s))


def message_of(step: MessageStep, way: Way) -> StepMessage:
    """Return one message of a step that was looked at for its contents."""
    message: StepMessage | None = getattr(step, way)
    assert message is not None, "a step of a contents pass has its messages"
    return message


def _median(messages: Sequence[StepMessage], value: Callable[[StepMessage], float | None]) -> float | None:
    known = [each for message in messages if (each := value(message)) is not None]
    return median(known) if known else None


@dataclass(frozen=True)
class StepShare:
    """Share of a decode step at one batch size: pickling and unpickling of both messages over the time of a step.

    `launches` has the share of each launch, `value` is their mean, and `ends` are those of Student's t interval; empty
    for a single launch.
    """

    batch: int
    launches: tuple[float, ...]
    value: float
    ends: tuple[float, ...]


def step_shares(run: MessagesRun, confidence: float) -> list[StepShare]:
    """Return the share of messages in a decode step, by batch size."""
    found = []
    for batch in run.batches:
        shares = [share for launch in run.launches if (share := _share(launch, batch)) is not None]
        if shares:
            ends = tuple(max(0.0, end) for end in t_interval(shares, confidence) or ())
            found.append(StepShare(batch, tuple(shares), mean(shares), ends))
    return found


def _share(launch: Messages, batch: int) -> float | None:
    """Return the share in one launch: medians over its decode steps; None without any."""
    step_s = [step.elapsed_s for step in steps_of(launch, "times", batch, "decode")]
    coding_s = [
        sum(message_of(step, way).coding_s for way in get_args(Way))
        for step in steps_of(launch, "contents", batch, "decode")
    ]
    return median(coding_s) / median(step_s) if step_s and coding_s else None
