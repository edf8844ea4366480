"""Profile mode in the engine process: times steps without the profiler, traces some, times more without it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rollout_bench.bounds.calibration import limits_of_this_machine
from rollout_bench.engines.events import (
    IterationDone,
    IterationEnds,
    Job,
    LimitsKnown,
    Linears,
    PhaseBegins,
    StepsDone,
)
from rollout_bench.engines.following import Following
from rollout_bench.engines.loading import loaded
from rollout_bench.engines.source import source_of
from rollout_bench.engines.stepping import Stepping
from rollout_bench.engines.telling import Tell, Wait
from rollout_bench.engines.traces import Traces, fitting_steps, phases, profiler_config
from rollout_bench.engines.windows import Windows
from rollout_bench.errors import UserError
from rollout_bench.plan.spec import Platform
from rollout_bench.serving.target import ServingFailed


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Does `job`: tells each event, and waits for the word before each window of steps.

    Raises:
        ServingFailed: there is no trace of what was asked for.
    """
    spec, settings = job.spec, job.spec.profile
    assert settings is not None, "a profile's spec says what is traced"
    assert job.traces is not None, "a profile's job says where traces go"
    traces = Traces(Path(job.traces))
    engine = loaded(job, tell, profiler_config=profiler_config(settings, traces.written))
    tell(Linears(linears=engine.linears()))
    source = source_of(job, engine.vocabulary)
    tell(PhaseBegins(phase="warmup"))
    for index in range(spec.measuring.warmup_iterations):
        done = engine.iterate(source.requests(job.launch, index), index, wait)
        tell(IterationDone(iteration=done.iteration, sequences=done.rows, flags=[]))
    passes = (source.requests(job.launch, spec.measuring.warmup_iterations + number) for number in range(10**9))
    windows = Windows((Following if spec.engine.multiprocess else Stepping)(engine), passes)
    tell(PhaseBegins(phase="measuring"))
    for phase in phases(settings):
        wait()
        count, truncated = fitting_steps(partial(windows.steps, phase, 1, engine), traces, phase, settings)
        tell(IterationEnds())
        tell(StepsDone(steps=[]))
        for profiled in (False, True, False):
            wait()
            steps = windows.steps(phase, count, engine if profiled else None)
            tell(IterationEnds())
            if not steps:
                cause = f"the workload has no {phase} steps to trace"
                raise ServingFailed("no_steps", cause, "set profile.phase to prefill, or ask for more output_tokens")
            tell(StepsDone(steps=steps, traces=traces.take(phase) if profiled else [], truncated=truncated))
    traces.close()
    tell_limits(spec.platform, tell)


def tell_limits(platform: Platform, tell: Tell) -> None:
    """Tells what this machine can do at most; a profile is worth having without it."""
    try:
        tell(LimitsKnown(limits=limits_of_this_machine(platform, say=print)))
    except (UserError, RuntimeError) as error:
        print(f"the machine's limits are not known: {error}")
