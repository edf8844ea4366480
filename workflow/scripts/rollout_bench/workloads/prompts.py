"""Prompts as token ids: seeded, distinct, different in every iteration and the same for every quantization."""

from __future__ import annotations

import hashlib
from array import array

from rollout_bench.errors import UserError
from rollout_bench.plan.spec import WorkloadSpec

MARGIN = 32
"""One part in this many is left out at either end of the vocabulary, where special tokens and padding lie."""


def token_range(vocabulary: int) -> range:
    """The token ids that prompts are made of, for a vocabulary of so many ids."""
    margin = vocabulary // MARGIN
    return range(margin, vocabulary - margin)


def prompts(workload: WorkloadSpec, vocabulary: int, launch: int, iteration: int) -> list[list[int]]:
    """The prompts of one iteration.

    Args:
        workload: how many prompts, how long, and the seed.
        vocabulary: size of the model's vocabulary.
        launch: index of the launch.
        iteration: index of the iteration, warm-up included.

    Returns:
        `workload.prompts` lists of `workload.prompt_tokens` ids. They depend on the arguments alone, not on
        the Python that runs them: every draw is 64 bits of SHAKE-256 over seed, launch, iteration and prompt.

    Raises:
        UserError: the vocabulary is too small for so many distinct prompts.
    """
    ids = token_range(vocabulary)
    length = workload.prompt_tokens
    if len(ids) ** min(length, 64) < 2 * workload.prompts:
        raise UserError(
            f"workload {workload.name}: {workload.prompts} distinct prompts of {length} tokens are not possible "
            f"with a vocabulary of {vocabulary}",
            "ask for fewer or longer prompts",
        )
    found: list[list[int]] = []
    seen: set[bytes] = set()
    draw = 0
    while len(found) < workload.prompts:
        label = f"{workload.seed}/{launch}/{iteration}/{draw}"
        numbers = array("Q", hashlib.shake_256(label.encode()).digest(8 * length))
        draw += 1
        prompt = [ids[number % len(ids)] for number in numbers]
        identity = array("Q", prompt).tobytes()
        if identity not in seen:
            seen.add(identity)
            found.append(prompt)
    return found
