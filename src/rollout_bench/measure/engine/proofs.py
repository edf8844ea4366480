"""Proofs of an engine's weights, for modes that update them."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any, Protocol

from rollout_bench.contracts.weights import WeightProof, Weights

PROMPTS, PROMPT_TOKENS, TOKENS, SEED = 2, 16, 8, 20260101
"""The greedy probe: number of prompts, random ids in each, tokens generated for each, seed of the ids."""


class ProvenEngine(Protocol):
    """An engine: `llm` calls methods of its workers, a prompt has ids below `vocabulary`."""

    llm: Any
    vocabulary: int
    context_tokens: int
    block_tokens: int | None

    def greedy(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """Return the most likely tokens after each prompt."""

    def cached_tokens(self, prompt: list[int]) -> int:
        """Generate a token after a prompt; return the prompt tokens that came from the prefix cache."""


class Proofs:
    """Proves which weights an engine holds, and records the tokens that it generates with them.

    Args:
        engine: the engine.
        norms: whether an update must also change the weights of norms.
        adapter: whether an update changes an adapter, and none of the model's weights.
    """

    def __init__(self, engine: ProvenEngine, norms: bool, *, adapter: bool = False) -> None:
        self._engine, self._must_change = engine, {"norms": norms, "adapter": adapter}
        self._before: dict[str, str] | None = None
        length = min(PROMPT_TOKENS, engine.context_tokens - TOKENS)
        draw = random.Random(SEED)
        self._prompts = [[draw.randrange(engine.vocabulary) for _ in range(max(1, length))] for _ in range(PROMPTS)]
        self._kept: list[int] | None = None

    def note(self, *, on: bool) -> None:
        """Take checksums of packed weights while they are loaded, or stop it."""
        self._engine.llm.collective_rpc("rollout_bench_noting", kwargs={"on": on})

    def fill_prefix_cache(self) -> None:
        """Let the prefix cache hold a prompt, which `take` asks for again: an update comes in between."""
        engine = self._engine
        # with a draft model, vLLM does not use the last block that it finds
        length = min(2 * (engine.block_tokens or engine.context_tokens) + 1, engine.context_tokens - 1)
        draw = random.Random(SEED)
        prompt = [draw.randrange(engine.vocabulary) for _ in range(max(1, length))]
        engine.cached_tokens(prompt)
        self._kept = prompt if engine.cached_tokens(prompt) else None

    def take(self, weights: Weights) -> WeightProof:
        """Return the proof of the engine's current state; `weights` are its expected weights."""
        stale = None if self._kept is None else self._engine.cached_tokens(self._kept)  # before anything clears it
        self._kept = None
        ranks = self._engine.llm.collective_rpc("rollout_bench_proofs", kwargs=self._must_change)
        proofs = {f"{rank}/{name}": proof for rank, of_rank in enumerate(ranks) for name, proof in of_rank.items()}
        now = {name: checksum for name, (checksum, _, _) in proofs.items()}
        trained = {name for name, (_, _, must_change) in proofs.items() if must_change}
        before, self._before = self._before or now, now
        # an unknown tensor is no proof of a change
        changed = {name for name, checksum in now.items() if checksum and before.get(name) != checksum}
        everything = "\n".join(f"{name} {checksum}" for name, checksum in sorted(now.items()))
        return WeightProof(
            weights=weights,
            tensors=len(now),
            trained=len(trained),
            changed_trained=len(changed & trained),
            not_finite=sum(not finite for _, finite, _ in proofs.values()),
            checksum=_digest(everything),
            tokens=_digest(repr(self._engine.greedy(self._prompts, TOKENS))),
            stale_prefix_tokens=stale,
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
