"""Balance of replicas within their steps. Warm-up is left out."""

from math import nan

import pandas as pd

from rollout_bench.analysis.timed.rows import Row

OF_LOAD = ("prompts", "cached_prompt_tokens", "prompt_tokens", "preemptions", "peak_running")
"""Amounts of a replica that are told only if the replicas share one load."""


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
    parts = pd.DataFrame(
        {
            **{name: getattr(part, name) for name in ("elapsed_s", "output_tokens", *OF_LOAD)},
            "replica": number,
            "step_s": step.elapsed_s,
            "slowest": part is max(step.replicas, key=lambda other: other.end_s),
        }
        for record in row.experiment.records
        if record.valid
        for step in record.iterations
        if step.replicas and len(step.replicas) > 1 and not step.warmup
        for number, part in enumerate(step.replicas)
    )
    if parts.empty:
        return []
    if parts["prompts"].isna().any():
        parts[list(OF_LOAD)] = nan
    of_each = parts.astype(float).groupby("replica")
    means, sums = of_each.mean(skipna=False), of_each.sum(skipna=False)
    frame = pd.DataFrame(
        {
            "elapsed_s": means["elapsed_s"],
            "output_tokens": means["output_tokens"],
            "output_tokens_per_s": sums["output_tokens"] / sums["elapsed_s"],
            "idle_share": 1 - sums["elapsed_s"] / sums["step_s"],
            "slowest_share": means["slowest"],
            "prompts": means["prompts"],
            "cached_share": sums["cached_prompt_tokens"] / sums["prompt_tokens"],
            "preemptions": means["preemptions"],
            "peak_running": of_each["peak_running"].max(),
        }
    )
    return [{str(name): value for name, value in each.dropna().items()} for _, each in frame.iterrows()]
