"""Messages mode in the engine process: passes with fixed batches whose messages are timed, then analysed."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.messages import Look, MessageStep, ProbeCost, ProbeUse
from rollout_bench.contracts.record import Flag
from rollout_bench.core.message_places import REMEDY, sentence
from rollout_bench.core.numbers import brief
from rollout_bench.measure.engine.message_contents import Contents
from rollout_bench.measure.engine.message_rows import NotedPass, rows_of, steps_of
from rollout_bench.measure.engine.vllm import LoadedEngine, loaded, source_of
from rollout_bench.measure.launch.protocol import (
    IterationEnds,
    Job,
    MessageFacts,
    MessagesSeen,
    PhaseBegins,
    StepsDone,
    Tell,
    Wait,
)
from rollout_bench.measure.probes.message_notes import BEGIN, END, HERE, now
from rollout_bench.measure.server.stream import ServingFailed
from rollout_bench.workloads.requests import Request, Source

EXECUTOR = "rollout_bench.measure.probes.message_probes.MessagesExecutor"
EXTENSION = "rollout_bench.measure.probes.message_probes.MessageLooks"

FRONT_END_FILE = "front-end.pickle"

MOST_SHARE = 0.01
"""Largest share of a step that the probes may take."""

ROOM = 8
"""Messages reserved for each expected step and sequence, several times the number that is sent."""


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: send each event, and wait for the order before each pass.

    Raises:
        ServingFailed: if this vLLM sends its messages in another way.
    """
    spec, settings = job.spec, job.spec.messages
    assert settings is not None, "a messages spec says what is looked at"
    engine = loaded(job, tell, distributed_executor_backend=EXECUTOR, worker_extension_cls=EXTENSION)
    from rollout_bench.measure.probes.message_probes import note_front_end, pickled_bytes, probe_costs

    client = engine.llm.llm_engine.engine_core
    if not hasattr(client, "encoder") or not hasattr(client, "decoder"):
        raise ServingFailed("messages_moved", sentence([f"{type(client).__name__}.encoder"]), REMEDY)
    note_front_end(client)
    tokens = min(settings.steps, longest(spec.workload.output_tokens))
    passes = Passes(engine, source_of(job, engine.vocabulary), job.launch, tokens, wait)
    tell(PhaseBegins(phase="warmup"))
    for batch in settings.batches:
        for _ in range(spec.measuring.warmup_iterations):
            passes.run(batch, "times")
            tell(IterationEnds())
            tell(StepsDone(steps=[]))
    cost = ProbeCost(**probe_costs())
    tell(PhaseBegins(phase="measuring"))
    for batch in settings.batches:
        for look in ("times", "contents"):
            noted = passes.run(batch, look)
            tell(IterationEnds())
            steps = steps_of(noted)
            use = probe_use(batch, noted.calls(), cost, steps) if look == "times" else None
            rows = rows_of(noted, None if look == "times" else Contents())
            flags = [*cost_flags(use, steps), *batch_flags(batch, steps)] if use is not None else []
            tell(MessagesSeen(steps=steps, rows=rows, probes=use, flags=flags))
    tell(
        MessageFacts(
            async_scheduling=noted.core["async_scheduling"],
            ring_bytes=noted.core["ring_bytes"],
            pickled_bytes=pickled_bytes(),
            probe=cost,
        )
    )


class Passes:
    """Runs passes of the workload with a given number of simultaneous sequences.

    Args:
        engine: a loaded engine with our executor and a probed front end.
        source: makes the requests.
        launch: index of the launch.
        tokens: number of tokens that each sequence generates.
        wait: called when everything is ready for a pass.
    """

    def __init__(self, engine: LoadedEngine, source: Source, launch: int, tokens: int, wait: Wait) -> None:
        self._engine = engine
        self._source = source
        self._launch = launch
        self._tokens = tokens
        self._wait = wait
        self._names = 0

    def run(self, batch: int, look: Look) -> NotedPass:
        """Run a pass of `batch` sequences that the engine receives together; return the recorded messages.

        All passes of a batch size have the same prompts.
        """
        llm, core = self._engine.llm, self._engine.llm.llm_engine.engine_core
        asked = self._sequences(batch)
        sampling = self._engine.sampling_of([self._tokens], single=True)
        room = ROOM * (self._tokens + batch) + sum(len(request.prompt_token_ids) for request in asked) // 64
        self._engine.reset_prefix_cache()
        # Otherwise the first step would have a random number of sequences: those that arrived before it.
        core.call_utility("pause_scheduler", "keep", False)
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            llm.collective_rpc(BEGIN, args=(look, room))
            HERE.begin(look, room)
            self._wait()
            began = now()
            for request in asked:
                name, self._names = f"pass-{self._names}", self._names + 1
                llm.llm_engine.add_request(name, {"prompt_token_ids": request.prompt_token_ids}, sampling)
            core.call_utility("resume_scheduler")
            while llm.llm_engine.has_unfinished_requests():
                llm.llm_engine.step()
            HERE.end(Path(folder) / FRONT_END_FILE)
            llm.collective_rpc(END, args=(folder,))
            return NotedPass.read(look, batch, began, Path(folder), FRONT_END_FILE)

    def _sequences(self, batch: int) -> list[Request]:
        found: list[Request] = []
        index = 0
        while len(found) < batch:
            found += self._source.requests(self._launch, index)
            index += 1
        return found[:batch]


def probe_use(batch: int, calls: dict[str, int], cost: ProbeCost, steps: Sequence[MessageStep]) -> ProbeUse:
    """Return the time that the probes took in a pass, from the number of calls of each probe."""
    cost_s = sum(count * float(getattr(cost, name)) for name, count in calls.items())
    return ProbeUse(batch=batch, cost_s=cost_s, share=cost_s / sum(step.elapsed_s for step in steps))


def cost_flags(use: ProbeUse, steps: Sequence[MessageStep]) -> list[Flag]:
    """Return a flag if the probes took more than `MOST_SHARE` of a step."""
    if use.share <= MOST_SHARE:
        return []
    each_ms = 1000 * median(step.elapsed_s for step in steps)
    sentence = (
        f"Looking at the messages of {use.batch} sequences took {100 * use.share:.1f} % of a step of "
        f"{brief(each_ms, 2)} ms, more than {100 * MOST_SHARE:.0f} %: their times are too long by as much."
    )
    return [Flag(code="probe_cost", severity="warning", sentence=sentence)]


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
