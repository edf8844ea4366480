"""The baseline of each experiment, and why launches must not be compared with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import TimedExperiment, no_valid_launch
from rollout_bench.analysis.timed.facts import Difference, arrivals, differences, pair_differences
from rollout_bench.contracts.axes import AXES, names_of
from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.quants import confounders, sizes_set

Place = tuple[str, ...]
"""Mode, the name on each of `AXES`, and the load of a sweep."""


def check_axes(baseline: Mapping[str, str]) -> None:
    """Check that `baseline` (axis -> name) has only known axes.

    Raises:
        UserError: an axis is unknown.
    """
    for axis in baseline:
        if axis not in AXES:
            raise UserError(f"baseline: unknown axis '{axis}'", did_you_mean(axis, AXES))


def is_baseline(experiment: TimedExperiment, baseline: Mapping[str, str]) -> bool:
    """Return whether `experiment` has the baseline's value on each of its axes."""
    return bool(baseline) and all(getattr(experiment.whole, axis) == value for axis, value in baseline.items())


def index_by_names(experiments: Iterable[TimedExperiment]) -> dict[Place, list[TimedExperiment]]:
    """Return `experiments` by their names, for `find_baseline`."""
    return grouped((place_of(experiment), experiment) for experiment in experiments)


def find_baseline(
    experiment: TimedExperiment, index: Mapping[Place, Sequence[TimedExperiment]], baseline: Mapping[str, str]
) -> tuple[TimedExperiment | None, str]:
    """Return the baseline of `experiment`, which must be measured; or None and the reason.

    The baseline has the same mode, platform, model, quantization, workload and setting except for the baseline's axes.
    It has the same workload settings and engine version. Of several, the one with the same engine arguments and
    iterations is used.
    """
    if not baseline:
        return None, "no baseline is named"
    name = f"the baseline ({', '.join(f'{axis} {value}' for axis, value in baseline.items())})"
    spec = spec_of(experiment)

    def engines(others: Sequence[TimedExperiment]) -> str:
        return ", ".join(sorted({f"{spec_of(other).engine.name} {spec_of(other).engine.version}" for other in others}))

    return only_fitting(
        index.get(place_of(experiment, baseline), ()),
        (
            (lambda other: other.records, lambda found: f"{name} is not {'measured' if found else 'selected for it'}"),
            (
                lambda other: "workload" in baseline or _work(spec_of(other)) == _work(spec),
                lambda _: f"{name} is measured with other settings of the workload",
            ),
            (
                lambda other: _engine(spec_of(other)) == _engine(spec),
                lambda found: f"{name} is measured with another engine or plugin: {engines(found)}",
            ),
        ),
        lambda other: _settings(spec_of(other)) == _settings(spec),
        f"experiments could be {name}; name them in a plan",
    )


Step = tuple[Callable[[TimedExperiment], object], Callable[[Sequence[TimedExperiment]], str]]
"""Whether an experiment can be the counterpart, and the reason if none of the remaining ones can."""


def only_fitting(
    candidates: Sequence[TimedExperiment],
    steps: Iterable[Step],
    preferred: Callable[[TimedExperiment], bool],
    ambiguous: str,
) -> tuple[TimedExperiment | None, str]:
    """Return the only one of `candidates` that passes all `steps`, if need be the `preferred` one; or the reason."""
    for fits, reason in steps:
        fitting = [each for each in candidates if fits(each)]
        if not fitting:
            return None, reason(candidates)
        candidates = fitting
    found = [each for each in candidates if preferred(each)] or candidates
    return (found[0], "") if len(found) == 1 else (None, f"{len(found)} {ambiguous}")


def place_of(experiment: TimedExperiment, changes: Mapping[str, str] | None = None) -> Place:
    """Return mode, names and load of an experiment, with `changes` (axis -> name) applied."""
    return experiment.mode, *names_of(experiment.whole, changes), experiment.point_label


def spec_of(experiment: TimedExperiment) -> Spec:
    """Return the spec of an experiment with records."""
    return experiment.records[0].spec


def _engine(spec: Spec) -> tuple[str, str, dict[str, str]]:
    return spec.engine.name, spec.engine.version, spec.engine.plugins


def _work(spec: Spec) -> tuple[object, ...]:
    return spec.workload, arrivals(spec)


def _settings(spec: Spec) -> tuple[object, ...]:
    return spec.engine, spec.measuring, spec.load and spec.load.harness


@dataclass(frozen=True)
class Counterpart:
    """The `other` experiment, or without one, `instead` in place of a comparison.

    `differences` are facts that differ although the two may be compared. `refused` is the error if the sides of a whole
    table are not compared.
    """

    other: TimedExperiment | None = None
    instead: Comparison = field(default_factory=Comparison)
    differences: tuple[Difference, ...] = ()
    refused: UserError | None = None


def no_counterpart(reason: str) -> Counterpart:
    """Return that an experiment is compared with nothing, for a reason."""
    return Counterpart(instead=Comparison(reason=reason))


def valid_records(experiment: TimedExperiment) -> list[Record]:
    """Return the launches of `experiment` that take part in comparisons."""
    return [record for record in experiment.records if record.valid]


def why_not_measured(experiment: TimedExperiment) -> str:
    """Return the reason why `experiment` has nothing to compare; empty if it has."""
    return no_valid_launch(experiment.records) if experiment.records else "not measured"


def against_baseline(
    experiment: TimedExperiment, index: Mapping[Place, Sequence[TimedExperiment]], baseline: Mapping[str, str]
) -> Counterpart:
    """Return the counterpart of `experiment` for pairs of launches: its baseline among the experiments in `index`."""
    if is_baseline(experiment, baseline):
        return Counterpart(instead=Comparison(is_baseline=True))
    if reason := why_not_measured(experiment):
        return no_counterpart(reason)
    other, reason = find_baseline(experiment, index, baseline)
    if other is None:
        return no_counterpart(reason)
    if reason := why_not_measured(other):
        return no_counterpart(f"its baseline has {reason}")
    sides = [valid_records(side) for side in (experiment, other)]
    differing = pair_differences(*sides)
    reasons = [
        f"launch {launch} and its partner in the baseline ran on unlike machines or engines: "
        f"{each.fact} {each.own} against {each.other}"
        for launch, each in differing
        if each.fact != "hostname"
    ]
    engines = {
        " ".join([each.engine_name, each.engine_version, *map(" ".join, sorted(each.plugins.items()))])
        for each in (record.environment for side in sides for record in side)
    }
    if len(engines) > 1:
        reasons.insert(0, f"its launches or its baseline's ran in different engines: {', '.join(sorted(engines))}")
    if reasons:
        return Counterpart(instead=Comparison(verdict="unknown", reason=reasons[0]))
    own, theirs = (side[0] for side in sides)
    as_set = index.get(place_of(experiment, {"setting": baseline["setting"]}), ()) if "setting" in baseline else ()
    setting = next((spec_of(each) for each in as_set if each.records), None)
    beside = confounders(own.spec, theirs.spec, setting, (own.engine.resolved, theirs.engine.resolved))
    found = [Difference(fact, *values) for fact, values in beside.items()]
    return Counterpart(other, differences=(*found, *dict.fromkeys(difference for _, difference in differing)))


def no_comparison(own: Record, other: Record) -> str:
    """Return the reason why two launches must not be compared; empty if they may."""
    if own.spec.mode == other.spec.mode and (
        differs := own.spec.mode_spec.other_work(other.spec.mode_spec, own.spec.platform)
    ):
        return f"its steps are other work than its baseline's: {differs}"
    if reason := _other_compilation(own, other):
        return reason
    return (_other_model(own, other) if own.spec.model.name == other.spec.model.name else "") or (
        _without_effect(own, other) if own.spec.setting != other.spec.setting else ""
    )


def _other_compilation(own: Record, other: Record) -> str:
    """Return the reason if one engine compiles the model, and the other does not because of its adapter."""
    modes = [str(record.engine.resolved.get("compilation_mode")) for record in (own, other)]
    with_adapter = [record.spec.lora is not None for record in (own, other)]
    if with_adapter[0] == with_adapter[1] or modes[0] == modes[1]:
        return ""
    return f"{own.spec.engine.name} compiles the model without an adapter only, so the ratio is not the adapter's cost"


def _other_model(own: Record, other: Record) -> str:
    shapes = [dict(flat(record.spec.model.synthetic or {})) for record in (own, other)]
    sides = [
        {**(shape if all(shapes) else {}), **sizes_set(record.spec)}
        for shape, record in zip(shapes, (own, other), strict=True)
    ]
    caches = [cache for record in (own, other) if (cache := record.engine.kv_cache) is not None]
    if len(caches) == len(sides):
        for side, cache in zip(sides, caches, strict=True):
            side["layers with a KV cache"] = str(sum(cache.layers.values()))
    unlike = [f"{each.fact} {each.own} / {each.other}" for each in differences(sides[:1], sides[1:])]
    return f"it is another model: {first_few(unlike)}" if unlike else ""


def _without_effect(own: Record, other: Record) -> str:
    """Return requested arguments that make no difference between two otherwise equal engines; empty if there are none.

    The engine did not follow them, or the other engine has the same values without them.
    """
    sides = (own, other)
    rest = {"setting": None, "engine": own.spec.engine}
    changed = [record.spec.engine.model_copy(update={"args": {}}) for record in sides]
    if changed[0] != changed[1] or own.spec.model_copy(update=rest) != other.spec.model_copy(update=rest):
        return ""
    asked = [dict(flat(record.spec.engine.args)) for record in sides]
    overruled = [record.engine.overruled or {} for record in sides]
    resolved = [dict(flat({"resolved": {**record.engine.resolved, "num_gpu_blocks": ""}})) for record in sides]
    if differences(resolved[:1], resolved[1:]):
        return ""  # the engines differ; num_gpu_blocks is left out, as it varies from start to start
    idle = []
    for name in (name for name in {**asked[0], **asked[1]} if asked[0].get(name) != asked[1].get(name)):
        if f"resolved.{name}" in resolved[0] and name not in {**overruled[0], **overruled[1]}:
            idle.append(f"{name} is {resolved[0][f'resolved.{name}']} in both engines")
            continue
        if any(name in arguments and name not in ignored for arguments, ignored in zip(asked, overruled, strict=True)):
            return ""
        idle += [
            f"{name} {arguments[name]} was asked for, and the engine uses {ignored[name]}"
            for arguments, ignored in zip(asked, overruled, strict=True)
            if name in arguments
        ]
    return f"setting without effect: {first_few(idle)}" if idle else ""
