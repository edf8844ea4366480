"""How many steps a pass takes: what the engine's scheduler makes of its sequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.profiles.profiled import PHASES, MeasuredPass
from rollout_bench.analysis.service import at_a_rate
from rollout_bench.analysis.statistics import mean
from rollout_bench.records.profile import Phase
from rollout_bench.records.record import Iteration, Record, SequenceRow


@dataclass(frozen=True)
class PassSteps:
    """Steps of a pass by phase, tokens of one in the mean, and the mean context of a decode step with its tokens."""

    steps: Mapping[Phase, float]
    tokens: Mapping[Phase, float]
    context_tokens: float | None


def measured_pass(records: Sequence[Record], sequences: Sequence[SequenceRow] = ()) -> MeasuredPass | None:
    """The mean pass of valid launches of one experiment, its steps by `pass_steps`; None where they can't be told.

    Nobody counts the engine's steps where throughput is measured; they follow from the engine's settings. They do not
    where requests arrive at a rate, nor where several replicas make the pass, nor where the engine's
    `max_num_batched_tokens` is unknown.

    Args:
        records: the launches, offline or online.
        sequences: those of one iteration; without them all count as alike, which makes the decode steps of sequences
            of different lengths too few.
    """
    counted = [record for record in records if record.valid]
    iterations = [iteration for record in counted for iteration in record.iterations if not iteration.warmup]
    if not iterations:
        return None
    first, engine = iterations[0], counted[0].engine
    batched_tokens = engine.resolved.get("max_num_batched_tokens")
    if at_a_rate(first.point) or first.replicas or not isinstance(batched_tokens, int) or not first.sequences:
        return None
    rows = sequences or [_mean_sequence(first)] * first.sequences
    limits = [first.sequences, engine.resolved.get("max_num_seqs"), first.point and first.point.concurrency]
    if engine.kv_cache_tokens is not None:
        limits.append(engine.kv_cache_tokens // max(row.prompt_tokens + row.output_tokens for row in rows))
    found = pass_steps(
        [row.prompt_tokens for row in rows],
        [max(1, row.output_tokens) for row in rows],
        batched_tokens,
        max(1, min(limit for limit in limits if isinstance(limit, int))),
        [row.cached_prompt_tokens or 0 for row in rows],
    )
    return MeasuredPass(
        mode="offline" if first.point is None else "online",
        elapsed_s=mean([iteration.elapsed_s for iteration in iterations]),
        steps=found.steps,
        tokens=found.tokens,
        context_tokens=found.context_tokens,
    )


def _mean_sequence(iteration: Iteration) -> SequenceRow:
    amount = iteration.sequences
    return SequenceRow(
        iteration=iteration.index,
        prompt=0,
        sample=0,
        prompt_tokens=round(iteration.prompt_tokens / amount),
        cached_prompt_tokens=round((iteration.cached_prompt_tokens or 0) / amount),
        output_tokens=round(iteration.output_tokens / amount),
        finish_reason=None,
    )


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
            context += sequence[2] + share
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
