"""Engines forked from a process that has imported vLLM; the import takes three quarters of a plain start on a CPU.

A block's process imports vLLM once and initialises no device. The process of each launch forks its engine from there.
This applies only to CPU engines whose core stays in their process. studies/forked_starts.py tests whether forked starts
give the same times and spread as plain starts.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from rollout_bench.contracts.spec import Spec, devices_per_replica, replicas
from rollout_bench.core.processes import STOPPING, Interrupted, stopping_handled_by
from rollout_bench.measure.launch.hooks import hooks_of

MODULES = (
    "vllm",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.qwen3",
)
"""Modules that a CPU engine imports before it reads its weights; further imports happen after the fork."""


@dataclass(frozen=True)
class Imported:
    """An import of the engine in this process.

    Attributes:
        seconds: duration of the import.
        output: text printed during the import, which the log of a plain start also contains.
        descriptors: file descriptors that the import opened.
    """

    seconds: float
    output: bytes
    descriptors: frozenset[int]


def can_fork(spec: Spec) -> bool:
    """Return whether the engine of `spec` is a single CPU process whose start is not being measured."""
    alone = replicas(spec) * devices_per_replica(spec) == 1 and not spec.engine.multiprocess
    return spec.platform == "cpu" and alone and hooks_of(spec).may_fork and spec.endpoint is None


def imported_once(module: str, environment: Mapping[str, str]) -> Imported | None:
    """Import the engine in this process, with the environment of the engines that are forked later.

    Args:
        module: the engine process's module.
        environment: the engines' environment, without the temporary folder.

    Returns:
        The import; None if it fails, because a plain start then reports the reason.

    Raises:
        Interrupted: if a signal arrived.
    """
    before = _descriptors()
    began = time.monotonic()
    try:
        with stopping_handled_by(_interrupt), _as_in(environment), _captured() as output:
            for name in (*MODULES, module):
                importlib.import_module(name)
    except Interrupted:
        raise
    except Exception:  # from any library
        return None
    gc.freeze()  # otherwise each engine's first collection would copy the shared memory
    return Imported(time.monotonic() - began, bytes(output), frozenset(_descriptors() - before))


class Forked:
    """An engine process forked from this one, with the used part of the interface of `subprocess.Popen`.

    Args:
        module: the engine process's module, whose `main` runs.
        imported: the import to continue from.
        environment: environment of the process.
        log: descriptor for its output.
        inherited: descriptors that stay open; the first is the process's argument.
    """

    def __init__(
        self, module: str, imported: Imported, environment: Mapping[str, str], log: int, inherited: Sequence[int]
    ) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(module, imported, environment, (reading, log, log), inherited)
        os.close(reading)
        self.stdin = open(writing, "wb", buffering=0)  # noqa: PTH123, SIM115 (a descriptor, closed with the replica)
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for the process to end; return its exit status, a signal as a negative number."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def _become(
    module: str,
    imported: Imported,
    environment: Mapping[str, str],
    standard: Sequence[int],
    inherited: Sequence[int],
) -> NoReturn:
    """Turn this forked process into the engine process, as if started with `python -m`."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        for target, descriptor in enumerate(standard):
            os.dup2(descriptor, target)
        for descriptor in _descriptors() - {0, 1, 2, *inherited, *imported.descriptors}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        os.write(1, imported.output)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor)
        sys.argv = [module, str(inherited[0])]
        sys.modules[module].main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)  # `main` ends the process itself


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 (names, as fast as they come)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)


@contextlib.contextmanager
def _as_in(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _captured() -> Iterator[bytearray]:
    """Collect the output of this process and its libraries instead of showing it."""
    output, kept = bytearray(), (os.dup(1), os.dup(2))
    with tempfile.TemporaryFile() as file:
        sys.stdout.flush()
        sys.stderr.flush()
        for target in (1, 2):
            os.dup2(file.fileno(), target)
        try:
            yield output
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
            file.seek(0)
            output += file.read()
