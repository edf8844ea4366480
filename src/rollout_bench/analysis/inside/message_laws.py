"""The law of a link's bytes in a step: so many in any step, for each sequence, and for each new prompt token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rollout_bench.analysis.inside.message_links import LINKS, MessagesRun, of_link, sent_bytes
from rollout_bench.contracts.messages import Link


@dataclass(frozen=True)
class StepBytes:
    """The bytes that a link carried in one step of a pass for contents."""

    batch: int
    index: int
    sequences: int
    new_prompt_tokens: int
    size_bytes: int


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a law with its interval, in bytes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """bytes = fixed + per_sequence x sequences + per_prompt_token x new prompt tokens.

    `rms_bytes` is the root mean square of what steps deviate by, `worst_bytes` the largest deviation (measured less
    fitted), of step `worst`.
    """

    fixed: Coefficient
    per_sequence: Coefficient
    per_prompt_token: Coefficient
    steps: int
    rms_bytes: float
    worst_bytes: float
    worst: StepBytes


def link_laws(run: MessagesRun, confidence: float) -> Iterator[tuple[Link, Law]]:
    """Yield the law of each link over all steps, batches and launches; nothing where one batch cannot tell."""
    for link in LINKS:
        law = fit_law(list(_points(run, link)), confidence)
        if law is not None:
            yield link, law


def fit_law(points: Sequence[StepBytes], confidence: float) -> Law | None:
    """Fit a law to `points` by least squares; None where they do not settle three coefficients.

    Intervals are Student's for a linear regression, each taken alone: they tell how far the coefficients could be off
    if steps deviated from the law by chance, independently and alike. Launches send the same bytes, so an interval
    says nothing of other models, prompts or versions.
    """
    design = np.array([(1.0, each.sequences, each.new_prompt_tokens) for each in points]).reshape(-1, 3)
    freedom = len(points) - 3
    if freedom < 1 or np.linalg.matrix_rank(design) < 3:
        return None
    sizes = np.array([each.size_bytes for each in points], dtype=float)
    fitted, *_ = np.linalg.lstsq(design, sizes, rcond=None)
    deviations = sizes - design @ fitted
    variance = float(deviations @ deviations) / freedom
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    half = special.stdtrit(freedom, 0.5 + confidence / 2) * errors
    worst = int(np.abs(deviations).argmax())
    fixed, per_sequence, per_prompt_token = (
        Coefficient(float(v), float(v - h), float(v + h)) for v, h in zip(fitted, half, strict=True)
    )
    return Law(
        fixed=fixed,
        per_sequence=per_sequence,
        per_prompt_token=per_prompt_token,
        steps=len(points),
        rms_bytes=float(np.sqrt(np.mean(deviations**2))),
        worst_bytes=float(deviations[worst]),
        worst=points[worst],
    )


def _points(run: MessagesRun, link: Link) -> Iterator[StepBytes]:
    for launch in run.launches:
        for batch in run.batches:
            for step, rows in launch.steps("contents", batch):
                size = sum(sent_bytes(row) or 0 for row in of_link(link, rows))
                yield StepBytes(batch, step.index, step.sequences, step.new_prompt_tokens, size)
