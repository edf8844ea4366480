"""The passes of a calibration: which sequences an engine gets, so that its steps have all kinds of work.

Decode steps of every batch size come from a pass whose sequences end one after the other. A few passes with longer
prompts repeat that with as long contexts as fit into the KV cache. Prompts that arrive beside sequences that decode,
alone or several at once, give mixed steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

SHORT = 16
"""Tokens of a short prompt."""

HOLD = 8
"""Decode steps at a batch size."""

FULL = 0.9
"""Share of the KV cache that a pass may fill."""

APART = 4
"""Decode steps between prompts that arrive beside sequences that decode."""

CHUNKS = 32
"""Prefill steps of a pass with long prompts, at most."""

PARTS = (8, 4, 2, 1)
"""Prompts that arrive together have max_num_batched_tokens / these tokens."""

TOGETHER = (1, 16)
"""Numbers of prompts that arrive together."""

BESIDE = (2, 8, 32)
"""Prompts arrive beside max_num_seqs / these sequences."""


@dataclass(frozen=True)
class Limits:
    """Bounds of an engine's steps: sequences, tokens of a step, tokens of a sequence, tokens of the KV cache."""

    sequences: int
    batched_tokens: int
    context_tokens: int
    kv_tokens: int


@dataclass(frozen=True)
class Sent:
    """A sequence that an engine gets.

    Attributes:
        prompt_tokens: length of its prompt, which no other sequence shares.
        output_tokens: tokens to generate.
        after: it is sent after this number of steps of the pass, or when the engine has no other work.
    """

    prompt_tokens: int
    output_tokens: int
    after: int = 0


def passes(limits: Limits) -> Iterator[list[Sent]]:
    """Yield the passes of a round."""
    short = min(SHORT, limits.context_tokens // 2)
    longest = limits.context_tokens
    yield list(_falling(limits, limits.sequences, short))
    for batch in dict.fromkeys(max(1, limits.sequences // divisor) for divisor in (1, 4, 16)):
        steps = HOLD * len(sizes(batch)) + CHUNKS
        room = min(FULL * limits.kv_tokens - batch * steps, CHUNKS * limits.batched_tokens)
        prompt = min(longest - steps, int(room / batch))
        if prompt > 2 * short:
            yield list(_falling(limits, batch, prompt))
    arriving = list(_arriving(limits))
    steps = min(arriving[-1].after + APART, longest - short)
    besides = (min(limits.sequences // divisor, limits.batched_tokens // 2) for divisor in BESIDE)
    for beside in dict.fromkeys(each for each in besides if each):
        yield [Sent(short, steps)] * beside + arriving


def sizes(most: int) -> list[int]:
    """Return batch sizes up to `most`, the largest first: powers of two, one size between each, and `most`."""
    powers = [1 << exponent for exponent in range(most.bit_length())]
    between = [3 * power // 2 for power in powers[1:]]
    return sorted({size for size in (*powers, *between, most) if size <= most}, reverse=True)


def _falling(limits: Limits, batch: int, prompt: int) -> Iterator[Sent]:
    """Yield sequences that end one after the other, so that each batch size decodes for `HOLD` steps.

    The first sent end last. They also decode while the prompts of the others are computed, and have more tokens for it.
    """
    falling = sizes(batch)
    ends = [HOLD * falling.index(min(size for size in falling if size > place)) + HOLD for place in range(batch)]
    computed = [(place + 1) * prompt // limits.batched_tokens for place in range(batch)]
    for end, begin in zip(ends, computed, strict=True):
        yield Sent(prompt, min(limits.context_tokens - prompt, end + computed[-1] - begin + 1))


def _arriving(limits: Limits) -> Iterator[Sent]:
    """Yield prompts of several sizes, `APART` steps after each other; each asks for one token."""
    after = APART
    for part in PARTS:
        tokens = max(1, limits.batched_tokens // part)
        for together in TOGETHER:
            fewest = -(-tokens // (limits.context_tokens - 1))
            count = min(max(together, fewest), max(1, limits.sequences // 2), tokens)
            for _ in range(count):
                yield Sent(min(max(1, tokens // count), limits.context_tokens - 1), 1, after)
            after += APART
