"""Turns of a sequence: an answer, a tool that takes its time, and the next request with the whole context."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from rollout_bench.contracts.record import SequenceRow, TurnRow
from rollout_bench.measure.engine.vllm import sequence_rows
from rollout_bench.modes.rollout.async_engine import AsyncEntry
from rollout_bench.modes.rollout.exchange import Generate
from rollout_bench.modes.rollout.record import TurnsUse
from rollout_bench.workloads.requests import Request


@dataclass(frozen=True)
class Answer:
    """One turn of a sequence; times are on the monotonic clock, in seconds.

    Attributes:
        asked: its request, with the whole context as prompt.
        output: vLLM's RequestOutput.
        sent: time at which the engine got the request.
        back: time at which the answer was complete.
    """

    asked: Request
    output: Any
    sent: float
    back: float


async def answers_of(word: Generate, entry: AsyncEntry) -> AsyncIterator[Answer]:
    """Yield the answers of a sequence; before each but the first, its tool runs, and the context grows.

    They stop as soon as the step has enough. All turns go to the same engine, whose prefix cache holds the context.
    """
    context, tokens = word.prompt_token_ids, word.output_tokens
    for further in (*word.further, None):
        sent = time.monotonic()
        output = await entry.generate(context, tokens)
        yield Answer(Request(word.prompt, word.sample, context, tokens), output, sent, time.monotonic())
        if further is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.enough.wait(), further.tool_s)
            if entry.enough.is_set():
                return
            context = [*context, *output.outputs[0].token_ids, *further.tool_token_ids]
            tokens = further.output_tokens


@dataclass(frozen=True)
class Trajectory:
    """A generated sequence.

    Attributes:
        word: as the router asked for it.
        answers: its turns.
        rows: the row of each turn, as if it were a sequence of its own.
        turns: the same as the row of the sequence has them.
    """

    word: Generate
    answers: Sequence[Answer]
    rows: Sequence[SequenceRow]
    turns: Sequence[TurnRow]

    @cached_property
    def row(self) -> SequenceRow:
        """Its row: from its first turn to its last, with the sums of tokens."""
        cached = [turn.cached_prompt_tokens for turn in self.turns]
        routed = {
            name: None if None in values else sum(values)
            for name in ("routed_tokens", "routed_bytes")
            for values in ([getattr(row, name) for row in self.rows],)
        }
        return self.rows[0].model_copy(
            update={
                **routed,
                "prompt_tokens": sum(turn.prompt_tokens for turn in self.turns),
                "cached_prompt_tokens": None if None in cached else sum(tokens or 0 for tokens in cached),
                "output_tokens": sum(turn.output_tokens for turn in self.turns),
                "finish_reason": self.rows[-1].finish_reason,
                "last_token_s": self.rows[-1].last_token_s,
            }
        )

    @property
    def aborted(self) -> bool:
        """Whether it was ended before its time."""
        return len(self.answers) <= len(self.word.further) or self.rows[-1].finish_reason == "abort"


def trajectory_of(word: Generate, answers: Sequence[Answer], index: int, began: float) -> Trajectory:
    """Return the sequence that `answers` make, in iteration `index`, whose times count from `began`."""
    rows = sequence_rows([answer.output for answer in answers], [answer.asked for answer in answers], index, began)
    turns = [
        row.to(TurnRow, sent_s=round(answer.sent - began, 6), back_s=round(answer.back - began, 6))
        for row, answer in zip(rows, answers, strict=True)
    ]
    return Trajectory(word, answers, rows, turns)


def turns_use(sequences: Sequence[Sequence[TurnRow]]) -> TurnsUse:
    """Return the use of an engine by the turns of its `sequences`."""
    turns = sorted(chain(*sequences), key=lambda turn: turn.sent_s)
    pairs = [pair for rows in sequences for pair in pairwise(rows)]
    known = [before.prompt_tokens + before.output_tokens for before, _ in pairs]
    idle_s, busy_until = 0.0, turns[0].sent_s if turns else 0.0
    for turn in turns:
        idle_s += max(0.0, turn.sent_s - busy_until)
        busy_until = max(busy_until, turn.back_s)
    return TurnsUse(
        answers=len(turns),
        answer_s=round(sum(turn.back_s - turn.sent_s for turn in turns), 6),
        tool_s=round(sum(after.sent_s - before.back_s for before, after in pairs), 6),
        all_in_tools_s=round(idle_s, 6),
        context_tokens=sum(known),
        recomputed_tokens=sum(
            max(0, tokens - (after.cached_prompt_tokens or 0)) for tokens, (_, after) in zip(known, pairs, strict=True)
        ),
    )
