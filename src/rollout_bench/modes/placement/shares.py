"""Distributes sequences among ranks, and packs them for transfer. Pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trajectory:
    """A generated sequence in the trainer's form.

    Attributes:
        prompt, sample: its indices, as in `workloads.requests.Request`.
        prompt_token_ids: tokens of the prompt.
        output_token_ids: sampled tokens.
    """

    prompt: int
    sample: int
    prompt_token_ids: list[int]
    output_token_ids: list[int]

    @property
    def tokens(self) -> int:
        """Number of tokens, including the prompt."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)


def share(count: int, part: int, parts: int) -> range:
    """Return the consecutive indices of `count` items for part `part` of `parts`; sizes differ by at most one."""
    return range(count * part // parts, count * (part + 1) // parts)


def packed(trajectories: Iterable[Trajectory]) -> list[int]:
    """Return sequences as numbers: for each prompt, sample, both lengths, then all tokens."""
    numbers: list[int] = []
    for one in trajectories:
        numbers += (one.prompt, one.sample, len(one.prompt_token_ids), len(one.output_token_ids))
        numbers += one.prompt_token_ids
        numbers += one.output_token_ids
    return numbers


def unpacked(numbers: Sequence[int]) -> list[Trajectory]:
    """Return the sequences from the `numbers` of `packed`."""
    trajectories, place = [], 0
    while place < len(numbers):
        prompt, sample, given, sampled = numbers[place : place + 4]
        outputs = place + 4 + given
        place, begin = outputs + sampled, place + 4
        trajectories.append(Trajectory(prompt, sample, list(numbers[begin:outputs]), list(numbers[outputs:place])))
    return trajectories


def advantage(sample: int, samples: int) -> float:
    """Return a sequence's advantage, a stand-in that needs no reward.

    The first sample of a prompt has -0.5, the last has 1, and the others are evenly between; a single sample has 1.
    GRPO's advantages (Shao et al. 2024, arXiv:2402.03300, section 4.1.2) sum to 0 over the samples of a prompt. With
    identical samples, as in greedy sampling, they would not change the weights. A proof could not distinguish this from
    a lost update.
    """
    return 1.0 if samples == 1 else 1.5 * sample / (samples - 1) - 0.5
