"""Offline mode in the engine process: loads vLLM and generates one iteration after another."""

from rollout_bench.measure.engine.vllm import loaded, passes, source_of
from rollout_bench.measure.launch.flags import preempted_flags, prefix_cache_flags, token_flags
from rollout_bench.measure.launch.protocol import AwaitTurn, IterationDone, Job, SendEvent


def measure(job: Job, tell: SendEvent, wait: AwaitTurn) -> None:
    """Do `job`: send each event, and wait for the order before each iteration."""
    spec = job.spec
    engine = loaded(job, tell)
    source = source_of(job, engine.vocabulary)
    for index, _ in passes(spec.measuring, tell):
        asked = source.requests(job.launch, index)
        done = engine.iterate(asked, index, wait)
        iteration, rows = done.iteration, done.rows
        flags = token_flags(spec.workload, asked, iteration, rows) + prefix_cache_flags(asked, iteration, rows)
        flags += preempted_flags(index, done.counters.get("vllm:num_preemptions", 0))
        tell(IterationDone(iteration=iteration, sequences=rows, flags=flags, began=done.began))
