"""Hooks with which a mode changes the processes of its launches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec, WorkloadSpec
from rollout_bench.measure.launch.protocol import Event
from rollout_bench.workloads.requests import Source


class RequestRouter(Protocol):
    """Distributes the sequences of each pass to the replicas, from the supervisor's process."""

    descriptor: int
    """Becomes readable when it has failed."""

    def follow(self, spec: Spec, launch: int, source: Callable[[WorkloadSpec, int], Source]) -> None:
        """Serve another launch from now on, on the same engines."""

    def connect(self, replicas: int) -> list[int]:
        """Return, for each replica, the descriptor of its end of a new connection, which the replica inherits."""

    def connected(self) -> None:
        """Close the replicas' ends in this process."""

    def ready(self, vocabulary: int) -> None:
        """Prepare for the loaded engines, whose model has `vocabulary` token ids; may raise `UserError`."""

    def prepare(self) -> None:
        """Prepare the next pass; may raise `UserError`."""

    def begin(self) -> None:
        """Begin the prepared pass."""

    def check(self) -> None:
        """Raise its error if it failed."""

    def completed(self, iteration: Iteration) -> Iteration:
        """Return a pass that all replicas have reported, with its measurements."""

    def close(self) -> None:
        """Release everything after the replicas have ended."""


@dataclass(frozen=True)
class Hooks:
    """What a mode adds to the processes of its launches; each part has a default.

    Attributes:
        obstacle: returns why the launch that writes a record is impossible, before anything starts; None if it is
            possible.
        environment: returns the engine's environment with what the mode adds.
        filling: returns a file to make after a start without measuring, which must come first; None if none must.
        roles: returns the work of each of the processes that are one engine together; empty for a single process.
        join: makes one event of the n-th events of these processes, by number.
        feeder: makes what distributes sequences from a spec, the index of the launch and a source of requests; None if
            each replica makes its own.
    """

    obstacle: Callable[[Spec, Path], Cause | None] = lambda *_: None
    environment: Callable[[Mapping[str, str], Spec], dict[str, str]] = lambda environment, _: dict(environment)
    filling: Callable[[Spec, Mapping[str, str]], Path | None] = lambda *_: None
    roles: Callable[[Spec], Sequence[str]] = lambda _: ()
    join: Callable[[Spec, Sequence[Event]], Event] | None = None
    feeder: Callable[[Spec, int, Callable[[WorkloadSpec, int], Source]], RequestRouter] | None = None


HOOKS = Hooks()
"""The hooks of modes that add nothing."""


def hooks_of(spec: Spec) -> Hooks:
    """Return the hooks of a spec's mode."""
    return mode_of(spec.mode).hooks.get()
