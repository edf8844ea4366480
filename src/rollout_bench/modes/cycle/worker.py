"""Mode cycle in the engine process: generates as in offline mode, with a weight sync after each pass."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rollout_bench.contracts.drafts import trained_draft
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.proofs import Proofs
from rollout_bench.measure.engine.vllm import PREEMPTIONS, LoadedEngine, load_engine, pass_event, passes, source_of
from rollout_bench.measure.launch.protocol import IterationEnds, Job, ProofsTaken
from rollout_bench.measure.machine.host import held_with_children
from rollout_bench.modes.cycle.record import (
    MemorySnapshot,
    PartName,
    Transition,
    TransitionPart,
    UnderWay,
    WeightUpdate,
)
from rollout_bench.modes.cycle.settings import CycleSpec
from rollout_bench.modes.cycle.updates import WeightUpdates, updates_of

EXTENSION = "rollout_bench.modes.cycle.extension.TrainerStandIn"

DRAIN_S, POLL_S = 60.0, 0.001
"""Time limit for unfinished requests, and interval between checks, in seconds."""


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each iteration.

    Updates bring other weights and the first ones by turns. With a trained draft they bring the first ones, to which it
    fits. The weights are proven after the last pass, by two more updates that are not timed.
    """
    spec = job.spec
    extension = spec.engine.args.get("worker_extension_cls", EXTENSION)
    sleeps = {} if spec.of(CycleSpec).sleep == "none" else {"enable_sleep_mode": True}
    method = updates_of(spec)
    os.environ.update(method.environment)
    engine = load_engine(job, context, worker_extension_cls=extension, **sleeps, **method.arguments)
    check_engine(engine.llm, spec)
    source = source_of(job, engine.vocabulary)
    updates = method(engine, spec, job.model)
    updates.prepare()
    transitions = Transitions(engine, spec.of(CycleSpec), updates)
    proofs = Proofs(engine, norms=True, adapter=spec.lora is not None)
    proven = [proofs.take("first")]
    proofs.note(on=False)
    weights: Weights = "first"
    by_turns = not trained_draft(spec.engine.args)
    # The number of a pass determines its weights and the number of updates before it.
    for index, _ in passes(spec.measuring, context.send):
        asked = source.requests(job.launch, index)
        weights = "second" if weights == "first" and by_turns else "first"
        if spec.of(CycleSpec).in_flight:
            done = engine.iterate(asked, index, context.await_turn, partial(transitions.in_flight, weights))
            transition, preemptions = transitions.last(done.counters.get(PREEMPTIONS, 0), done.recomputed_tokens)
        else:
            done = engine.iterate(asked, index, context.await_turn)
            transition = transitions.go(weights, done.began + done.iteration.elapsed_s)
            preemptions = done.counters.get(PREEMPTIONS, 0)
        context.send(IterationEnds())
        iteration = done.iteration.model_copy(update={"transition": transition})
        context.send(pass_event(spec.workload, asked, iteration, done.rows, preemptions=preemptions, began=done.began))
    proofs.note(on=True)
    for each in ("second", "first"):
        proofs.fill_prefix_cache()
        transitions.go(each, time.monotonic())
        proven.append(proofs.take(each))
    context.send(ProofsTaken(proofs=proven))


def check_engine(llm: Any, spec: Spec) -> None:
    """Raise `MeasuringFailed` if this vLLM or its loaded weights do not support a cycle."""
    lacking = [name for name in ("sleep", "wake_up", "collective_rpc", "reset_prefix_cache") if not hasattr(llm, name)]
    if lacking:
        raise MeasuringFailed(
            "engine_lacks_cycle",
            f"{spec.engine.name} {spec.engine.version} has no LLM.{lacking[0]}, which mode cycle needs",
            "measure mode cycle with a newer version of vLLM",
        )
    if spec.engine.args.get("load_format") == "dummy" and spec.lora is None:
        raise MeasuringFailed(
            "not_updatable",
            "the engine was started with load_format: dummy, so nobody has the weights that it began with",
            "leave load_format out in mode cycle",
        )


class Transitions:
    """Takes a loaded engine from the end of a pass to readiness with new weights.

    Args:
        engine: the engine.
        settings: the steps and their order.
        updates: brings new weights to the engine.
    """

    def __init__(self, engine: LoadedEngine, settings: CycleSpec, updates: WeightUpdates) -> None:
        self._engine, self._llm = engine, engine.llm
        self._settings, self._updates = settings, updates
        self._ended = 0.0
        self._parts: list[TransitionPart] = []
        self._memory: list[MemorySnapshot] = []
        self._update: WeightUpdate | None = None
        self._last: Transition | None = None

    def go(self, weights: Weights, ended: float, under_way: UnderWay | None = None) -> Transition:
        """Do one weight sync to `weights`.

        Args:
            weights: the engine's new weights.
            ended: time at which the pass's last token was back, on the monotonic clock, in seconds.
            under_way: requests that are under way; None if there are none.
        """
        self._ended, self._parts, self._memory = ended, [], []
        clear = self._engine.reset_prefix_cache if self._updates.clears_prefix_cache else None
        if under_way is not None:
            # only a paused engine's memory is looked at: its process would generate on, in time that does not count
            self._timed("pause", lambda: self._llm.sleep(level=0, mode="keep"))
            for when in ("before", "asleep"):
                self._note_free_memory(when)
            drops = self._settings.in_flight == "recompute"
            self._renew(weights, partial(self._llm.reset_prefix_cache, reset_running_requests=True) if drops else None)
            self._note_free_memory("after")
            self._timed("resume", lambda: self._llm.wake_up(tags=["scheduling"]))
            return self._transition(under_way)
        self._note_free_memory("before")
        if self._settings.sleep == "none":
            self._timed("drain", self._drain)
            self._timed("pause", lambda: self._llm.sleep(level=0))
            self._note_free_memory("asleep")
            self._renew(weights, clear)
            self._timed("resume", lambda: self._llm.wake_up(tags=["scheduling"]))
        else:
            self._timed("drain", self._drain)
            level = int(self._settings.sleep)
            self._timed("sleep", lambda: self._llm.sleep(level=level))
            self._note_free_memory("asleep")
            self._timed("wake_weights", lambda: self._llm.wake_up(tags=["weights"]))
            self._renew(weights, clear)
            self._timed("wake_kv_cache", lambda: self._llm.wake_up(tags=["kv_cache"]))
        self._note_free_memory("after")
        return self._transition()

    def _transition(self, under_way: UnderWay | None = None) -> Transition:
        """Return the transition that was done."""
        assert self._update is not None, "renewing sets it"
        return Transition(
            elapsed_s=sum(part.elapsed_s for part in self._parts),
            parts=self._parts,
            update=self._update,
            memory=self._memory,
            under_way=under_way,
        )

    def in_flight(self, weights: Weights, running: int, waiting: int, tokens: int) -> None:
        """Do one weight sync to `weights` while so many requests run or wait, those with so many tokens."""
        self._last = self.go(weights, time.monotonic(), UnderWay(requests=running, waiting=waiting, tokens=tokens))

    def last(self, preemptions: int, recomputed_tokens: int | None) -> tuple[Transition, int]:
        """Return the last sync of this kind, and how many preemptions of its pass are not of the sync.

        Args:
            preemptions: those of its pass. The engine counts each request whose KV cache a sync drops as one.
            recomputed_tokens: tokens that preempted requests of its pass computed again; None if unknown.
        """
        assert self._last is not None, "an update was in flight"
        assert self._last.under_way is not None, "with requests under way"
        known = self._last.under_way
        waiting = known.waiting or 0
        # its process went on until the pause: a request that waited may have taken the place of one that had ended
        joined = min(waiting, max(0, min(preemptions, self._engine.most_sequences) - known.requests))
        recomputed = min(preemptions, known.requests + joined)
        others = preemptions - recomputed
        own: dict[str, int | None] = {"recomputed": recomputed}
        if joined:
            own |= {"requests": known.requests + joined, "waiting": waiting - joined}
        if recomputed and not others:  # else it is not known whose tokens they are
            own["recomputed_tokens"] = recomputed_tokens
        return self._last.model_copy(update={"under_way": self._last.under_way.model_copy(update=own)}), others

    def _timed(self, name: PartName, work: Callable[[], Any]) -> Any:
        """Return the result of `work`; record its time."""
        began = time.monotonic()
        result = work()
        elapsed_s = time.monotonic() - began
        began_s = max(0.0, began - self._ended)
        self._parts.append(TransitionPart(name=name, began_s=began_s, elapsed_s=elapsed_s))
        return result

    def _renew(self, weights: Weights, clear: Callable[[], Any] | None) -> None:
        """Update the weights, then clear the prefix cache, which the update invalidates, if the trainer does."""
        known = self._timed("update", lambda: self._updates.apply(weights))
        rest_s = self._parts[-1].elapsed_s - (known.get("transfer_s") or 0.0) - (known.get("quantize_s") or 0.0)
        self._update = WeightUpdate(weights=weights, load_s=max(0.0, rest_s), **known)
        if clear is not None:
            self._timed("reset_prefix_cache", clear)

    def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_S
        while self._llm.llm_engine.has_unfinished_requests():
            if time.monotonic() > deadline:
                raise MeasuringFailed(
                    "not_drained",
                    f"requests were still under way {DRAIN_S:g} s after the last answer was back",
                    "read the end of the log; measure again, and report it to vLLM if it comes again",
                )
            time.sleep(POLL_S)

    def _note_free_memory(self, when: Any) -> None:
        free_bytes = [each for each in self._llm.collective_rpc("rollout_bench_device_free") if each is not None]
        free = min(free_bytes, default=None)
        host = max(0, held_with_children() - self._updates.held_bytes)
        self._memory.append(MemorySnapshot(when=when, device_free_bytes=free, host_bytes=host))
