"""The requests of several launches pooled, and as how many independent ones they count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollout_bench.analysis.percentiles import Array, effective_samples
from rollout_bench.analysis.requests import LATENCIES, Indices, Requests


def pool_requests(launches: Sequence[Requests], lengths: bool = False) -> tuple[dict[str, Array], dict[str, int]]:
    """Values [n] of each measure that the requests of `launches` have, and as how many independent ones they count.

    `lengths`: output tokens are among them.
    """
    if not launches:
        return {}, {}
    values = {measure: np.concatenate([launch.known(measure) for launch in launches]) for measure in LATENCIES}
    clusters = {measure: [_clusters(launch, measure) for launch in launches] for measure in LATENCIES}
    if lengths:
        values["output_tokens"] = np.concatenate([launch.output_tokens[~launch.failed] for launch in launches]) * 1.0
        clusters["output_tokens"] = [[launch.iteration[~launch.failed]] for launch in launches]
    there = {measure: found for measure, found in values.items() if found.size}
    return there, {measure: _independent(found, clusters[measure]) for measure, found in there.items()}


def _clusters(launch: Requests, measure: str) -> list[Indices]:
    """Labels [n] of what makes the values of `measure` in one launch resemble each other, a labelling for each."""
    if measure != "itl_s":
        return [launch.iteration[np.isfinite(getattr(launch, measure))]]
    iteration = launch.iteration[launch.gap_of]
    # Tokens that came within a median gap of each other are of one step of the engine, or of two: all that are in the
    # batch wait for the same step, however many they are.
    width_s = float(np.median(launch.gaps_s)) if launch.gaps_s.size else 0.0
    steps = np.floor(launch.gap_end_s / width_s).astype(np.int64) if width_s > 0 else iteration
    steps = np.where(np.isfinite(launch.gap_end_s), steps, 0)
    return [iteration, launch.gap_of, iteration * (int(steps.max(initial=0)) + 1) + steps]


def _independent(values: Array, launches: Sequence[Sequence[Indices]]) -> int:
    """As how many independent values they count, at most: by launch, and by each labelling inside launches."""
    sizes = [labels[0].size for labels in launches]
    of_launch = np.repeat(np.arange(len(sizes)), sizes)
    found = [effective_samples(values, of_launch)]
    for labelling in zip(*launches, strict=True):
        most = max(int(labels.max(initial=0)) for labels in labelling) + 1
        found.append(effective_samples(values, of_launch * most + np.concatenate(labelling)))
    return max(1, int(min(found)))
