"""Offline mode in the engine process: loads vLLM and generates one iteration after another."""

from __future__ import annotations

from rollout_bench.measure.engine.vllm import loaded, source_of
from rollout_bench.measure.launch.flags import preempted_flags, prefix_cache_flags, token_flags
from rollout_bench.measure.launch.protocol import IterationDone, Job, PhaseBegins, Tell, Wait
from rollout_bench.measure.launch.steadiness import Series


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: send each event, and wait for the order before each iteration."""
    spec = job.spec
    engine = loaded(job, tell)
    source = source_of(job, engine.vocabulary)
    series = Series(spec.measuring)
    while not series.complete:
        index = series.index
        if series.phase_begins:
            tell(PhaseBegins(phase="warmup" if series.warming_up else "measuring"))
        asked = source.requests(job.launch, index)
        done = engine.iterate(asked, index, wait)
        series.ordered(done.ordered)
        iteration, rows = done.iteration, done.rows
        flags = token_flags(spec.workload, asked, iteration, rows) + prefix_cache_flags(asked, iteration, rows)
        flags += preempted_flags(index, done.counters.get("vllm:num_preemptions", 0))
        tell(IterationDone(iteration=iteration, sequences=rows, flags=flags, wanted=series.wanted, began=done.began))
        series.take()
