"""Mode startup in the engine process: starts an engine, generates one token, and reports the times."""

import os
import tempfile
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import (
    EngineStart,
    LoadedEngine,
    arguments,
    sequence_rows,
    source_of,
)
from rollout_bench.measure.launch.flags import token_flags
from rollout_bench.measure.launch.preflight import VARIABLES
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
)
from rollout_bench.modes.startup.events import StartObserved
from rollout_bench.modes.startup.notes import logging_configuration, read_notes
from rollout_bench.modes.startup.phases import StartSpan, noted_spans
from rollout_bench.modes.startup.settings import StartupSpec


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event. The start is the pass: it begins with the order, before any import.

    A warm launcher has already imported everything when the order arrives.
    """
    spec = job.spec
    scratch = Path(tempfile.gettempdir())
    cache_files = _prepare(spec, scratch)
    hidden = ("VLLM_LOGGING_CONFIG_PATH", *(VARIABLES if spec.of(StartupSpec).caches == "cold" else ()))
    waits = spec.of(StartupSpec).launcher == "warm"
    if not waits:
        context.await_turn()
    start, began, spans = _imported(context, hidden)
    word: float | None = None
    if waits:
        context.await_turn()
        word = began = time.monotonic()
        start = replace(start, import_s=0.0)
    engine, constructed, config_span = _constructed(job, began)
    # a data set can have its own length
    asked = replace(source_of(job, engine.vocabulary).requests(job.launch, 0)[0], output_tokens=1)
    how = engine.sampling_of([asked.output_tokens], single=True)
    sent = time.monotonic()
    outputs: list[Any] = engine.llm.generate([{"prompt_token_ids": asked.prompt_token_ids}], how, use_tqdm=False)
    token = time.monotonic()
    context.send(IterationEnds())
    (row,) = sequence_rows(outputs, [asked], 0, sent)
    engine.send_ready(job, context, start, constructed - began)
    # The time between engine and request is our preparation of the request, not a part of the start.
    last = StartSpan("first_token", constructed, constructed + token - sent)
    noted = noted_spans(read_notes(scratch / "start-notes"), config_span.ended, constructed)
    spans += [config_span, *noted, last]
    context.send(
        StartObserved(
            spans=spans,
            imports=spans[0].began,
            began=word,
            token=last.ended,
            cache_files=cache_files,
        )
    )
    iteration = Iteration(
        index=0,
        warmup=False,
        elapsed_s=token - sent,
        requests=1,
        sequences=1,
        prompt_tokens=row.prompt_tokens,
        cached_prompt_tokens=row.cached_prompt_tokens,
        output_tokens=row.output_tokens,
    )
    flags = token_flags(spec.workload, [asked], iteration, [row])
    context.send(IterationDone(iteration=iteration, sequences=[row], flags=flags, began=sent))


def _prepare(spec: Spec, scratch: Path) -> int:
    """Set the variables that vLLM reads at import: the log with notes, and empty caches for cold starts.

    Returns:
        Number of files in the compile caches.
    """
    configuration = scratch / "start-logging.json"
    configuration.write_text(logging_configuration(scratch / "start-notes"))
    os.environ |= {
        "VLLM_LOGGING_CONFIG_PATH": str(configuration),
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    if spec.of(StartupSpec).caches == "cold":
        for variable, part in VARIABLES.items():
            os.environ[variable] = str(scratch / "cold" / part)
    folders = {os.environ[variable] for variable in VARIABLES if variable in os.environ}
    return sum(len(files) for folder in folders for _, _, files in os.walk(folder))


def _imported(context: EngineContext, hidden: Collection[str]) -> tuple[EngineStart, float, list[StartSpan]]:
    """Import vLLM and detect the platform; return the start, the time when construction begins, and the spans.

    Args:
        context: the engine process.
        own: variables with paths of this launch, to be left out of the environment.
    """
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    context.send(PhaseBegins(phase="importing"))
    imports = time.monotonic()
    import vllm  # noqa: F401 (timed on its own)

    asks = time.monotonic()
    from vllm.platforms import current_platform

    _ = current_platform.device_type
    answered = time.monotonic()
    from vllm import LLM  # noqa: F401 (imported lazily by vllm)

    began = time.monotonic()
    context.send(PhaseBegins(phase="initializing"))
    spans = [
        StartSpan("import", imports, began),
        StartSpan("platform", asks, answered),
    ]
    return EngineStart(variables, began - imports, time.perf_counter()), began, spans


def _constructed(job: Job, began: float) -> tuple[LoadedEngine, float, StartSpan]:
    """Return the engine, the time of its completion, and the span from `began` to the finished configuration."""
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    loads = job.spec.of(StartupSpec).load_format
    given = arguments(job.spec, job.model) | ({} if loads == "auto" else {"load_format": loads})
    make, made = EngineArgs.create_engine_config, [began]

    def timed(*args: Any, **kwargs: Any) -> Any:
        config = make(*args, **kwargs)
        made.append(time.monotonic())
        return config

    with mock.patch.object(EngineArgs, "create_engine_config", timed):
        engine = LoadedEngine(job.spec, LLM(model=job.model, **given))
    constructed = time.monotonic()
    return engine, constructed, StartSpan("config", began, made[:2][-1])
