"""Profile mode behind vLLM's server: traces through /start_profile and /stop_profile, step times from the answers."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rollout_bench.engines.environment import read_environment
from rollout_bench.engines.events import IterationDone, IterationEnds, Job, Linears, PhaseBegins, Ready, StepsDone
from rollout_bench.engines.online_rows import iteration_of, rows_of
from rollout_bench.engines.profile_worker import tell_limits
from rollout_bench.engines.proof import quant_flags
from rollout_bench.engines.source import source_of
from rollout_bench.engines.telling import Tell, Wait
from rollout_bench.engines.traces import Traces, fitting_steps, phases, profiler_config
from rollout_bench.records.profile import Phase, Step
from rollout_bench.records.record import SequenceRow
from rollout_bench.serving.opened import Opened, open_own
from rollout_bench.serving.sending import Sending
from rollout_bench.serving.target import ServingFailed
from rollout_bench.workloads.requests import Request, Source


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Does `job`: tells each event, and waits for the word before each pass.

    Raises:
        ServingFailed: there is no server, it ended, or there is no trace of what was asked for.
    """
    spec, load, settings = job.spec, job.spec.load, job.spec.profile
    assert load is not None, "a profile through a server has a load"
    assert settings is not None, "a profile's spec says what is traced"
    assert job.traces is not None, "a profile's job says where traces go"
    variables = dict(os.environ)
    traces = Traces(Path(job.traces))
    opening = open_own(spec, job.model, profiler_config=profiler_config(settings, traces.written))
    tell(PhaseBegins(phase="importing"))
    start = time.perf_counter()
    sending = Sending(load)  # imports vLLM, while the server does too
    import_s = time.perf_counter() - start
    tell(PhaseBegins(phase="initializing"))
    opened = opening()
    tell(
        Ready(
            import_s=import_s,
            init_s=time.perf_counter() - start - import_s,
            environment=read_environment(spec.engine, spec.platform, opened.device, opened.world_size, variables),
            engine=opened.facts,
            flags=opened.flags + quant_flags(spec.quant, opened.facts),
            processes=opened.processes,
        )
    )
    tell(Linears(linears=opened.linears()))
    passes = _Passes(job, opened, sending, source_of(job, opened.vocabulary), tell, wait)
    tell(PhaseBegins(phase="warmup"))
    for _ in range(spec.measuring.warmup_iterations):
        passes.warm_up()
    tell(PhaseBegins(phase="measuring"))
    for phase in phases(settings):
        count, truncated = fitting_steps(partial(passes.traced, phase, 1), traces, phase, settings)
        for profiled in (False, True, False):
            rows = passes.traced(phase, count) if profiled else passes.plain()
            steps = [] if profiled else decode_steps(rows)
            tell(StepsDone(steps=steps, traces=traces.take(phase) if profiled else [], truncated=truncated))
    traces.close()
    tell_limits(spec.platform, tell)  # the server is idle, and its end has a limit of its own
    tell(PhaseBegins(phase="stopping"))
    opened.stop()


class _Passes:
    """Sends one pass of the workload after the other, all requests at once."""

    def __init__(self, job: Job, opened: Opened, sending: Sending, source: Source, tell: Tell, wait: Wait) -> None:
        self._job = job
        self._opened = opened
        self._sending = sending
        self._source = source
        self._tell = tell
        self._wait = wait
        self._index = 0

    def warm_up(self) -> None:
        """A pass that is told of and never counted."""
        assert self._job.spec.load is not None, "a profile through a server has a load"
        point = self._job.spec.load.points[0]
        done, rows = self._send()
        self._tell(
            IterationDone(
                iteration=iteration_of(rows[0].iteration, True, point, done, rows, None), sequences=[], flags=[]
            )
        )

    def plain(self) -> list[SequenceRow]:
        """A pass without the profiler."""
        return self._send()[1]

    def traced(self, phase: Phase, count: int) -> list[SequenceRow]:
        """A pass of which `count` steps are traced: the first that compute, or those half-way through."""

        def start(asked: Sequence[Request]) -> None:
            self._ask("/start_profile", _window(max(request.output_tokens for request in asked), phase, count))

        rows = self._send(start)[1]
        self._ask("/stop_profile", None)
        return rows

    def _ask(self, path: str, content: dict[str, Any] | None) -> None:
        with self._opened.between_passes():
            status, said = self._opened.connection.ask("POST", path, content, answer_s=self._job.timeout_s)
        if status != 200:
            cause = f"the server answers {status} to {path}: {self._opened.target.quoted(said, 200)}"
            raise ServingFailed("no_trace", cause, "read the end of the log; profile.through: engine needs no server")

    def _send(self, before: Callable[[Sequence[Request]], None] | None = None) -> tuple[Any, list[SequenceRow]]:
        assert self._job.spec.load is not None, "a profile through a server has a load"
        index, self._index = self._index, self._index + 1
        asked = self._source.requests(self._job.launch, index)
        with self._opened.between_passes():
            self._opened.reset()
        prompts = [request.prompt_token_ids for request in asked]
        point = self._job.spec.load.points[0]
        send = self._sending.prepare(asked, prompts, point, self._opened.target, f"profile/{index}")
        self._wait()
        if before is not None:
            before(asked)
        done = send()
        self._tell(IterationEnds())
        self._opened.check()
        rows = rows_of(asked, done, index)
        failed = [row.error for row in rows if row.error]
        if failed:
            cause = f"{len(failed)} of {len(rows)} requests failed, the first with: {failed[0]}"
            raise ServingFailed("all_requests_failed", cause, "read the end of the log for what the server said")
        return done, rows


def _window(most_tokens: int, phase: Phase, count: int) -> dict[str, int]:
    """vLLM's words for `count` steps from the first, or half-way through the longest answer, of `most_tokens`."""
    return {"delay_iterations": 0 if phase == "prefill" else most_tokens // 2, "max_iterations": count}


def decode_steps(rows: Sequence[SequenceRow]) -> list[Step]:
    """The steps in which nothing but decoding went on, as the longest answer of `rows` shows them.

    From one of its tokens to the next is one step of the engine; a step in which another answer had its first token
    computed a prompt, too, and is left out.
    """
    shown = max(rows, key=lambda row: len(row.gaps_us or ()))
    if shown.first_token_s is None or shown.gaps_us is None:
        return []
    ends = list(itertools.accumulate((gap / 1e6 for gap in shown.gaps_us), initial=shown.first_token_s))
    tokens = shown.gap_tokens or [1] * len(ends)
    firsts = sorted(row.first_token_s for row in rows if row.first_token_s is not None)
    steps = []
    for (began, ended), single in zip(itertools.pairwise(ends), (count == 1 for count in tokens[1:]), strict=True):
        if not single or ended <= began or any(began < first <= ended for first in firsts):
            continue
        running = sum(
            row.first_token_s is not None and row.first_token_s <= began and (row.last_token_s or 0.0) >= ended
            for row in rows
        )
        steps.append(Step(phase="decode", profiled=False, elapsed_s=ended - began, tokens=running, sequences=running))
    return steps
