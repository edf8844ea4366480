"""Offline mode in the engine process: loads vLLM and generates one iteration after another."""

from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import PREEMPTIONS, load_engine, pass_event, passes, source_of
from rollout_bench.measure.launch.protocol import Job


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each iteration."""
    spec = job.spec
    engine = load_engine(job, context)
    source = source_of(job, engine.vocabulary)
    for index, _ in passes(spec.measuring, context.send):
        asked = source.requests(job.launch, index)
        done = engine.iterate(asked, index, context.await_turn)
        preemptions = done.counters.get(PREEMPTIONS, 0)
        context.send(
            pass_event(spec.workload, asked, done.iteration, done.rows, preemptions=preemptions, began=done.began)
        )
