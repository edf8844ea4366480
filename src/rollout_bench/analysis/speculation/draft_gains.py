"""What speculative decoding gains or costs, by how many sequences are decoded at once: over loads, within a step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.columns import MAIN_METRIC
from rollout_bench.analysis.timed.comparison import Comparison, Stop, compare, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures, values_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.record import DecodeSteps, Drafting
from rollout_bench.contracts.spec import EngineSpec, QuantSpec, Spec, decode_batch, replicas
from rollout_bench.plan.config import ComparisonSettings

ARGUMENT = "speculative_config"
"""The engine's argument that switches speculative decoding on."""

Over = Literal["batch", "tail"]
"""batch: loads with more and more sequences at once; tail: one step, in which fewer and fewer are left."""

SHORTEST_S = 1e-9
"""What steps take at the least, so that a clock that stands still divides by nothing."""

_OF_SIZE = {"name", "prompts", "samples_per_prompt", "seed"}
"""Fields of a workload in which loads differ that have the same sequences, and more or fewer of them."""


@dataclass(frozen=True)
class DraftGain:
    """What drafting gains with `low` to `high` sequences at once.

    Attributes:
        row: the experiment that drafts.
        low, high: sequences that an engine decodes at once; in a batch the same number.
        comparison: with the same engine without drafts; above 1 drafting is faster.
        rates: output tokens per second without drafts and with them; in the tail those of one sequence.
        accepted: accepted tokens over drafted tokens; None where nothing was drafted.
        share: share of the engines' time that such steps take, where drafts are made; None in a batch.
    """

    row: Row
    low: int
    high: int
    comparison: Comparison
    rates: tuple[float, float]
    accepted: float | None
    share: float | None = None


@dataclass(frozen=True)
class GainCourse:
    """What drafting gains from the fewest sequences to the most: an experiment's, of a batch that of several loads.

    Attributes:
        row: the experiment that drafts; in a batch the first.
        over: what the number of sequences is of.
        gains: from the fewest sequences to the most.
    """

    row: Row
    over: Over
    gains: tuple[DraftGain, ...]


def method_of(spec: Spec) -> str:
    """Return how an engine drafts, in a few words; empty where it does not."""
    drafts = spec.engine.args.get(ARGUMENT)
    if not drafts:
        return ""
    method = drafts.get("method") or drafts.get("model") or "a model"
    tokens = drafts.get("num_speculative_tokens")
    return f"{method}, {tokens} tokens" if tokens else str(method)


def drafted(row: Row) -> Drafting | None:
    """Return what all measured iterations of valid launches drafted together; None where one does not tell."""
    return Drafting.together([iteration.drafting for launch in row.used for iteration in launch.passes])


def compared_with_plain(row: Row) -> Comparison | None:
    """Return how fast an experiment is beside its baseline; None unless that it drafts is all that tells them apart."""
    other, comparison = row.against.other, row.comparisons.get(MAIN_METRIC)
    if other is None or not other.records:
        return None
    own, theirs = row.experiment.records[0].spec, other.records[0].spec
    if not method_of(own) or method_of(theirs):
        return None
    return comparison if _but_for_drafts(own) == _but_for_drafts(theirs) else None


def _but_for_drafts(spec: Spec) -> tuple[QuantSpec, EngineSpec]:
    """Return what computes in `spec`, as if it decoded without drafts: another quantization has a speed of its own.

    What it is called does not matter.
    """
    args = {name: value for name, value in spec.engine.args.items() if name != ARGUMENT}
    return spec.quant.model_copy(update={"name": ""}), spec.engine.model_copy(update={"args": args})


def courses_of(rows: Sequence[Row], settings: ComparisonSettings, stop: Stop = None) -> list[GainCourse]:
    """Return what drafting gains over the batch, then within steps, of each experiment that has a plain one beside it.

    Args:
        rows: the experiments.
        settings: of the comparison.
        stop: what the number of launches depended on.
    """
    plain = {row.experiment.place: row for row in rows}
    drafting = [row for row in rows if row.used and compared_with_plain(row) is not None]
    return [*_over_batches(drafting), *_within_steps(drafting, plain, settings, stop)]


def at_once(row: Row) -> int | None:
    """Return how many sequences an engine decodes at once, at most; None where requests arrive at a rate."""
    spec, point = row.experiment.records[0].spec, row.experiment.records[0].iterations[0].point
    if at_a_rate(point):
        return None
    resolved = row.experiment.records[0].engine.resolved.get("max_num_seqs")
    limit = {"max_num_seqs": resolved} if isinstance(resolved, int) else spec.engine.args
    each = -(-spec.workload.prompts * spec.workload.samples_per_prompt // replicas(spec))
    most = decode_batch(each, 1, limit)
    return most if point is None or point.concurrency is None else min(point.concurrency, most)


def _over_batches(drafting: Iterable[Row]) -> Iterator[GainCourse]:
    """Yield the course of those of `drafting` that differ in nothing but how many sequences there are."""
    series: dict[tuple[str, ...], dict[int, Row]] = {}
    for row in drafting:
        size = at_once(row)
        if size is not None:
            series.setdefault(_same(row), {}).setdefault(size, row)
    for sizes in series.values():
        gains = [
            DraftGain(row, size, size, comparison, _rates(row), _share(drafted(row)))
            for size, row in sorted(sizes.items())
            if (comparison := compared_with_plain(row)) is not None and comparison.speedup is not None
        ]
        if len(gains) > 1:
            yield GainCourse(sizes[gains[0].low], "batch", tuple(gains))


def _same(row: Row) -> tuple[str, ...]:
    own, spec = row.experiment, row.experiment.records[0].spec
    load = spec.workload.model_dump(mode="json", exclude=_OF_SIZE)
    rollout = None if spec.rollout is None else spec.rollout.model_dump(mode="json")
    rest = json.dumps([load, rollout, replicas(spec)], sort_keys=True)
    return own.mode, own.platform, own.model, row.quant_label, own.setting, rest


def _rates(row: Row) -> tuple[float, float]:
    assert row.against.other is not None, "is compared"
    theirs = [record for record in row.against.other.records if record.valid]
    without = [
        sum(one.output_tokens for one in passes) / sum(one.elapsed_s for one in passes)
        for passes in ([one for one in record.iterations if not one.warmup] for record in theirs)
    ]
    return mean(without), mean(list(values_of(MAIN_METRIC, row.used).values()))


def _share(done: Drafting | None) -> float | None:
    return done.accepted_tokens / done.draft_tokens if done is not None and done.draft_tokens else None


def _within_steps(
    drafting: Iterable[Row], plain: Mapping[str, Row], settings: ComparisonSettings, stop: Stop
) -> Iterator[GainCourse]:
    """Yield the course of each of `drafting` whose engines, as those without drafts, were asked after each step."""
    for row in drafting:
        assert row.against.other is not None, "is compared"
        other = plain.get(row.against.other.place)
        own, theirs = (_by_size(each.used) if each is not None else {} for each in (row, other))
        sizes = sorted(own.keys() & theirs.keys())
        pairs = [compare(_paces(own[size]), _paces(theirs[size]), settings.confidence, stop=stop) for size in sizes]
        parts = [part for launch in row.used for one in launch.passes for part in one.replicas or ()]
        whole_s = sum(part.elapsed_s for part in parts)
        judged = judge(pairs, settings, stop)
        gains = []
        for size, comparison in zip(sizes, judged, strict=True):
            together = DecodeSteps.together(list(own[size].values()))
            rates = mean(list(_paces(theirs[size]).values())), mean(list(_paces(own[size]).values()))
            accepted = (together.accepted_tokens or 0) / together.draft_tokens if together.draft_tokens else None
            share = together.elapsed_s / whole_s
            if comparison.speedup is not None:
                gains.append(DraftGain(row, size // 2 + 1, size, comparison, rates, accepted, share))
        if gains:
            yield GainCourse(row, "tail", tuple(gains))


def _by_size(launches: Iterable[LaunchMeasures]) -> dict[int, dict[int, DecodeSteps]]:
    """Return the decode steps of each launch index, by how many sequences they had at most."""
    found: dict[int, dict[int, list[DecodeSteps]]] = {}
    for launch in launches:
        for part in (part for one in launch.passes for part in one.replicas or ()):
            for steps in part.decoding or ():
                found.setdefault(steps.at_most, {}).setdefault(launch.launch, []).append(steps)
    return {size: {launch: DecodeSteps.together(parts) for launch, parts in of.items()} for size, of in found.items()}


def _paces(launches: Mapping[int, DecodeSteps]) -> dict[int, float]:
    return {
        launch: steps.output_tokens / steps.sequences * steps.steps / max(steps.elapsed_s, SHORTEST_S)
        for launch, steps in launches.items()
    }
