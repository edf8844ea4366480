"""The protocol between the engine process and its supervisor: JSON lines over an inherited pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.cycles import WeightProof
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.inside import (
    LinearShape,
    ScoredRow,
    Step,
    TraceFile,
)
from rollout_bench.contracts.messages import MessageStep
from rollout_bench.contracts.placed_steps import RankStep
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
    """Work for an engine process: the first line of its stdin. The process does nothing before it arrives."""

    spec: Spec
    model: str = Field(description="Local folder or hub id of the weights.")
    dataset: str | None = Field(None, description="File of the workload's data set.")
    launch: int = Field(description="Index of the launch.")
    timeout_s: float = Field(description="Limit for the whole launch, in seconds.")
    replica: int = Field(0, description="Number of the replica, if the launch has several.")
    line: int | None = Field(None, description="Descriptor of the socket to the router. Null without a router.")
    traces: str | None = Field(None, description="Existing folder for traces. Null if no traces are recorded.")
    reference: str | None = Field(
        None, description="Record of the launch that sampled the sequences to score. Null if this launch samples them."
    )
    in_block: bool = Field(
        False,
        description="Whether the launch shares a block with others; it then makes only the passes it is granted.",
    )


class PhaseBegins(Strict):
    """The engine process entered a new phase."""

    event: Literal["phase"] = "phase"
    phase: Phase


class Ready(Strict):
    """The engine is loaded."""

    event: Literal["ready"] = "ready"
    import_s: float = Field(description="Time to import the engine, in seconds.")
    init_s: float = Field(description="Time to construct the engine, in seconds.")
    environment: Environment
    engine: EngineFacts
    flags: list[Flag]
    processes: dict[int, str] = Field(description="Pids of the engine's other processes -> their names.")
    vocabulary: int | None = Field(
        None, description="Number of token ids of the model, if a router makes the requests."
    )
    replicas: list[ReplicaStart] | None = Field(
        None, description="The start of each replica, if the launch has several."
    )


class IterationBegins(Strict):
    """The engine is ready for the next iteration, which begins when the supervisor writes a line to stdin."""

    event: Literal["begins"] = "begins"


class IterationEnds(Strict):
    """The pass is over; its results follow."""

    event: Literal["ends"] = "ends"


class IterationDone(Strict):
    """One pass of the workload is over."""

    event: Literal["iteration"] = "iteration"
    iteration: Iteration
    sequences: list[SequenceRow]
    flags: list[Flag]
    began: float | None = Field(
        None, description="Start time of the iteration, on the machine's monotonic clock, in seconds."
    )


class StepsDone(Strict):
    """A window of engine steps is over, with or without the profiler."""

    event: Literal["steps"] = "steps"
    steps: list[Step]
    traces: list[TraceFile] = Field([], description="Traces that the profiler wrote of these steps.")


class Linears(Strict):
    """The model's linear layers."""

    event: Literal["linears"] = "linears"
    linears: list[LinearShape]


class MessagesSeen(Strict):
    """A pass that observed messages is over."""

    event: Literal["messages_seen"] = "messages_seen"
    steps: list[MessageStep]
    flags: list[Flag]


class MessageFacts(Strict):
    """Facts that hold for all passes that observe messages."""

    event: Literal["message_facts"] = "message_facts"
    async_scheduling: bool
    pickled_bytes: dict[str, int]


class SequencesScored(Strict):
    """A pass that sampled or scored sequences is over."""

    event: Literal["scored"] = "scored"
    rows: list[ScoredRow]
    tokens_sha256: str


class StartSeen(Strict):
    """An engine has started and generated a token. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["start"] = "start"
    spans: list[tuple[PhaseName, float, float]] = Field(description="Phases, which may overlap: name, start, end.")
    imports: float = Field(description="Time at which the engine's process began to import the engine.")
    began: float | None = Field(
        description="Time at which a waiting process received its order. Null if the start begins with the launch."
    )
    token: float = Field(
        description="Time at which the first token would have arrived if the request had been sent immediately."
    )
    cache_files: int


class ProofsTaken(Strict):
    """The engine's weights were read: as loaded, and after each update that followed the last pass."""

    event: Literal["proofs"] = "proofs"
    proofs: list[WeightProof] = Field(description="Empty for a rank without an engine.")


class RankReady(Strict):
    """A rank of a placement has its engine, its trainer, or both, and its engine has the trainer's weights."""

    event: Literal["rank_ready"] = "rank_ready"
    ready: Ready | None = Field(description="The start of its engine. Null without an engine.")


class StepOver(Strict):
    """The rank's part of a step is over. Times are on the machine's monotonic clock, in seconds."""

    event: Literal["step_over"] = "step_over"
    released: float = Field(description="Time at which the rank was released.")
    step: RankStep = Field(description="Activities of the rank; spans start at times of the clock, not of the step.")
    done: IterationDone | None = Field(
        description="Sequences of its engine, the same from all ranks of the engine. Null without an engine."
    )
    gathered_bytes: int = Field(description="Bytes of the sequences that the rank passed on.")
    update_bytes: int = Field(description="Bytes of weights that its engine received.")


PEER_LOST = "peer_lost"
"""Category of the failure of a rank that only lost another rank, which must have failed first."""


class Failed(Strict):
    """The engine process failed."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause if it is known.")
    category: str = Field("", description="Category of the failure, if known.")
    fix: str = Field("", description="Remedy, if known.")


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
    | ProofsTaken
    | RankReady
    | StepOver
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
    """Return the event in `line`.

    Raises:
        ValueError: if `line` is not an event.
    """
    return _EVENT.validate_python(json.loads(line))


Tell = Callable[[Event], None]
"""Sends an event to the supervisor."""

Wait = Callable[[], None]
"""Announces that the engine is ready for the next iteration, and returns when the iteration may begin."""
