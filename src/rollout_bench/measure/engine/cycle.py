"""Mode cycle in the engine process: generates as in offline mode, with a weight sync after each pass."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from rollout_bench.contracts.cycles import (
    CycleSpec,
    MemoryLook,
    PartName,
    Transition,
    TransitionPart,
    WeightProof,
    Weights,
    WeightUpdate,
)
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.passes import passes
from rollout_bench.measure.engine.vllm import LoadedEngine, loaded, source_of
from rollout_bench.measure.engine.weight_updates import METHODS, WeightUpdates
from rollout_bench.measure.launch.flags import preempted_flags, prefix_cache_flags, token_flags
from rollout_bench.measure.launch.protocol import IterationDone, IterationEnds, Job, ProofsTaken, Tell, Wait
from rollout_bench.measure.machine.host import held_with_children

EXTENSION = "rollout_bench.measure.probes.trainer_stand_in.TrainerStandIn"

DRAIN_S, POLL_S = 60.0, 0.001
"""Time limit for unfinished requests, and interval between checks, in seconds."""

PROMPTS, PROMPT_TOKENS, TOKENS, SEED = 2, 16, 8, 20260101
"""The greedy probe: number of prompts, random ids in each, tokens generated for each, seed of the ids."""


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: send each event, and wait for the order before each iteration.

    The weights are proven after the last pass, by two more updates that are not timed.
    """
    spec = job.spec
    assert spec.cycle is not None, "specs of this mode have it"
    more = {"worker_extension_cls": EXTENSION}
    if "worker_extension_cls" in spec.engine.args:
        more["worker_extension_cls"] = spec.engine.args["worker_extension_cls"]
    sleeps = {} if spec.cycle.sleep == "none" else {"enable_sleep_mode": True}
    engine = loaded(job, tell, **more, **sleeps)
    check_engine(engine.llm, spec)
    source = source_of(job, engine.vocabulary)
    updates = METHODS[spec.cycle.update](engine.llm, spec, job.model)
    updates.prepare()
    transitions = Transitions(engine, spec.cycle, updates)
    proofs = Proofs(engine, norms=True)
    proven = [proofs.take("first")]
    proofs.note(on=False)
    weights: Weights = "first"
    # The number of a pass determines its weights and the number of updates before it.
    for index, _ in passes(spec.measuring, tell):
        asked = source.requests(job.launch, index)
        done = engine.iterate(asked, index, wait)
        weights = "second" if weights == "first" else "first"
        transition = transitions.go(weights, done.began + done.iteration.elapsed_s)
        tell(IterationEnds())
        iteration, rows = done.iteration.model_copy(update={"transition": transition}), done.rows
        flags = token_flags(spec.workload, asked, iteration, rows) + prefix_cache_flags(asked, iteration, rows)
        flags += preempted_flags(index, done.counters.get("vllm:num_preemptions", 0))
        tell(IterationDone(iteration=iteration, sequences=rows, flags=flags, began=done.began))
    proofs.note(on=True)
    for each in ("second", "first"):
        transitions.go(each, time.monotonic())
        proven.append(proofs.take(each))
    tell(ProofsTaken(proofs=proven))


def check_engine(llm: Any, spec: Spec) -> None:
    """Raise `MeasuringFailed` if this vLLM or its loaded weights do not support a cycle."""
    lacking = [name for name in ("sleep", "wake_up", "collective_rpc", "reset_prefix_cache") if not hasattr(llm, name)]
    if lacking:
        raise MeasuringFailed(
            "engine_lacks_cycle",
            f"{spec.engine.name} {spec.engine.version} has no LLM.{lacking[0]}, which mode cycle needs",
            "measure mode cycle with a newer version of vLLM",
        )
    if spec.engine.args.get("load_format") == "dummy":
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
        self._memory: list[MemoryLook] = []
        self._update: WeightUpdate | None = None

    def go(self, weights: Weights, ended: float) -> Transition:
        """Do one weight sync to `weights`.

        Args:
            weights: the engine's new weights.
            ended: time at which the pass's last token was back, on the monotonic clock, in seconds.
        """
        self._ended, self._parts, self._memory = ended, [], []
        self._look("before")
        self._timed("drain", self._drain)
        self._updates.stage(weights)
        if self._settings.sleep == "none":
            self._timed("pause", lambda: self._llm.sleep(level=0))
            self._look("asleep")
            self._renew(weights)
            self._timed("resume", lambda: self._llm.wake_up(tags=["scheduling"]))
        else:
            level = int(self._settings.sleep)
            self._timed("sleep", lambda: self._llm.sleep(level=level))
            self._look("asleep")
            self._timed("wake_weights", lambda: self._llm.wake_up(tags=["weights"]))
            self._renew(weights)
            self._timed("wake_kv_cache", lambda: self._llm.wake_up(tags=["kv_cache"]))
        self._look("after")
        assert self._update is not None, "renewing sets it"
        return Transition(
            elapsed_s=sum(part.elapsed_s for part in self._parts),
            parts=self._parts,
            update=self._update,
            memory=self._memory,
        )

    def _timed(self, name: PartName, work: Callable[[], Any]) -> Any:
        """Return the result of `work`; record its time."""
        began = time.monotonic()
        result = work()
        elapsed_s = time.monotonic() - began
        began_s = max(0.0, began - self._ended)
        self._parts.append(TransitionPart(name=name, began_s=began_s, elapsed_s=elapsed_s))
        return result

    def _renew(self, weights: Weights) -> None:
        """Update the weights, then clear the prefix cache, which the update invalidates."""
        known = self._timed("update", lambda: self._updates.apply(weights))
        rest_s = self._parts[-1].elapsed_s - (known.get("transfer_s") or 0.0) - (known.get("quantize_s") or 0.0)
        self._update = WeightUpdate(weights=weights, load_s=max(0.0, rest_s), **known)
        self._timed("reset_prefix_cache", self._engine.reset_prefix_cache)

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

    def _look(self, when: Any) -> None:
        told = [each for each in self._llm.collective_rpc("rollout_bench_device_free") if each is not None]
        free = min(told, default=None)
        host = max(0, held_with_children() - self._updates.held_bytes)
        self._memory.append(MemoryLook(when=when, device_free_bytes=free, host_bytes=host))


class Proofs:
    """Proves which weights an engine holds, and records the tokens that it generates with them.

    Args:
        engine: the engine.
        norms: whether an update must also change the weights of norms.
    """

    def __init__(self, engine: LoadedEngine, norms: bool) -> None:
        self._engine, self._norms = engine, norms
        self._before: dict[str, str] | None = None
        length = min(PROMPT_TOKENS, int(engine.llm.llm_engine.vllm_config.model_config.max_model_len) - TOKENS)
        draw = random.Random(SEED)
        self._prompts = [[draw.randrange(engine.vocabulary) for _ in range(max(1, length))] for _ in range(PROMPTS)]

    def note(self, *, on: bool) -> None:
        """Take checksums of packed weights while they are loaded, or stop it."""
        self._engine.llm.collective_rpc("rollout_bench_noting", kwargs={"on": on})

    def take(self, weights: Weights) -> WeightProof:
        """Return the proof of the engine's current state; `weights` are its expected weights."""
        now, trained, not_finite = self._tensors()
        before = now if self._before is None else self._before
        changed = {name for name, checksum in now.items() if before.get(name) != checksum}
        self._before = now
        everything = "\n".join(f"{name} {checksum}" for name, checksum in sorted(now.items()))
        return WeightProof(
            weights=weights,
            tensors=len(now),
            trained=len(trained),
            changed_trained=len(changed & trained),
            not_finite=not_finite,
            checksum=_digest(everything),
            tokens=_digest(repr(list(self._generated()))),
        )

    def _tensors(self) -> tuple[dict[str, str], set[str], int]:
        """Return each rank's tensor checksums, the names that updates must change, and how many are not finite."""
        checksums, trained, not_finite = {}, set(), 0
        ranks = self._engine.llm.collective_rpc("rollout_bench_proofs", kwargs={"norms": self._norms})
        for rank, proofs in enumerate(ranks):
            for name, (checksum, finite, must_change) in proofs.items():
                checksums[f"{rank}/{name}"] = checksum
                not_finite += not finite
                if must_change:
                    trained.add(f"{rank}/{name}")
        return checksums, trained, not_finite

    def _generated(self) -> Iterator[list[int]]:
        """Yield the greedy tokens of each prompt."""
        from vllm import SamplingParams

        how = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
        self._engine.reset_prefix_cache()
        for prompt in self._prompts:
            (output,) = self._engine.llm.generate([{"prompt_token_ids": prompt}], how, use_tqdm=False)
            yield list(output.outputs[0].token_ids)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
