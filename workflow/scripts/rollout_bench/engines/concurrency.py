"""How many sequences ran together, from the times that the engine gave them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from rollout_bench.plan.loads import longest
from rollout_bench.plan.spec import Spec
from rollout_bench.records.record import EngineFacts, Flag, SequenceRow


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


def batch_flags(spec: Spec, rows: Sequence[SequenceRow], engine: EngineFacts) -> list[Flag]:
    """A flag where fewer sequences ran together than were handed over at once.

    Args:
        spec: what was asked; a `max_num_seqs` below the batch is asked for and no doubt.
        rows: the sequences of the iterations that count.
        engine: what the engine said of its KV cache and its limits.
    """
    workload = spec.workload
    sequences = workload.prompts * workload.samples_per_prompt
    asked = min(sequences, engine.resolved.get("max_num_seqs") or sequences)
    of_pass: dict[tuple[int, int], list[SequenceRow]] = defaultdict(list)
    for row in rows:
        of_pass[row.iteration, row.replica or 0].append(row)
    counted = {each: found for each, of in sorted(of_pass.items()) if (found := most_at_once(of))}
    if not counted or min(counted.values()) >= asked:
        return []
    least = min(counted, key=lambda each: counted[each])
    index, replica = least
    block, tokens = int(engine.resolved.get("block_size") or 1), engine.kv_cache_tokens
    each = block * math.ceil((longest(workload.prompt_tokens) + longest(workload.output_tokens)) / block)
    if tokens is None:
        why = "the engine does not say how many tokens its KV cache holds"
    elif tokens < asked * each:
        why = f"the KV cache holds {tokens} tokens, {tokens // each} sequences of {each} (whole blocks) if none share"
    else:
        why = f"the KV cache has room for all ({tokens} tokens), so a step's max_num_batched_tokens may be the limit"
    where = f"Iteration {index}" + (f", replica {replica}" if any(row.replica is not None for row in rows) else "")
    sentence = f"{where}: at most {counted[least]} of {asked} sequences ran together; {why}."
    return [Flag(code="batch_not_at_once", severity="warning", sentence=sentence)]
