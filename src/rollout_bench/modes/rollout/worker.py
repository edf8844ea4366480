"""Rollout mode in the engine process: generates the router's sequences and reports the results."""

import asyncio
import gc
import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout_bench.contracts.record import Flag, ReplicaPass
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.measure.engine.vllm import passes, sequence_rows
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
from rollout_bench.workloads.requests import Request

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
        outputs: vLLM's output of each sequence.
        ended: result of each sequence.
        back: time at which each was back, on the monotonic clock, in seconds.
        over: the router's message at the end.
    """

    words: dict[int, Generate] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    back: dict[int, float] = field(default_factory=dict)
    over: Over = field(default_factory=lambda: Over(began=0.0))


async def _share_of_step(entry: AsyncEntry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Share:
    """Generate the router's sequences until the step is over."""
    share = Share()

    async def generate(word: Generate) -> None:
        output = share.outputs[word.id] = await entry.generate(word)
        share.back[word.id] = time.monotonic()
        ended = share.ended[word.id] = ended_of(word.id, output)
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
    asked = [Request(word.prompt, word.sample, word.prompt_token_ids, word.output_tokens) for word in words]
    made = sequence_rows([share.outputs[word.id] for word in words], asked, index, began)
    rows = [
        row.model_copy(update={"sent_s": round(word.sent - began, 6), "digest": digest_of(result.token_ids)})
        for row, word, result in zip(made, words, results, strict=True)
    ]
    ended = max(share.back.values(), default=began)
    cached = [row.cached_prompt_tokens for row in rows if row.cached_prompt_tokens is not None]
    part = ReplicaPass(
        start_offset_s=0.0,
        elapsed_s=max(ended - began, SHORTEST_S),
        requests=len(rows),
        sequences=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        cached_prompt_tokens=sum(cached) if len(cached) == len(rows) else None,
        output_tokens=sum(row.output_tokens for row in rows),
        prompts=len({row.prompt for row in rows}),
        preemptions=looks.preemptions,
        peak_running=looks.peak_running,
        kv_cache_peak=round(looks.kv_cache_peak, 6),
    )
    iteration = made_of(index, warmup, [part]).model_copy(update={"drafting": entry.drafting()})
    every = iteration.model_copy(update={"cached_prompt_tokens": sum(r.cached_prompt_tokens or 0 for r in rows)})
    flags = [
        *token_flags(workload, asked, iteration, rows),
        *prefix_cache_flags(asked, every, rows),
        *preempted_flags(index, looks.preemptions),
        *logprob_flags(index, results),
    ]
    return IterationDone(
        iteration=iteration,
        sequences=rows,
        flags=flags,
        began=began,
    )


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
