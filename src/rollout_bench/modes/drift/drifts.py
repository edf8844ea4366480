"""Drift of each experiment from the reference, and of the reference from itself.

d is the log probability that the scoring engine gives a token, less the log probability from the reference, which
sampled that token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rollout_bench.analysis.stats.divergence import Array, Bounded, Divergence, divergence, excess_over_floor
from rollout_bench.analysis.timed.experiments import ValidExperiment
from rollout_bench.contracts.lora import ENGINE_ARGS
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.modes.drift.record import Drift, ScoredRow, read_scores
from rollout_bench.modes.drift.settings import DriftSpec

Scores = Mapping[int | None, Sequence[ScoredRow]]
"""Number of sequences that the engine scored at once, None for the scores from generation itself -> the rows of all
sequences, in their order."""

Launches = Mapping[int, tuple[str, Scores]]
"""Launch index -> SHA-256 of the tokens, and scores."""


@dataclass(frozen=True)
class Drifted:
    """Difference between an experiment's token probabilities and the reference's.

    Attributes:
        valid: the experiment with its valid launches.
        reference: the experiment that it is compared with.
        batch: sequences that were scored at once; None for the reference's scores from generation.
        launches: the launches that scored: only the first valid launch of the reference, or all other launches.
        found: the divergence.
        log_ratios: for each sequence, d of its tokens over all `launches` [n_i], in nats.
        elsewhere: whether it is the reference in launches other than the one that sampled the tokens.
        beyond: mean |d| above the noise floor's mean |d|, in nats. Its interval is simultaneous for all experiments
            with this reference. None for the reference itself, and without a noise floor.
    """

    valid: ValidExperiment
    reference: ValidExperiment
    batch: int | None
    launches: tuple[int, ...]
    found: Divergence
    log_ratios: tuple[Array, ...]
    elsewhere: bool = False
    beyond: Bounded | None = None

    @property
    def of_reference(self) -> bool:
        """Whether the reference is compared with itself."""
        return self.valid.place == self.reference.place

    @property
    def drifts(self) -> bool | None:
        """Whether it drifts significantly more than the reference drifts from itself; None without a noise floor."""
        return None if self.beyond is None else self.beyond.low > 0


@dataclass(frozen=True)
class DriftReport:
    """All comparisons by reference, the reference first; `problems` are messages about failed comparisons."""

    drifted: tuple[Drifted, ...] = ()
    problems: tuple[str, ...] = ()


def drift_report(results: Path, inside: Sequence[ValidExperiment], confidence: float) -> DriftReport:
    """Return the comparisons of the drift experiments `inside`, with intervals of that `confidence`."""
    measured = [each for each in inside if not each.reason]
    problems: list[str] = []
    launches = {each.place: _read_launches(results, each, problems) for each in measured}
    by_folder = {each.experiment.experiment: each for each in measured}
    drifted: list[Drifted] = []
    for folder, scored in grouped(
        (_settings(each).reference or each.experiment.experiment, each) for each in measured
    ).items():
        reference = by_folder.get(folder)
        if reference is None or not launches[reference.place]:
            problems.append(f"{folder}: has no valid launch, so nothing is held against it; measure it again")
            continue
        scored = sorted(scored, key=lambda each: each.place != reference.place)
        compared = list(_drifted(reference, scored, launches, confidence, problems))
        drifted += with_verdicts(compared, confidence)
    return DriftReport(tuple(drifted), tuple(problems))


def _settings(each: ValidExperiment) -> DriftSpec:
    return each.experiment.records[0].spec.of(DriftSpec)


def _read_launches(results: Path, each: ValidExperiment, problems: list[str]) -> Launches:
    """Return launch index -> launch of an experiment; messages about unreadable files are added to `problems`."""
    launches = {}
    for record in each.experiment.records:
        assert isinstance(record, Drift), "records are read by their mode"
        path = record_path(results, each.experiment.mode, each.experiment.experiment, record.launch)
        try:
            _, rows = read_scores(path)
        except UserError as error:
            problems.append(str(error).replace("\n", "; "))
            continue
        in_order = sorted(rows, key=lambda row: row.sequence)
        scores = {how: [row for row in in_order if row.batch == how] for how in dict.fromkeys(r.batch for r in rows)}
        launches[record.launch] = record.tokens_sha256, scores
    return launches


def _drifted(
    reference: ValidExperiment,
    experiments: Sequence[ValidExperiment],
    launches: Mapping[str, Launches],
    confidence: float,
    problems: list[str],
) -> Iterator[Drifted]:
    base_index = min(launches[reference.place])
    tokens, base = launches[reference.place][base_index]
    first = _settings(reference).batch_sizes[0]
    for each in experiments:
        problems += [
            f"{each.place}/launch-{index}.json: scored other tokens than launch {base_index} of "
            f"{reference.experiment.experiment}; move the record away, and run again"
            for index, (scored_tokens, _) in launches[each.place].items()
            if scored_tokens != tokens
        ]
        same = {index: scores for index, (its, scores) in launches[each.place].items() if its == tokens}
        of_reference = each.place == reference.place
        apart = [[base_index], [index for index in same if index != base_index]] if of_reference else [list(same)]
        for indices in filter(None, apart):
            sampled_here = of_reference and indices == [base_index]
            for how in dict.fromkeys(how for index in indices for how in same[index]):
                if sampled_here and how == first:
                    continue  # the scores that all others are compared with
                scored = [rows for index in indices if (rows := same[index].get(how)) is not None]
                found, ratios = _held_against(base[first], scored, confidence)
                elsewhere = of_reference and not sampled_here
                yield Drifted(each, reference, how, tuple(indices), found, ratios, elsewhere)


def _held_against(
    sampled: Sequence[ScoredRow], scored: Sequence[Sequence[ScoredRow]], confidence: float
) -> tuple[Divergence, tuple[Array, ...]]:
    """Return the divergence of all `scored` rows from the `sampled` ones, and the values d of each sequence."""
    ratios = tuple(
        np.concatenate([np.subtract(row.logprobs, p.logprobs) for row in rows])
        for p, *rows in zip(sampled, *scored, strict=True)
    )
    choices = [
        np.concatenate([np.equal(row.first, p.first) for row in rows])
        for p, *rows in zip(sampled, *scored, strict=True)
    ]
    return divergence(ratios, confidence, choices, len(scored)), ratios


def with_verdicts(drifted: Sequence[Drifted], confidence: float) -> list[Drifted]:
    """Return `drifted`, all of one reference, with `beyond` set for experiments other than the reference.

    Their intervals are simultaneous by Bonferroni's inequality.
    """
    others = sum(not each.of_reference for each in drifted)
    judged = []
    for each in drifted:
        floor = None if each.of_reference else floor_of(each, drifted)
        if floor is not None:
            beyond = excess_over_floor(each.log_ratios, floor.log_ratios, 1 - (1 - confidence) / others)
            each = replace(each, beyond=beyond)
        judged.append(each)
    return judged


@dataclass(frozen=True)
class Merging:
    """An adapter merged into the weights of an engine, against one that the same engine keeps apart.

    Attributes:
        merged, apart: both, scored with the same batch.
        more: mean |d| of the merged one, minus that of the other, in nats.
    """

    merged: Drifted
    apart: Drifted
    more: Bounded


def mergings(drifted: Sequence[Drifted], confidence: float) -> Iterator[Merging]:
    """Yield each merging, with the batch with which the merged one drifts most."""
    others = [one for one in drifted if not one.of_reference]
    for alike in grouped((_but_lora(one), one) for one in others).values():
        apart = {one.batch: one for one in alike if _how(one) == "adapter"}
        merged = [one for one in alike if _how(one) == "merged" and one.batch in apart]
        if merged:
            most = max(merged, key=lambda one: one.found.size.value)
            other = apart[most.batch]
            yield Merging(most, other, excess_over_floor(most.log_ratios, other.log_ratios, confidence))


def _how(one: Drifted) -> str | None:
    lora = one.valid.experiment.records[0].spec.lora
    return None if lora is None else lora.how


def _but_lora(one: Drifted) -> str:
    """Return the key of an experiment's spec without its adapter."""
    spec = one.valid.experiment.records[0].spec
    args = {name: value for name, value in spec.engine.args.items() if name not in ENGINE_ARGS}
    engine = spec.engine.model_copy(update={"args": args})
    return spec.model_copy(update={"setting": None, "lora": None, "engine": engine}).key()


def floor_of(one: Drifted, drifted: Sequence[Drifted]) -> Drifted | None:
    """Return the noise floor of `one`: its reference's largest difference from itself; None if scored only once."""
    again = (each for each in drifted if each.of_reference and each.batch is not None)
    alike = (each for each in again if each.reference.place == one.reference.place)
    return max(alike, key=lambda each: each.found.size.value, default=None)
