"""Profile mode in the engine process: traces steps through the engine or its server, and checks the traces."""

import gzip
import itertools
import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.phases import Phase
from rollout_bench.contracts.record import SequenceRow
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import load_engine, source_of
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
)
from rollout_bench.measure.server.served import iteration_of, opened_server, prepare, rows_of
from rollout_bench.measure.server.session import Opened
from rollout_bench.modes.profile.events import StepsDone
from rollout_bench.modes.profile.record import Step, TraceFile
from rollout_bench.modes.profile.settings import ProfileSettings
from rollout_bench.modes.profile.steps import Following, Windows
from rollout_bench.workloads.requests import Request, Source

STEP = re.compile(rb"execute_(?:\d+_)?(?:context|new)_\d+")
"""Mark of a step by vLLM's worker, since 0.23."""

RANK = re.compile(r"(?:global_)?rank[-_]?(\d+)")

ENDING = ".pt.trace.json"
"""End of the names of torch's trace files, before .gz."""

ASCEND = "_ascend_pt"
"""End of the names of torch_npu's trace folders."""


def profiler_config(folder: Path) -> dict[str, Any]:
    """Return vLLM's `profiler_config` for traces in `folder`."""
    return {
        "profiler": "torch",
        "torch_profiler_dir": str(folder),
        "torch_profiler_record_shapes": True,
        "torch_profiler_with_stack": False,
        "torch_profiler_with_memory": False,
        "torch_profiler_use_gzip": True,
        # Otherwise each stop makes a table of all operators, which takes longer than the steps.
        "torch_profiler_dump_cuda_time_total": False,
        # Otherwise the front end would be traced from start to stop, whatever the window is.
        "ignore_frontend": True,
    }


class Traces:
    """The traces of a launch.

    Args:
        folder: existing folder for the traces.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written = folder / "profiler"
        """Output folder of the profiler."""
        self.written.mkdir()

    def take(self, phase: Phase) -> list[TraceFile]:
        """Move the profiler's new traces into the folder, with plain names.

        Raises:
            MeasuringFailed: if there is no trace, or a trace is torn or empty.
        """
        paths = [path for path in sorted(self.written.iterdir()) if ENDING in path.name or path.name.endswith(ASCEND)]
        if not paths:
            raise MeasuringFailed(
                "no_trace",
                f"the profiler was stopped and wrote no trace of {phase}",
                "look for 'profiler' in the log; free some space, and check that this torch was built with kineto",
            )
        kept = []
        for number, path in enumerate(paths):
            in_name = RANK.search(path.name)
            rank = int(in_name[1]) if in_name else number
            ascend = path.name.endswith(ASCEND)
            name = f"{phase}.rank{rank}" + (ASCEND if ascend else ".trace.json.gz")
            if not ascend:
                check_whole(path)
            target = self._folder / name
            shutil.move(path, target)
            size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) if ascend else target.stat().st_size
            source = "torch_npu" if ascend else "torch"
            kept.append(TraceFile(name=name, phase=phase, rank=rank, source=source, size_bytes=size))
        return kept

    def drop(self) -> None:
        """Remove the trace of the profiler's first step, which is unusually slow."""
        for path in self.written.iterdir():
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)

    def close(self) -> None:
        """Remove the profiler's remaining files."""
        shutil.rmtree(self.written, ignore_errors=True)


TRACED: tuple[Phase, ...] = ("prefill", "decode")
"""The traced phases, each in separate windows."""


def check_whole(path: Path) -> None:
    """Raise `MeasuringFailed` if the trace at `path` is torn or contains no step of the engine."""
    steps, end = 0, b""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while content := file.read(1 << 22):
                steps += len(STEP.findall(content))
                end = (end + content)[-64:]
    except (OSError, EOFError, zlib.error) as error:
        raise MeasuringFailed("torn_trace", f"the trace {path.name} is torn: {error}", _SMALLER) from None
    if not end.rstrip().endswith(b"}"):
        raise MeasuringFailed("torn_trace", f"the trace {path.name} is torn: it ends in the middle", _SMALLER)
    if not steps:
        raise MeasuringFailed("empty_trace", f"the trace {path.name} holds no step of the engine", _SMALLER)


_SMALLER = "free some space in the results folder; with fewer profile.steps a trace is smaller"


def measure(job: Job, context: EngineContext) -> None:
    """Do `job` through the engine itself, or through its server if the spec has a load.

    Raises:
        MeasuringFailed: if the server is missing or ended, or a trace is missing.
    """
    (_measure_engine if job.spec.load is None else _measure_server)(job, context)


def _measure_engine(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each window of steps.

    Raises:
        MeasuringFailed: if a trace is missing.
    """
    spec, settings = job.spec, job.spec.of(ProfileSettings)
    assert job.traces is not None, "a profile's job says where traces go"
    traces = Traces(Path(job.traces))
    engine = load_engine(job, context, profiler_config=profiler_config(traces.written))
    source = source_of(job, engine.vocabulary)
    context.send(PhaseBegins(phase="warmup"))
    for index in range(spec.measuring.warmup_iterations):
        done = engine.iterate(source.requests(job.launch, index), index, context.await_turn)
        context.send(IterationDone(iteration=done.iteration, sequences=done.rows, flags=[]))
    passes = (source.requests(job.launch, spec.measuring.warmup_iterations + number) for number in range(10**9))
    windows = Windows(Following(engine, apart=spec.engine.multiprocess), passes)
    context.send(PhaseBegins(phase="measuring"))
    for phase in TRACED:
        context.await_turn()
        windows.steps(phase, 1, engine)
        traces.drop()
        context.send(IterationEnds())
        for profiled in (False, True, False):
            context.await_turn()
            steps = windows.steps(phase, settings.steps, engine if profiled else None)
            context.send(IterationEnds())
            if not steps:
                cause = f"the workload has no {phase} steps to trace"
                raise MeasuringFailed("no_steps", cause, "ask for more output_tokens")
            context.send(StepsDone(steps=steps, traces=traces.take(phase) if profiled else []))
    traces.close()


def _measure_server(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each pass.

    Raises:
        MeasuringFailed: if the server is missing or ended, or a trace is missing.
    """
    spec, load, settings = job.spec, job.spec.load, job.spec.of(ProfileSettings)
    assert load is not None, "a profile through a server has a load"
    assert job.traces is not None, "a profile's job says where traces go"
    traces = Traces(Path(job.traces))
    opened = opened_server(job, context, profiler_config=profiler_config(traces.written))
    passes = _Passes(job, load, opened, source_of(job, opened.vocabulary), context)
    context.send(PhaseBegins(phase="warmup"))
    for _ in range(spec.measuring.warmup_iterations):
        passes.warm_up()
    context.send(PhaseBegins(phase="measuring"))
    for phase in TRACED:
        passes.traced(phase, 1)
        traces.drop()
        for profiled in (False, True, False):
            rows = passes.traced(phase, settings.steps) if profiled else passes.send()[1]
            steps = [] if profiled else decode_steps(rows)
            context.send(StepsDone(steps=steps, traces=traces.take(phase) if profiled else []))
    traces.close()
    context.send(PhaseBegins(phase="stopping"))
    opened.stop()


class _Passes:
    """Sends one pass of the workload after another, all requests together."""

    def __init__(self, job: Job, load: LoadSpec, opened: Opened, source: Source, context: EngineContext) -> None:
        self._job = job
        self._load = load
        self._opened = opened
        self._source = source
        self._context = context
        self._index = 0

    def warm_up(self) -> None:
        """Send a pass that does not count, and report it."""
        done, rows = self.send()
        iteration = iteration_of(rows[0].iteration, True, self._load.points[0], done, rows)
        self._context.send(IterationDone(iteration=iteration, sequences=[], flags=[]))

    def traced(self, phase: Phase, count: int) -> list[SequenceRow]:
        """Send a pass and trace `count` steps, the first or those after half the tokens; return its rows."""

        def start(asked: Sequence[Request]) -> None:
            delay = 0 if phase == "prefill" else max(request.output_tokens for request in asked) // 2
            self._ask("/start_profile", {"delay_iterations": delay, "max_iterations": count})

        rows = self.send(start)[1]
        self._ask("/stop_profile", None)
        return rows

    def _ask(self, path: str, content: dict[str, Any] | None) -> None:
        with self._opened.between_passes():
            status, answer = self._opened.connection.ask("POST", path, content, answer_s=self._job.timeout_s)
        if status != 200:
            cause = f"the server answers {status} to {path}: {self._opened.target.quoted(answer, 200)}"
            raise MeasuringFailed("no_trace", cause, "read the end of the log; profile.through: engine needs no server")

    def send(self, before: Callable[[Sequence[Request]], None] | None = None) -> tuple[Any, list[SequenceRow]]:
        """Send a pass after calling `before` with its requests; return what was sent, and the rows."""
        index, self._index = self._index, self._index + 1
        asked = self._source.requests(self._job.launch, index)
        with self._opened.between_passes():
            self._opened.reset()
        prompts, target = self._opened.prompts(asked), self._opened.target
        send = prepare(self._load, asked, prompts, self._load.points[0], target, f"profile/{index}")
        self._context.await_turn()
        if before is not None:
            before(asked)
        done = send()
        self._context.send(IterationEnds())
        self._opened.check()
        rows = rows_of(asked, done, index)
        failed = [row.error for row in rows if row.error]
        if failed:
            cause = f"{len(failed)} of {len(rows)} requests failed, the first with: {failed[0]}"
            with self._opened.between_passes():  # as in online mode
                raise MeasuringFailed("all_requests_failed", cause, "read the end of the log for what the server said")
        return done, rows


def decode_steps(rows: Sequence[SequenceRow]) -> list[Step]:
    """Return the steps that only decoded, found from the longest answer of `rows`.

    Two successive tokens of that answer enclose one engine step. A step that produced the first token of another
    answer also computed a prompt, so it is left out.
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
