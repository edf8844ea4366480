"""Balance of replicas within their steps. Warm-up is left out."""

from collections.abc import Sequence

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Iteration, ReplicaPass

Step = tuple[Iteration, list[ReplicaPass]]
"""A measured iteration and its replicas, in the order of their numbers."""


def replicas_of(row: Row) -> list[dict[str, float]]:
    """Return the numbers of each replica of `row`, over all iterations of its valid launches; none for a single engine.

    - elapsed_s: time of the replica in an iteration.
    - output_tokens: tokens that it generated in an iteration.
    - output_tokens_per_s: these tokens per second of this time.
    - idle_share: share of the steps' time in which its devices waited for the slowest replica or for the release.
    - slowest_share: share of iterations in which it was the slowest.

    If replicas share one load, also prompts and preemptions in an iteration, the share of its prompt tokens that came
    from its prefix cache (cached_share), and the most sequences that it ran at once (peak_running), as far as known.
    """
    steps: list[Step] = [
        (iteration, iteration.replicas)
        for record in row.experiment.records
        if record.valid
        for iteration in record.iterations
        if iteration.replicas and len(iteration.replicas) > 1 and not iteration.warmup
    ]
    return [_of_replica(steps, number) for number in range(len(steps[0][1]))] if steps else []


def _of_replica(steps: Sequence[Step], number: int) -> dict[str, float]:
    parts = [replicas[number] for _, replicas in steps]
    elapsed_s, tokens = sum(part.elapsed_s for part in parts), sum(part.output_tokens for part in parts)
    return {
        "elapsed_s": elapsed_s / len(parts),
        "output_tokens": tokens / len(parts),
        "output_tokens_per_s": tokens / elapsed_s,
        "idle_share": 1 - elapsed_s / sum(step.elapsed_s for step, _ in steps),
        "slowest_share": mean(
            [max(replicas, key=lambda part: part.end_s) is replicas[number] for _, replicas in steps]
        ),
        **(_of_load(parts) if all(part.prompts is not None for part in parts) else {}),
    }


def _of_load(parts: Sequence[ReplicaPass]) -> dict[str, float]:
    cached = [part.cached_prompt_tokens for part in parts]
    tokens = sum(part.prompt_tokens for part in parts)
    found = {
        "prompts": _mean([part.prompts for part in parts]),
        "cached_share": sum(c or 0 for c in cached) / tokens if tokens and None not in cached else None,
        "preemptions": _mean([part.preemptions for part in parts]),
        "peak_running": max((part.peak_running for part in parts if part.peak_running is not None), default=None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None
