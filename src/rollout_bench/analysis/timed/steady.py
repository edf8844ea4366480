"""Flags of launches whose iterations are not steady."""

from collections.abc import Sequence
from dataclasses import replace

from rollout_bench.analysis.stats.steadiness import judge
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.contracts.record import Flag, Iteration, Record
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.core.mappings import grouped


def with_steadiness(experiment: TimedExperiment) -> TimedExperiment:
    """Return `experiment` with the flags of its records that are not steady."""
    flagged = ((record, steadiness_flags(record)) for record in experiment.records)
    records = (
        record.model_copy(update={"validity": [*record.validity, *flags]}) if flags else record
        for record, flags in flagged
    )
    return replace(experiment, records=tuple(records))


def steadiness_flags(record: Record) -> list[Flag]:
    """Return a flag for each load under which the measured iterations are not steady."""
    measured = [iteration for iteration in record.iterations if not iteration.warmup]
    loads = grouped((iteration.point and iteration.point.label, iteration) for iteration in measured)
    judgements = (judge(comparable_times(record.spec.workload, iterations)) for iterations in loads.values())
    return [Flag(code=each.code, severity="warning", sentence=each.sentence) for each in judgements if each is not None]


def comparable_s(workload: WorkloadSpec, iteration: Iteration) -> float:
    """Return the time of a pass in seconds, scaled to a common amount of output if lengths are drawn.

    Passes with different amounts of work differ in time without being unsteady. Arrivals at a fixed rate are not
    scaled, because the rate sets the time. A timed load is scaled, because its amount of work varies. A mode may
    judge by other seconds.
    """
    if iteration.judged_s is not None:
        return iteration.judged_s
    lengths = [workload.output_tokens, workload.prompt_tokens, workload.turns.count if workload.turns else 1]
    fixed = all(isinstance(length, int) for length in lengths)
    at_a_rate = iteration.point is not None and iteration.point.request_rate != "inf"
    for_a_time = iteration.point is not None and iteration.point.duration_s is not None
    if (fixed and workload.dataset is None and not for_a_time) or at_a_rate or not iteration.output_tokens:
        return iteration.elapsed_s
    usual = workload.longest_pair[1] * workload.prompts * workload.samples_per_prompt
    # the slowest replica sets the time of a step, so its output is the relevant amount of work
    slowest = max(iteration.replicas or [], key=lambda part: part.end_s, default=None)
    return iteration.elapsed_s * usual / max(1, (slowest or iteration).output_tokens)


def comparable_times(workload: WorkloadSpec, iterations: Sequence[Iteration]) -> list[float]:
    """Return `comparable_s` of passes, rescaled so that the sum equals their total elapsed time."""
    times_s = [comparable_s(workload, iteration) for iteration in iterations]
    took = [one.elapsed_s if one.judged_s is None else one.judged_s for one in iterations]
    scale = sum(took) / sum(times_s)
    return [scale * each for each in times_s]
