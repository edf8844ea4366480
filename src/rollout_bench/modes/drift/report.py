"""The tables of drift mode: drift of each quantization from the reference, compared with the noise floor."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rollout_bench.analysis.stats.divergence import CLIP, NEAR, Bounded, Divergence
from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment, measured_experiments
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, count, number
from rollout_bench.modes.drift import MODE
from rollout_bench.modes.drift.drifts import Drifted, DriftReport, drift_report, floor_of, mergings
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, definitions, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, View, view


def _of(header: str, definition: str, cell: Callable[[Divergence], str]) -> Column[Drifted]:
    return Column(header, definition, lambda one: cell(one.found))


def bounded_text(value: Bounded, factor: float = 1.0, digits: int = 3) -> str:
    """Return `0.0123 [0.0119, 0.0128]`, or `0.0123 [not known]`."""
    ends = (value.value, value.low, value.high)
    value_text, low, high = (number(factor * each, digits) if math.isfinite(each) else "unbounded" for each in ends)
    return f"{value_text} [not known]" if math.isnan(value.low) else f"{value_text} [{low}, {high}]"


def excess_text(one: Drifted) -> str:
    """Return the upper limit of mean |d| above the noise floor, in nats, if there is no significant drift."""
    assert one.beyond is not None, "only what was held against a floor has a verdict"
    return number(max(0.0, one.beyond.high), 3)


def scored_text(one: Drifted) -> str:
    """Return how the tokens were scored: `1 at once`, `1 at once, other launches`."""
    how = "while generating" if one.batch is None else f"{one.batch} at once"
    return f"{how}, other launches" if one.elsewhere else how


def verdict_text(one: Drifted) -> str:
    """Return the verdict relative to the noise floor of the reference."""
    verdicts = {None: "no floor", True: "drifts", False: "no drift beyond the floor found"}
    return "(reference)" if one.of_reference else verdicts[one.drifts]


SIZE: tuple[Column[Drifted], ...] = (
    LAUNCHES,
    Column(
        "scored",
        "Number of sequences scored at once. The reference also has lines for its probabilities while generating "
        "and in its other launches. Every line is compared with the reference's first launch, scored with the "
        "smallest batch.",
        scored_text,
        words=True,
    ),
    _of(
        "mean |d|",
        "Mean |d| over tokens, in nats. d is the log probability of a token minus its log probability under the "
        "reference. This column weights all sequences equally, the other columns all tokens. In brackets: the "
        "interval over sequences, which assumes that a sequence is zero or lognormal. It is not known if fewer "
        "than two sequences differ, and unbounded above a thousand times the mean.",
        lambda divergence: bounded_text(divergence.size),
    ),
    Column(
        "verdict",
        "drifts: the mean |d| is above the floor. The floor is the largest mean |d| of the lines "
        "(reference), without the line while generating. The interval of the difference comes from a "
        "bootstrap of whole sequences, and holds together for all with the same reference. no floor: "
        "the reference was scored with one batch in one launch.",
        verdict_text,
        words=True,
    ),
    _of("mean d", "Mean of d.", lambda divergence: number(divergence.mean, 3)),
    _of("sd d", "Standard deviation of d.", lambda divergence: bounded_text(divergence.sd)),
    _of("p95 |d|", "95th percentile of |d| over tokens.", lambda divergence: bounded_text(divergence.p95)),
    _of("max |d|", "Maximum |d|.", lambda divergence: number(divergence.largest, 3)),
    _of(
        "KL k1",
        "Schulman's first estimate of KL(reference || quant), in nats per token: mean of -d. It can be below 0.",
        lambda divergence: bounded_text(divergence.k1),
    ),
    _of(
        "KL k3",
        "Schulman's third estimate of the same KL: mean of e^d - 1 - d, never below 0.",
        lambda divergence: bounded_text(divergence.k3),
    ),
)
"""Columns on the size of the drift."""

WEIGHTS: tuple[Column[Drifted], ...] = (
    SIZE[1],
    _of(
        f"outside [{NEAR[0]:g}, {NEAR[1]:g}] %",
        "Share of tokens whose ratio of probabilities e^d (quant / reference) is outside this range, in percent.",
        lambda divergence: bounded_text(divergence.outside, 100),
    ),
    _of(
        f"above {CLIP:g} %",
        f"Share of tokens whose ratio is above {CLIP:g}, the usual limit of truncated importance sampling.",
        lambda divergence: bounded_text(divergence.clipped, 100),
    ),
    _of(
        "token ESS %",
        "Effective sample size of tokens, weighted by their ratios, / number of tokens, in percent.",
        lambda divergence: bounded_text(divergence.token_ess, 100, 4),
    ),
    _of(
        "sequence ESS %",
        "Effective sample size of sequences, weighted by the products of their tokens' ratios, / number of "
        "sequences, in percent.",
        lambda divergence: number(100 * divergence.sequence_ess, 4),
    ),
    _of(
        "same first choice %",
        "Share of tokens at whose position both engines find the same token most likely.",
        lambda divergence: MISSING if divergence.agreement is None else bounded_text(divergence.agreement, 100, 4),
    ),
    _of(
        "perplexity ratio",
        "Perplexity of the tokens under the scoring engine / perplexity under the engine that sampled them.",
        lambda divergence: bounded_text(divergence.perplexity_ratio, digits=5),
    ),
    _of("tokens", "Number of tokens of this line, over all its launches.", lambda divergence: count(divergence.tokens)),
)
"""Columns on importance weights and on choices."""


def analyse(results: Path, inside: Sequence[ValidExperiment], collection: ResultSet) -> DriftReport:
    """Return the drift of the experiments `inside`."""
    return drift_report(results, inside, collection.comparison.confidence)


def drifts_nats(results: Path, collection: ResultSet) -> list[tuple[Spec, float]]:
    """Return the upper end of the mean |d| of each experiment, in nats per token; 0 for the reference itself."""
    inside = [each for each in measured_experiments(collection.others) if each.experiment.mode == MODE.name]
    drifted = analyse(results, inside, collection).drifted
    sizes = [(one.valid.experiment.records[0].spec, one.of_reference, one.found.size) for one in drifted]
    # where fewer than two sequences differ, the interval is not known
    return [
        (spec, 0.0 if is_reference else float(np.nanmax([size.value, size.high]))) for spec, is_reference, size in sizes
    ]


def found_in(findings: Findings) -> DriftReport:
    """Return the drift in `findings`."""
    return findings.results_of_mode(MODE.name, DriftReport())


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the drift of each experiment, in sentences and tables, and drift.csv."""
    report = found_in(findings)
    left_out = [each for each in findings.left_out if each.experiment.mode == mode.name]
    tables = list(_views(findings, report, left_out))
    warnings = [Section("Drift that can't be told", report.problems)] if report.problems else []
    if not report.drifted:
        return SummaryPart(tables=tables, warnings=warnings)
    largest = [(one, batches, floor_of(one, report.drifted)) for one, batches in largest_drifts(report.drifted)]
    texts = sections(
        f"{mode.name}/report",
        largest=largest,
        mergings=list(mergings(report.drifted, findings.collection.comparison.confidence)),
        alone=not largest,
        bounded=bounded_text,
        excess=excess_text,
        near=NEAR,
        confidence=findings.collection.comparison.confidence,
        synthetic=any(
            record.spec.model.synthetic is not None for one in report.drifted for record in one.valid.experiment.records
        ),
    )
    return SummaryPart(
        answers=texts[:1],
        tables=tables,
        sections=texts[1:],
        definitions=definitions("Definitions, drift", tables),
        warnings=warnings,
        files={"drift.csv": drift_table(report)},
    )


def largest_drifts(drifted: Sequence[Drifted]) -> Iterator[tuple[Drifted, str]]:
    """Yield, for each experiment, the batch size with the largest drift, and a phrase for it.

    A sentence has room for one batch size: `32 at once (less with 1)`, or `1 or 32 at once` for equal drift.
    """
    for each in grouped((one.valid.place, one) for one in drifted if not one.of_reference).values():
        one = max(each, key=lambda other: (bool(other.drifts), other.found.size.value))
        alike = grouped(
            (bounded_text(other.found.size) == bounded_text(one.found.size), str(other.batch)) for other in each
        )
        less = f" (less with {' or '.join(alike[False])})" if False in alike else ""
        yield one, f"{' or '.join(alike[True])} at once{less}"


def _views(findings: Findings, report: DriftReport, left_out: Sequence[ValidExperiment]) -> Iterator[View]:
    platforms = dict.fromkeys(
        [one.valid.experiment.platform for one in report.drifted] + [each.experiment.platform for each in left_out]
    )
    for platform in platforms:
        drifted = [
            Entry(findings.texts_of(one.valid), one)
            for one in report.drifted
            if one.valid.experiment.platform == platform
        ]
        without: list[Entry[Drifted]] = [
            Entry(findings.texts_of(each)) for each in left_out if each.experiment.platform == platform
        ]
        yield view("Drift: ", platform, SIZE, [*drifted, *without])
        yield view("Drift, weights and choices: ", platform, WEIGHTS, drifted)


def drift_table(report: DriftReport) -> pd.DataFrame:
    """Return a line for each experiment and batch size; the columns end in their units."""
    return pd.DataFrame([_line(one) for one in report.drifted]).astype({"batch": "Int64"})


def _line(one: Drifted) -> dict[str, Any]:
    return {
        "platform": one.valid.experiment.platform,
        "model": one.valid.experiment.model,
        "quant": one.valid.experiment.quant,
        "workload": one.valid.experiment.workload,
        "setting": one.valid.experiment.setting,
        "key": one.valid.experiment.key,
        "reference_key": one.reference.experiment.key,
        "batch": one.batch,
        "launches": " ".join(map(str, one.launches)),
        "sequences": one.found.sequences,
        "tokens": one.found.tokens,
        "mean_d_nats": one.found.mean,
        **_ends("sd_d", one.found.sd, "_nats"),
        **_ends("mean_abs_d", one.found.size, "_nats"),
        **_ends("p95_abs_d", one.found.p95, "_nats"),
        "max_abs_d_nats": one.found.largest,
        **_ends("kl_k1", one.found.k1, "_nats"),
        **_ends("kl_k3", one.found.k3, "_nats"),
        **_ends("outside", one.found.outside, "_share"),
        **_ends("clipped", one.found.clipped, "_share"),
        **_ends("token_ess", one.found.token_ess, "_share"),
        "sequence_ess_share": one.found.sequence_ess,
        **_ends("same_first_choice", one.found.agreement, "_share"),
        **_ends("perplexity_ratio", one.found.perplexity_ratio, ""),
        **_ends("beyond_floor", one.beyond, "_nats"),
        "drifts": one.drifts,
    }


def _ends(name: str, value: Bounded | None, unit: str) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value.low, value.high)
    return {
        f"{name}{unit}": None if value is None else value.value,
        f"{name}_low{unit}": low,
        f"{name}_high{unit}": high,
    }
