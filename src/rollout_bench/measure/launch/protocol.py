"""The protocol between the engine process and its supervisor: JSON lines over an inherited pipe."""

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.record import (
    EngineFacts,
    Environment,
    Flag,
    Iteration,
    ReplicaStart,
    SequenceRow,
)
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import WeightProof

Phase = Literal["starting", "importing", "initializing", "warmup", "measuring", "stopping", "writing"]


class Job(Strict):
    """Work for an engine process: the first line of its stdin. The process does nothing before it arrives.

    Further jobs are for the same engine; each line after a job's last event is one. The process ends when its stdin
    does: its end takes CPU time, which would disturb the passes of others.
    """

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
    is_last: bool = Field(True, description="Whether no further job for the engine is planned.")


class Event(Strict):
    """A line from an engine process. Each kind of event is a subclass, which `event` names; modes have their own."""

    kinds: ClassVar[dict[str, type["Event"]]] = {}

    event: str

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        Event.kinds[cls.model_fields["event"].default] = cls


class PhaseBegins(Event):
    """The engine process entered a new phase."""

    event: Literal["phase"] = "phase"
    phase: Phase


class Ready(Event):
    """The engine is loaded."""

    event: Literal["ready"] = "ready"
    import_s: float = Field(description="Time to import the engine, in seconds.")
    init_s: float = Field(description="Time to construct the engine, in seconds.")
    forked: bool | None = Field(None, description="True if the process was forked from one that had imported it.")
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


class IterationBegins(Event):
    """The engine is ready for the next iteration, which begins when the supervisor writes a line to stdin."""

    event: Literal["begins"] = "begins"


class IterationEnds(Event):
    """The pass is over; its results follow."""

    event: Literal["ends"] = "ends"


class IterationDone(Event):
    """One pass of the workload is over."""

    event: Literal["iteration"] = "iteration"
    iteration: Iteration
    sequences: list[SequenceRow]
    flags: list[Flag]
    began: float | None = Field(
        None, description="Start time of the iteration, on the machine's monotonic clock, in seconds."
    )


class ProofsTaken(Event):
    """The engine's weights were read: as loaded, and after each update that followed the last pass."""

    event: Literal["proofs"] = "proofs"
    proofs: list[WeightProof] = Field(description="Empty for a rank without an engine.")


PEER_LOST = "peer_lost"
"""Category of the failure of a rank that only lost another rank, which must have failed first."""

SERVER = "server"
"""Name of the process of a server that an engine process starts, whose end the engine process explains."""


class Failed(Event):
    """The engine process failed."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause if it is known.")
    category: str = Field("", description="Category of the failure, if known.")
    fix: str = Field("", description="Remedy, if known.")


class Done(Event):
    """All iterations are delivered."""

    event: Literal["done"] = "done"


def send(descriptor: int, event: Event) -> None:
    """Write `event` as one line to the pipe."""
    content = (event.model_dump_json() + "\n").encode()
    while content:
        content = content[os.write(descriptor, content) :]


def parse(line: bytes) -> Event:
    """Return the event in `line`.

    Raises:
        ValueError: if `line` is not an event.
        KeyError: if no imported module has this kind of event.
    """
    content = json.loads(line)
    return Event.kinds[content["event"]].model_validate(content)


SendEvent = Callable[[Event], None]
"""Sends an event to the supervisor."""

AwaitTurn = Callable[[], None]
"""Announces that the engine is ready for the next iteration, and returns when the iteration may begin."""
