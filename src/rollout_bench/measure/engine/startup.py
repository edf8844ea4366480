"""Mode startup in the engine process: starts an engine, has it generate one token, and tells what that took."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollout_bench.contracts.record import EngineFacts, Iteration, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.vllm import (
    EngineStart,
    LoadedEngine,
    arguments,
    of_one_engine,
    sequence_rows,
    source_of,
    tell_ready,
)
from rollout_bench.measure.launch.flags import token_flags
from rollout_bench.measure.launch.preflight import VARIABLES
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
    StartSeen,
    Tell,
    Wait,
)
from rollout_bench.measure.starts.start_notes import (
    NOTES,
    StartNote,
    logging_configuration,
    noting_configuration,
    read_notes,
)
from rollout_bench.measure.starts.start_phases import StartSpan, noted_spans
from rollout_bench.workloads.requests import Request


@dataclass(frozen=True)
class _Started:
    """An engine that has started and generated a token. Times are on the monotonic clock, in seconds.

    Attributes:
        start: its beginning.
        init_s: constructing it until it takes requests, in seconds.
        told: what `facts_of` returns.
        world_size: devices that it uses.
        vocabulary: token ids of the model.
        spans: its phases, which may overlap; the first one is the import, the last one ends with the token.
        notes: what its processes noted.
        began: when it got the word, or its process was begun; None where that is the launch's beginning.
        sent: when the request was sent.
        token: when the token was back.
        asked: the request.
        row: what came of it.
        stop: ends it, where the end of this process does not.
    """

    start: EngineStart
    init_s: float
    told: tuple[EngineFacts, dict[str, Any], dict[int, str]]
    world_size: int
    vocabulary: int
    spans: list[StartSpan]
    notes: list[StartNote]
    began: float | None
    sent: float
    token: float
    asked: Request
    row: SequenceRow
    stop: Callable[[], None] | None = None


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: tell each event. The start is the pass: it begins with the word, before anything is imported.

    A warm launcher has imported everything by then.
    """
    spec = job.spec
    assert spec.startup is not None, "specs of this mode have it"
    scratch = Path(tempfile.gettempdir())
    cache_files = _prepare(spec, scratch)
    own = (NOTES, "VLLM_LOGGING_CONFIG_PATH", *(VARIABLES if spec.startup.caches == "cold" else ()))
    begun = _server_begun if spec.startup.entries == "server" else _llm_begun
    done = begun(job, tell, wait, own, scratch / "start-notes")
    tell_ready(job, tell, done.start, done.init_s, done.told, done.world_size, done.vocabulary)
    tell(
        StartSeen(
            spans=[(span.name, span.began, span.ended) for span in done.spans],
            imports=done.spans[0].began,
            began=done.began,
            token=done.spans[-1].ended,
            cache_files=cache_files,
        )
    )
    row = done.row
    iteration = Iteration(
        index=0,
        warmup=False,
        elapsed_s=done.token - done.sent,
        requests=1,
        sequences=1,
        prompt_tokens=row.prompt_tokens,
        cached_prompt_tokens=row.cached_prompt_tokens,
        output_tokens=row.output_tokens,
    )
    flags = token_flags(spec.workload, [done.asked], iteration, [row])
    tell(IterationDone(iteration=iteration, sequences=[row], flags=flags, wanted=1, began=done.sent))
    if done.stop is not None:
        tell(PhaseBegins(phase="stopping"))
        done.stop()


def _llm_begun(job: Job, tell: Tell, wait: Wait, own: Collection[str], noted: Path) -> _Started:
    """Start vLLM's `LLM` in this process."""
    startup = job.spec.startup
    assert startup is not None, "specs of this mode have it"
    waits = startup.launchers == "warm"
    if not waits:
        wait()
    start, began, spans = _imported(tell, own)
    word: float | None = None
    if waits:
        wait()
        word = began = time.monotonic()
        start = replace(start, import_s=0.0)
    engine, constructed, config_span = _constructed(job, began)
    (asked,) = source_of(job, engine.vocabulary).requests(job.launch, 0)[:1]
    how = engine.sampling_of([asked.output_tokens], single=True)
    sent = time.monotonic()
    outputs: list[Any] = engine.llm.generate([{"prompt_token_ids": asked.prompt_token_ids}], how, use_tqdm=False)
    token = time.monotonic()
    tell(IterationEnds())
    notes = read_notes(noted)
    # Between engine and request lies what making the request took, which is ours and no part of a start.
    last = StartSpan(name="first_token", began=constructed, ended=constructed + token - sent)
    (row,) = sequence_rows(outputs, [asked], 0, sent)
    return _Started(
        start=start,
        init_s=constructed - began,
        told=engine.facts(),
        world_size=engine.world_size,
        vocabulary=engine.vocabulary,
        spans=[*spans, config_span, *noted_spans(notes, config_span.ended, constructed), last],
        notes=notes,
        began=word,
        sent=sent,
        token=token,
        asked=asked,
        row=row,
    )


def _server_begun(job: Job, tell: Tell, wait: Wait, own: Collection[str], noted: Path) -> _Started:
    """Start vLLM's server in a process of its own, and ask it over HTTP."""
    from rollout_bench.measure.starts.served_start import StartingServer  # the other entry has no use for a client

    spec, startup = job.spec, job.spec.startup
    assert startup is not None, "specs of this mode have it"
    variables = {name: value for name, value in os.environ.items() if name not in own}
    of_one = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": of_one_engine(spec)})})
    waits = startup.launchers == "warm"
    if not waits:
        wait()
    tell(PhaseBegins(phase="importing"))
    server = StartingServer(of_one, job.model, _loading(spec), noted, waits)
    if waits:
        tell(PhaseBegins(phase="initializing"))
        wait()
        server.begin()
    asked: list[Request] = []

    def request_for(vocabulary: int) -> Request:
        asked.extend(source_of(job, vocabulary).requests(job.launch, 0)[:1])
        return asked[0]

    served = server.first_token(request_for)
    tell(IterationEnds())
    opened = served.opened
    return _Started(
        start=EngineStart(variables, served.import_s, 0.0),
        init_s=served.up - served.constructing,
        told=(opened.facts, opened.device, opened.processes),
        world_size=opened.world_size,
        vocabulary=opened.vocabulary,
        spans=served.spans,
        notes=served.notes,
        began=served.began,
        sent=served.sent,
        token=served.token,
        asked=asked[0],
        row=served.row,
        stop=opened.stop,
    )


def _prepare(spec: Spec, scratch: Path) -> int:
    """Set what vLLM reads when it is imported: where it notes, and empty caches where those are wanted.

    Returns:
        Files in the compile caches.
    """
    assert spec.startup is not None, "specs of this mode have it"
    configuration = scratch / "start-logging.json"
    configuration.write_text(logging_configuration())
    os.environ |= {
        NOTES: str(scratch / "start-notes"),
        "VLLM_LOGGING_CONFIG_PATH": str(configuration),
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    if spec.startup.caches == "cold":
        for variable, part in VARIABLES.items():
            os.environ[variable] = str(scratch / "cold" / part)
    folders = {os.environ[variable] for variable in VARIABLES if variable in os.environ}
    return sum(len(files) for folder in folders for _, _, files in os.walk(folder))


def _imported(tell: Tell, own: Collection[str]) -> tuple[EngineStart, float, list[StartSpan]]:
    """Import vLLM, finding out the platform on the way; return when constructing began, and the spans so far.

    Args:
        tell: takes each event.
        own: variables with paths of this launch alone, which are no part of its surroundings.
    """
    variables = {name: value for name, value in os.environ.items() if name not in own}
    tell(PhaseBegins(phase="importing"))
    imports = time.monotonic()
    import vllm  # noqa: F401 (timed on its own)

    asks = time.monotonic()
    from vllm.platforms import current_platform

    _ = current_platform.device_type
    answered = time.monotonic()
    from vllm import LLM  # noqa: F401 (imported lazily by vllm)

    began = time.monotonic()
    tell(PhaseBegins(phase="initializing"))
    spans = [
        StartSpan(name="import", began=imports, ended=began),
        StartSpan(name="platform", began=asks, ended=answered),
    ]
    return EngineStart(variables, began - imports, time.perf_counter()), began, spans


def _loading(spec: Spec) -> dict[str, Any]:
    """Return the engine's argument for how weights are loaded, where that is not as usual."""
    assert spec.startup is not None, "specs of this mode have it"
    return {} if spec.startup.load_formats == "auto" else {"load_format": spec.startup.load_formats}


def _constructed(job: Job, began: float) -> tuple[LoadedEngine, float, StartSpan]:
    """Return the engine, when it was constructed, and when, since it `began`, its configuration was made."""
    from vllm import LLM

    made: list[float] = []
    with noting_configuration(made.append):
        engine = LoadedEngine(job.spec, LLM(model=job.model, **{**arguments(job.spec), **_loading(job.spec)}))
    constructed = time.monotonic()
    return engine, constructed, StartSpan(name="config", began=began, ended=made[0] if made else began)
