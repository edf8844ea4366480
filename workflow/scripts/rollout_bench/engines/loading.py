"""How the modes begin that hold vLLM's `LLM` in the engine process: import, construct, say what was loaded."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from rollout_bench.engines.environment import read_environment
from rollout_bench.engines.events import Job, PhaseBegins, Ready
from rollout_bench.engines.proof import quant_flags
from rollout_bench.engines.telling import Tell
from rollout_bench.engines.vllm_offline import Engine


def loaded(job: Job, tell: Tell, **more: Any) -> Engine:
    """The engine of `job`, of which all is told; from here on it logs nothing but warnings.

    Args:
        job: what is to be done.
        tell: takes each event.
        more: arguments of vLLM's that are no settings of the experiment.
    """
    spec = job.spec
    variables = dict(os.environ)
    tell(PhaseBegins(phase="importing"))
    start = time.perf_counter()
    import vllm  # noqa: F401 (timed on its own)
    from vllm import LLM  # noqa: F401 (imported lazily by vllm)

    import_s = time.perf_counter() - start
    tell(PhaseBegins(phase="initializing"))
    start = time.perf_counter()
    engine = Engine(spec, job.model, **more)
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
    return engine
