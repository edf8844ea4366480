"""Reads the side files of an experiment's launches and pools what they tell of single sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollout_bench.analysis.experiments import Collection, Experiment
from rollout_bench.analysis.percentiles import effective_samples
from rollout_bench.analysis.pooled_requests import pool_requests
from rollout_bench.analysis.validity import no_valid_launch
from rollout_bench.errors import UserError
from rollout_bench.records.record import Record, SequenceRow
from rollout_bench.records.side_files import read_sequences
from rollout_bench.records.store import record_path, sequences_path

Array = NDArray[np.float64]

MEASURES = ("e2el_s", "ttft_s", "output_tokens")
"""What is pooled: seconds from the beginning of the iteration until a sequence was complete, seconds until its first
token, and its length in tokens, which is of interest only where the model may end it."""


@dataclass(frozen=True)
class PooledSequences:
    """The counted sequences of all valid launches of one experiment.

    `values` has an array [n] by measure, without those that the engine did not give; `independent` as how many
    independent values they count, since sequences of a batch share its steps, and iterations their launch. `reasons`
    say why a measure or the sequences of a launch are not among them. `launches` has the values [n] of each launch and
    as how many independent ones they count in it, for requests to a server.
    """

    values: Mapping[str, Array]
    independent: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    launches: Mapping[str, Sequence[tuple[Array, int]]] = field(default_factory=dict)


def pool_sequences(results: Path, collection: Collection) -> list[PooledSequences]:
    """The sequences of each experiment of `collection`, which was read from `results`, in its order."""
    return [_of_requests(e) if e.mode == "online" else _pooled(results, e) for e in collection.experiments]


def _of_requests(experiment: Experiment) -> PooledSequences:
    """Those of an online experiment, whose side files were read with its records."""
    if not any(record.valid for record in experiment.records):
        return _without(experiment)
    valid = [r.launch for r in experiment.records if r.valid and r.launch in experiment.requests]
    requests = [experiment.requests[launch] for launch in valid]
    lengths = not experiment.records[0].spec.workload.ignore_eos  # else they are what was asked for
    values, independent = pool_requests(requests, lengths)
    launches = {
        measure: tuple(
            (v[measure], n[measure]) for each in requests for v, n in [pool_requests([each])] if measure in v
        )
        for measure in values
    }
    reasons = list(experiment.unread)
    load = experiment.records[0].spec.load
    if load is not None and not load.stream:
        reasons.append("TTFT, TPOT and ITL are not known, since answers were not streamed")
    return PooledSequences(values, independent, tuple(reasons), launches)


def _without(experiment: Experiment) -> PooledSequences:
    """Those of an experiment without a valid launch: none, and why, where it was measured."""
    reason = no_valid_launch(experiment.records)
    return PooledSequences({}, {}, (reason,) if reason else ())


def _pooled(results: Path, experiment: Experiment) -> PooledSequences:
    valid = [record for record in experiment.records if record.valid]
    if not valid:
        return _without(experiment)
    reasons = []
    launches: list[Mapping[str, Array]] = []
    batches: list[tuple[int, int]] = []
    for record in valid:
        path = sequences_path(record_path(results, experiment.mode, experiment.experiment, record.launch))
        try:
            rows = _counted(record, read_sequences(path, record))
        except UserError as error:  # the record is whole without it, so the summary is still worth having
            reasons.append(f"launch {record.launch} is not among them, {error.problem}")
            continue
        launches.append(_columns(rows))
        batches += [(record.launch, row.iteration) for row in rows]
    if not launches:
        return PooledSequences({}, {}, tuple(reasons))
    pooled = {measure: np.concatenate([launch[measure] for launch in launches]) for measure in MEASURES}
    if np.isnan(pooled["e2el_s"]).any() or np.isnan(pooled["ttft_s"]).any():
        per_prompt = experiment.records[0].spec.workload.requests == "per_prompt"
        why = "requests: per_prompt keeps none" if per_prompt else "the engine did not give all"
        reasons.append(f"no times of single sequences, {why}")
    if experiment.records[0].spec.workload.ignore_eos:
        del pooled["output_tokens"]  # all of one length, the one that was asked for
    complete = {measure: values for measure, values in pooled.items() if not np.isnan(values).any()}
    return PooledSequences(complete, {m: _independent(v, batches) for m, v in complete.items()}, tuple(reasons))


def _counted(record: Record, rows: Sequence[SequenceRow]) -> list[SequenceRow]:
    counted = {iteration.index for iteration in record.iterations if not iteration.warmup}
    return [row for row in rows if row.iteration in counted]


def _columns(rows: Sequence[SequenceRow]) -> dict[str, Array]:
    return {
        "e2el_s": np.array([row.last_token_s for row in rows], dtype=float),
        "ttft_s": np.array([row.first_token_s for row in rows], dtype=float),
        "output_tokens": np.array([row.output_tokens for row in rows], dtype=float),
    }


def _independent(values: Array, batches: Sequence[tuple[int, int]]) -> int:
    """As how many independent values sequences of these launches and iterations count, at most."""
    launches, iterations = (np.array(labels) for labels in zip(*batches, strict=True))
    of_iterations = effective_samples(values, launches * (iterations.max() + 1) + iterations)
    return max(1, int(min(of_iterations, effective_samples(values, launches))))
