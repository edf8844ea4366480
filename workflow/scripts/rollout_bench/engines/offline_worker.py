"""Offline mode in the engine process: loads vLLM, generates iteration after iteration."""

from __future__ import annotations

import logging
import os
import time

from rollout_bench.engines.comparable import comparable_s
from rollout_bench.engines.environment import read_environment
from rollout_bench.engines.events import (
    IterationDone,
    Job,
    PhaseBegins,
    Ready,
    WarmupExtended,
)
from rollout_bench.engines.proof import prefix_cache_flags, quant_flags, token_flags
from rollout_bench.engines.series import Series
from rollout_bench.engines.source import source_of
from rollout_bench.engines.telling import Tell, Wait
from rollout_bench.records.record import Flag


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Does `job`: tells each event, and waits for the word before each iteration."""
    began = time.perf_counter()
    spec = job.spec
    variables = dict(os.environ)
    tell(PhaseBegins(phase="importing"))
    start = time.perf_counter()
    import vllm  # noqa: F401 (timed on its own)
    from vllm import LLM  # noqa: F401 (imported lazily by vllm)

    import_s = time.perf_counter() - start

    from rollout_bench.engines.vllm_offline import Engine

    tell(PhaseBegins(phase="initializing"))
    start = time.perf_counter()
    engine = Engine(spec, job.model)
    init_s = time.perf_counter() - start
    facts, device, processes = engine.facts()
    processes.pop(os.getpid(), None)
    tell(
        Ready(
            import_s=import_s,
            init_s=init_s,
            environment=read_environment(spec.engine, spec.platform, device, engine.world_size, variables),
            engine=facts,
            flags=quant_flags(spec.quant, facts),
            processes=processes,
        )
    )
    logging.getLogger("vllm").setLevel(logging.WARNING)  # no logging inside the timed region
    source = source_of(job, engine.vocabulary)
    series = Series(spec.measuring)
    while not series.complete:
        index = series.index
        if series.phase_begins:
            tell(PhaseBegins(phase="warmup" if series.warming_up else "measuring"))
        asked = source.requests(job.launch, index)
        iteration, rows, counters = engine.iterate(asked, index, wait)
        flags = token_flags(spec.workload, asked, iteration, rows) + prefix_cache_flags(asked, iteration, rows)
        if preemptions := counters.get("vllm:num_preemptions", 0):
            sentence = (
                f"Iteration {index}: {preemptions} preemptions; the KV cache does not hold all sequences at once."
            )
            flags.append(Flag(code="preemptions", severity="warning", sentence=sentence))
        tell(IterationDone(iteration=iteration, sequences=rows, flags=flags))
        slow = series.take(
            comparable_s(spec.workload, iteration),
            job.timeout_s - (time.perf_counter() - began),
        )
        if slow is not None:
            tell(WarmupExtended(iterations=series.dropped, sentence=slow.sentence))
