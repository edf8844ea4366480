"""Online mode in the engine process: sends one load after another to a server and returns the rows."""

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

from rollout_bench.contracts.load import LoadPoint, LoadSpec
from rollout_bench.contracts.record import Flag, Iteration, SequenceRow
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import passes, source_of
from rollout_bench.measure.launch.flags import preempted_flags, prefix_cache_flags, repeated_flags, token_flags
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
)
from rollout_bench.measure.server import server_metrics
from rollout_bench.measure.server.served import iteration_of, opened_server, prepare, rows_of
from rollout_bench.measure.server.session import Opened, check_answer
from rollout_bench.measure.server.stream import Target
from rollout_bench.workloads.requests import Request, Source, sent_of, with_shifted_ids


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each iteration.

    Raises:
        MeasuringFailed: if the server is missing or ended, or every request of a pass failed.
    """
    spec, load = job.spec, job.spec.load
    assert load is not None, "an online spec has a load"
    opened = opened_server(job, context)
    sent = LoadPasses(job, load, opened, source_of(job, opened.vocabulary), context)
    first = 0
    for number, point in enumerate(load.points):
        if number:
            time.sleep(load.between_loads_s)
        for index, warmup in passes(spec.measuring, context.send, first):
            try:
                context.send(sent.send(point, index, warmup))
            except MeasuringFailed as failed:
                raise _after_answers(failed, load, number) if index and spec.endpoint else failed from None
            first = index + 1
    if job.is_last:
        context.send(PhaseBegins(phase="stopping"))
        opened.stop()


GONE = "refused", "unreachable", "all_requests_failed"
"""Failures that mean another thing of a server that has answered before."""


def _after_answers(failed: MeasuringFailed, load: LoadSpec, number: int) -> MeasuringFailed:
    """Return the failure of a server that answered earlier passes, in load `number` of `load`, from 0."""
    if failed.category not in GONE:
        return failed
    of = f" (load {number + 1} of {len(load.points)})" if len(load.points) > 1 else ""
    cause = f"the server answered at first, and no more at {load.points[number].label}{of}: {failed.problem}"
    return MeasuringFailed(failed.category, cause, "look at its log; the next run measures all loads again")


SPARE = 2
"""Requests drawn for a timed closed-loop pass, as a multiple of the requests that the previous pass sent."""


@dataclass(frozen=True)
class LoadPasses:
    """Data shared by all passes of a launch."""

    job: Job
    load: LoadSpec
    opened: Opened
    source: Source
    context: EngineContext
    sent: dict[str, int] = field(default_factory=dict)
    """Label of a load -> number of requests that its last pass sent."""

    def send(self, point: LoadPoint, index: int, warmup: bool) -> IterationDone:
        """Send one pass; return its event."""
        spec, opened = self.job.spec, self.opened
        # for a timed closed loop, only the previous pass shows how many requests are needed
        loop = point.duration_s is not None and point.request_rate == "inf"
        asked = self.source.requests(self.job.launch, index, SPARE * self.sent.get(point.label, 0) if loop else 0)
        dataset = spec.workload.dataset
        if spec.endpoint is not None and (dataset is None or dataset.format == "trace"):
            # An endpoint's cache cannot be cleared, and may hold these prompts: from another name, another workload
            # or a failed launch. So the ids are changed at random, except in prompts written by people.
            asked = with_shifted_ids(asked, opened.vocabulary, int.from_bytes(os.urandom(4)))
        # the loads that an endpoint answered before it went away stand, so each further one is tried by one request
        answered_others = spec.endpoint is not None and bool(self.sent.keys() - {point.label})
        pace, before = point, ""
        try:
            with opened.between_passes():
                opened.reset()
                before = opened.connection.metrics()
        except MeasuringFailed as failed:
            if not answered_others or failed.category not in GONE:
                raise
            asked, pace = asked[:1], LoadPoint()
        label = f"{spec.workload.seed}/{self.job.launch}/{index}"
        talks = spec.workload.turns is not None
        said = opened.said(asked) if talks else ()
        send = prepare(self.load, asked, opened.prompts(asked), pace, opened.target, label, said)
        self.context.await_turn()
        done = send()
        self.context.send(IterationEnds())
        opened.check()
        asked = sent_of(asked, done.sent)
        if done.turns:
            turns = zip(done.turns, asked, strict=True)
            asked = [replace(turn, sample=one.sample) for turn, one in turns]
        rows = rows_of(asked, done, index)
        self.sent[point.label] = len(rows)
        use = drafting = None
        if not answered_others:
            with opened.between_passes():  # a killed server ends shortly after its requests
                _check_some_succeeded(rows, opened.target)
        # what an endpoint answered before it went away still counts, and the requests that it lost are flagged
        is_excused = spec.endpoint is not None and any(row.failed for row in rows)
        with suppress(MeasuringFailed) if is_excused else nullcontext(), opened.between_passes():
            if before:
                after = opened.connection.metrics()
                use, drafting = server_metrics.increase(before, after), server_metrics.drafted(before, after)
        iteration = iteration_of(index, warmup, point, done, rows, use, drafting)
        flags = self._flags(asked, rows, iteration) + repeated_flags(iteration, done.sent)
        flags += preempted_flags(index, (use.preemptions or 0) if use else 0)
        return IterationDone(iteration=iteration, sequences=rows, flags=flags)

    def _flags(self, asked: Sequence[Request], rows: Sequence[SequenceRow], iteration: Iteration) -> list[Flag]:
        """Return the flags of the answers `rows` to the requests `asked`."""
        spec = self.job.spec
        good = [(request, row) for request, row in zip(asked, rows, strict=True) if row.complete]
        flags = token_flags(spec.workload, [request for request, _ in good], iteration, [row for _, row in good])
        is_own_server = spec.endpoint is None
        # Text gives other token counts, and an endpoint may ignore ignore_eos: counts are right, the load differs.
        flags = _warnings_unless(is_own_server and self.load.token_ids, flags)
        # others may use an endpoint too, and the start of a chat template is cached for all prompts
        talks = spec.workload.turns is not None
        cached = first_turns_flags(asked, iteration, rows) if talks else prefix_cache_flags(asked, iteration, rows)
        return flags + _warnings_unless(is_own_server and self.load.api is None, cached)


def first_turns_flags(asked: Sequence[Request], iteration: Iteration, rows: Sequence[SequenceRow]) -> list[Flag]:
    """Return a flag if first turns found more in the prefix cache than they share; None if the server does not say."""
    first = [(request, row) for request, row in zip(asked, rows, strict=True) if row.turn == 1]
    cached = [row.cached_prompt_tokens for _, row in first]
    known = None if None in cached else sum(tokens or 0 for tokens in cached)
    alone = iteration.model_copy(update={"cached_prompt_tokens": known})
    return prefix_cache_flags([request for request, _ in first], alone, [row for _, row in first])


def _warnings_unless(certain: bool, flags: Sequence[Flag]) -> list[Flag]:
    return [flag if certain else flag.model_copy(update={"severity": "warning"}) for flag in flags]


def _check_some_succeeded(rows: Sequence[SequenceRow], target: Target) -> None:
    """Raise `MeasuringFailed` with the most frequent error if every request failed."""
    if not rows:
        raise MeasuringFailed("load_generator", "no request was sent in the time of a pass", "set a longer duration_s")
    if not all(row.failed for row in rows):
        return
    errors = [row.error or "" for row in rows]
    often = max(set(errors), key=errors.count)
    status = next((row.status for row in rows if row.error == often), None)
    if status in (401, 403, 404):
        check_answer(status, often, target)
    cause = f"all {len(rows)} requests failed, {errors.count(often)} of them with: {often}"
    raise MeasuringFailed(
        "all_requests_failed", cause, "try one request by hand; lower the load if the server refuses it"
    )
