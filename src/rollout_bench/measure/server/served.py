"""Steps that modes behind a server share: open it, send a pass, and make the pass's iteration and rows."""

import gc
import itertools
import os
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.contracts.record import Drafting, Iteration, SequenceRow, ServerUse
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.lora import written_adapter
from rollout_bench.measure.launch.flags import engine_flags
from rollout_bench.measure.launch.protocol import (
    Job,
    PhaseBegins,
    Ready,
)
from rollout_bench.measure.machine.host import read_environment
from rollout_bench.measure.server import commands, guidellm, inference_perf_command, paced, vllm_command
from rollout_bench.measure.server.session import Opened, open_endpoint, start_server
from rollout_bench.measure.server.stream import Load, LoadPass, Prompt, RequestOutcome, Target
from rollout_bench.workloads.requests import Request, arrivals

HARNESSES: dict[str, commands.Harness] = {
    "vllm-bench": vllm_command,
    "guidellm": guidellm,
    "inference-perf": inference_perf_command,
}
"""External load generators, by their names in the config."""


def prepare(
    spec: LoadSpec,
    requests: Sequence[Request],
    prompts: Sequence[Prompt],
    point: LoadPoint,
    target: Target,
    label: str,
    said: Sequence[Sequence[Prompt]] = (),
) -> Callable[[], LoadPass]:
    """Prepare one pass; return a function that sends it.

    Args:
        spec: names the load generator and the distribution of arrivals.
        requests: the requests.
        prompts: the prompt of each request.
        point: the load.
        target: the server.
        label: seeds the arrival times.
        said: for each request, the user's part of its further turns; empty without conversations.
    """
    due_s = _due_s(spec, requests, point, label)
    turns = sum(len(request.further) for request in requests) if point.conversations else 0
    most = None if point.duration_s is not None else len(requests) + turns
    load = Load(
        requests=requests,
        prompts=prompts,
        due_s=due_s,
        concurrency=point.concurrency,
        count=point.requests or most if due_s is None else len(due_s),
        duration_s=point.duration_s,
        request_rate=None if isinstance(point.request_rate, str) else point.request_rate,
        burstiness=spec.burstiness,
        request_timeout_s=spec.request_timeout_s,
        seed=zlib.crc32(label.encode()),
        said=said,
        rotating=point.conversations is not None,
    )
    if spec.harness in HARNESSES:
        return commands.prepare(HARNESSES[spec.harness], load, target)
    return paced.prepare(load, target)


def _due_s(spec: LoadSpec, requests: Sequence[Request], point: LoadPoint, label: str) -> list[float] | None:
    if point.request_rate == "inf":
        return None
    if point.request_rate == "trace":
        times = [request.arrival_s or 0.0 for request in requests]
        return [time for time in times if point.duration_s is None or time < point.duration_s][: point.requests]
    return arrivals(float(point.request_rate), spec.burstiness, point.due_requests or len(requests), label)


def iteration_of(
    index: int,
    warmup: bool,
    point: LoadPoint,
    done: LoadPass,
    rows: Sequence[SequenceRow],
    server: ServerUse | None = None,
    drafting: Drafting | None = None,
) -> Iteration:
    """Return the iteration; failed requests add neither tokens nor sequences.

    Of a request cut at the end, the received tokens count, and its prompt if any token was received.
    """
    good = [row for row in rows if not row.failed]
    complete = sum(row.complete for row in rows)
    return Iteration(
        index=index,
        warmup=warmup,
        elapsed_s=done.elapsed_s,
        requests=len(rows),
        sequences=complete,
        prompt_tokens=sum(row.prompt_tokens for row in good if row.complete or row.output_tokens),
        cached_prompt_tokens=None if server is None else server.prefix_cache_hits,
        output_tokens=sum(row.output_tokens for row in good),
        point=point,
        failed=len(rows) - len(good),
        incomplete=None if point.duration_s is None else len(good) - complete,
        client=done.client,
        server=server,
        drafting=drafting,
    )


def rows_of(requests: Sequence[Request], done: LoadPass, index: int) -> list[SequenceRow]:
    """Return one row for each request, in order; times in seconds after the start of the pass."""
    return [
        _row(request, outcome, done.began_s, index) for request, outcome in zip(requests, done.outcomes, strict=True)
    ]


def _row(request: Request, outcome: RequestOutcome, began_s: float, index: int) -> SequenceRow:
    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - began_s, 6)

    pieces, tokens = outcome.pieces_s, outcome.piece_tokens
    cut = outcome.cut_s is not None
    every = outcome.every_piece or len(tokens) == len(pieces)
    return SequenceRow(
        iteration=index,
        prompt=request.prompt,
        sample=request.sample,
        turn=request.turn,
        cached_prompt_tokens=outcome.cached_tokens,
        prompt_tokens=len(request.prompt_token_ids) if outcome.prompt_tokens is None else outcome.prompt_tokens,
        output_tokens=0
        if cut and not outcome.counted
        else outcome.output_tokens,  # the number of pieces is not a token count
        finish_reason=outcome.finish_reason,
        first_token_s=since(pieces[0]) if pieces else None,
        last_token_s=since(pieces[-1]) if pieces else None,
        due_s=since(outcome.due_s),
        sent_s=since(outcome.sent_s),
        gaps_us=[round(1e6 * (b - a)) for a, b in itertools.pairwise(pieces)] if every else None,
        gap_tokens=tokens if any(count != 1 for count in tokens) else None,
        status=outcome.status,
        error=outcome.error,
        cut_s=since(outcome.cut_s),
    )


def opened_server(job: Job, context: EngineContext, **more: Any) -> Opened:
    """Open the server of `job`, or take the one that is there, and report its start.

    Args:
        job: the launch.
        context: the engine process, which keeps the server for further jobs.
        more: engine arguments that are not settings of the experiment.

    Raises:
        MeasuringFailed: if the server is missing or ended.
    """
    spec, variables, adapter = job.spec, dict(os.environ), None
    if spec.lora is not None and context.kept is None:
        adapter = written_adapter(spec, job.model)
        # collections skip what this imported, so that none of them delays a request
        gc.collect()
        gc.freeze()
    start_s = time.perf_counter()
    endpoint = None if spec.endpoint is None else open_endpoint(spec)  # so that a missing one is reported immediately
    if endpoint is not None or context.kept is None:
        context.send(PhaseBegins(phase="importing"))
        context.send(PhaseBegins(phase="initializing"))
    if endpoint is None and context.kept is None:
        context.kept = start_server(spec, job.model, adapter, **more), time.perf_counter() - start_s
    opened, init_s = context.kept if endpoint is None else (endpoint, time.perf_counter() - start_s)
    environment, flags = (
        read_environment(spec.engine, spec.platform, opened.census, opened.world_size, variables),
        opened.flags,
    )
    if endpoint is None:
        opened.serve(spec)
        flags = flags + engine_flags(spec, opened.facts)
    else:
        version = (opened.facts.served and opened.facts.served.version) or "unknown"
        # the variables describe this machine, and one of them may be the key
        theirs = environment.model_copy(update={"torch_version": "unknown", "engine_version": version})
        environment = theirs.model_copy(update={"packages": {}, "variables": {}})
    context.send(
        Ready(
            import_s=0.0, init_s=init_s, environment=environment, engine=opened.facts, flags=flags,
            processes=opened.processes,
        )
    )  # fmt: skip
    return opened
