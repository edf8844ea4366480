"""The protocol between the engine process and its supervisor: JSON lines over an inherited pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.inside import (
    LinearShape,
    ScoredRow,
    Step,
    TraceFile,
)
from rollout_bench.contracts.messages import MessageRow, MessageStep, ProbeCost, ProbeUse
from rollout_bench.contracts.record import (
    EngineFacts,
    Environment,
    Flag,
    Iteration,
    ReplicaStart,
    SequenceRow,
)
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.starts import PhaseName

Phase = Literal["starting", "importing", "initializing", "warmup", "measuring", "stopping", "writing"]


class Job(Strict):
    """What the engine process is to do; it is the first line of its stdin, and it does nothing before."""

    spec: Spec
    model: str = Field(description="Local folder or hub id of the weights.")
    dataset: str | None = Field(None, description="File of the workload's data set.")
    launch: int = Field(description="Index of the launch.")
    timeout_s: float = Field(description="Limit for the whole launch, in seconds.")
    replica: int = Field(0, description="Number of the replica, where several do their part.")
    line: int | None = Field(None, description="Descriptor of its line to the router. Null where there is no router.")
    traces: str | None = Field(None, description="Folder for traces, there already. Null where none are taken.")
    reference: str | None = Field(
        None, description="Record of the launch that sampled what this one scores. Null where it samples itself."
    )
    in_block: bool = Field(
        False,
        description="Whether it makes its passes in turn with other launches: then it makes no more than it is told.",
    )


class PhaseBegins(Strict):
    """The engine process has come to a new phase."""

    event: Literal["phase"] = "phase"
    phase: Phase


class Ready(Strict):
    """The engine is loaded."""

    event: Literal["ready"] = "ready"
    import_s: float = Field(description="Importing the engine, in seconds.")
    init_s: float = Field(description="Constructing the engine, in seconds.")
    environment: Environment
    engine: EngineFacts
    flags: list[Flag]
    processes: dict[int, str] = Field(description="Pids of the engine's other processes -> what they are.")
    vocabulary: int | None = Field(None, description="Token ids of the model, where a router makes the requests.")
    replicas: list[ReplicaStart] | None = Field(None, description="The starts of several replicas, of which it is all.")


class IterationBegins(Strict):
    """All is ready for the next iteration; it begins once the supervisor has written a line to stdin."""

    event: Literal["begins"] = "begins"


class IterationEnds(Strict):
    """The pass is over; what it brought follows."""

    event: Literal["ends"] = "ends"


class IterationDone(Strict):
    """One pass of the workload is over."""

    event: Literal["iteration"] = "iteration"
    iteration: Iteration
    sequences: list[SequenceRow]
    flags: list[Flag]
    wanted: int | None = Field(None, description="How many are to count. Null while iterations: auto has no number.")
    began: float | None = Field(None, description="When it began, on the machine's monotonic clock, in seconds.")


class StepsDone(Strict):
    """A window of steps is over, with the profiler or without."""

    event: Literal["steps"] = "steps"
    steps: list[Step]
    traces: list[TraceFile] = Field([], description="What the profiler wrote of them.")


class Linears(Strict):
    """What linear layers the model has."""

    event: Literal["linears"] = "linears"
    linears: list[LinearShape]


class MessagesSeen(Strict):
    """A pass is over whose messages were looked at."""

    event: Literal["messages_seen"] = "messages_seen"
    steps: list[MessageStep]
    rows: list[MessageRow]
    probes: ProbeUse | None = Field(description="What looking took. Null in a pass for contents.")
    flags: list[Flag]


class MessageFacts(Strict):
    """What holds for all passes whose messages are looked at."""

    event: Literal["message_facts"] = "message_facts"
    async_scheduling: bool
    ring_bytes: int
    pickled_bytes: dict[str, int]
    probe: ProbeCost


class SequencesScored(Strict):
    """A pass is over in which sequences were sampled or scored."""

    event: Literal["scored"] = "scored"
    rows: list[ScoredRow]
    tokens_sha256: str


class StartSeen(Strict):
    """An engine has started and generated a token. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["start"] = "start"
    spans: list[tuple[PhaseName, float, float]] = Field(description="Phases, which may overlap: name, begin, end.")
    imports: float = Field(description="When the engine's process began to import the engine.")
    began: float | None = Field(
        description="When a waiting process got the word. Null where the start begins with the launch."
    )
    token: float = Field(description="When the first token was back, had the request been made at once.")
    cache_files: int


class Failed(Strict):
    """The engine process gave up."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause itself where it is known.")
    category: str = Field("", description="Kind of failure, where the process knows it.")
    fix: str = Field("", description="What to do about it, where the process knows it.")


class Done(Strict):
    """All iterations are delivered."""

    event: Literal["done"] = "done"


Event = (
    PhaseBegins
    | Ready
    | IterationBegins
    | IterationEnds
    | IterationDone
    | StepsDone
    | Linears
    | MessagesSeen
    | MessageFacts
    | SequencesScored
    | StartSeen
    | Failed
    | Done
)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def send(descriptor: int, event: Event) -> None:
    """Write `event` as one line to the pipe."""
    content = (event.model_dump_json() + "\n").encode()
    while content:
        content = content[os.write(descriptor, content) :]


def parse(line: bytes) -> Event:
    """Return the event in `line`; raise `ValueError` where there is none."""
    return _EVENT.validate_python(json.loads(line))


Tell = Callable[[Event], None]
"""Tells the supervisor of an event."""

Wait = Callable[[], int | None]
"""Says that all is ready for the next iteration, and returns once it may begin.

What it returns is how many iterations are to count, where the supervisor says so before the first that does.
"""


def go(iterations: int | None = None) -> str:
    """Return the order to begin an iteration, which may say how many are to count."""
    return "go" if iterations is None else f"go {iterations}"


def iterations_in(order: bytes) -> int | None:
    """Return how many iterations are to count, where an order to begin says so."""
    words = order.split()
    return int(words[1]) if len(words) > 1 else None
