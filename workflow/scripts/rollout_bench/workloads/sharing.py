"""What prompts have in common at their beginning: the most that a prefix cache can answer for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rollout_bench.workloads.requests import Request


@dataclass(frozen=True)
class Sharing:
    """What a prefix cache that was empty before can hold of some requests, at most.

    Attributes:
        tokens: prompt tokens of all requests together that need not be computed: all, less each distinct beginning
            once. Drawn as a tree with a node for each token, the lengths less the number of nodes.
        with_others: index of a prompt -> how many of its tokens another prompt begins with too.
    """

    tokens: int
    with_others: dict[int, int]


def sharing(requests: Iterable[Request]) -> Sharing:
    """What `requests` share. Sorted prompts that lie side by side share the most: those nodes are counted twice."""
    samples: dict[int, int] = defaultdict(int)
    ids: dict[int, list[int]] = {}
    for request in requests:
        samples[request.prompt] += 1
        ids[request.prompt] = request.prompt_token_ids
    order = sorted(ids, key=lambda prompt: ids[prompt])
    common = {(a, b): _common(ids[a], ids[b]) for a, b in pairwise(order)}
    with_others = dict.fromkeys(ids, 0)
    for pair, tokens in common.items():
        for prompt in pair:
            with_others[prompt] = max(with_others[prompt], tokens)
    among_samples = sum((count - 1) * len(ids[prompt]) for prompt, count in samples.items())
    return Sharing(among_samples + sum(common.values()), with_others)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts begin with together."""
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
                min(len(first), len(second)))  # fmt: skip
