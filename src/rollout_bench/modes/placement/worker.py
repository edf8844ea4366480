"""Mode placement in the process of a rank: its engine, its trainer, or both, and its part of each step.

All ranks run the same program. A training rank receives the sequences of all engines and trains on its share. Waiting
before a collective is not counted as an activity. Waiting inside a collective for a slower rank cannot be separated
from the work, and counts as work.

A colocated rank's engine takes the weights from the trainer in its own process, and may sleep until then. With separate
ranks, the first training rank sends the weights to the workers of all engines, bucket by bucket. The workers load each
bucket as it arrives.

With tensor parallelism several ranks are one engine. Each rank has vLLM's whole front end and scheduler, gets the same
requests and generates the same tokens in lockstep. Each rank reports its engine's results; they are compared,
and the first are used.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout_bench.contracts.record import ReplicaPass, SequenceRow
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED
from rollout_bench.contracts.weights import WeightProof, Weights
from rollout_bench.measure.engine.buckets import BUCKET_BYTES
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import (
    PREEMPTIONS,
    LoadedEngine,
    cached_of,
    digest_of,
    pass_event,
    passes,
    sequence_rows,
)
from rollout_bench.measure.launch.flags import most_at_once
from rollout_bench.measure.launch.protocol import (
    Event,
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
    ProofsTaken,
    Ready,
)
from rollout_bench.measure.launch.replicas import SHORTEST_S, merged_iteration
from rollout_bench.modes.placement.events import RankReady, StepOver
from rollout_bench.modes.placement.hooks import surroundings
from rollout_bench.modes.placement.record import Activity, AsleepMemory, RankStep, Span, placed_engines
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.modes.placement.shares import (
    Trajectory,
    packed,
    share,
    unpacked,
)
from rollout_bench.workloads.requests import Request

if TYPE_CHECKING:
    import torch

    from rollout_bench.modes.placement.groups import Part, RankGroup
    from rollout_bench.modes.placement.served import ServedEngine
    from rollout_bench.modes.placement.trainer import Trainer

TAKER = "rollout_bench.modes.placement.extension.WeightTaker"
"""Worker extension of vLLM."""

EXECUTOR = "rollout_bench.modes.placement.executor.SharedEngineExecutor"
"""Executor with one worker in this process, as in the ranks of TRL."""


def measure(job: Job, context: EngineContext) -> None:
    """Do the rank's part of `job`: send each event, and wait for the order before each step."""
    variables, cores = surroundings(job.spec, job.replica, folder_of_ranks())
    os.environ.update(variables)
    if cores is not None:
        os.sched_setaffinity(0, cores)  # before torch is imported and starts threads
    started: list[Ready] = []

    def send_start(event: Event) -> None:
        if isinstance(event, Ready):
            started.append(event)
        else:
            context.send(event)

    rank = PlacedRank(job, replace(context, send=send_start))
    context.send(RankReady(ready=next(iter(started), None)))
    for _ in passes(job.spec.measuring, context.send):
        rank.prepare()
        context.await_turn()
        over = rank.step()
        context.send(IterationEnds())
        context.send(over())
    context.send(ProofsTaken(proofs=rank.prove()))
    rank.stop()


def folder_of_ranks() -> Path:
    """Return the launch's temporary folder, in which the ranks find each other."""
    return Path(os.environ["TMPDIR"])


class Notes:
    """The activities of a rank and their times.

    Args:
        device: each activity ends when this device has finished its computations.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.spans: list[Span] = []

    @contextmanager
    def doing(self, activity: Activity) -> Iterator[None]:
        """Record the time inside the context as `activity`."""
        began = time.monotonic()
        yield
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        self.spans.append(Span(activity=activity, began_s=began, elapsed_s=time.monotonic() - began))


class GeneratingRank:
    """An engine or a shard of one, and the engine's share of each step's prompts.

    Args:
        job: the rank's job.
        context: the engine process.
    """

    def __init__(self, job: Job, context: EngineContext) -> None:
        from rollout_bench.measure.engine.vllm import load_engine, source_of

        alone = job.model_copy(update={"replica": 0})  # the engine has all sequences of its ranks
        self._launch = job.launch
        self._spec = job.spec
        self._engines = placed_engines(self._spec)
        self._number = next(number for number, ranks in enumerate(self._engines) if job.replica in ranks)
        self.shards = self._engines[self._number]
        self._place = self.shards.index(job.replica)

        placement = self._spec.of(PlacementSpec)
        self.engine: LoadedEngine | ServedEngine
        if placement.through:
            from rollout_bench.modes.placement.served import ServedEngine

            self.engine = ServedEngine(alone, context, worker_extension_cls=TAKER)
        else:
            sleeps = {} if placement.sleep is None else {"enable_sleep_mode": True}
            self.engine = load_engine(
                alone, context, distributed_executor_backend=EXECUTOR, worker_extension_cls=TAKER, **sleeps
            )
        from rollout_bench.measure.engine.proofs import Proofs  # after the engine, whose import is timed

        self.proofs = Proofs(self.engine, norms=False)
        self._source = source_of(alone, self.engine.vocabulary)
        self._index = 0
        self._received: dict[str, str] = {}
        self._waves: list[list[Request]] = []
        self._asked: list[Request] = []
        self._done: list[tuple[list[Any], float, float]] = []

    def prepare(self) -> None:
        """Make the requests of the next step, and clear the prefix cache."""
        asked = self._source.requests(self._launch, self._index)
        prompts = list(dict.fromkeys(request.prompt for request in asked))
        prompts_here = [prompts[place] for place in share(len(prompts), self._number, len(self._engines))]
        waves = self._spec.of(PlacementSpec).generations
        parts = [{prompts_here[place] for place in share(len(prompts_here), wave, waves)} for wave in range(waves)]
        self._waves = [[request for request in asked if request.prompt in part] for part in parts]
        self._done = []
        self.engine.reset_prefix_cache()
        self._before = self.engine.counters()

    def own(self, sharing: bool) -> range:
        """Return the indices of the engine's sequences that this rank passes on.

        If the engine's ranks also train, each has a share; else the first rank has all.

        Args:
            sharing: whether the ranks train.
        """
        count = len(self._asked)
        if sharing:
            return share(count, self._place, len(self.shards))
        return range(count if self._place == 0 else 0)

    def generate(self, wave: int, released: float, notes: Notes, others: RankGroup | None) -> None:
        """Generate all sequences of its engine in a wave.

        Args:
            wave: number of the wave in the step.
            released: start time of the wave, on the monotonic clock, in seconds.
            notes: records the activities.
            others: the ranks of the engine, if each knows only the prompts of its own share; None if all are known.
        """
        self._asked = self._waves[wave]
        given = [request.prompt_token_ids for request in self._asked]
        if others is not None:
            mine = [self._asked[number] for number in self.own(sharing=True)]
            with notes.doing("gather"):
                gathered = others.gather(packed(Trajectory(r.prompt, r.sample, r.prompt_token_ids, []) for r in mine))
                given = [one.prompt_token_ids for numbers in gathered for one in unpacked(numbers)]
        prompts = [{"prompt_token_ids": token_ids} for token_ids in given]
        sampling = self.engine.sampling_of([request.output_tokens for request in self._asked])
        with notes.doing("generate"):
            outputs: list[Any] = self.engine.llm.generate(prompts, sampling, use_tqdm=False)
        self._done.append((outputs, released, notes.spans[-1].began_s + notes.spans[-1].elapsed_s))

    def trajectories(self, wave: int) -> list[Trajectory]:
        """Return the sequences of a wave."""
        outputs, *_ = self._done[wave]
        return [
            Trajectory(request.prompt, request.sample, request.prompt_token_ids, list(output.outputs[0].token_ids))
            for request, output in zip(self._waves[wave], outputs, strict=True)
        ]

    def join(self, name: str, job: Job, ranks: Sequence[int]) -> None:
        """Let the worker join the group of `ranks` that transfers weights."""
        who = {"name": name, "ranks": list(ranks), "rank": job.replica, "folder": str(folder_of_ranks())}
        self.engine.llm.collective_rpc("rollout_bench_join", kwargs={**who, "timeout_s": job.timeout_s})

    def take(self, method: str, **kwargs: Any) -> None:
        """Load new weights, from this process or from the joined group, by a method of the worker."""
        (self._received,) = self.engine.llm.collective_rpc(method, kwargs=kwargs)

    def proof(self, weights: Weights, trainers: Mapping[str, str]) -> WeightProof:
        """Return the proof of the engine's weights; `trainers` has the checksum of each of the trainer's tensors."""
        lost = [name for name, checksum in trainers.items() if self._received.get(name) != checksum]
        lost_weights = {"lost": len(lost), "first_lost": next(iter(lost), None)}
        return self.proofs.take(weights).model_copy(update=lost_weights)

    def iteration_event(self, released: float) -> IterationDone:
        """Return the event for its engine's share of the step, which was released at `released`.

        The clock of its times stands still between waves, so that they are those of generation.
        """
        index = self._index
        risen = self.engine.counters() - self._before
        rows, elapsed_s = list[SequenceRow](), 0.0
        for asked, (outputs, began, ended) in zip(self._waves, self._done, strict=True):
            rows += [
                row.model_copy(update={"digest": digest_of(list(output.outputs[0].token_ids))})
                for row, output in zip(sequence_rows(outputs, asked, index, began - elapsed_s), outputs, strict=True)
            ]
            elapsed_s += ended - began
        every = [request for asked in self._waves for request in asked]
        part = ReplicaPass(
            start_offset_s=0.0,
            elapsed_s=max(elapsed_s, SHORTEST_S),
            requests=len(every),
            sequences=len(rows),
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            cached_prompt_tokens=cached_of(rows, risen.get("vllm:prefix_cache_hits", 0)),
            output_tokens=sum(row.output_tokens for row in rows),
            prompts=len({row.prompt for row in rows}),
            preemptions=risen.get(PREEMPTIONS, 0),
            peak_running=most_at_once(rows),
        )
        iteration = merged_iteration(index, index < self._spec.measuring.warmup_iterations, [part])
        self._index += 1
        preemptions = part.preemptions or 0
        return pass_event(self._spec.workload, every, iteration, rows, preemptions=preemptions, began=released)


class PlacedRank:
    """One rank with its engine, its trainer, or both.

    Args:
        job: the rank's job.
        context: the engine process.

    Raises:
        MeasuringFailed: if the trainer's stand-in cannot load the checkpoint.
    """

    def __init__(self, job: Job, context: EngineContext) -> None:
        spec, placement = job.spec, job.spec.of(PlacementSpec)
        self._rank = job.replica
        self._generator = None
        if self._rank in placement.generating:
            self._generator = GeneratingRank(job, context)
        else:
            context.send(PhaseBegins(phase="importing"))

        import torch  # after the engine, whose import is timed

        if self._generator is None:
            context.send(PhaseBegins(phase="initializing"))

        from rollout_bench.modes.placement.groups import RankGroup, sizes_of_parts
        from rollout_bench.modes.placement.sleep import EngineSleep

        self._spec, self._placement = spec, placement
        self._device = torch.device("cpu" if spec.platform == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}")
        self._sleep = None
        if self._generator is not None and placement.sleep is not None:
            self._sleep = EngineSleep(self._generator.engine.llm, int(placement.sleep), self._device)
            self._sleep.fall_asleep()  # makes room for the trainer, as in TRL
        self._trainer = _trainer(job, self._device) if self._rank in placement.training else None
        self._colocated = placement.generators is None
        everyone = range(placement.devices)
        self._everyone = RankGroup("everyone", everyone, self._rank, folder_of_ranks(), self._device, job.timeout_s)
        self._trainers = self._group(job, "trainers", placement.training)
        sender = placement.training[0]
        updating = [] if self._colocated else [sender, *placement.generating]
        self._updating = self._group(job, "updating", updating)
        self._weights = None  # for the sender; an engine's worker joins in its own process
        if self._generator is not None and updating:
            self._generator.join("weights", job, updating)
        elif updating:
            self._weights = self._group(job, "weights", updating)
        self._shards = None
        if self._colocated and self._generator is not None and len(self._generator.shards) > 1:
            shards = self._generator.shards
            self._shards = self._group(job, f"shards-{shards[0]}", shards)
        self._parts = self._manifest()
        self._bytes = sum(size for _, size in sizes_of_parts(self._parts))
        self._pending: list[Trajectory] = []
        self._renew(Notes(self._device))  # from now on engine and trainer have the same weights, even dummy weights
        self._loaded = self._proof("first")
        if self._generator is not None:
            self._generator.proofs.note(on=False)

    def _group(self, job: Job, name: str, ranks: Sequence[int]) -> RankGroup | None:
        from rollout_bench.modes.placement.groups import RankGroup

        if job.replica not in ranks:
            return None
        return RankGroup(name, ranks, job.replica, folder_of_ranks(), self._device, job.timeout_s)

    def _manifest(self) -> list[Part]:
        """Return names, data types and shapes of the transferred weights."""
        parts = [] if self._trainer is None else self._trainer.parts()
        if self._updating is not None:
            parts = json.loads(self._updating.say(json.dumps(parts) if self._trainer is not None else None))
        return parts

    def prepare(self) -> None:
        """Make what the next step needs; not timed."""
        if self._generator is not None:
            self._generator.prepare()
        gc.collect()

    def step(self) -> Callable[[], StepOver]:
        """Do this rank's part of a step; return a function that makes its event, which takes time."""
        notes, generator = Notes(self._device), self._generator
        generated, trained, losses = list[Trajectory](), list[Trajectory](), list[float]()
        released, asleep = 0.0, None
        for wave in range(self._placement.generations):
            if wave and self._sleep is not None:
                self._renew(notes)  # at level 2 the weights are gone
            self._everyone.barrier()
            began = time.monotonic()
            released = released or began
            if generator is not None:
                generator.generate(wave, began, notes, self._shards)
            asleep = self._fall_asleep(notes)
            before = self._pending
            if self._placement.overlap:
                losses += self._train(before, notes)
                self._optimize(notes, losses)
            generated += self._hand_over(wave, notes)
            if not self._placement.overlap:
                before = self._pending
                losses += self._train(before, notes)
            trained += [] if self._placement.train_s is not None else self._share(before)
        if not self._placement.overlap:
            self._optimize(notes, losses)
        taken = self._renew(notes)
        step = RankStep(
            rank=self._rank,
            spans=notes.spans,
            sequences=len(generated),
            output_tokens=sum(len(one.output_token_ids) for one in generated),
            trained_sequences=len(trained),
            trained_tokens=sum(one.tokens for one in trained),
            loss=sum(losses) / len(losses) if losses else None,
            asleep=asleep,
        )
        return lambda: StepOver(
            released=released,
            step=step,
            done=None if generator is None else generator.iteration_event(released),
            gathered_bytes=4 * len(packed(generated)),
            update_bytes=taken,
        )

    def _hand_over(self, wave: int, notes: Notes) -> list[Trajectory]:
        """Give all ranks the wave's sequences to train on; return the ones of this rank's engine that it gave."""
        generated: list[Trajectory] = []
        if self._generator is not None:
            with notes.doing("gather"):
                trajectories = self._generator.trajectories(wave)
                generated = [trajectories[place] for place in self._generator.own(self._colocated)]
        self._everyone.barrier()
        with notes.doing("gather"):
            gathered = self._everyone.gather(packed(generated))
            if self._trainer is not None:
                everything = (one for each in gathered for one in unpacked(each))
                self._pending = sorted(everything, key=lambda one: (one.prompt, one.sample))  # the same in all ranks
        return generated

    def _share(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Return the sequences that this rank trains on."""
        if self._trainer is None:
            return []
        training = self._placement.training
        return [trajectories[n] for n in share(len(trajectories), training.index(self._rank), len(training))]

    def _train(self, trajectories: Sequence[Trajectory], notes: Notes) -> list[float]:
        """Compute gradients for this rank's share of a wave; return the mean loss, and nothing without training."""
        trainer, trainers = self._trainer, self._trainers
        if trainer is None or trainers is None or not trajectories:  # before the first step there are none
            return []
        most = -(-len(trajectories) // trainers.size)
        sampled = sum(len(one.output_token_ids) for one in trajectories) * self._placement.generations
        with notes.doing("train"):
            loss = trainer.train(self._share(trajectories), sampled, most)
        return [] if loss is None else [loss]

    def _optimize(self, notes: Notes, losses: Sequence[float]) -> None:
        """Add up the gradients of all ranks and do the optimizer's step, if there are `losses`."""
        trainer, trainers = self._trainer, self._trainers
        if trainer is None or trainers is None or not losses:
            return
        gradients = trainer.gradients()
        if gradients and trainers.size > 1:
            trainers.barrier()
            with notes.doing("reduce"):
                trainers.add_up(gradients, BUCKET_BYTES)
        with notes.doing("optimize"):
            trainer.optimize()

    def _fall_asleep(self, notes: Notes) -> AsleepMemory | None:
        """Put this rank's engine to sleep if configured; return the free memory before and after."""
        if self._sleep is None:
            return None
        awake, total = self._sleep.memory()
        with notes.doing("sleep"):
            self._sleep.fall_asleep()
        asleep, _ = self._sleep.memory()
        return AsleepMemory(awake_free_bytes=awake, asleep_free_bytes=asleep, total_bytes=total)

    def _renew(self, notes: Notes) -> int:
        """Wake the engine, update its weights and clear its prefix cache, as in mode cycle.

        Returns:
            Number of bytes that this rank's engine received.
        """
        if self._sleep is not None:
            with notes.doing("wake"):
                self._sleep.wake("weights")
        taken = self._update(notes)
        if self._generator is not None:
            with notes.doing("reset"):
                self._generator.engine.reset_prefix_cache()
        if self._sleep is not None:
            with notes.doing("wake"):
                self._sleep.wake("kv_cache")
        return taken

    def _update(self, notes: Notes) -> int:
        """Transfer the trainer's weights to the engines; return the bytes that this rank's engine received."""
        generator, trainer, group = self._generator, self._trainer, self._updating
        if group is None and not self._colocated and self._placement.strategy is None:
            return 0
        if group is not None:
            group.barrier()
        if self._trainers is not None and self._placement.strategy:
            self._trainers.barrier()
        with notes.doing("update"):
            if generator is None:
                assert trainer is not None
                tensors = (tensor for _, tensor in trainer.weights())
                if self._weights is not None:
                    self._weights.send(tensors, self._parts, BUCKET_BYTES)
                for _ in tensors:  # the sender has none left; the others' shards are gathered by it
                    pass
            elif group is not None:
                generator.take("rollout_bench_receive", parts=self._parts, most_bytes=BUCKET_BYTES)
            else:
                assert trainer is not None
                generator.take("rollout_bench_take", weights=iter(trainer.weights()))
        return 0 if generator is None else self._bytes

    def stop(self) -> None:
        """End this rank's server, if its engine is behind one."""
        if self._generator is not None and not isinstance(self._generator.engine, LoadedEngine):
            self._generator.engine.stop()

    def prove(self) -> list[WeightProof]:
        """Return the proofs of this rank's engine: as loaded, and after one more update, which is not timed."""
        if self._generator is not None:
            self._generator.proofs.note(on=True)
            self._generator.proofs.fill_prefix_cache()
        if self._sleep is not None:
            self._sleep.fall_asleep()
        self._renew(Notes(self._device))
        return [*self._loaded, *self._proof("second")]

    def _proof(self, weights: Weights) -> list[WeightProof]:
        """Return the proof of this rank's engine, if it has one, compared with the first trainer's current weights.

        Shards of one engine get their weights from different trainers, so this also finds trainers that drift apart.
        """
        from rollout_bench.measure.probes.weight_proofs import proof_of

        is_first = self._rank == self._placement.training[0]
        asked = self._trainer if is_first or self._placement.strategy else None  # each has a shard of the first's
        checksums_sent = json.dumps(
            {name: proof_of(tensor).checksum for name, tensor in (asked.weights() if asked else ())}
        )
        group = self._trainers if self._colocated else self._updating
        if group is None:
            return []
        checksums = json.loads(group.say(checksums_sent if is_first else None))
        return [] if self._generator is None else [self._generator.proof(weights, checksums)]


def _trainer(job: Job, device: torch.device) -> Trainer:
    from rollout_bench.modes.placement.trainer import PolicyTrainer, TimedTrainer, checkpoint_weights, model_of, shard

    spec, placement = job.spec, job.spec.of(PlacementSpec)
    args, folder = spec.engine.args, job.model
    has_weights = args.get("load_format") not in NO_WEIGHTS_NEEDED
    waited_s = (placement.train_s or 0.0) / len(placement.training) / placement.generations
    if placement.train_s is not None and has_weights:
        return TimedTrainer(checkpoint_weights(folder, device), waited_s)
    code = bool(args.get("trust_remote_code"))
    model = model_of(folder, has_weights=has_weights, trust_remote_code=code, device=device)
    if placement.strategy:
        shard(model, device)
    shards = len(placement.training) if placement.strategy else 1
    trainer = PolicyTrainer(model, spec.workload.samples_per_prompt, shards)
    if placement.train_s is None:
        return trainer
    return TimedTrainer(trainer.weights(), waited_s)
