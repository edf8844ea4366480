"""Which experiment is the baseline of which: the one that differs in the baseline's axes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rollout_bench.analysis.experiments import Experiment
from rollout_bench.errors import UserError, did_you_mean
from rollout_bench.plan.comparing import EARLIER_AXES
from rollout_bench.plan.spec import Spec

AXES = ("model", "platform", "quant", "workload")
"""What a baseline among experiments that took turns may fix."""

Names = tuple[str, ...]
"""Mode, the value on each of `AXES`, and the load of a sweep."""


def check_axes(baseline: Mapping[str, str]) -> None:
    """Raises `UserError` where `baseline` (axis -> value) names an axis that there is not."""
    for axis in baseline:
        if axis not in (*AXES, *EARLIER_AXES):
            raise UserError(f"baseline: unknown axis '{axis}'", did_you_mean(axis, (*AXES, *EARLIER_AXES)))


def is_baseline(experiment: Experiment, baseline: Mapping[str, str]) -> bool:
    """True when `experiment` has the baseline's value on each of its axes."""
    return bool(baseline) and all(getattr(experiment.whole, axis) == value for axis, value in baseline.items())


def index_by_names(experiments: Iterable[Experiment]) -> dict[Names, list[Experiment]]:
    """`experiments` by what `find_baseline` looks for first."""
    index: dict[Names, list[Experiment]] = {}
    for experiment in experiments:
        index.setdefault(_names(experiment, {}), []).append(experiment)
    return index


def find_baseline(
    experiment: Experiment, index: Mapping[Names, Sequence[Experiment]], baseline: Mapping[str, str]
) -> tuple[Experiment | None, str]:
    """The experiment that `experiment`, which must be measured, is compared with; or None and the reason.

    Same mode, platform, model, quant and workload but for the baseline's axes, same workload settings
    and same engine version (unless the platform is what is compared). Among several, the one with the
    same engine arguments and iterations.
    """
    name = ", ".join(f"{axis} {value}" for axis, value in baseline.items())
    if not baseline:
        return None, "no baseline is named"
    candidates = list(index.get(_names(experiment, baseline), ()))
    if not candidates:
        return None, f"the baseline ({name}) is not selected for it"
    candidates = [other for other in candidates if other.records]
    if not candidates:
        return None, f"the baseline ({name}) is not measured"
    spec = experiment.records[0].spec
    if "workload" not in baseline:
        candidates = [other for other in candidates if _spec(other).workload == spec.workload]
        candidates = [other for other in candidates if _arrivals(_spec(other)) == _arrivals(spec)]
        if not candidates:
            return None, f"the baseline ({name}) is measured with other settings of the workload"
    if "platform" not in baseline:
        engines = {f"{_spec(other).engine.name} {_spec(other).engine.version}" for other in candidates}
        candidates = [other for other in candidates if _engine(_spec(other)) == _engine(spec)]
        if not candidates:
            found = ", ".join(sorted(engines))
            return None, f"the baseline ({name}) is measured with another engine or plugin: {found}"
    if len(candidates) > 1:
        alike = [other for other in candidates if _settings(_spec(other)) == _settings(spec)]
        candidates = alike or candidates
    if len(candidates) > 1:
        return None, f"{len(candidates)} experiments could be the baseline ({name}); name them in a plan"
    return candidates[0], ""


def _names(experiment: Experiment, changes: Mapping[str, str]) -> Names:
    own: dict[str, str] = {axis: getattr(experiment.whole, axis) for axis in AXES}
    return (experiment.mode, *{**own, **changes}.values(), experiment.point_label)


def _spec(experiment: Experiment) -> Spec:
    return experiment.records[0].spec


def _engine(spec: Spec) -> tuple[str, str, dict[str, str]]:
    return spec.engine.name, spec.engine.version, spec.engine.plugins


def _arrivals(spec: Spec) -> object:
    """What of a load all of its points share and what they measure depends on."""
    return spec.load and spec.load.model_dump(exclude={"points", "saturation", "cool_down_s"})


def _settings(spec: Spec) -> tuple[object, ...]:
    return spec.engine, spec.measuring
