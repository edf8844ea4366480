"""The engine process: loads vLLM, runs the iterations, tells its supervisor. Started by it, never by hand."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from typing import IO

from rollout_bench.engines.environment import read_environment
from rollout_bench.engines.events import (
    Done,
    Event,
    Failed,
    IterationBegins,
    IterationDone,
    Job,
    PhaseBegins,
    Ready,
    WarmupExtended,
    send,
)
from rollout_bench.engines.processes import die_with_parent
from rollout_bench.engines.proof import prefix_cache_flags, quant_flags, token_flags
from rollout_bench.engines.series import Series
from rollout_bench.records.record import Flag


def measure(job: Job, descriptor: int, orders: IO[bytes]) -> None:
    """Does `job` and writes each event to the pipe `descriptor`; waits for a line of `orders` before each iteration."""

    def tell(event: Event) -> None:
        send(descriptor, event)

    def wait() -> None:
        tell(IterationBegins())
        orders.readline()

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
    warmup = spec.measuring.warmup_iterations
    series = Series(spec.measuring)
    while not series.complete:
        index = series.index
        if index in (0, warmup):
            tell(PhaseBegins(phase="warmup" if index < warmup else "measuring"))
        iteration, rows, counters = engine.iterate(job.launch, index, wait)
        flags = token_flags(spec.workload, iteration, rows) + prefix_cache_flags(spec.workload, iteration, rows)
        if preemptions := counters.get("vllm:num_preemptions", 0):
            sentence = (
                f"Iteration {index}: {preemptions} preemptions; the KV cache does not hold all sequences at once."
            )
            flags.append(Flag(code="preemptions", severity="warning", sentence=sentence))
        tell(IterationDone(iteration=iteration, sequences=rows, flags=flags))
        slow = series.take(iteration.elapsed_s, job.timeout_s - (time.perf_counter() - began))
        if slow is not None:
            tell(WarmupExtended(more=slow.more, sentence=slow.sentence))
    tell(Done())


def main() -> int:
    """Reads the job from stdin and does it; 0 if all iterations were delivered."""
    die_with_parent(signal.SIGKILL)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    text = orders.readline()
    with open(os.devnull) as nothing:  # noqa: PTH123 (nobody else is to read, or to wait for, what comes on stdin)
        os.dup2(nothing.fileno(), 0)
    if not text:  # the supervisor ended before it had anything to do
        return 1
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        measure(Job.model_validate_json(text), descriptor, orders)
    except Exception as error:
        traceback.print_exc()
        send(descriptor, Failed(exception=f"{type(error).__name__}: {error}"))
        status = 1
    else:
        status = 0
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown could hang in the engine's threads; the guardian ends the engine's other processes.
    os._exit(status)


if __name__ == "__main__":
    main()
