"""Mode placement in the engine's process: the controller starts a rank for each device and leads them through steps.

controller -- job, go (stdin) ->  rank 0 (same session) --- engine, trainer, or both
    |      <-- words (pipe) ---
    |      -- job, go ->          rank 1 ...
    ranks also communicate directly: gloo, NCCL

When the controller ends, for any reason, the ranks end too.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rollout_bench.contracts.placed_steps import PlacedStep, PlacementSpec, RankStep
from rollout_bench.contracts.record import Environment, WeightBytes
from rollout_bench.contracts.spec import Platform, Spec, placed_engines, tensor_parallel_size
from rollout_bench.measure.engine.passes import passes
from rollout_bench.measure.launch.failures import CRASH_FIX, diagnose
from rollout_bench.measure.launch.protocol import (
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
    Ready,
    Tell,
    Wait,
)
from rollout_bench.measure.launch.replicas import done_together, ready_together
from rollout_bench.measure.machine import inventory
from rollout_bench.measure.placed.words import (
    GO,
    MEETING,
    RankFailed,
    RankJob,
    RankLoaded,
    RankWaits,
    StepOver,
    Word,
    told_word,
)
from rollout_bench.measure.server.stream import ServingFailed

TAIL_LINES = 400
"""Number of a rank's last log lines that are searched for the cause of a failure."""

LOG_S = 1.0
"""Time to wait for the end of a failed rank's log, with its traceback, in seconds."""

CAUSE_S = 5.0
"""Time to wait for the cause after a rank has only lost the others, in seconds."""

Told = TypeVar("Told", Ready, RankLoaded, RankWaits, StepOver)

DEVICES_OF: Mapping[Platform, str] = {"cuda": "CUDA_VISIBLE_DEVICES"}
"""Platform -> variable with the devices that a process sees."""


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do `job`: send each event, and wait for the order before each step.

    Raises:
        ServingFailed: if the placement is impossible, or a rank failed.
    """
    spec = job.spec
    check(spec)
    with started(job) as ranks:
        tell(ready(ranks.ready(tell), ranks, spec))
        for _ in passes(spec.measuring, tell):
            ranks.told_all(RankWaits)
            wait()
            ranks.go()
            over = ranks.told_all(StepOver)
            tell(IterationEnds())
            tell(together(over, spec))


def check(spec: Spec) -> None:
    """Raise `ServingFailed` if engines and trainer cannot be placed as in `spec`."""
    placement = placement_of(spec)
    problem = ""
    shards, generating = tensor_parallel_size(spec), len(placement.generating)
    if generating % shards:
        problem = f"tensor_parallel_size {shards} does not divide the {generating} devices that generate"
        fix = "set it to a divisor, or change placement.devices or placement.generators"
    if spec.platform not in ("cpu", *DEVICES_OF):
        problem, fix = f"on {spec.platform} no placement is measured", "measure on cpu or cuda"
    for name in ("pipeline_parallel_size", "data_parallel_size"):
        if int(spec.engine.args.get(name) or 1) > 1:
            problem = f"{name} {spec.engine.args[name]}: engines of a placement know tensor_parallel_size alone"
            fix = f"leave {name} out of engine_args under placement, or set it to 1"
    if spec.quant.weights_format != "bf16":
        problem = f"{spec.quant.name}: the trainer's weights are bf16, and its format is quantized beforehand"
        fix = "place bf16"
    if placement.overlap and not spec.measuring.warmup_iterations:
        problem = "overlap 1 without a warm-up: in the first step there is nothing yet to train on"
        fix = "set warmup_iterations to 1 or more"
    if placement.sleep and (placement.generators is not None or spec.platform not in DEVICES_OF):
        problem = f"sleep {placement.sleep}: only engines that share a GPU with their trainer can sleep meanwhile"
        fix = "leave sleep out"
    if problem:
        raise ServingFailed("impossible_placement", problem, fix)


def placement_of(spec: Spec) -> PlacementSpec:
    """Return the placement settings of a spec."""
    assert spec.placement is not None, "a placement has its settings"
    return spec.placement


@dataclass
class RankProcess:
    """A rank as the controller sees it.

    Attributes:
        number: its number.
        name: its name in messages.
        process: the process.
        pipe: becomes readable when the rank sends an event.
        log: its last log lines.
    """

    number: int
    name: str
    process: subprocess.Popen[bytes]
    pipe: int
    log: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    words: deque[Word] = field(default_factory=deque)
    _rest: bytes = b""
    _copying: threading.Thread | None = None

    def order(self, content: bytes) -> None:
        """Write to its stdin; if the rank is gone, its pipe shows it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(content)
            self.process.stdin.flush()

    def read(self) -> list[Word] | None:
        """Return its new events; None after it has ended."""
        content = os.read(self.pipe, 1 << 20)
        if not content:
            return None
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [told_word(line) for line in lines]

    def begin_log(self) -> None:
        """Start copying its log to the launch's log, with its number before each line."""
        self._copying = threading.Thread(target=self._copy_log, daemon=True)
        self._copying.start()

    def end_log(self) -> None:
        """Wait until its log is copied, at most `LOG_S` seconds in case a child process continues."""
        if self._copying is not None:
            self._copying.join(LOG_S)

    def _copy_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text = line.decode(errors="replace")
            self.log.append(text)
            sys.stdout.write(f"(rank {self.number}) {text}")
            sys.stdout.flush()


class Ranks:
    """All ranks of a launch.

    Args:
        ranks: the ranks, by number.
    """

    def __init__(self, ranks: Sequence[RankProcess]) -> None:
        self._ranks = ranks
        self._pipes = selectors.DefaultSelector()
        for rank in ranks:
            self._pipes.register(rank.pipe, selectors.EVENT_READ, rank)

    @property
    def processes(self) -> dict[int, str]:
        """Pid -> name of each rank."""
        return {rank.process.pid: f"rank {rank.number}" for rank in self._ranks}

    def ready(self, tell: Tell) -> list[Ready]:
        """Return the starts of all engines once every rank is loaded; send the phases of rank 0."""
        self.told_all(RankLoaded, tell)
        said = [(rank, word) for rank in self._ranks for word in rank.words if isinstance(word, Ready)]
        for rank, word in said:
            rank.words.remove(word)
        return [word for _, word in said]

    def told_all(self, kind: type[Told], tell: Tell | None = None) -> list[Told]:
        """Return the next event of type `kind` from each rank.

        Raises:
            ServingFailed: if a rank fails.
        """
        found: dict[int, Told] = {}
        while True:
            for rank in self._ranks:
                for word in [word for word in rank.words if isinstance(word, kind)][:1]:
                    if rank.number not in found:
                        found[rank.number] = word
                        rank.words.remove(word)
            if len(found) == len(self._ranks):
                return [found[rank.number] for rank in self._ranks]
            self._listen(tell)

    def go(self) -> None:
        """Let all ranks begin the next step."""
        for rank in self._ranks:
            rank.order(GO)

    def _listen(self, tell: Tell | None) -> None:
        for rank, word in self._told(None):
            if isinstance(word, RankFailed):
                self._raise(rank, word)
            elif isinstance(word, PhaseBegins):
                if tell is not None and rank.number == 0:
                    tell(word)
            else:
                rank.words.append(word)

    def _told(self, limit_s: float | None) -> Iterator[tuple[RankProcess, Word]]:
        """Yield the next events of ranks; for a rank that ended without reporting, yield a failure."""
        for key, _ in self._pipes.select(limit_s):
            rank: RankProcess = key.data
            words = rank.read()
            if words is None:
                self._pipes.unregister(rank.pipe)
                yield rank, ended(rank)
            else:
                for word in words:
                    yield rank, word

    def _raise(self, first: RankProcess, failed: RankFailed) -> None:
        """Raise the cause of the failure; if a rank only lost the others, wait briefly for their failure."""
        found, deadline = [(first, failed)], time.monotonic() + CAUSE_S
        while all(word.bereft for _, word in found) and time.monotonic() < deadline:
            told = self._told(deadline - time.monotonic())
            found += [(rank, word) for rank, word in told if isinstance(word, RankFailed)]
        rank, word = min(found, key=lambda pair: pair[1].bereft)
        rank.end_log()
        if word.category:
            raise ServingFailed(word.category, f"{rank.name}: {word.exception}", word.fix)
        cause = diagnose(word.exception, "".join(rank.log))
        raise ServingFailed(cause.category, f"{rank.name}: {cause.cause}", cause.fix)


def ended(rank: RankProcess) -> RankFailed:
    """Return the failure of a rank that ended without reporting one."""
    status = rank.process.wait()
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    fix = f"{CRASH_FIX}; where nobody ended it, memory may have run out: look at dmesg"
    return RankFailed(exception=f"its process {how}", category="crash", fix=fix)


@contextmanager
def started(job: Job) -> Iterator[Ranks]:
    """Start all ranks of `job` and send them their jobs; they end with this process."""
    placement = placement_of(job.spec)
    # in the launch's own temporary folder, which is removed with it
    folder = tempfile.mkdtemp(prefix="ranks-")
    ranks = []
    for number in range(placement.devices):
        environment, cores = surroundings(job.spec, number, folder)
        ranks.append(_start(number, placement, environment))
        own = job.model_copy(update={"replica": 0, "line": None})
        order = RankJob(job=own, rank=number, cores=cores, folder=folder)
        ranks[-1].order(f"{order.model_dump_json()}\n".encode())
    for rank in ranks:  # only now, because a process with threads cannot be forked safely
        rank.begin_log()

    def ask_ranks(*_: object) -> None:
        """Let all ranks print their stacks: the supervisor signals this process, which only waits for them."""
        for rank in ranks:
            rank.process.send_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, ask_ranks)
    yield Ranks(ranks)


def _start(number: int, placement: PlacementSpec, environment: dict[str, str]) -> RankProcess:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    process = subprocess.Popen(
        [sys.executable, "-m", "rollout_bench.measure.placed.rank", str(writing)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[writing],
    )
    os.close(writing)
    does = [
        *(["generates"] if number in placement.generating else []),
        *(["trains"] if number in placement.training else []),
    ]
    return RankProcess(number, f"rank {number} of {placement.devices} ({' and '.join(does)})", process, reading)


def surroundings(spec: Spec, number: int, folder: str) -> tuple[dict[str, str], list[int] | None]:
    """Return the environment of rank `number`, and the cores that it may use; None for all.

    The ranks of an engine see the devices of all its ranks, which vLLM needs for transfers outside NCCL.
    """
    devices = placement_of(spec).devices
    shards = next((ranks for ranks in placed_engines(spec) if number in ranks), range(number, number + 1))
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if spec.engine.multiprocess else "0",
        # within the engine, in torchrun's convention
        "RANK": str(shards.index(number)),
        "LOCAL_RANK": str(shards.index(number)),
        "WORLD_SIZE": str(len(shards)),
        # contains the folder's name, which is unique to the launch
        MEETING: f"{folder}/{Path(folder).name}-engine-{shards[0]}",
    }
    if spec.platform in DEVICES_OF:
        variable = DEVICES_OF[spec.platform]
        visible = os.environ.get(variable)
        there = [str(rank) for rank in range(devices)] if visible is None else visible.split(",")
        if len(there) < devices or not all(there):
            raise ServingFailed(
                "too_few_devices",
                f"{variable} is {visible!r}, and a placement needs {devices} devices",
                f"let the launch see {devices} devices, or lower placement.devices",
            )
        environment[variable] = ",".join(there[rank] for rank in shards)
        return environment, None
    cores = list(inventory.core_blocks(devices)[number].cores)
    environment[inventory.MEMORY_NODES] = inventory.memory_nodes(cores)
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(cores))
    environment["OMP_NUM_THREADS"] = str(min(threads, len(cores)))
    return environment, cores


def ready(readies: Sequence[Ready], ranks: Ranks, spec: Spec) -> Ready:
    """Return the start of the launch: the start of its engines, on the devices of all ranks.

    Args:
        readies: the starts of all generating ranks, by number.
        ranks: all ranks.
        spec: the spec of the launch.
    """
    engines = [engine_ready([readies[rank] for rank in shards]) for shards in placed_engines(spec)]
    one = engines[0] if len(engines) == 1 else ready_together(engines, spec.platform)
    changes: dict[str, int] = {"cpu_cores": len(os.sched_getaffinity(0))}
    if spec.platform != "cpu":
        changes["device_count"] = placement_of(spec).devices
    environment: Environment = one.environment.model_copy(update=changes)
    cores = {pid: name for each in readies for pid, name in each.processes.items()}
    return one.model_copy(update={"environment": environment, "processes": cores | ranks.processes})


def engine_ready(shards: Sequence[Ready]) -> Ready:
    """Return the start of an engine from the starts of its ranks: the times of the slowest, the weights of all."""
    slowest = max(shards, key=lambda rank: rank.import_s + rank.init_s)
    weights = [each for rank in shards if (each := rank.engine.weights_bytes_by_dtype) is not None]
    linear = sum((Counter(each.linear) for each in weights), Counter[str]())
    other = sum((Counter(each.other) for each in weights), Counter[str]())
    of_all = WeightBytes(linear=dict(linear), other=dict(other))
    engine = shards[0].engine.model_copy(update={"weights_bytes_by_dtype": of_all})
    return shards[0].model_copy(update={"import_s": slowest.import_s, "init_s": slowest.init_s, "engine": engine})


def together(over: Sequence[StepOver], spec: Spec) -> IterationDone:
    """Return the joint pass of all ranks, which were released together.

    Args:
        over: the steps of all ranks, by number.
        spec: the spec of the launch.

    Raises:
        ServingFailed: if ranks of one engine generated different sequences.
    """
    release = min(one.released for one in over)
    passes = [engine_pass([over[rank] for rank in shards], release) for shards in placed_engines(spec)]
    done = passes[0] if len(passes) == 1 else done_together(passes)
    ranks = [_rebased(one.step, release) for one in over]
    placed = PlacedStep(
        elapsed_s=max(span.began_s + span.elapsed_s for rank in ranks for span in rank.spans),
        ranks=ranks,
        gathered_bytes=sum(one.gathered_bytes for one in over),
        update_bytes=max(one.update_bytes for one in over),
        proofs=[one.proof for one in over if one.proof is not None],
    )
    parts = done.iteration.replicas if len(passes) > 1 else None
    iteration = done.iteration.model_copy(update={"placed": placed, "replicas": parts})
    return done.model_copy(update={"iteration": iteration, "began": release})


def engine_pass(shards: Sequence[StepOver], release: float) -> IterationDone:
    """Return the pass of an engine from the steps of its ranks; it ends with the last rank.

    Args:
        shards: the steps of its ranks.
        release: time at which the first rank of the launch was released, on the monotonic clock, in seconds.

    Raises:
        ServingFailed: if its ranks generated different sequences, so that one must be wrong.
    """
    told = [one.done for one in shards if one.done is not None]
    first, *others = told
    generated = [(row.prompt, row.sample, row.digest) for row in first.sequences]
    if any(generated != [(row.prompt, row.sample, row.digest) for row in other.sequences] for other in others):
        raise ServingFailed(
            "ranks_disagree",
            f"iteration {first.iteration.index}: ranks {shards[0].step.rank} to {shards[-1].step.rank} are one engine, "
            "and generated different sequences",
            "measure with tensor_parallel_size 1, and report it to vLLM: ranks with the same requests must agree",
        )
    offset_s = shards[0].released - release
    end_s = max(one.released + done.iteration.elapsed_s for one, done in zip(shards, told, strict=True)) - release
    parts = [
        part.model_copy(update={"start_offset_s": offset_s, "elapsed_s": end_s - offset_s})
        for part in first.iteration.replicas or []
    ]
    iteration = first.iteration.model_copy(update={"replicas": parts, "elapsed_s": end_s - offset_s})
    return first.model_copy(update={"iteration": iteration})


def _rebased(step: RankStep, release: float) -> RankStep:
    spans = [span.model_copy(update={"began_s": span.began_s - release}) for span in step.spans]
    return step.model_copy(update={"spans": spans})
