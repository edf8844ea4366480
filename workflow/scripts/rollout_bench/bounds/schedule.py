"""What the steps of one pass compute: lengths of its sequences, the prefill, and one decode step after the other."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rollout_bench.bounds.arithmetic import Batch, decode_batch


@dataclass(frozen=True)
class Lengths:
    """The tokens of one sequence.

    Attributes:
        prompt: of its prompt.
        cached: of these, those that the prefix cache answers for.
        output: that it generates.
    """

    prompt: float
    cached: float
    output: float


@dataclass(frozen=True)
class Steps:
    """Some steps that compute about the same.

    Attributes:
        number: how many they are.
        batch: what one computes, on average over them.
    """

    number: float
    batch: Batch


def prefill_steps(sequences: Sequence[Lengths], most_tokens: int | None) -> Steps:
    """The steps that compute the prompts, as few as hold them.

    Args:
        sequences: of the whole pass.
        most_tokens: max_num_batched_tokens; None where it is not known, then one step is taken for all.
    """
    tokens = sum(one.prompt - one.cached for one in sequences)
    number = max(1, math.ceil(tokens / most_tokens)) if most_tokens else 1
    pairs = sum(_pairs(one.prompt - one.cached, one.cached) for one in sequences)
    cached = sum(one.cached for one in sequences)
    sampled = len(sequences) / number
    return Steps(number, Batch(sampled, tokens / number, cached / number, pairs / number, sampled))


def decode_steps(sequences: Sequence[Lengths], slots: int) -> Iterator[Steps]:
    """The steps that decode: first come first served, at most `slots` sequences at once, each step one token of each.

    The first token of a sequence comes out of its prefill. Steps with the same sequences are one item, whose batch is
    that of their middle: all grow by one token a step, and the least time is a convex function of the context, so
    that a step at the mean takes no longer than the steps take on average.
    """
    waiting = iter([one for one in sequences if one.output > 1])
    ends: list[tuple[float, float]] = []  # step that is the first without it, context less the step's number
    contexts = step = 0.0
    while True:
        while len(ends) < slots and (one := next(waiting, None)) is not None:
            heapq.heappush(ends, (step + one.output - 1, one.prompt - step))
            contexts += one.prompt - step
        if not ends:
            return
        number, until = len(ends), ends[0][0]
        middle = (step + until - 1) / 2
        yield Steps(until - step, decode_batch(number, contexts / number + middle))
        step = until
        while ends and ends[0][0] <= step:
            contexts -= heapq.heappop(ends)[1]


def mean_decode(steps: Sequence[Steps]) -> Batch | None:
    """The batch of an average decode step; None where nothing is decoded."""
    number = sum(one.number for one in steps)
    if not number:
        return None
    sequences = sum(one.number * one.batch.sequences for one in steps) / number
    cached = sum(one.number * one.batch.cached for one in steps) / number
    return decode_batch(sequences, cached / sequences)


def _pairs(tokens: float, cached: float) -> float:
    """Pairs of a computed token and one that it looks at, itself among them."""
    return tokens * cached + tokens * (tokens + 1) / 2
