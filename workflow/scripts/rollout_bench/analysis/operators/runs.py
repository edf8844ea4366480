"""The measured experiments of operators mode, each with its curves and with what it compares to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rollout_bench.analysis.chosen import Chosen
from rollout_bench.analysis.experiments import Selected
from rollout_bench.analysis.operators.break_even import BreakEven, break_even
from rollout_bench.analysis.operators.curves import Curve, Estimate, seconds, speedup
from rollout_bench.records.operators import Operators
from rollout_bench.records.profile import LinearShape
from rollout_bench.records.record import Launched

DEFAULT_BASELINE = "bf16"
"""Quant that the others are compared with where the baseline is not one of quants."""


@dataclass(frozen=True)
class Against:
    """How the layers of one shape compare with the baseline's: speed-ups at `tokens`, and where they cross 1."""

    tokens: tuple[int, ...]
    speedup: Estimate
    break_even: BreakEven


@dataclass(frozen=True)
class Run:
    """One experiment of operators mode with a valid launch.

    `label` is its quant, with the key where others have the same. `launches` are those that count: the valid ones.
    `curves` and `linears` are by the shape's name: its role, with features in and out where a role has several shapes.
    `against` has those shapes that the baseline has too, and is empty for the baseline itself and where `reason` says
    why there is none.
    """

    experiment: Selected[Launched]
    label: str
    launches: tuple[Operators, ...]
    linears: Mapping[str, LinearShape]
    curves: Mapping[str, Curve]
    confidence: float
    is_baseline: bool
    baseline: Run | None = None
    against: Mapping[str, Against] | None = None
    reason: str = ""

    @property
    def decode_batch(self) -> int:
        """Sequences that decode at once under its workload."""
        return self.launches[0].decode_batch

    @property
    def place(self) -> tuple[str, str, str]:
        """Platform, model and workload: what runs that compare have in common."""
        return self.experiment.platform, self.experiment.model, self.experiment.workload

    @property
    def seconds(self) -> dict[str, Estimate]:
        """Seconds per call of each shape at its tokens."""
        return {name: seconds(curve, self.confidence) for name, curve in self.curves.items()}


def runs_of(inside: Sequence[Chosen], baseline: Mapping[str, str], confidence: float) -> list[Run]:
    """The runs of those of `inside` that are of operators mode and have a valid launch, in their order.

    `baseline` (axis -> value) may name the quant to compare with; other axes say nothing here.
    """
    quant = baseline.get("quant", DEFAULT_BASELINE)
    measured = [each for each in inside if each.experiment.mode == "operators"]
    without = {each.table: each.reason for each in measured if each.reason and each.experiment.quant == quant}
    runs = [_run(each, quant, confidence) for each in measured if not each.reason]
    return [_compared(run, runs, quant, without.get(run.place, "")) for run in runs]


def _run(each: Chosen, baseline: str, confidence: float) -> Run:
    used = tuple(record for record in each.experiment.records if isinstance(record, Operators))
    linears = _named(used[0].linears)
    curves = {name: curve for name, shape in linears.items() if (curve := _curve(used, shape)) is not None}
    return Run(
        experiment=each.experiment,
        label=each.label,
        launches=used,
        linears=linears,
        curves=curves,
        confidence=confidence,
        is_baseline=each.experiment.quant == baseline,
    )


def _named(shapes: Sequence[LinearShape]) -> dict[str, LinearShape]:
    roles = Counter(shape.role for shape in shapes)
    return {
        shape.role if roles[shape.role] == 1 else f"{shape.role} {shape.in_features}x{shape.out_features}": shape
        for shape in shapes
    }


def _curve(records: Sequence[Operators], shape: LinearShape) -> Curve | None:
    """The times of one shape at the numbers of tokens that all launches have."""
    by_launch = {
        record.launch: {
            point.tokens: point.seconds_per_call
            for point in record.points
            if (point.role, point.in_features, point.out_features)
            == (shape.role, shape.in_features, shape.out_features)
        }
        for record in records
    }
    tokens = tuple(sorted(set.intersection(*(set(points) for points in by_launch.values()))))
    if not tokens:
        return None
    return Curve(
        tokens, {launch: np.array([points[each] for each in tokens]).T for launch, points in by_launch.items()}
    )


def _compared(run: Run, runs: Sequence[Run], quant: str, without: str) -> Run:
    """`run` beside its baseline; `without` says why one that was measured has no valid launch."""
    if run.is_baseline:
        return run
    candidates = [other for other in runs if other.place == run.place and other.is_baseline]
    alike = [other for other in candidates if _comparable(other) == _comparable(run)]
    if not candidates:
        return replace(run, reason=f"{quant}: {without}" if without else f"{quant} is not measured for it")
    if len(alike) != 1:
        how = "on another machine or with other settings" if not alike else f"{len(alike)} times"
        return replace(run, reason=f"{quant} is measured {how}")
    other = alike[0]
    against = {}
    for name, curve in run.curves.items():
        theirs = other.curves.get(name)
        if theirs is None or _shape(run.linears[name]) != _shape(other.linears[name]):
            continue
        tokens = tuple(each for each in curve.tokens if each in theirs.tokens)
        if tokens:
            ratio = speedup(curve.at(tokens), theirs.at(tokens), run.confidence)
            against[name] = Against(tokens, ratio, break_even(tokens, ratio))
    return replace(run, baseline=other, against=against)


def _comparable(run: Run) -> tuple[object, ...]:
    """What must be the same for times of kernels to compare; how long they were measured need not be."""
    engine, where = run.launches[0].spec.engine, run.launches[0].environment
    parallel = {name: value for name, value in engine.args.items() if name.endswith("parallel_size")}
    graphs = engine.args.get("enforce_eager"), engine.args.get("compilation_config")
    machine = where.device_model, where.cpu_cores, run.launches[0].threads
    return engine.name, engine.version, engine.plugins, engine.environment, parallel, graphs, machine


def _shape(shape: LinearShape) -> tuple[int, int]:
    return shape.in_features, shape.out_features
