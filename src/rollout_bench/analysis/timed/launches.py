"""Numbers of one launch, derived from the raw values of its record: compared metrics, and the parts of its time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.timed.experiments import TimedExperiment, invalid_codes
from rollout_bench.analysis.timed.service import Requests, Service, anatomies_of, completion_of, service_of
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.numbers.iterations import columns_of
from rollout_bench.numbers.number import P99, Columns, Number
from rollout_bench.numbers.registry import NUMBERS, MetricName
from rollout_bench.plan.serving import Slo

NO_LIMITS = Slo()


@dataclass(frozen=True)
class Pass:
    """A measured iteration: its round in a block, and its amounts."""

    round: int | None
    columns: Columns


@dataclass(frozen=True)
class LaunchMeasures:
    """Numbers of one launch.

    `values` has each known number by its name, and `passes` are the measured iterations. `is_sure` is whether
    it is shown that a server keeps up with a rate, or falls behind, and `too_short` whether iterations are too short to
    show it. `independent` is how many independent requests those within the limits are counted among. `paired` is False
    if it is not a fair pair with its partner in the baseline, and `flags` say why.
    """

    record: Record
    values: Mapping[str, float]
    flags: tuple[Flag, ...] = ()
    paired: bool = True
    is_sure: bool = True
    too_short: bool = False
    independent: int = 0
    passes: tuple[Pass, ...] = ()

    @property
    def launch(self) -> int:
        """Its index."""
        return self.record.launch

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second, the number that every launch has."""
        return self.values["output_tokens_per_s"]

    @property
    def iteration_output_tokens_per_s(self) -> tuple[float, ...]:
        """Output tokens per second of each measured iteration, over all samples."""
        return tuple(each.columns["output_tokens"] / each.columns["elapsed_s"] for each in self.passes)

    @property
    def warmup_output_tokens_per_s(self) -> tuple[float, ...]:
        """Output tokens per second of each warm-up iteration."""
        return tuple(each.output_tokens / each.elapsed_s for each in self.record.iterations if each.warmup)

    @property
    def valid(self) -> bool:
        """Whether no flag makes the launch invalid."""
        return not invalid_codes(self.flags)


def measured_launches(
    experiment: TimedExperiment, slo: Slo = NO_LIMITS, compared: Sequence[MetricName] | None = None
) -> tuple[LaunchMeasures, ...]:
    """Return the numbers of each launch of `experiment`, with those of its sequences.

    Launches have `P99` only if all valid ones have it. A launch with a slow iteration has fewer independent requests,
    so otherwise the compared value would select launches. If only the metrics `compared` are needed, side files of
    sequences are only read for these.
    """
    has_loads = mode_of(experiment.mode).has_loads
    read = compared is None or has_loads or any(NUMBERS[metric].of for metric in compared)
    wholes = {record.launch: record for record in experiment.whole.records}
    measures = tuple(
        measure(r, experiment.side_files[r.launch].requests if read else None, slo, wholes[r.launch])
        for r in experiment.records
    )
    if all(P99 in launch.values for launch in measures if launch.valid):
        return measures
    return tuple(
        replace(launch, values={name: value for name, value in launch.values.items() if name != P99})
        for launch in measures
    )


def measure(
    record: Record, requests: Requests | None = None, slo: Slo = NO_LIMITS, whole: Record | None = None
) -> LaunchMeasures:
    """Compute the numbers of `record`, which must have a measured iteration, with the `requests` of its side file.

    If `record` has only the iterations of one load, `whole` is that of the launch.
    """
    counted = [iteration for iteration in record.iterations if not iteration.warmup]
    service = Service({})
    anatomies: Mapping[int, dict[str, float]] = {}
    if requests is not None:
        anatomies = anatomies_of(record, requests)
        if mode_of(record.spec.mode).has_loads:
            service = service_of(requests.of_iterations(counted), counted, slo)
        else:
            service = Service(completion_of(requests.of_iterations(counted)))
    passes = tuple(
        Pass(iteration.round, columns | anatomies.get(iteration.index, {}))
        for iteration, columns in zip(counted, columns_of(record), strict=True)
    )
    return LaunchMeasures(
        record=record,
        values={
            name: float(value)
            for name, number in NUMBERS.items()
            if (value := _value(number, whole or record, passes, service.values)) is not None
        },
        flags=tuple(record.validity),
        is_sure=service.is_sure,
        too_short=service.too_short,
        independent=service.independent,
        passes=passes,
    )


def _value(number: Number, record: Record, passes: Sequence[Pass], service: Mapping[str, float]) -> float | None:
    if number.read is not None:
        return number.read(record)
    if number.numerator:
        return number.ratio_over(each.columns for each in passes)
    return service.get(number.name)


def values_of(metric: MetricName, launches: Iterable[LaunchMeasures]) -> dict[int, float]:
    """Return the metric by launch index, for the launches that have it."""
    return {launch.launch: launch.values[metric] for launch in launches if metric in launch.values}


def fell_behind(launches: Iterable[LaunchMeasures]) -> bool:
    """Return whether the server's mean rate over `launches` was below `KEPT_UP` of the requested rate.

    Also return True if the rate is unknown for all launches.
    """
    kept = list(values_of("kept_up_share", launches).values())
    return not kept or sum(kept) / len(kept) < KEPT_UP
