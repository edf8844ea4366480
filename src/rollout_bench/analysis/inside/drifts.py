"""What drift launches say: how far each experiment is from the reference, and the reference from itself.

d is the log probability that a token has from who scores it, less the one from the reference, which sampled it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rollout_bench.analysis.stats.divergence import Array, Bounded, Divergence, divergence, excess
from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.contracts.axes import title_of
from rollout_bench.contracts.inside import Drift, ScoredRow
from rollout_bench.contracts.load import DriftSpec
from rollout_bench.contracts.modes import DRIFT
from rollout_bench.contracts.side_files import read_scores
from rollout_bench.contracts.store import record_path, scores_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped

How = int | None
"""How many sequences the engine scored at once; None: what it gave them while it generated them."""

Scores = Mapping[How, Sequence[ScoredRow]]
"""How -> the rows of all sequences, in their order."""


@dataclass(frozen=True)
class DriftLaunch:
    """One launch: its record, and the rows of each batch."""

    record: Drift
    scores: Scores


@dataclass(frozen=True)
class Drifted:
    """How far what an experiment gives tokens is from what the reference gives them.

    Attributes:
        chosen: the experiment.
        reference: the experiment that it is held against.
        batch: sequences that were scored at once; None: what the reference gave them while it generated.
        launches: the launches that scored: of the reference the first valid one alone, or all others.
        found: how far.
        log_ratios: for each sequence d of its tokens, of all `launches` [n_i], in nats.
        elsewhere: whether it is the reference in other launches than the one that all is held against.
        beyond: by how much its mean |d| is above the floor's, in nats, with its interval together for all that have the
            same reference; None for the reference itself, and where there is no floor.
    """

    chosen: Chosen
    reference: Chosen
    batch: int | None
    launches: tuple[int, ...]
    found: Divergence
    log_ratios: tuple[Array, ...]
    elsewhere: bool = False
    beyond: Bounded | None = None

    @property
    def name(self) -> str:
        """How sentences call it: model, quant and workload."""
        return title_of(self.chosen.experiment, self.chosen.label)

    @property
    def of_reference(self) -> bool:
        """Whether it is the reference against itself."""
        return self.chosen.place == self.reference.place

    @property
    def is_floor(self) -> bool:
        """Whether the floor may be taken from it: the reference scored another time, or otherwise batched."""
        return self.of_reference and self.batch is not None

    @property
    def drifts(self) -> bool | None:
        """Whether it drifts more than the reference against itself; None where nobody can say."""
        return None if self.beyond is None else self.beyond.low > 0


@dataclass(frozen=True)
class DriftReport:
    """All that was scored, by reference, the reference first; `problems` say what could not be compared, and why."""

    drifted: tuple[Drifted, ...] = ()
    problems: tuple[str, ...] = ()

    def floor_of(self, one: Drifted) -> Drifted | None:
        """Return the largest difference of the reference of `one` from itself; None where it was scored only once."""
        return _floor(one, self.drifted)


def drift_report(results: Path, inside: Sequence[Chosen], confidence: float) -> DriftReport:
    """Return what those of `inside` say that are of drift mode; intervals have that `confidence`."""
    measured = [each for each in inside if each.experiment.mode == DRIFT.name and not each.reason]
    problems: list[str] = []
    launches = {each.place: _read(results, each, problems) for each in measured}
    by_folder = {each.experiment.experiment: each for each in measured}
    drifted: list[Drifted] = []
    for folder, own in grouped((_reference_of(each), each) for each in measured).items():
        reference = by_folder.get(folder)
        if reference is None or not launches[reference.place]:
            problems.append(f"{folder}: has no valid launch, so nothing is held against it; measure it again")
            continue
        own = sorted(own, key=lambda each: each.place != reference.place)
        found = list(_drifted(reference, own, launches, confidence, problems))
        drifted += with_verdicts(found, confidence)
    return DriftReport(tuple(drifted), tuple(problems))


def _settings(each: Chosen) -> DriftSpec:
    drift = each.experiment.records[0].spec.drift
    assert drift is not None, "specs of this mode have it"
    return drift


def _reference_of(each: Chosen) -> str:
    return _settings(each).reference or each.experiment.experiment


def _read(results: Path, each: Chosen, problems: list[str]) -> dict[int, DriftLaunch]:
    """Return the launches of an experiment by their index; what can't be read goes to `problems`."""
    found = {}
    for record in each.experiment.records:
        assert isinstance(record, Drift), "records are read by their mode"
        path = record_path(results, each.experiment.mode, each.experiment.experiment, record.launch)
        try:
            rows = read_scores(scores_path(path), record)
        except UserError as error:
            problems.append(str(error).replace("\n", "; "))
            continue
        scores: dict[How, list[ScoredRow]] = {
            how: sorted((row for row in rows if row.batch == how), key=lambda row: row.sequence)
            for how in dict.fromkeys(row.batch for row in rows)
        }
        found[record.launch] = DriftLaunch(record, scores)
    return found


def _drifted(
    reference: Chosen,
    own: Sequence[Chosen],
    launches: Mapping[str, Mapping[int, DriftLaunch]],
    confidence: float,
    problems: list[str],
) -> Iterator[Drifted]:
    base_index = min(launches[reference.place])
    base = launches[reference.place][base_index]
    first = _settings(reference).batch_sizes[0]
    for each in own:
        sampled = f"launch {base_index} of {reference.experiment.experiment}"
        same = _of_tokens(base.record.tokens_sha256, sampled, each.place, launches[each.place], problems)
        apart = [[base_index], [index for index in same if index != base_index]]
        if each.place != reference.place:
            apart = [list(same)]
        for indices in filter(None, apart):
            for how in dict.fromkeys(how for index in indices for how in same[index].scores):
                if each.place == reference.place and indices == [base_index] and how == first:
                    continue  # what all else is held against
                scored = [rows for index in indices if (rows := same[index].scores.get(how)) is not None]
                found, ratios = _held_against(base.scores[first], scored, confidence)
                elsewhere = each.place == reference.place and indices != [base_index]
                yield Drifted(each, reference, how, tuple(indices), found, ratios, elsewhere)


def _of_tokens(
    sha256: str | None, sampled: str, place: str, launches: Mapping[int, DriftLaunch], problems: list[str]
) -> dict[int, DriftLaunch]:
    """Return those of the `launches` at `place` whose tokens have that SHA-256, as what has `sampled` them."""
    same = {}
    for index, launch in launches.items():
        if launch.record.tokens_sha256 == sha256:
            same[index] = launch
        else:
            problem = (
                f"{place}/launch-{index}.json: scored other tokens than {sampled}; delete the record, and run again"
            )
            problems.append(problem)
    return same


def _held_against(
    sampled: Sequence[ScoredRow], scored: Sequence[Sequence[ScoredRow]], confidence: float
) -> tuple[Divergence, tuple[Array, ...]]:
    """Return how far all of `scored` is from what stands for who `sampled` the tokens, and d for each sequence."""
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
    """Return `drifted`, all of one reference, with what others than the reference have beyond its floor.

    Their intervals hold together, by Bonferroni's inequality.
    """
    others = sum(not each.of_reference for each in drifted)
    found = []
    for each in drifted:
        floor = None if each.of_reference else _floor(each, drifted)
        if floor is not None:
            beyond = excess(each.log_ratios, floor.log_ratios, 1 - (1 - confidence) / others)
            each = replace(each, beyond=beyond)
        found.append(each)
    return found


def _floor(one: Drifted, drifted: Sequence[Drifted]) -> Drifted | None:
    alike = (each for each in drifted if each.is_floor and each.reference.place == one.reference.place)
    return max(alike, key=lambda each: each.found.size.value, default=None)
