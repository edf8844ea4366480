"""A session: one launch's job on the processes of an engine, with its warm-up, its passes and its time limit."""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rollout_bench.contracts.failures import Cause
from rollout_bench.contracts.modes import mode_of
from rollout_bench.measure.launch.hooks import RequestRouter
from rollout_bench.measure.launch.processes import EngineProcesses
from rollout_bench.measure.launch.protocol import Done, Event, IterationBegins, IterationDone, Job, PhaseBegins, Ready
from rollout_bench.measure.launch.replicas import ReplicaEvents, merge_events

STOP_S = 60.0
"""Time limit for an engine to stop, in seconds."""


class LaunchSession:
    """One job on the processes of an engine, whose passes begin together.

    Args:
        processes: the engine, which this job starts if no earlier one did.
        job: the work.
        listen: takes each event that all processes have sent.
        join: makes one event of the n-th events of all processes; None for engines that share nothing.
    """

    def __init__(
        self,
        processes: EngineProcesses,
        job: Job,
        listen: Callable[[Event], None],
        join: Callable[[Sequence[Event]], Event] | None = None,
    ) -> None:
        self.processes, self.job = processes, job
        self.waited_s = 0.0
        """Total time spent waiting for turns, in seconds. It does not count against any limit."""
        self._listen = listen
        join = join or partial(merge_events, platform=job.spec.platform)
        self._gathering = ReplicaEvents(len(processes.environments), join)
        self._began = time.monotonic()
        self._stop_by = float("inf")
        self._parked: float | None = None
        self._round: int | None = None

    @property
    def warming_up(self) -> bool:
        """Whether the next pass belongs to the warm-up."""
        return self.processes.phase == "warmup"

    def begin(self, name: str, starter: Path | None = None) -> None:
        """Give the engine the job of the launch with this name, and start it before, by the `starter`, if need be.

        Raises:
            LaunchFailed: if the user's command, which comes before the start, failed.
            Interrupted: if a signal arrived.
        """
        mode_of(self.job.spec.mode).collector.get()  # it has the mode's events, which `parse` must know
        if self.processes.is_started:
            self.processes.resume()
        else:
            self.processes.start(self.job.spec.engine.before, self._began + self.job.timeout_s, starter)
        self.processes.send(self.job, name)

    def advance(self) -> bool:
        """Pass events on until the next pass can begin; return False if all iterations are delivered.

        Raises:
            LaunchFailed: if the engine failed, ended early, or exceeded the time limit.
            MeasuringFailed: if its processes contradict each other.
            UserError: if the workload cannot be made for the model.
            OSError: if an event cannot be written down.
            Interrupted: if a signal arrived.
        """
        while True:
            until = min(self._began + self.waited_s + self.job.timeout_s, self._stop_by)
            for number, event in self.processes.events(until):
                for complete in self._gathering.take(number, event):
                    self._handle(complete)
                    if isinstance(complete, IterationBegins | Done):
                        return isinstance(complete, IterationBegins)
            if time.monotonic() >= until:
                behind = self._gathering.behind()
                self.processes.print_stacks(behind)
                raise self.processes.failure(behind, self._overrun(self.processes.phase_of(behind[0])))

    def _handle(self, event: Event) -> None:
        """Handle an event that all processes have sent."""
        if isinstance(event, PhaseBegins):
            self._stop_by = time.monotonic() + STOP_S if event.phase == "stopping" else float("inf")
        router = self.processes.router
        if router is not None:
            self._prepare(router, event)
        if isinstance(event, IterationDone):
            iteration = event.iteration if router is None else router.completed(event.iteration)
            event = event.model_copy(update={"iteration": iteration.model_copy(update={"round": self._round})})
        if not isinstance(event, IterationBegins):
            self._listen(event)

    def _prepare(self, router: RequestRouter, event: Event) -> None:
        """Prepare the router for the loaded engines, and for each pass."""
        if isinstance(event, Ready):
            assert event.vocabulary is not None, "replicas behind a router say so"
            router.ready(event.vocabulary)
        elif isinstance(event, IterationBegins):
            router.prepare()

    def go(self, number: int | None = None) -> None:
        """Begin the next pass, for which all processes are ready; `number` is its round in a block."""
        if self._parked is not None:
            self.waited_s += time.monotonic() - self._parked
            self._parked = None
            self.processes.resume()
        self._round = number
        self._listen(IterationBegins())
        self.processes.go()

    def park(self) -> None:
        """Let the engine wait for its turn, which begins with `go`."""
        self._parked = time.monotonic()
        self.processes.suspend()

    def run(self) -> None:
        """Do the job as a launch of its own, and end the engine.

        Raises:
            LaunchFailed: if the engine failed, ended early, or exceeded the time limit.
            Interrupted: if a signal arrived.
        """
        with contextlib.closing(self):
            self.begin("")
            while self.advance():
                self.go()

    def close(self) -> None:
        """End the engine."""
        self.processes.end()

    def _overrun(self, phase: str) -> Cause:
        if time.monotonic() >= self._stop_by:
            cause = f"the engine had not ended after {STOP_S:g} s"
            fix = "read the end of the log for where it hung; what it measured is not kept"
            return Cause("stop_timeout", cause, fix)
        cause = f"the launch hung in phase {phase}: not done after {self.job.timeout_s:g} s"
        fix = "read the end of the log for where it hung; raise timeout_s if the machine is slow or the model large"
        if self.job.spec.endpoint is not None:
            fix = "see whether the endpoint still answers a request; raise timeout_s if it is only slow"
        return Cause("timeout", cause, fix)
