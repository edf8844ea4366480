"""How many sequences ran together, from the times that the engine gave them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rollout_bench.plan.spec import Spec
from rollout_bench.records.record import Flag, SequenceRow


def most_at_once(rows: Iterable[SequenceRow]) -> int | None:
    """The largest number of sequences that were running at one moment; None where a row has no times.

    A sequence runs from when it is first scheduled until its last token. One that was preempted counts as running
    (the flag `preemptions` tells of it); one that ends at the very moment another begins does not meet it.
    """
    changes = []
    for row in rows:
        if row.scheduled_s is None or row.last_token_s is None:
            return None
        changes += [(row.scheduled_s, 1), (max(row.scheduled_s, row.last_token_s), -1)]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def batch_flags(spec: Spec, rows: Sequence[SequenceRow], max_num_seqs: int | None, tokens: int | None) -> list[Flag]:
    """A flag where fewer sequences ran together than were handed over at once.

    Args:
        spec: what was asked; a `max_num_seqs` below the batch is asked for and no doubt.
        rows: the sequences of all iterations.
        max_num_seqs: as the engine resolved it.
        tokens: tokens that fit into the KV cache.
    """
    workload = spec.workload
    sequences = workload.prompts * workload.samples_per_prompt
    asked = min(sequences, max_num_seqs or sequences)
    counted: dict[int, int] = {}
    for index in range(spec.measuring.warmup_iterations, spec.measuring.warmup_iterations + spec.measuring.iterations):
        found = most_at_once([row for row in rows if row.iteration == index])
        if found:
            counted[index] = found
    if not counted or min(counted.values()) >= asked:
        return []
    index = min(counted, key=lambda index: counted[index])
    each = workload.prompt_tokens + workload.output_tokens
    if tokens is None:
        why = "the engine does not say how many tokens its KV cache holds"
    elif tokens < asked * each:
        why = f"the KV cache holds {tokens} tokens, {tokens // each} sequences of {each} that share nothing"
    else:
        why = "the KV cache holds them all; the first had ended before the last were begun (max_num_batched_tokens)"
    sentence = f"Iteration {index}: at most {counted[index]} of {asked} sequences ran together; {why}."
    return [Flag(code="batch_not_at_once", severity="warning", sentence=sentence)]
