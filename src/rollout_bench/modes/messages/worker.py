"""Messages mode in the engine process: passes with fixed batches, timed first, then with their messages."""

import gc
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, get_args

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import tensor_parallel_size
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import LoadedEngine, load_engine, source_of
from rollout_bench.measure.launch.protocol import (
    AwaitTurn,
    IterationEnds,
    Job,
    PhaseBegins,
)
from rollout_bench.modes.messages.contents import Wire, message_of
from rollout_bench.modes.messages.events import MessageFacts, MessagesObserved
from rollout_bench.modes.messages.record import MessageStep, Purpose, Way
from rollout_bench.modes.messages.settings import MessagesSettings
from rollout_bench.workloads.requests import Source

EXECUTOR = "rollout_bench.modes.messages.probes.MessagesExecutor"


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each pass."""
    spec, settings = job.spec, job.spec.of(MessagesSettings)
    engine = load_engine(job, context, distributed_executor_backend=EXECUTOR)
    from rollout_bench.modes.messages.probes import pickled_bytes

    tokens = min(settings.steps, longest(spec.workload.output_tokens))
    source, workers = source_of(job, engine.vocabulary), tensor_parallel_size(spec)
    passes = Passes(engine, source, job.launch, tokens, context.await_turn, workers)
    context.send(PhaseBegins(phase="warmup"))
    for batch in settings.batches:
        for _ in range(spec.measuring.warmup_iterations):
            passes.run(batch, "times")
            context.send(IterationEnds())
    context.send(PhaseBegins(phase="measuring"))
    for batch in settings.batches:
        for purpose in ("times", "contents"):
            steps = passes.run(batch, purpose)
            context.send(IterationEnds())
            context.send(MessagesObserved(steps=steps, flags=batch_flags(batch, steps) if purpose == "times" else []))
    context.send(MessageFacts(async_scheduling=passes.async_scheduling, pickled_bytes=pickled_bytes()))


class Passes:
    """Runs passes of the workload with a given number of simultaneous sequences.

    Args:
        engine: a loaded engine with our executor.
        source: makes the requests.
        launch: index of the launch.
        tokens: number of tokens that each sequence generates.
        wait: called when everything is ready for a pass.
        workers: number of workers; with several, broadcasts of the messages' sizes are timed.
    """

    async_scheduling = False
    """Whether the engine schedules a step before the previous one has ended; known after a pass."""

    def __init__(
        self, engine: LoadedEngine, source: Source, launch: int, tokens: int, wait: AwaitTurn, workers: int
    ) -> None:
        self._engine = engine
        self._source = source
        self._launch = launch
        self._tokens = tokens
        self._wait = wait
        self._workers = workers
        self._names = 0

    def run(self, batch: int, purpose: Purpose) -> list[MessageStep]:
        """Run a pass of `batch` sequences that the engine receives together; return its steps.

        All passes of a batch size have the same prompts.
        """
        from rollout_bench.modes.messages.probes import BEGIN, END

        llm, core = self._engine.llm, self._engine.llm.llm_engine.engine_core
        passes = (self._source.requests(self._launch, index) for index in count())
        asked = list(islice(chain.from_iterable(passes), batch))
        sampling = self._engine.sampling_of([self._tokens], single=True)
        self._engine.reset_prefix_cache()
        # Otherwise the first step would have a random number of sequences: those that arrived before it.
        core.call_utility("pause_scheduler", "keep", False)
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "steps.pickle"
            llm.collective_rpc(BEGIN, args=(purpose,))
            self._wait()
            for request in asked:
                name, self._names = f"pass-{self._names}", self._names + 1
                llm.llm_engine.add_request(name, {"prompt_token_ids": request.prompt_token_ids}, sampling)
            core.call_utility("resume_scheduler")
            while llm.llm_engine.has_unfinished_requests():
                llm.llm_engine.step()
            llm.collective_rpc(END, args=(str(path),))
            noted = pickle.loads(path.read_bytes())
        self.async_scheduling = noted["async_scheduling"]
        steps = list(steps_of(noted["steps"], purpose, batch))
        return self._with_broadcasts(steps) if self._workers > 1 and purpose == "contents" else steps

    def _with_broadcasts(self, steps: Sequence[MessageStep]) -> list[MessageStep]:
        """Return the steps, whose messages have the time of a broadcast of as many bytes."""
        from rollout_bench.modes.messages.probes import BROADCAST

        sizes = [message.size_bytes for step in steps for way in get_args(Way) if (message := getattr(step, way))]
        times = iter(self._engine.llm.collective_rpc(BROADCAST, args=(sizes,)))
        return [
            step.model_copy(
                update={
                    way: message.model_copy(update={"broadcast_s": next(times)})
                    for way in get_args(Way)
                    if (message := getattr(step, way))
                }
            )
            for step in steps
        ]


def steps_of(noted: Sequence[dict[str, Any]], purpose: Purpose, batch: int) -> Iterator[MessageStep]:
    """Yield the steps of a pass from the engine core's notes."""
    from vllm.v1.serial_utils import MsgpackEncoder

    from rollout_bench.modes.messages.probes import pickled

    pack = MsgpackEncoder().encode
    ended_ns, before = 0, dict[Way, Wire]()
    for index, step in enumerate(noted):
        prefill, sequences = step["prefill"], step["sequences"]
        phase: Phase = "decode" if not prefill else "prefill" if prefill >= sequences else "mixed"
        messages = {way: message_of(step[way], before.get(way), pickled, pack) for way in get_args(Way) if way in step}
        yield MessageStep(
            purpose=purpose,
            batch=batch,
            index=index,
            phase=phase,
            tokens=step["tokens"],
            sequences=sequences,
            new_requests=step["new_requests"],
            new_prompt_tokens=step["new_prompt_tokens"],
            elapsed_s=(step["ended_ns"] - max(step["began_ns"], ended_ns)) / 1e9,
            **messages,
        )
        ended_ns, before = step["ended_ns"], {way: step[way] for way in messages}


def batch_flags(batch: int, steps: Sequence[MessageStep]) -> list[Flag]:
    """Return a flag if the engine never ran all sequences of a pass simultaneously."""
    most = max(step.sequences for step in steps)
    if most == batch:
        return []
    sentence = (
        f"The engine ran {most} of {batch} sequences at once: max_num_seqs or its KV cache allows no more, or the "
        "first ended before the prompts of the last were computed, for which more messages.steps are needed."
    )
    return [Flag(code="batch_not_at_once", severity="warning", sentence=sentence)]
