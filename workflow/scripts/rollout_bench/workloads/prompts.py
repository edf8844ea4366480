"""Prompts as token ids: seeded, distinct, different in every iteration and the same for every quantization."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Sequence

from rollout_bench.errors import UserError
from rollout_bench.plan.spec import WorkloadSpec
from rollout_bench.workloads.lengths import drawn
from rollout_bench.workloads.numbers import integers
from rollout_bench.workloads.parts import WHOLE, Part

MARGIN = 32
"""One part in this many is left out at either end of the vocabulary, where special tokens and padding lie."""


def token_range(vocabulary: int) -> range:
    """The token ids that prompts are made of, for a vocabulary of so many ids."""
    margin = vocabulary // MARGIN
    return range(margin, vocabulary - margin)


def prompts(
    workload: WorkloadSpec,
    vocabulary: int,
    launch: int,
    iteration: int,
    lengths: Sequence[int] | None = None,
    part: Part = WHOLE,
) -> list[list[int]]:
    """The prompts of one iteration.

    Args:
        workload: how many prompts, how long, what they share, and the seed.
        vocabulary: size of the model's vocabulary.
        launch: index of the launch.
        iteration: index of the iteration, warm-up included.
        lengths: tokens of each prompt, where they are not the workload's to draw.
        part: which replica they are of.

    Returns:
        `workload.prompts` lists of ids, no two alike, each with its shared prefix in front, which counts towards its
        length. They depend on the arguments alone, not on the Python that runs them: every draw is 64 bits of
        SHAKE-256 over seed, launch, iteration, replica and prompt.

    Raises:
        UserError: the vocabulary is too small for so many distinct prompts.
    """
    label = part.label(workload, launch, iteration)
    if lengths is None:
        lengths = drawn(workload.prompt_tokens, f"{label}/prompt_tokens", workload.prompts)
    beginnings = prefixes(workload, vocabulary, launch, iteration, part)
    own = [length - len(beginnings[0]) for length in lengths]
    for (_, length), count in Counter((i % len(beginnings), length) for i, length in enumerate(own)).items():
        _check_room(workload, "prompts", vocabulary, count, length)
    draws = (f"{label}/{draw}" for draw in itertools.count())
    found: list[list[int]] = []
    seen: set[bytes] = set()
    while len(found) < len(own):
        number = len(found)
        prompt = beginnings[number % len(beginnings)] + _ids(vocabulary, next(draws), own[number])
        identity = array("Q", prompt).tobytes()
        if identity not in seen:
            seen.add(identity)
            found.append(prompt)
    return found


def prefixes(
    workload: WorkloadSpec, vocabulary: int, launch: int, iteration: int, part: Part = WHOLE
) -> list[list[int]]:
    """What the prompts of one iteration begin with, by their index modulo the number of these.

    Returns:
        As many different lists of ids as `shared_prefix` has groups, each of its length; one empty one where there is
        none.

    Raises:
        UserError: the vocabulary is too small for so many distinct ones.
    """
    shared = workload.shared_prefix
    if shared is None:
        return [[]]
    _check_room(workload, "shared prefixes", vocabulary, shared.groups, shared.tokens)
    draws = (f"{part.label(workload, launch, iteration)}/prefix/{draw}" for draw in itertools.count())
    found: dict[tuple[int, ...], None] = {}
    while len(found) < shared.groups:
        found[tuple(_ids(vocabulary, next(draws), shared.tokens))] = None
    return [list(prefix) for prefix in found]


def shifted(token_ids: list[int], vocabulary: int, by: int) -> list[int]:
    """The prompt with every drawn id moved on by `by`, round the range that prompts are made of.

    What prompts share they go on sharing; but no cache that has seen them before moving has any of them now.
    """
    ids = token_range(vocabulary)
    return [ids[(number - ids[0] + by) % len(ids)] if number in ids else number for number in token_ids]


def _ids(vocabulary: int, label: str, length: int) -> list[int]:
    ids = token_range(vocabulary)
    return [ids[number % len(ids)] for number in integers(label, length)]


def _check_room(workload: WorkloadSpec, what: str, vocabulary: int, count: int, length: int) -> None:
    if len(token_range(vocabulary)) ** min(length, 64) < 2 * count:
        raise UserError(
            f"workload {workload.name}: {count} distinct {what} of {length} tokens are not possible "
            f"with a vocabulary of {vocabulary}",
            "ask for fewer or longer ones",
        )
