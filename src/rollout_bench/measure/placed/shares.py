"""Who gets what of a step, and how sequences and weights are packed to travel. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

BUCKET_BYTES = 2_048_000_000
"""Weights that travel at once, as verl's bucket has it."""


@dataclass(frozen=True)
class Trajectory:
    """A generated sequence, as a trainer needs it.

    Attributes:
        prompt, sample: which one it is, as `workloads.requests.Request` has them.
        prompt_token_ids: tokens that were given.
        output_token_ids: tokens that were sampled.
    """

    prompt: int
    sample: int
    prompt_token_ids: list[int]
    output_token_ids: list[int]

    @property
    def tokens(self) -> int:
        """Tokens, those of the prompt included."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)


@dataclass(frozen=True)
class Taken:
    """What came with an update.

    Attributes:
        received: name and checksum of each tensor, in their order.
        noted_before_s: what noting weights had taken in the worker's process, in seconds, as each of them came.
        noted_s: the same, in the end.
    """

    received: list[tuple[str, str]] = field(default_factory=list)
    noted_before_s: list[float] = field(default_factory=list)
    noted_s: float = 0.0


def share(count: int, part: int, parts: int) -> range:
    """Return which of `count` things part `part` of `parts` gets: neighbours, and at most one more than any other."""
    return range(count * part // parts, count * (part + 1) // parts)


def packed(trajectories: Iterable[Trajectory]) -> list[int]:
    """Return sequences as numbers: prompt, sample, both lengths, then all tokens of each."""
    numbers: list[int] = []
    for one in trajectories:
        numbers += (one.prompt, one.sample, len(one.prompt_token_ids), len(one.output_token_ids))
        numbers += one.prompt_token_ids
        numbers += one.output_token_ids
    return numbers


def unpacked(numbers: Sequence[int]) -> list[Trajectory]:
    """Return the sequences that `packed` made `numbers` of."""
    found, place = [], 0
    while place < len(numbers):
        prompt, sample, given, sampled = numbers[place : place + 4]
        outputs = place + 4 + given
        place, begin = outputs + sampled, place + 4
        found.append(Trajectory(prompt, sample, list(numbers[begin:outputs]), list(numbers[outputs:place])))
    return found


def in_order(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Return sequences by prompt and sample, so that all ranks have them in one order, whoever generated them."""
    return sorted(trajectories, key=lambda one: (one.prompt, one.sample))


def advantage(sample: int, samples: int) -> float:
    """Return a sequence's advantage: a stand-in that needs no reward.

    -0.5 for the first sample of a prompt, 1 for the last, and evenly between; 1 where there is one. Those of GRPO (Shao
    et al. 2024, arXiv:2402.03300, section 4.1.2) sum up to 0 over the samples of a prompt: where these are alike, as
    greedy ones are, nothing would be trained, and no proof could tell that from an update that was lost.
    """
    return 1.0 if samples == 1 else 1.5 * sample / (samples - 1) - 0.5


def buckets(sizes: Sequence[tuple[str, int]], most_bytes: int) -> list[range]:
    """Return which tensors travel together.

    Args:
        sizes: data type and bytes of each tensor.
        most_bytes: bytes of a bucket. A larger tensor is a bucket of its own; none has two data types.
    """
    found, first, held = [], 0, 0
    for number, (dtype, size) in enumerate(sizes):
        if number > first and (held + size > most_bytes or dtype != sizes[first][0]):
            found.append(range(first, number))
            first, held = number, 0
        held += size
    return [*found, range(first, len(sizes))] if sizes else []
