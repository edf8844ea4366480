"""The router of a rollout: a thread that distributes the sequences of each step to the replicas.

It replaces a trainer's load balancer: it chooses an engine for every sequence, sends the prompt's token ids, and
receives tokens and log probabilities. The step is over when all sequences have ended.
"""

import contextlib
import gc
import itertools
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rollout_bench.contracts.record import ClientUse, Iteration
from rollout_bench.contracts.spec import Spec, WorkloadSpec
from rollout_bench.modes.rollout.exchange import AbortRest, Ended, Generate, Message, StepEnded, message_of, written
from rollout_bench.modes.rollout.record import RouterUse
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.workloads.policies import Balancer
from rollout_bench.workloads.requests import Request, Source

LOOK_S = 0.005
"""Interval between checks of the router's lateness, in seconds; this is also its delay in seeing a sequence's end."""

READ_BYTES = 1 << 18


class _Line:
    """The router's non-blocking end of the connection to a replica.

    Args:
        end: the socket.
        poll: selector that is updated when unsent data remains.
    """

    def __init__(self, end: socket.socket, poll: selectors.BaseSelector) -> None:
        end.setblocking(False)
        self._end, self._poll = end, poll
        self._unsent, self._unread = bytearray(), b""
        self.waits = False
        """Whether unsent data remains."""
        poll.register(end, selectors.EVENT_READ, self)

    def send(self, word: Message) -> None:
        """Queue `word` and send as much as the replica accepts now; `flush` sends the rest."""
        self._unsent += written(word)
        self.flush()

    def flush(self) -> None:
        """Send queued data as far as possible."""
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        if self.waits != bool(self._unsent):
            self.waits = bool(self._unsent)
            self._poll.modify(self._end, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.waits else 0), self)

    def receive(self) -> list[Message]:
        """Return the replica's new messages.

        Raises:
            ConnectionError: the replica closed its end.
        """
        content = self._end.recv(READ_BYTES)
        if not content:
            raise ConnectionError
        *lines, rest = (self._unread + content).split(b"\n")
        self._unread = rest
        return [message_of(line) for line in lines]

    def close(self) -> None:
        """Close the socket."""
        self._poll.unregister(self._end)
        self._end.close()


@dataclass
class RoutedStep:
    """One step as the router sees it. All times are on the monotonic clock, in seconds.

    Args:
        asked: its sequences, group after group.
        needed: number of groups that it needs.
        groups: the group of each sequence.
    """

    asked: Sequence[Request]
    needed: int = 0
    groups: Sequence[int] = ()
    began: float = 0.0
    handed_out: float = 0.0
    """Time at which the last sequence was sent."""
    ended: float = 0.0
    """Time at which the last sequence ended."""
    engine_of: dict[int, int] = field(default_factory=dict)
    """Number of each sent sequence -> its engine."""
    under_way: set[int] = field(default_factory=set)
    aborted: dict[int, list[int]] = field(default_factory=dict)
    """Number of each aborted sequence -> the tokens that it had."""
    kept: set[int] = field(default_factory=set)
    """The groups that it needed, all of whose sequences have ended."""
    enough: float | None = None
    """Time at which all these groups were there; None before, and if it needs all."""
    decide_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self._left = Counter(self.groups)

    def take(self, result: Ended, now: float) -> bool:
        """Take the result of a sequence; return whether the step has enough with it, and sent more."""
        group = self.groups[result.id]
        self.under_way.discard(result.id)
        if result.finish_reason == "abort":
            self.aborted[result.id] = result.token_ids
        self._left[group] -= 1
        if self.enough is not None or self._left[group]:
            return False
        self.kept.add(group)
        if len(self.kept) < self.needed or self.needed == len(self._left):
            return False
        self.enough = now
        return True

    def dropped(self, engine: int) -> list[int]:
        """Return the sequences of an engine that the step did not need."""
        return [n for n, of in self.engine_of.items() if of == engine and self.groups[n] not in self.kept]

    def unfinished(self) -> list[list[Request]]:
        """Return what is left of each group that it did not need; a group can be whole, but too late."""
        left = {group: list[Request]() for group in self.groups if group not in self.kept}
        for number, (group, request) in enumerate(zip(self.groups, self.asked, strict=True)):
            if group in left and (number in self.aborted or number not in self.engine_of):
                token_ids = self.aborted.get(number, [])
                rest = replace(
                    request,
                    prompt_token_ids=[*request.prompt_token_ids, *token_ids],
                    output_tokens=request.output_tokens - len(token_ids),
                    made=request.made + len(token_ids),
                )
                left[group].append(rest)
        return list(left.values())


class Router:
    """Distributes the sequences of a launch's steps, with one thread for each step.

    Args:
        spec: the spec of the launch, with a rollout.
        launch: index of the launch.
        source: makes the source of requests from a workload and the number of token ids.
    """

    def __init__(self, spec: Spec, launch: int, source: Callable[[WorkloadSpec, int], Source]) -> None:
        self.follow(spec, launch, source)
        self._poll = selectors.DefaultSelector()
        self._lines: list[_Line] = []
        self._theirs: list[socket.socket] = []
        self.thread: threading.Thread | None = None
        """Hands out the requests of a step; None before the first."""
        self._failure: BaseException | None = None
        self.descriptor, self._wake = os.pipe2(os.O_CLOEXEC)
        """Becomes readable when the router has failed."""

    def follow(self, spec: Spec, launch: int, source: Callable[[WorkloadSpec, int], Source]) -> None:
        """Serve another launch from now on, on the same engines; the arguments are those of the class."""
        self._spec, self._rollout, self._launch, self._make = spec, spec.of(RolloutSpec), launch, source
        self._source: Source | None = None
        self.index = 0
        """Number of the step in its launch."""
        self.step = RoutedStep(())
        """The step under way, or the last one."""

    def connect(self, replicas: int) -> list[int]:
        """Return, for each replica, the descriptor of its end of a new connection, which the replica inherits."""
        for _ in range(replicas):
            ours, theirs = socket.socketpair()
            self._lines.append(_Line(ours, self._poll))
            self._theirs.append(theirs)
        return [end.fileno() for end in self._theirs]

    def connected(self) -> None:
        """Close the replicas' ends in this process, so that a connection ends with its replica."""
        while self._theirs:
            self._theirs.pop().close()

    def ready(self, vocabulary: int) -> None:
        """Make the source of requests for the loaded engines, whose model has `vocabulary` token ids.

        Raises:
            UserError: if the data set cannot be read, or has text but no tokenizer is available.
        """
        workload = self._spec.workload
        sent = workload.model_copy(update={"prompts": self._rollout.sent(workload.prompts)})
        self._source = self._make(sent, vocabulary)

    def prepare(self) -> None:
        """Make the sequences of the next step."""
        assert self._source is not None, "the engines were ready before"
        asked, workload = self._source.requests(self._launch, self.index), self._spec.workload
        needed = asked[: workload.prompts * workload.samples_per_prompt]
        groups = len({request.prompt for request in needed})
        left = self.step.unfinished() if self._rollout.partial else []
        # the samples of a prompt differ by now, so each has a prompt of its own
        numbers = itertools.count(groups)
        old = [
            (-place, replace(one, prompt=next(numbers)))
            for place, unfinished in enumerate(left, 1)
            for one in unfinished
        ]
        pairs = [*old, *((request.prompt, request) for request in (needed if left else asked))]
        self.step = RoutedStep(
            [request for _, request in pairs], groups - left.count([]), [group for group, _ in pairs]
        )
        gc.collect()

    def begin(self) -> None:
        """Begin the prepared step."""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Raise the router's error if it failed."""
        if self._failure is not None:
            raise self._failure

    def completed(self, iteration: Iteration) -> Iteration:
        """Return a pass that all replicas have reported, with the router's measurements."""
        assert self.thread is not None, "the router began the pass"
        self.thread.join()
        self.check()
        step = self.step
        self.index += 1
        return iteration.model_copy(
            update={
                "elapsed_s": (step.enough or step.ended) - step.began,
                "client": ClientUse.of(step.cpu_s / (step.ended - step.began), step.late_s, LOOK_S),
                "router": RouterUse(
                    decisions=len(step.decide_s),
                    decide_s=sum(step.decide_s),
                    handing_out_s=step.handed_out - step.began,
                ),
            }
        )

    def close(self) -> None:
        """Close all descriptors after the replicas have ended."""
        if self.thread is not None:
            self.thread.join()  # it ends when the replicas have closed their connections
        self.connected()
        for line in self._lines:
            line.close()
        self._lines.clear()
        self._poll.close()
        os.close(self.descriptor)
        os.close(self._wake)

    def _run(self) -> None:
        try:
            self._hand_out(self.step)
        except ConnectionError:
            pass  # of a replica that is gone, as the supervisor notices; it reports the reason
        except BaseException as error:
            self._failure = error
            os.write(self._wake, b"!")

    def _hand_out(self, step: RoutedStep) -> None:
        balancer = Balancer(self._rollout.router or "least_in_flight", len(self._lines))
        cpu_s = time.thread_time()
        step.began = step.handed_out = time.monotonic()
        self._look = step.began + LOOK_S
        for number, request in enumerate(step.asked):
            if step.enough is not None:
                break
            before = time.perf_counter()
            engine = balancer.choose(request.prompt)
            step.decide_s.append(time.perf_counter() - before)
            step.engine_of[number] = engine
            step.under_way.add(number)
            step.handed_out = time.monotonic()
            self._lines[engine].send(
                Generate(
                    id=number,
                    prompt=request.prompt,
                    sample=request.sample,
                    prompt_token_ids=request.prompt_token_ids,
                    output_tokens=request.output_tokens,
                    further=request.further,
                    made=request.made,
                    sent=step.handed_out,
                )
            )
            self._take(step, balancer, 0.0)
        while step.under_way:
            self._take(step, balancer, max(0.0, self._look - time.monotonic()))
        step.ended = time.monotonic()
        step.cpu_s = time.thread_time() - cpu_s
        for engine, line in enumerate(self._lines):
            line.send(StepEnded(began=step.began, enough=step.enough, dropped=step.dropped(engine)))
        while any(line.waits for line in self._lines):
            for key, _ in self._poll.select():
                key.data.flush()

    def _take(self, step: RoutedStep, balancer: Balancer, limit_s: float) -> None:
        """Receive from replicas and continue sending, waiting at most `limit_s` seconds for activity."""
        for key, events in self._poll.select(limit_s):
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            if events & selectors.EVENT_READ:
                for word in key.data.receive():
                    assert isinstance(word, Ended), "replicas say nothing else"
                    balancer.ended(step.engine_of[word.id])
                    if step.take(word, time.monotonic()):
                        for line in self._lines:
                            line.send(AbortRest())
        now = time.monotonic()
        if now >= self._look:
            step.late_s.append(now - self._look)
            self._look = now + LOOK_S
