"""The router of a rollout: hands the sequences of each step out to the replicas, from a thread of its own.

It takes the place of a trainer's load balancer: it chooses an engine for every sequence, sends the prompt's token ids
there, and takes tokens and log probabilities back. The step is over once all have ended.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.record import ClientUse, Iteration, RouterUse
from rollout_bench.contracts.spec import Spec, WorkloadSpec
from rollout_bench.measure.routing.exchange import Ended, Generate, Over, Word, heard, written
from rollout_bench.measure.routing.policies import Balancer
from rollout_bench.workloads.requests import Request, Source

LOOK_S = 0.005
"""How often the router looks how late it is: so late may it see any sequence's end, too."""

READ_BYTES = 1 << 18


class ReplicaGoneError(Exception):
    """A replica has closed its line: the supervisor notices its end, and says why."""


class _Line:
    """The router's end of the line to a replica; never waits.

    Args:
        end: the socket.
        poll: is told whether there is something left to write.
    """

    def __init__(self, end: socket.socket, poll: selectors.BaseSelector) -> None:
        end.setblocking(False)
        self._end, self._poll = end, poll
        self._unsent, self._unread = bytearray(), b""
        self.waits = False
        """Whether there is something left to send."""
        poll.register(end, selectors.EVENT_READ, self)

    def say(self, word: Word) -> None:
        """Send `word`, as far as the replica takes it now; the rest by `flush`."""
        self._unsent += written(word)
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        if self.waits != bool(self._unsent):
            self.waits = bool(self._unsent)
            self._poll.modify(self._end, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.waits else 0), self)

    def heard(self) -> list[Word]:
        """Return what the replica said since; raise `ReplicaGoneError` where it says nothing any more."""
        content = self._end.recv(READ_BYTES)
        if not content:
            raise ReplicaGoneError
        *lines, rest = (self._unread + content).split(b"\n")
        self._unread = rest
        return [heard(line) for line in lines]

    def close(self) -> None:
        """Give the socket back."""
        self._poll.unregister(self._end)
        self._end.close()


@dataclass
class RoutedStep:
    """One step as the router sees it. All moments are on the monotonic clock, in seconds.

    Args:
        asked: its sequences, group after group.
    """

    asked: Sequence[Request]
    began: float = 0.0
    handed_out: float = 0.0
    """When the last sequence was handed out."""
    ended: float = 0.0
    """When nothing was under way any more."""
    engine_of: dict[int, int] = field(default_factory=dict)
    """Sequence -> the engine that has it, for all that were sent."""
    under_way: set[int] = field(default_factory=set)
    decide_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


class Router:
    """Hands out the sequences of a launch's steps. Its thread lives as long as a step.

    Args:
        spec: what is measured; has a rollout.
        launch: index of the launch.
        source: makes where requests come from, of a workload and the model's number of token ids.
    """

    def __init__(self, spec: Spec, launch: int, source: Callable[[WorkloadSpec, int], Source]) -> None:
        assert spec.rollout is not None, "a rollout has a router"
        self._spec, self._rollout, self._launch, self._make = spec, spec.rollout, launch, source
        self._source: Source | None = None
        self._poll = selectors.DefaultSelector()
        self._lines: list[_Line] = []
        self._theirs: list[socket.socket] = []
        self._index = 0
        self._step = RoutedStep(())
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.descriptor, self._wake = os.pipe2(os.O_CLOEXEC)
        """Becomes readable when the router has failed."""

    def connect(self, replicas: int) -> list[int]:
        """Return for each replica the descriptor of its end of a new line, which it is to inherit."""
        for _ in range(replicas):
            ours, theirs = socket.socketpair()
            self._lines.append(_Line(ours, self._poll))
            self._theirs.append(theirs)
        return [end.fileno() for end in self._theirs]

    def connected(self) -> None:
        """Close the replicas' ends here, so that a line ends with its replica."""
        while self._theirs:
            self._theirs.pop().close()

    def ready(self, vocabulary: int) -> None:
        """Take note that the engines are loaded, of a model with so many token ids.

        Raises:
            UserError: the data set can't be read, or there is no tokenizer for its text.
        """
        self._source = self._make(self._spec.workload, vocabulary)

    def prepare(self) -> None:
        """Make the sequences of the next step."""
        assert self._source is not None, "the engines were ready before"
        self._step = RoutedStep(self._source.requests(self._launch, self._index))
        gc.collect()

    def begin(self) -> None:
        """Begin the step that was prepared."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the router failed with, where it did."""
        if self._failure is not None:
            raise self._failure

    def completed(self, iteration: Iteration) -> Iteration:
        """Return a pass that all replicas have told, with what the router knows of it."""
        assert self._thread is not None, "the router began the pass"
        self._thread.join()
        self.check()
        step = self._step
        self._index += 1
        return iteration.model_copy(
            update={
                "elapsed_s": step.ended - step.began,
                "client": ClientUse.of(step.cpu_s / (step.ended - step.began), step.late_s, LOOK_S),
                "router": RouterUse(
                    decisions=len(step.decide_s),
                    decide_s=sum(step.decide_s),
                    decide_max_s=max(step.decide_s),
                    handing_out_s=step.handed_out - step.began,
                ),
            }
        )

    def close(self) -> None:
        """Give all descriptors back, once the replicas have ended."""
        if self._thread is not None:
            self._thread.join()  # it sees that the replicas have closed their lines
        self.connected()
        for line in self._lines:
            line.close()
        self._lines.clear()
        self._poll.close()
        os.close(self.descriptor)
        os.close(self._wake)

    def _run(self) -> None:
        try:
            self._hand_out(self._step)
        except (ReplicaGoneError, ConnectionError):
            pass  # whoever watches the replica says why
        except BaseException as error:
            self._failure = error
            os.write(self._wake, b"!")

    def _hand_out(self, step: RoutedStep) -> None:
        balancer = Balancer(self._rollout.router or "least_in_flight", len(self._lines))
        cpu_s = time.thread_time()
        step.began = step.handed_out = time.monotonic()
        self._look = step.began + LOOK_S
        for number, request in enumerate(step.asked):
            before = time.perf_counter()
            engine = balancer.choose(request.prompt)
            step.decide_s.append(time.perf_counter() - before)
            step.engine_of[number] = engine
            step.under_way.add(number)
            step.handed_out = time.monotonic()
            self._lines[engine].say(
                Generate(
                    id=number,
                    prompt=request.prompt,
                    sample=request.sample,
                    prompt_token_ids=request.prompt_token_ids,
                    output_tokens=request.output_tokens,
                    sent=step.handed_out,
                )
            )
            self._take(step, balancer, 0.0)
        while step.under_way:
            self._take(step, balancer, max(0.0, self._look - time.monotonic()))
        step.ended = time.monotonic()
        step.cpu_s = time.thread_time() - cpu_s
        for line in self._lines:
            line.say(Over(began=step.began))
        while any(line.waits for line in self._lines):
            for key, _ in self._poll.select():
                key.data.flush()

    def _take(self, step: RoutedStep, balancer: Balancer, limit_s: float) -> None:
        """Take what replicas say and go on sending to them, for `limit_s` seconds until one of them moves."""
        for key, events in self._poll.select(limit_s):
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            if events & selectors.EVENT_READ:
                for word in key.data.heard():
                    assert isinstance(word, Ended), "replicas say nothing else"
                    balancer.ended(step.engine_of[word.id])
                    step.under_way.discard(word.id)
        now = time.monotonic()
        if now >= self._look:
            step.late_s.append(now - self._look)
            self._look = now + LOOK_S
