"""One row per experiment: the numbers of its launches, its means, and its comparisons with the baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rollout_bench.analysis.stats.intervals import cv_percent, pooled_cv_percent
from rollout_bench.analysis.stats.percentiles import samples_needed
from rollout_bench.analysis.timed.baselines import (
    Counterpart,
    against_baseline,
    check_axes,
    index_by_names,
    no_comparison,
    valid_records,
)
from rollout_bench.analysis.timed.comparison import (
    Comparison,
    Stop,
    compare_launches,
    compare_launches_apart,
    judge,
)
from rollout_bench.analysis.timed.earlier import against_earlier
from rollout_bench.analysis.timed.experiments import ResultSet, TimedExperiment, no_valid_launch
from rollout_bench.analysis.timed.launches import (
    LaunchMeasures,
    fell_behind,
    measured_launches,
    values_of,
)
from rollout_bench.analysis.timed.pairs import marked_unfair, round_s
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.axes import DEFAULT_SETTING, names_of, title_of, with_key, with_setting
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import single_times
from rollout_bench.core.mappings import grouped
from rollout_bench.numbers.generation import ENERGY
from rollout_bench.numbers.number import P99
from rollout_bench.numbers.registry import NUMBERS, MetricName

SET_BY_LOAD = "set by the load: requests arrive at a rate, and the server kept up"
"""Reason for no verdict on a throughput that the load determines."""

NOT_SWAPPED = "make no fair pair: the baseline's ran on other devices, one of which has two launches more of one side"

UNPAIRED = {
    "not_interleaved": "were not measured in one block with the baseline's; the flag not_interleaved says what to do",
    "not_in_turn": "did not take turns with the baseline's; raise launches, and the further ones do",
    "other_device": NOT_SWAPPED,
    "other_node": NOT_SWAPPED,
    "other_neighbours": "make no fair pair: one side ran beside other launches, and too seldom the other",
}
"""Flag -> why launches with it are not a pair."""

ENERGY_COMPARED: tuple[MetricName, ...] = ("energy_j_per_token", "device_power_w")
"""Compared wherever energy is known, besides the config's metrics; each metric is judged separately, so these
comparisons do not change the others. Tokens per second and watt are the inverse of the first and have the same verdict.
"""

Measured = Mapping[str, tuple[LaunchMeasures, ...]]
"""The launches of each experiment, by its place."""


@dataclass(frozen=True)
class Row:
    """An experiment with its numbers.

    `launches` are all measured launches; only counts, flags and crosses use them. Every number comes from `used`, the
    valid launches. Without any, the numbers are missing, and `empty_because` has the reason. `quant_label` is the
    quantization's name, with the key if two experiments have equal names in a table. `label` distinguishes the row in
    its table: its `quant_label`, and its setting if it has one. `comparisons` has at least one metric, in the order of
    the config. `against` is the counterpart of the comparisons.
    """

    experiment: TimedExperiment
    quant_label: str
    label: str
    launches: tuple[LaunchMeasures, ...]
    comparisons: Mapping[MetricName, Comparison]
    against: Counterpart

    @property
    def comparison(self) -> Comparison:
        """Comparison in the first metric."""
        return next(iter(self.comparisons.values()))

    @property
    def used(self) -> tuple[LaunchMeasures, ...]:
        """The valid launches, which all numbers come from."""
        return tuple(launch for launch in self.launches if launch.valid)

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Each number that a valid launch has, over the valid launches that have it."""
        known = {name: list(values_of(name, self.used).values()) for name in NUMBERS}
        return {name: NUMBERS[name].aggregate(values) for name, values in known.items() if values}

    @cached_property
    def spread(self) -> Mapping[str, float | None]:
        """How output tok/s scatter over valid launches, and over the iterations of a launch; empty without any."""
        if not self.used:
            return {}
        rates = [launch.output_tokens_per_s for launch in self.used]
        return {
            "output_tokens_per_s_min": min(rates),
            "output_tokens_per_s_max": max(rates),
            "launch_cv_percent": cv_percent(rates),
            "iteration_cv_percent": pooled_cv_percent([each.iteration_output_tokens_per_s for each in self.used]),
        }

    @property
    def empty_because(self) -> str:
        """Reason for missing numbers although launches were measured; else empty."""
        return no_valid_launch(self.experiment.records)

    @property
    def axes(self) -> dict[str, object]:
        """Names in tables: model, workload, quant (with the key if needed) and setting."""
        experiment = self.experiment
        return {
            "model": experiment.model,
            "workload": experiment.workload,
            "quant": self.quant_label,
            "setting": experiment.setting,
        }

    @property
    def name(self) -> str:
        """Name in messages: model, quantization and workload."""
        return title_of(self.experiment, self.label)

    @property
    def whole_name(self) -> str:
        """Name in messages of the launched experiment, which may have several loads."""
        return title_of(self.experiment.whole, self.label)


def rows_of(collection: ResultSet) -> list[Row]:
    """Return the rows of `collection` in its order.

    Raises:
        UserError: an axis of the baseline is unknown.
    """
    check_axes(collection.baseline)
    experiments = collection.experiments
    measured = _measured_launches(experiments, collection)
    others = measured
    if collection.earlier is not None:
        counterparts = against_earlier(experiments, collection.earlier)
        others = _measured_launches(collection.earlier.experiments, collection)
    else:
        index = index_by_names(experiments)
        counterparts = [against_baseline(e, index, collection.baseline) for e in experiments]
        measured = _marked_launches(measured, experiments, counterparts)
    pairs = list(zip(experiments, counterparts, strict=True))
    metrics_of_mode = _metrics(pairs, measured, collection)
    metrics = [metrics_of_mode[e.mode] for e in experiments]
    compared: dict[MetricName, list[Comparison | None]] = {
        metric: _judged_comparisons(
            [
                _comparison(e, other, measured, others, collection, metric) if metric in wanted else None
                for (e, other), wanted in zip(pairs, metrics, strict=True)
            ],
            counterparts,
            collection,
        )
        for metric in dict.fromkeys(metric for wanted in metrics for metric in wanted)
    }
    # the loads of a sweep are named alike, whether or not another sweep has them too
    wholes = {(e.mode, e.experiment): (e.mode, *names_of(e.whole)) for e in experiments}
    shown = Counter(wholes.values())
    has_others = {
        (e.mode, *names_of(e, {"setting": DEFAULT_SETTING})) for e in experiments if e.setting != DEFAULT_SETTING
    }
    rows = []
    for number, e in enumerate(experiments):
        quant_label = e.quant if shown[wholes[e.mode, e.experiment]] == 1 else with_key(e.quant, e.key)
        comparisons = {metric: compared[metric][number] for metric in metrics[number]}
        rows.append(
            Row(
                experiment=e,
                quant_label=quant_label,
                label=with_setting(quant_label, e.setting, named=(e.mode, *names_of(e)) in has_others),
                launches=measured[e.place],
                comparisons={metric: each for metric, each in comparisons.items() if each is not None},
                against=counterparts[number],
            )
        )
    return rows


def _metrics(
    pairs: Sequence[tuple[TimedExperiment, Counterpart]], measured: Measured, collection: ResultSet
) -> dict[str, list[MetricName]]:
    """Return the compared metrics of each mode.

    With different numbers of devices, the mode's metric by device comes first. Energy is compared if it was measured.
    """
    metrics: dict[str, list[MetricName]] = {}
    for mode in dict.fromkeys(e.mode for e, _ in pairs):
        mode_pairs = [(e, against) for e, against in pairs if e.mode == mode]
        has_energy = any(
            ENERGY_COMPARED[0] in each.values for e, _ in mode_pairs for each in measured[e.place] if each.valid
        )
        is_uneven = collection.earlier is None and any(
            against.other and _devices(e) != _devices(against.other) for e, against in mode_pairs
        )
        by_device = mode_of(mode).by_device if is_uneven else None
        named = collection.comparison.metrics_of(mode)
        every = [*([by_device] if by_device else []), *named, *(ENERGY_COMPARED if has_energy else ())]
        metrics[mode] = list(dict.fromkeys(every))
    return metrics


def _devices(experiment: TimedExperiment) -> int | None:
    return experiment.records[0].spec.mode_spec.devices_shared


def _measured_launches(experiments: Sequence[TimedExperiment], collection: ResultSet) -> Measured:
    def compared(mode: str) -> list[MetricName] | None:  # two folders are compared without their other numbers
        return None if collection.earlier is None else collection.comparison.metrics_of(mode)

    return {e.place: measured_launches(e, collection.slo, compared(e.mode)) for e in experiments}


def _marked_launches(
    measured: Measured, experiments: Sequence[TimedExperiment], counterparts: Sequence[Counterpart]
) -> dict[str, tuple[LaunchMeasures, ...]]:
    marked_so = dict(measured)
    for platform in dict.fromkeys(e.platform for e in experiments):
        table = [(e, a) for e, a in zip(experiments, counterparts, strict=True) if e.platform == platform]
        limit_s = round_s([e for e, _ in table])  # over all modes, which are interleaved as well
        for experiment, against in table:
            if against.other is not None:
                place = experiment.place
                marked_so[place] = marked_unfair(measured[place], against.other, limit_s)
    return marked_so


def _judged_comparisons(
    comparisons: Sequence[Comparison | None], against: Sequence[Counterpart], collection: ResultSet
) -> list[Comparison | None]:
    """Return the comparison of each experiment in one metric, None without one; each table is judged together."""
    judged = list(comparisons)
    known = {number: comparison for number, comparison in enumerate(comparisons) if comparison is not None}
    tables = grouped(((e.mode, e.platform), n) for n, e in enumerate(collection.experiments) if n in known)
    for table in tables.values():
        baselines = [other.place if (other := against[number].other) else None for number in table]
        family = judge([known[number] for number in table], collection.comparison, _stop(collection), baselines)
        for number, comparison in zip(table, family, strict=True):
            judged[number] = comparison
    return judged


def _comparison(
    experiment: TimedExperiment,
    against: Counterpart,
    measured: Measured,
    others: Measured,
    collection: ResultSet,
    metric: MetricName,
) -> Comparison:
    if against.other is None:
        return against.instead
    of = NUMBERS[metric]
    valid = [launch for launch in measured[experiment.place] if launch.valid]
    wanted = [w for w in _wanted_launches(others[against.other.place], experiment, collection) if w.valid]
    if of.set_by_load and at_a_rate(experiment.point) and not (fell_behind(valid) or fell_behind(wanted)):
        return Comparison(reason=SET_BY_LOAD)
    if (of.of or of.table == ENERGY) and not (values_of(metric, valid) and values_of(metric, wanted)):
        return Comparison(reason=_why_without(metric, experiment, collection))
    unlike = no_comparison(valid_records(experiment)[0], valid_records(against.other)[0])
    if unlike:
        return Comparison(verdict="unknown", reason=unlike)
    confidence = collection.comparison.confidence
    if collection.earlier is not None:
        sides = [(collection.earlier.of, experiment), (collection.earlier.name, against.other)]
        alone = {
            name: {record.block is None or len(record.block.members) == 1 for record in valid_records(side)}
            for name, side in sides
        }
        comparison = compare_launches_apart(valid, wanted, metric, confidence)
        if not comparison.sides or len(set().union(*alone.values())) == 1:
            return comparison
        beside = " and ".join(name for name, kinds in alone.items() if False in kinds)
        reason = (
            f"launches of {beside} were interleaved, with other engines alive beside them, and others ran alone, "
            "which changes their speed: measure both with the same interleave"
        )
        return replace(comparison, low=None, high=None, p_value=None, verdict="unknown", reason=reason)
    paired, reason = [launch for launch in valid if launch.paired], _why_unpaired(valid)
    if not paired:
        return Comparison(verdict="unknown", reason=reason)
    compared = compare_launches(paired, wanted, metric, confidence, _stop(collection))
    return replace(compared, reason=reason) if reason and compared.launches_missing else compared


def _why_unpaired(valid: Sequence[LaunchMeasures]) -> str:
    out = [{flag.code for flag in launch.flags} for launch in valid if not launch.paired]
    shared = [reason for code, reason in UNPAIRED.items() if all(code in codes for codes in out)]
    why = shared[0] if shared else "are no pair with the baseline's; their flags say why"
    return f"{len(out)} of its {len(valid)} launches {why}" if out else ""


def _wanted_launches(
    theirs: Sequence[LaunchMeasures], experiment: TimedExperiment, collection: ResultSet
) -> Sequence[LaunchMeasures]:
    """Return `theirs` without launches that, with `precision`, the baseline needs only for other comparisons."""
    if collection.precision is None or collection.earlier is not None or experiment.planned is None:
        return theirs
    return [launch for launch in theirs if launch.launch < experiment.planned]


def _stop(collection: ResultSet) -> Stop:
    return None if collection.precision is None else stop_of(collection.precision, collection.comparison.confidence)


def _why_without(metric: MetricName, experiment: TimedExperiment, collection: ResultSet) -> str:
    if metric == "goodput_requests_per_s" and not collection.slo.named:
        return "no goodput without a limit in slo"
    if NUMBERS[metric].table == ENERGY:
        return next((f"no energy: {r.no_energy}" for r in experiment.records if r.no_energy), "no energy was read")
    if metric == P99:
        return f"no E2EL p99: every launch needs {samples_needed(0.99)} independent requests or more, of known times"
    if NUMBERS[metric].of and not single_times(experiment.records[0].spec):
        return f"no {NUMBERS[metric].header}: requests: per_prompt keeps no times of single sequences"
    return f"no {NUMBERS[metric].header.removesuffix(' ms')} in its launches or in its baseline's"
