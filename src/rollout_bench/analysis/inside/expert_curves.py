"""How long the experts of a mixture take alone, by how tokens choose them, and the least that a machine allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose

from rollout_bench.analysis.bounds.architecture import UnknownArchitectureError
from rollout_bench.analysis.bounds.cost import Cost, coding_of
from rollout_bench.analysis.bounds.limits import Least, least, measured
from rollout_bench.analysis.bounds.reached import same_machine
from rollout_bench.analysis.inside.curves import (
    Curve,
    Estimate,
    OperatorsRun,
    ShapeComparison,
    break_even,
    curve_of,
    seconds,
    speedup,
)
from rollout_bench.contracts.inside import ExpertPoint, ExpertRouting, MachineLimits

Key = tuple[ExpertRouting, int, int, int, int, bool]
"""How tokens choose; features, width, experts in a layer, experts of a token; whether they are gated."""

ALIKE = 0.1
"""Calls that hit numbers of experts further apart than this share read other amounts of weights: no comparison."""


@dataclass(frozen=True)
class ExpertsRun:
    """The experts of one shape in an experiment of operators mode, with tokens that choose in one way.

    Attributes:
        run: the experiment.
        points: of its first launch, by tokens.
        curve: their times.
        seconds: of a call at the tokens of the curve.
        against: how they compare with the baseline's; None for the baseline, and where there is nothing to compare.
        baseline_hit: experts that the baseline hits at the batch in use, where they are others in number, so that times
            are not compared. Routers choose by what their own quantization computes.
    """

    run: OperatorsRun
    points: dict[int, ExpertPoint]
    curve: Curve
    seconds: Estimate
    against: ShapeComparison | None = None
    baseline_hit: float | None = None

    @property
    def here(self) -> ExpertPoint | None:
        """Its point at the batch in use; None where that was not measured."""
        return self.points.get(self.run.decode_batch) if self.run.decode_batch in self.curve.tokens else None


def expert_runs(runs: Sequence[OperatorsRun]) -> list[ExpertsRun]:
    """Return what those of `runs` say of experts, in their order; nothing of dense models."""
    curves = {id(run): dict(_curves(run)) for run in runs}
    found = []
    for run in runs:
        theirs = {} if run.baseline is None else dict(_curves(run.baseline))
        for key, curve in curves[id(run)].items():
            other = theirs.get(key)
            points = _points(run, key)
            base = {} if run.baseline is None else _points(run.baseline, key)
            shared = () if other is None else tuple(each for each in curve.tokens if each in other.tokens)
            tokens = tuple(each for each in shared if isclose(points[each].hit, base[each].hit, rel_tol=ALIKE))
            against = None
            if other is not None and tokens:
                ratio = speedup(curve.at(tokens), other.at(tokens), run.confidence)
                against = ShapeComparison(tokens, ratio, break_even(tokens, ratio))
            unlike = base[run.decode_batch].hit if run.decode_batch in set(shared) - set(tokens) else None
            found.append(ExpertsRun(run, points, curve, seconds(curve, run.confidence), against, unlike))
    return found


def key_of(point: ExpertPoint) -> Key:
    """Return what points must have in common to be compared."""
    sizes = point.hidden_size, point.intermediate_size, point.experts, point.per_token
    return point.routing, *sizes, point.gated


def _points(run: OperatorsRun, key: Key) -> dict[int, ExpertPoint]:
    return {point.tokens: point for point in run.launches[0].experts or () if key_of(point) == key}


def _curves(run: OperatorsRun) -> Iterator[tuple[Key, Curve]]:
    for key in dict.fromkeys(key_of(point) for point in run.launches[0].experts or ()):
        curve = curve_of(
            {
                record.launch: {
                    point.tokens: point.seconds_per_call for point in record.experts or () if key_of(point) == key
                }
                for record in run.launches
            }
        )
        if curve is not None:
            yield key, curve


def least_of(run: ExpertsRun, point: ExpertPoint, machines: Sequence[MachineLimits]) -> Least | None:
    """Return the least time of a call: the weights that are hit from memory, or its operations at their rate.

    None where the machine was not measured, or the quantization does not say how it computes.
    """
    record = run.run.launches[0]
    limits = next((each for each in machines if same_machine(each, record.environment)), None)
    if limits is None:
        return None
    try:
        coding = coding_of(record.spec, {"dtype": record.engine.resolved.get("dtype")})
    except UnknownArchitectureError:
        return None
    flops = point.tokens * point.token_flops
    return least([Cost("linear", "experts", point.weight_bytes, 0.0, 0.0, flops, coding.compute)], measured(limits))
