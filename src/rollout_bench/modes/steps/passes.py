"""The passes of a calibration: which sequences an engine gets, so that its steps have all kinds of work.

All sequences of a pass wait when it begins, as in a rollout. Decode steps of every batch size come from passes whose
sequences end one after the other: a pass with short prompts, and a few with as long contexts as fit into the KV cache.
Mixed steps come from a full batch, in which waiting prompts take the places of sequences that end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

SHORT = 16
"""Tokens of a short prompt."""

HOLD = 16
"""Decode steps at a batch size. The first few also send the outputs of the larger batch before."""

FULL = 0.9
"""Share of the KV cache that a pass may fill."""

APART = 6
"""Steps between prompts that begin in a full batch."""

CHUNKS = 32
"""Prefill steps of a pass with long prompts, at most."""

PARTS = (8, 4, 2, 1)
"""Prompts that begin together have max_num_batched_tokens / these tokens, apart from those of a full batch."""

TOGETHER = 16
"""Most prompts that begin together."""


@dataclass(frozen=True)
class Limits:
    """Bounds of an engine's steps: sequences, tokens of a step, tokens of a sequence, tokens of the KV cache."""

    sequences: int
    batched_tokens: int
    context_tokens: int
    kv_tokens: int


@dataclass(frozen=True)
class SentSequence:
    """A sequence: the number of its prompt in the pass, the prompt's length, and the number of tokens to generate."""

    prompt: int
    prompt_tokens: int
    output_tokens: int


def passes(limits: Limits, samples: int) -> Iterator[list[SentSequence]]:
    """Yield the passes of a round: one of them has `samples` sequences of each prompt, which share its KV cache."""
    short = min(SHORT, limits.context_tokens // 2)
    longest = limits.context_tokens
    yield list(_decreasing_batch(limits, limits.sequences, short))
    batches = [max(1, limits.sequences // divisor) for divisor in (1, 4, 16)]
    for batch in dict.fromkeys(batches):
        steps = HOLD * len(sizes(batch)) + CHUNKS
        room = min(FULL * limits.kv_tokens - batch * steps, CHUNKS * limits.batched_tokens)
        prompt = min(longest - steps, int(room / batch))
        if prompt > 2 * short:
            yield list(_decreasing_batch(limits, batch, prompt))
            if batch == batches[1] > 1 and samples > 1:
                yield list(_decreasing_batch(limits, batch, prompt, samples))
    yield _batch_with_replacements(limits, short)


def sizes(most: int) -> list[int]:
    """Return batch sizes up to `most`, the largest first: powers of two, one size between each, and `most`."""
    powers = [1 << exponent for exponent in range(most.bit_length())]
    between = [3 * power // 2 for power in powers[1:]]
    return sorted({size for size in (*powers, *between, most) if size <= most}, reverse=True)


def _decreasing_batch(limits: Limits, batch: int, prompt: int, samples: int = 1) -> Iterator[SentSequence]:
    """Yield sequences that end one after the other, so that each batch size decodes for `HOLD` steps, or what fits.

    The first sent end last. They also decode while the prompts of the others are computed, and have more tokens for it.
    """
    falling = sizes(batch)
    computed = [(place // samples + 1) * prompt // limits.batched_tokens for place in range(batch)]
    fitting = (limits.context_tokens - prompt - computed[-1] - 1) // len(falling)
    hold = max(1, min(HOLD, fitting))
    ends = [hold * (falling.index(min(size for size in falling if size > place)) + 1) for place in range(batch)]
    for place, (end, begin) in enumerate(zip(ends, computed, strict=True)):
        yield SentSequence(
            place // samples, prompt, min(limits.context_tokens - prompt, end + computed[-1] - begin + 1)
        )


def _batch_with_replacements(limits: Limits, short: int) -> list[SentSequence]:
    """Return a full batch, of which one or several end every `APART` steps, and the prompts that replace them."""
    several = max(1, min(TOGETHER, limits.sequences // 16))
    room = max(1, limits.batched_tokens - limits.sequences)
    ends, prompts = list[int](), list[int]()
    for number, (together, part) in enumerate(product((1, several), PARTS * 2)):
        tokens = max(1, room // part)
        count = max(together, -(-tokens // (limits.context_tokens // 2)))
        if len(ends) + count > limits.sequences:
            break
        ends += [APART * (number + 1)] * count
        prompts += [max(1, tokens // count)] * count
    last = max(ends, default=0) + APART
    full = [(short, end) for end in ends] + [(short, last)] * (limits.sequences - len(ends))
    further = [(prompt, last - end) for prompt, end in zip(prompts, ends, strict=True)]
    return [
        SentSequence(number, prompt, min(tokens, limits.context_tokens - prompt))
        for number, (prompt, tokens) in enumerate(full + further)
    ]
