"""Rollout mode in the engine process: generates the router's sequences and reports the results."""

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.record import Flag, Iteration, ReplicaPass, routed_bytes_of
from rollout_bench.contracts.spec import Spec, WorkloadSpec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import cached_of, digest_of, passes
from rollout_bench.measure.launch.flags import graph_flags, preempted_flags, prefix_cache_flags, token_flags
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
)
from rollout_bench.measure.launch.replicas import SHORTEST_S, merged_iteration
from rollout_bench.modes.rollout.async_engine import AsyncEntry, KeptEngine, ended_of, open_async
from rollout_bench.modes.rollout.exchange import AbortRest, Ended, Generate, StepEnded, message_of, written
from rollout_bench.modes.rollout.record import Surplus
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.modes.rollout.turns import Answer, Trajectory, answers_of, trajectory_of, turns_use

LINE_BYTES = 1 << 27
"""Longest line from a router, in bytes: a prompt of ten million tokens."""


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each iteration."""
    context.kept = context.kept or KeptEngine()
    context.kept.runner.run(_measure(job, context, context.kept))


async def _measure(job: Job, context: EngineContext, kept: KeptEngine) -> None:
    spec = job.spec
    if job.line is not None:
        os.set_inheritable(job.line, False)
        kept.router = await asyncio.open_connection(sock=socket.socket(fileno=job.line), limit=LINE_BYTES)
    assert kept.router is not None, "the first job has the connection"
    entry = await open_async(job, context, kept)
    for index, warmup in passes(spec.measuring, context.send):
        await entry.reset()
        gc.collect()
        context.await_turn()  # blocks the event loop, which is idle
        entry.looks.begin()
        share = await _share_of_step(entry, *kept.router)
        context.send(IterationEnds())
        context.send(iteration_event(share, entry, spec, index, warmup))


@dataclass
class Share:
    """A replica's share of a step.

    Attributes:
        words: its sequences, by number.
        answers: the turns of each sequence, in order.
        ended: result of each sequence.
        over: the router's message at the end.
    """

    words: dict[int, Generate] = field(default_factory=dict)
    answers: dict[int, list[Answer]] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    over: StepEnded = field(default_factory=lambda: StepEnded(began=0.0))


async def _share_of_step(entry: AsyncEntry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Share:
    """Generate the router's sequences until the step is over."""
    share = Share()

    async def generate(word: Generate) -> None:
        answers = share.answers[word.id] = []
        async for answer in answers_of(word, entry):
            answers.append(answer)
        ended = share.ended[word.id] = ended_of(word.id, [answer.output for answer in answers])
        writer.write(written(ended))

    async def read(tasks: asyncio.TaskGroup) -> None:
        while line := await reader.readline():
            word = message_of(line)
            if isinstance(word, Generate):
                share.words[word.id] = word
                tasks.create_task(generate(word))
            elif isinstance(word, AbortRest):
                tasks.create_task(entry.abort())
            elif isinstance(word, StepEnded):
                share.over = word
                return
        raise ConnectionError("the router is gone")

    try:
        async with asyncio.TaskGroup() as tasks:
            await read(tasks)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the first, which cancelled the others
    return share


def iteration_event(share: Share, entry: AsyncEntry, spec: Spec, index: int, warmup: bool) -> IterationDone:
    """Return the event for a replica's share of a step.

    It is of the sequences that the step needed; if unfinished ones go on in the next step, of all that generated.
    """
    began, enough, looks, workload = share.over.began, share.over.enough, entry.looks, spec.workload
    every = [trajectory_of(word, share.answers[number], index, began) for number, word in sorted(share.words.items())]
    partial, dropped = spec.of(RolloutSpec).partial, share.over.dropped
    kept = [one for one in every if (one.row.output_tokens if partial else one.word.id not in dropped)]
    results = [share.ended[one.word.id] for one in kept]
    rows = [
        one.row.model_copy(
            update={
                "sent_s": round(one.word.sent - began, 6),
                "digest": digest_of(result.token_ids),
                "turns": None if workload.turns is None else one.turns,
            }
        )
        for one, result in zip(kept, results, strict=True)
    ]
    back = max((one.answers[-1].back for one in every), default=began)
    drained_s = None if enough is None else max(0.0, back - enough)
    fields = {
        "turns": None if workload.turns is None else turns_use([one.turns for one in every]),
        "surplus": None if drained_s is None else surplus_of(every, dropped, drained_s, goes_on=bool(partial)),
    }
    part = ReplicaPass(
        start_offset_s=0.0,
        elapsed_s=max((back if enough is None else min(back, enough)) - began, SHORTEST_S),
        requests=sum(len(one.answers) for one in kept),
        sequences=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        cached_prompt_tokens=cached_of(rows, None),
        output_tokens=sum(row.output_tokens for row in rows),
        prompts=len({row.prompt for row in rows}),
        preemptions=looks.preemptions,
        peak_running=looks.peak_running,
        kv_cache_peak=round(looks.kv_cache_peak, 6),
    ).model_copy(update=fields)
    iteration = merged_iteration(index, warmup, [part]).model_copy(
        update={"drafting": entry.drafting(), "graphs": looks.graphs, "routed_bytes": routed_bytes_of(rows)}
    )
    flags = [
        *turn_flags(workload, [one for one in kept if not one.aborted], iteration),
        *first_flags(every, iteration),
        *preempted_flags(index, looks.preemptions),
        *graph_flags(iteration),
        *logprob_flags(index, results),
    ]
    return IterationDone(
        iteration=iteration,
        sequences=rows,
        flags=flags,
        began=began,
    )


def surplus_of(every: Sequence[Trajectory], dropped: Sequence[int], drain_s: float, *, goes_on: bool) -> Surplus:
    """Return what the sequences with the numbers `dropped` were, whose last ended `drain_s` after the step.

    Args:
        every: all sequences of the step.
        dropped: numbers of those that it did not need.
        drain_s: seconds.
        goes_on: whether unfinished ones go on in the next step, so that none is thrown away.
    """
    unneeded = [one for one in every if one.word.id in dropped]
    thrown_away = [] if goes_on else unneeded
    again = [one.row for one in every if one.word.made and one.row.output_tokens]
    return Surplus(
        sequences=len(thrown_away),
        aborted=sum(one.aborted for one in unneeded),
        output_tokens=sum(one.row.output_tokens for one in thrown_away),
        drain_s=drain_s,
        again_tokens=sum(row.prompt_tokens - (row.cached_prompt_tokens or 0) for row in again) if goes_on else None,
    )


def turn_flags(workload: WorkloadSpec, sequences: Sequence[Trajectory], iteration: Iteration) -> list[Flag]:
    """Return a flag for each turn in which sequences came with other numbers of tokens than they should."""
    flags = list[Flag]()
    for number in range(max((len(one.rows) for one in sequences), default=0)):
        reaching = [one for one in sequences if number < len(one.rows)]
        asked, rows = [one.answers[number].asked for one in reaching], [one.rows[number] for one in reaching]
        flags += token_flags(workload, asked, iteration, rows)
    return flags


def first_flags(every: Sequence[Trajectory], iteration: Iteration) -> list[Flag]:
    """Return a flag if the first turns of all sequences found more in the prefix cache than they share."""
    asked, rows = [one.answers[0].asked for one in every], [one.rows[0] for one in every]
    cached = sum(row.cached_prompt_tokens or 0 for row in rows)
    return prefix_cache_flags(asked, iteration.model_copy(update={"cached_prompt_tokens": cached}), rows)


def logprob_flags(index: int, results: Sequence[Ended]) -> list[Flag]:
    """Return a flag if log probabilities are missing or not finite."""
    without = sum(
        len(result.logprobs or ()) != len(result.token_ids) or None in (result.logprobs or ()) for result in results
    )
    if not without:
        return []
    sentence = (
        f"Iteration {index}: {without} of {len(results)} sequences came without all their log probabilities, or with "
        "some that are no numbers."
    )
    return [Flag(code="logprobs_missing", severity="invalid", sentence=sentence)]
