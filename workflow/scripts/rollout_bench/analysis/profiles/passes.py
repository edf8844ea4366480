"""How many steps a pass takes: what the engine's scheduler makes of its sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.profiles.profiled import PHASES
from rollout_bench.records.profile import Phase


@dataclass(frozen=True)
class PassSteps:
    """Steps of a pass by phase, the tokens of one in the mean, and the mean context of a decode step."""

    steps: Mapping[Phase, float]
    tokens: Mapping[Phase, float]
    context_tokens: float | None


def pass_steps(
    prompts: Sequence[int],
    outputs: Sequence[int],
    batched_tokens: int,
    at_once: int,
    cached: Sequence[int] = (),
) -> PassSteps:
    """Steps that a pass takes whose requests are all there at its beginning.

    As vLLM's scheduler does with chunked prefill: sequences that run come first, one token each, or what is left of
    their prompt; what remains of `batched_tokens` goes to waiting ones in order, as long as no more than `at_once` run.
    The step that ends a prompt gives the first token. Preemption, speculation and a KV cache that runs full are left
    out.

    Args:
        prompts: tokens of each sequence's prompt.
        outputs: tokens generated for each, at least 1.
        batched_tokens: most tokens of one step (max_num_batched_tokens).
        at_once: most sequences that run (max_num_seqs, or what the KV cache holds).
        cached: tokens of each prompt that came from the prefix cache; none where empty.
    """
    if not (batched_tokens > 0 and at_once > 0):
        raise ValueError("a step takes at least one token of one sequence")
    known = cached or [0] * len(prompts)
    # [prompt tokens to compute, output tokens to come, context so far]
    waiting = deque(
        [max(1, prompt - hit), output, min(hit, prompt - 1)]
        for prompt, hit, output in zip(prompts, known, outputs, strict=True)
    )
    running: list[list[int]] = []
    tokens: dict[Phase, list[int]] = {phase: [] for phase in PHASES}
    contexts: list[int] = []
    while waiting or running:
        budget, prompted, decoded, context = batched_tokens, 0, 0, 0
        for sequence in running:
            share = min(budget, sequence[0] or 1)
            prompted += share if sequence[0] else 0
            decoded += 0 if sequence[0] else share
            context += sequence[2]
            budget -= share
            _advance(sequence, share)
        while waiting and budget and len(running) < at_once:
            sequence = waiting.popleft()
            share = min(budget, sequence[0])
            prompted, budget = prompted + share, budget - share
            _advance(sequence, share)
            running.append(sequence)
        running = [sequence for sequence in running if sequence[1] > 0]
        phase: Phase = "decode" if not prompted else "mixed" if decoded else "prefill"
        tokens[phase].append(prompted + decoded)
        if phase == "decode":
            contexts.append(context)
    return PassSteps(
        steps={phase: float(len(found)) for phase, found in tokens.items() if found},
        tokens={phase: sum(found) / len(found) for phase, found in tokens.items() if found},
        context_tokens=sum(contexts) / len(contexts) if contexts else None,
    )


def _advance(sequence: list[int], share: int) -> None:
    """Computes `share` tokens of a sequence; the last of its prompt, and each one after it, gives a new token."""
    prompt = sequence[0]
    sequence[0] = max(0, prompt - share)
    sequence[2] += share
    if share and sequence[0] == 0:
        sequence[1] -= 1
