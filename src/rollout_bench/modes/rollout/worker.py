"""Rollout mode in the engine process: generates the router's sequences and reports the results."""

import asyncio
import gc
import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.record import Flag, Iteration, ReplicaPass, SequenceRow
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.measure.engine.vllm import passes
from rollout_bench.measure.launch.flags import preempted_flags, prefix_cache_flags, token_flags
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    Tell,
    Wait,
)
from rollout_bench.measure.launch.replicas import made_of
from rollout_bench.modes.rollout.async_engine import AsyncEntry, ended_of, open_async
from rollout_bench.modes.rollout.exchange import Ended, Generate, Over, heard, written
from rollout_bench.modes.rollout.turns import Answer, answers_of, joined, rows_of, turns_of, turns_use

LINE_BYTES = 1 << 27
"""Longest line from a router, in bytes: a prompt of ten million tokens."""

_RUNNER = asyncio.Runner()
"""The event loop of the engine, for all jobs of this process, whose end the supervisor causes."""

_LINES: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
"""The connection to the router, for the jobs after the first; empty before the first."""

SHORTEST_S = 1e-9
"""Time of a step for a replica without sequences, in seconds."""


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: send each event, and wait for the order before each iteration."""
    _RUNNER.run(_measure(job, tell, wait))


async def _measure(job: Job, tell: Tell, wait: Wait) -> None:
    spec = job.spec
    if job.line is not None:
        os.set_inheritable(job.line, False)
        _LINES.append(await asyncio.open_connection(sock=socket.socket(fileno=job.line), limit=LINE_BYTES))
    (line,) = _LINES
    entry = await open_async(job, tell)
    for index, warmup in passes(spec.measuring, tell):
        await entry.reset()
        gc.collect()
        wait()  # blocks the event loop, which is idle
        entry.looks.begin()
        share = await _share_of_step(entry, *line)
        tell(IterationEnds())
        tell(told(share, entry, spec.workload, index, warmup))


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
    over: Over = field(default_factory=lambda: Over(began=0.0))


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
            word = heard(line)
            if isinstance(word, Generate):
                share.words[word.id] = word
                tasks.create_task(generate(word))
            elif isinstance(word, Over):
                share.over = word
                return
        raise ConnectionError("the router is gone")

    try:
        async with asyncio.TaskGroup() as tasks:
            await read(tasks)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the first, which cancelled the others
    return share


def told(share: Share, entry: AsyncEntry, workload: WorkloadSpec, index: int, warmup: bool) -> IterationDone:
    """Return the event for a replica's share of a step."""
    began, looks = share.over.began, entry.looks
    words = [word for _, word in sorted(share.words.items())]
    results = [share.ended[word.id] for word in words]
    answers = [share.answers[word.id] for word in words]
    of_turns = [rows_of(of_sequence, index, began) for of_sequence in answers]
    turns_of_all = [turns_of(own, of_sequence, began) for own, of_sequence in zip(of_turns, answers, strict=True)]
    rows = [
        joined(own, turns).model_copy(
            update={
                "sent_s": round(word.sent - began, 6),
                "digest": digest_of(result.token_ids),
                "turns": None if workload.turns is None else turns,
            }
        )
        for own, turns, word, result in zip(of_turns, turns_of_all, words, results, strict=True)
    ]
    ended = max((of_sequence[-1].back for of_sequence in answers), default=began)
    cached = [row.cached_prompt_tokens for row in rows if row.cached_prompt_tokens is not None]
    part = ReplicaPass(
        start_offset_s=0.0,
        elapsed_s=max(ended - began, SHORTEST_S),
        requests=sum(map(len, answers)),
        sequences=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        cached_prompt_tokens=sum(cached) if len(cached) == len(rows) else None,
        output_tokens=sum(row.output_tokens for row in rows),
        prompts=len({row.prompt for row in rows}),
        preemptions=looks.preemptions,
        peak_running=looks.peak_running,
        kv_cache_peak=round(looks.kv_cache_peak, 6),
        turns=None if workload.turns is None else turns_use(turns_of_all),
    )
    iteration = made_of(index, warmup, [part]).model_copy(update={"drafting": entry.drafting()})
    flags = [
        *turn_flags(workload, answers, of_turns, iteration),
        *preempted_flags(index, looks.preemptions),
        *logprob_flags(index, results),
    ]
    return IterationDone(
        iteration=iteration,
        sequences=rows,
        flags=flags,
        began=began,
    )


def turn_flags(
    workload: WorkloadSpec,
    answers: Sequence[Sequence[Answer]],
    of_turns: Sequence[Sequence[SequenceRow]],
    iteration: Iteration,
) -> list[Flag]:
    """Return the flags of token counts in every turn, and of prefix cache hits in the first, before anything is cached.

    Args:
        workload: the workload.
        answers: of each sequence, its turns.
        of_turns: of each sequence, the row of each turn.
        iteration: the iteration.
    """
    flags = list[Flag]()
    for number in range(max(map(len, answers), default=0)):
        asked = [of_sequence[number].asked for of_sequence in answers if number < len(of_sequence)]
        rows = [own[number] for own in of_turns if number < len(own)]
        flags += token_flags(workload, asked, iteration, rows)
        if number == 0:
            cached = sum(row.cached_prompt_tokens or 0 for row in rows)
            flags += prefix_cache_flags(asked, iteration.model_copy(update={"cached_prompt_tokens": cached}), rows)
    return flags


def digest_of(token_ids: list[int]) -> str:
    """Return the start of the SHA-256 of token ids, as JSON without spaces."""
    return hashlib.sha256(json.dumps(token_ids, separators=(",", ":")).encode()).hexdigest()[:8]


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
