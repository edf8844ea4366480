"""Records of drift launches for tests: probabilities whose distance from the reference's is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from synthetic_records import make_record, make_spec

from rollout_bench.contracts.inside import Drift, ScoredRow
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, scores_path, write_scores

SEQUENCES, TOKENS = 16, 12


def drift_spec(quant: str = "bf16", *, batches: tuple[int, ...] = (1, 8), workload: str = "policy") -> Spec:
    """Return a spec of the reference, which is bf16, or of what scores its tokens."""
    content = make_spec("qwen3-90m", quant, workload).model_dump()
    settings = {"prompts": SEQUENCES, "tokens": TOKENS, "batch_sizes": batches}
    if quant != "bf16":
        settings["reference"] = drift_spec(batches=batches, workload=workload).experiment()
    return Spec.model_validate(content | {"mode": "drift", "drift": settings})


def drift_rows(spec: Spec, launch: int, noise: float, seed: int = 0) -> list[ScoredRow]:
    """Return what a launch gives the tokens: what the reference does, and normal noise of that standard deviation.

    With the smallest batch of the reference's first launch there is none.
    """
    assert spec.drift is not None
    truth = np.random.default_rng(1).normal(-2.0, 1.0, (SEQUENCES, TOKENS))
    reference = spec.drift.reference is None
    drawn = np.random.default_rng([seed, launch, len(spec.quant.name)])
    rows = []
    for batch in (None, *spec.drift.batch_sizes) if reference and launch == 0 else spec.drift.batch_sizes:
        plain = reference and launch == 0 and batch == spec.drift.batch_sizes[0]
        values = truth + (0.0 if plain else noise) * drawn.normal(size=truth.shape)
        for number, line in enumerate(values):
            row = ScoredRow(batch=batch, sequence=number, logprobs=line.tolist(), first=[7] * TOKENS)
            if batch is None:
                row = row.model_copy(update={"prompt_token_ids": [1, 2, number], "token_ids": [7] * TOKENS})
            rows.append(row)
    return rows


def drift_record(spec: Spec, launch: int, rows: Sequence[ScoredRow], flags: Sequence[Flag] = ()) -> Drift:
    """Return the record of a launch with those rows."""
    common = make_record(spec, launch).model_dump(exclude={"iterations", "sequences_file", "validity"})
    more = {
        "validity": [flag.model_dump() for flag in flags],
        "tokens_sha256": "a" * 64,
        "scored_tokens": sum(len(row.logprobs) for row in rows if row.batch == 1) or SEQUENCES * TOKENS,
        "scores_file": f"launch-{launch}.scores.jsonl.gz",
        "scores": len(rows),
        "side_files_sha256": {},
    }
    return Drift.model_validate(common | more)


def save_drift(
    results: Path, spec: Spec, launch: int, noise: float, *, seed: int = 0, flags: Sequence[Flag] = ()
) -> Path:
    """Write a launch with its side file; return where the record lies."""
    return save_rows(results, spec, launch, drift_rows(spec, launch, noise, seed), flags=flags)


def save_rows(
    results: Path, spec: Spec, launch: int, rows: Sequence[ScoredRow], flags: Sequence[Flag] = (), **more: str
) -> Path:
    """Write a launch with those rows, and `more` in its record; return where the record lies."""
    path = record_path(results, spec.mode, spec.experiment(), launch)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scores(path, drift_record(spec, launch, rows, flags).model_copy(update=more), rows)
    assert scores_path(path).exists()
    return path
