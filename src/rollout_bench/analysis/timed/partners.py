"""Select the counterpart of each experiment: its baseline or earlier results, and the facts that must agree."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import Earlier, TimedExperiment, no_valid_launch
from rollout_bench.contracts.axes import AXES, name_of, names_of
from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.record import Environment, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.quants import NOT_SET, confounders, sizes_set

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
    spec = _spec(experiment)

    def engines(others: Sequence[TimedExperiment]) -> str:
        return ", ".join(sorted({f"{_spec(other).engine.name} {_spec(other).engine.version}" for other in others}))

    return _only(
        index.get(place_of(experiment, baseline), ()),
        (
            (lambda other: other.records, lambda found: f"{name} is not {'measured' if found else 'selected for it'}"),
            (
                lambda other: "workload" in baseline or _work(_spec(other)) == _work(spec),
                lambda _: f"{name} is measured with other settings of the workload",
            ),
            (
                lambda other: _engine(_spec(other)) == _engine(spec),
                lambda found: f"{name} is measured with another engine or plugin: {engines(found)}",
            ),
        ),
        lambda other: _settings(_spec(other)) == _settings(spec),
        f"experiments could be {name}; name them in a plan",
    )


Step = tuple[Callable[[TimedExperiment], object], Callable[[Sequence[TimedExperiment]], str]]
"""Whether an experiment can be the counterpart, and the reason if none of the remaining ones can."""


def _only(
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


def _spec(experiment: TimedExperiment) -> Spec:
    return experiment.records[0].spec


def _engine(spec: Spec) -> tuple[str, str, dict[str, str]]:
    return spec.engine.name, spec.engine.version, spec.engine.plugins


SENDER = {"harness", "harness_version"}
"""Fields of a load that identify its sender; they do not change the load."""


def _arrivals(spec: Spec) -> dict[str, Any]:
    # A point is compared with the same point; the other measured points do not matter.
    return {} if spec.load is None else spec.load.model_dump(exclude={"points", *SENDER})


def _work(spec: Spec) -> tuple[object, ...]:
    return spec.workload, _arrivals(spec)


def _settings(spec: Spec) -> tuple[object, ...]:
    return spec.engine, spec.measuring, spec.load and spec.load.harness


Group = Literal["engine", "machine", "circumstance"]

ENGINE = ("engine_name", "engine_version", "plugins", "torch_version", "python_version", "packages")
"""Facts that define the engine."""

MACHINE = (
    "platform",
    "device_model",
    "device_memory_bytes",
    "device_count",
    "cpu_model",
    "cpu_cores",
    "memory_bytes",
)
"""Facts that define the machine; its name and its kernel are circumstances."""

IN_PAIRS = ("device_model", "cpu_model", "cpu_cores", "device_count", "torch_version")
"""Facts that both launches of a pair must share; the number of devices only if both requested the same number."""

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

ABOUT = {"device_memory_bytes": 0.01, "memory_bytes": 0.01, "resolved.num_gpu_blocks": 0.01}
"""Measured facts -> relative difference up to which they agree, since kernels keep some memory for themselves."""

CACHES = {f"variables.{name}" for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
"""Folders of compiled code, one per engine below a user's home: not a difference."""

EXECUTOR = "distributed_executor_backend"
"""Not compared: it follows from the mode and from `multiprocess`; in mode placement it is our own class."""

DEALT_OUT = {f"variables.{name}" for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ASCEND_RT_VISIBLE_DEVICES")}
"""Facts that a lease sets anew for each launch; its placement records the devices."""


@dataclass(frozen=True)
class Difference:
    """A fact that differs between an experiment's launches, `own`, and their counterparts, `other`."""

    fact: str
    own: str
    other: str

    @property
    def group(self) -> Group:
        """The group of the fact: engine, machine or circumstance."""
        name = self.fact.partition(".")[0]
        return "engine" if name in ENGINE else "machine" if name in MACHINE else "circumstance"

    def __str__(self) -> str:
        return f"{self.fact} {self.other} -> {self.own}"


def environment_facts(environment: Environment) -> dict[str, str]:
    """Return every field of `environment` as text; fields of mappings are named `<field>.<name>`."""
    return {name: value for name, value in flat(environment.model_dump()) if name not in CACHES | DEALT_OUT}


def load_facts(record: Record) -> dict[str, str]:
    """Return the facts that two compared experiments must share: work, iterations, and the model's shape."""
    spec = record.spec
    load = {
        "measurement_version": spec.measurement_version,
        "workload": spec.workload.model_dump(exclude={"name"}),
        "measuring": spec.measuring,
        "synthetic": spec.model.synthetic or {},
        "arrivals": _arrivals(spec),
    }
    return dict(flat(load))


def launch_facts(record: Record) -> dict[str, str]:
    """Return the facts that may differ between two launches of one load and are then reported: machine and settings."""
    spec, environment = record.spec, record.environment
    settings: dict[str, Any] = {
        "measuring.iterations": spec.measuring.iterations,
        "platform": spec.platform,
        "weights": spec.model.weights,
        "quant": spec.quant.model_dump(exclude={"name"}),
        "multiprocess": spec.engine.multiprocess,
        "args": spec.engine.args,
        "resolved": {key: value for key, value in record.engine.resolved.items() if key != EXECUTOR},
    }
    if spec.load is not None:
        settings |= spec.load.model_dump(include=SENDER)
    known = {
        "endpoint": spec.endpoint,
        "devices": ", ".join(sorted(record.placement.devices if record.placement else ())),
        "engines_alive": record.block and len(record.block.members),
    }
    settings |= {name: value for name, value in known.items() if value}
    variables = {f"variables.{name}": value for name, value in spec.engine.environment.items()}
    return variables | environment_facts(environment) | dict(flat(settings))


def differences(own: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]]) -> list[Difference]:
    """Return the facts whose values differ between both sides; each side has the facts of its launches.

    Values that the engine reports (`resolved`) count only if both sides have them, because versions report different
    ones.
    """
    names = dict.fromkeys(name for facts in (*other, *own) for name in facts)
    found = []
    for name in names:
        mine, theirs = ({facts.get(name, NOT_SET): None for facts in side} for side in (own, other))
        if set(mine) == set(theirs) or _about_the_same(name, [*mine, *theirs]):
            continue
        if name.startswith("resolved.") and NOT_SET in {**mine, **theirs}:
            continue
        found.append(
            Difference(name, *(", ".join(_readable(name, value) for value in side) for side in (mine, theirs)))
        )
    return found


def pair_differences(own: Sequence[Record], other: Sequence[Record]) -> list[tuple[int, Difference]]:
    """Return launch index and differing fact for the launches that both sides have: `IN_PAIRS` and the host's name."""
    partners = {record.launch: record for record in other}
    return [
        (record.launch, Difference(fact, str(own_value), str(other_value)))
        for record in own
        if (partner := partners.get(record.launch)) is not None
        for fact in (*IN_PAIRS, "hostname")
        for own_value, other_value in [(_of_pair(fact, side) for side in (record, partner))]
        if own_value != other_value and not (fact == "device_count" and _asked(record) != _asked(partner))
    ]


def _of_pair(fact: str, record: Record) -> object:
    """Return the value of a fact. For `hostname` it is the node if the placement is known."""
    placement = record.placement
    return placement.node if fact == "hostname" and placement is not None else getattr(record.environment, fact)


def _asked(record: Record) -> list[int | None]:
    return [record.spec.mode_spec.devices_shared, *(record.spec.engine.args.get(name, 1) for name in _PARALLEL)]


def _about_the_same(name: str, values: Sequence[str]) -> bool:
    numbers = [int(value) for value in values if value.isdecimal()]
    return name in ABOUT and len(numbers) == len(values) and max(numbers) <= (1 + ABOUT[name]) * min(numbers)


def _readable(name: str, value: str) -> str:
    if name in ("device_memory_bytes", "memory_bytes") and value.isdecimal():
        return f"{int(value) / 2**30:.1f} GiB"
    return short_commit(value) if name == "git_commit" else value or "(empty)"


def short_commit(commit: str) -> str:
    """Return a commit with its first 12 digits only, and with `-dirty` if it has that."""
    return re.sub("^(.{12})[^-]*", r"\1", commit)


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


def _without(reason: str) -> Counterpart:
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
        return _without(reason)
    other, reason = find_baseline(experiment, index, baseline)
    if other is None:
        return _without(reason)
    if reason := why_not_measured(other):
        return _without(f"its baseline has {reason}")
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
    setting = next((_spec(each) for each in as_set if each.records), None)
    beside = confounders(own.spec, theirs.spec, setting, (own.engine.resolved, theirs.engine.resolved))
    found = [Difference(fact, *values) for fact, values in beside.items()]
    return Counterpart(other, differences=(*found, *dict.fromkeys(difference for _, difference in differing)))


def no_comparison(own: Record, other: Record) -> str:
    """Return the reason why two launches must not be compared; empty if they may."""
    if own.spec.mode == other.spec.mode and (
        differs := own.spec.mode_spec.other_work(other.spec.mode_spec, own.spec.platform)
    ):
        return f"its steps are other work than its baseline's: {differs}"
    return (_other_model(own, other) if own.spec.model.name == other.spec.model.name else "") or (
        _without_effect(own, other) if own.spec.setting != other.spec.setting else ""
    )


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
    """Return requested arguments that two otherwise equal engines did not follow; empty if there are none."""
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
    found = []
    for name in (name for name in {**asked[0], **asked[1]} if asked[0].get(name) != asked[1].get(name)):
        if any(name in said and name not in ignored for said, ignored in zip(asked, overruled, strict=True)):
            return ""
        found += [
            f"{name} {said[name]} was asked for, and the engine uses {ignored[name]}"
            for said, ignored in zip(asked, overruled, strict=True)
            if name in said
        ]
    return f"setting without effect: {first_few(found)}" if found else ""


ONE_IN_A_SIDE = ("engine_name", "engine_version", "plugins", "torch_version", "device_model", "cpu_model", "cpu_cores")
"""Facts that all launches of one side must share."""


def against_earlier(experiments: Sequence[TimedExperiment], earlier: Earlier) -> list[Counterpart]:
    """Return the counterpart of each of `experiments`: the one in `earlier` with its names and its load.

    The names are mode, model, quantization, workload and setting. The platform is included unless each side has a
    single platform and these differ. If several have these names, the one with the same engine arguments is used.

    A table (mode and platform) is refused as a whole if launches of one side differ, or if the sides differ too much.
    Only the engine or only the machine may differ, or the groups in `earlier.differ`.
    """
    across = _across(experiments, earlier.experiments)
    found = [_counterpart(experiment, earlier, across) for experiment in experiments]
    tables = grouped(
        ((experiment.mode, experiment.platform), number)
        for number, (experiment, against) in enumerate(zip(experiments, found, strict=True))
        if against.other is not None
    )
    for numbers in tables.values():
        refused = (
            _mixed([other for number in numbers if (other := found[number].other)], earlier.name)
            or _mixed([experiments[number] for number in numbers], earlier.of)
            or _too_different([found[number] for number in numbers], earlier)
        )
        if refused:
            against = Counterpart(instead=Comparison(reason=refused.problem), refused=refused)
            found = [against if number in numbers else each for number, each in enumerate(found)]
    return found


def in_common(experiments: Sequence[TimedExperiment], others: Sequence[TimedExperiment]) -> tuple[TimedExperiment, ...]:
    """Return the `experiments` whose names also occur in `others`."""
    across = _across(experiments, others)
    names = {_names_outside(other, across) for other in others}
    return tuple(e for e in experiments if _names_outside(e, across) in names)


def _counterpart(experiment: TimedExperiment, earlier: Earlier, across: bool) -> Counterpart:
    if reason := why_not_measured(experiment):
        return _without(reason)
    names = _names_outside(experiment, across)

    def unlike(other: TimedExperiment) -> list[Difference]:
        return differences(*([load_facts(valid_records(side)[0])] for side in (experiment, other)))

    other, reason = _only(
        earlier.experiments,
        (
            (
                lambda other: _names_outside(other, across) == names,
                lambda _: f"{earlier.name} has no experiment of its names",
            ),
            (valid_records, lambda found: f"{why_not_measured(found[0])} in {earlier.name}"),
            (
                lambda other: not unlike(other),
                lambda found: f"{earlier.name} measured another load: {first_few(unlike(found[0]))}",
            ),
        ),
        lambda other: _settings_apart(other) == _settings_apart(experiment),
        f"experiments of its names in {earlier.name} could be meant",
    )
    if other is None:
        return _without(reason)
    origins = {record.launch: record.origin for record in valid_records(other)}
    if shared := [each.launch for each in valid_records(experiment) if origins.get(each.launch) == each.origin]:
        reason = f"{earlier.name} has the very same record of launch {', '.join(map(str, shared))}, as a copy would"
        return _without(reason)
    own, theirs = ([launch_facts(record) for record in valid_records(side)] for side in (experiment, other))
    return Counterpart(other, differences=tuple(differences(own, theirs)))


def _mixed(side: Sequence[TimedExperiment], name: str) -> UserError | None:
    """Return the error if launches of one side differ in a fact of `ONE_IN_A_SIDE`."""
    launches = [
        (f"{name_of(e)} launch {record.launch}", launch_facts(record)) for e in side for record in valid_records(e)
    ]
    for fact in dict.fromkeys(fact for _, facts in launches for fact in facts):
        if fact.partition(".")[0] not in ONE_IN_A_SIDE:
            continue
        by_value = grouped((facts.get(fact, NOT_SET), launch) for launch, facts in launches)
        if len(by_value) > 1:
            told = "; ".join(f"{value} ({first_few(found)})" for value, found in by_value.items())
            return UserError(
                f"{name}: its launches differ in {fact}: {told}",
                "select those of one kind (make its summary with a plan of them), or move the others away",
            )
    return None


def _too_different(found: Sequence[Counterpart], earlier: Earlier) -> UserError | None:
    """Return the error if both engine and machine differ, or a group that must not."""
    unique = dict.fromkeys(difference for against in found for difference in against.differences)
    differing = {group: [d for d in unique if d.group == group] for group in ("engine", "machine")}
    there = [group for group, found in differing.items() if found]
    if set(there) <= set(earlier.differ or there[:1]):
        return None
    told = "; ".join(f"{group}: {first_few(differing[group])}" for group in there)
    return UserError(
        f"{earlier.name} and {earlier.of} differ in {' and in '.join(there)}, and no more than one may: {told}"
        if len(there) > 1
        else f"{earlier.name} and {earlier.of} differ in {there[0]}, which was not to differ: {told}",
        f"make one side agree, or let both differ: rollout-bench compare with --differ {' '.join(there)}",
    )


def _across(experiments: Sequence[TimedExperiment], others: Sequence[TimedExperiment]) -> bool:
    """Return whether the sides are compared across platforms: each side has exactly one."""
    return len({e.platform for e in experiments}) == len({e.platform for e in others}) == 1


def _names_outside(experiment: TimedExperiment, across: bool) -> Place:
    return place_of(experiment, {"platform": ""} if across else {})


def _settings_apart(experiment: TimedExperiment) -> tuple[object, ...]:
    engine = _spec(experiment).engine
    return engine.multiprocess, engine.environment, engine.args
