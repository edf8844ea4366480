"""Engines forked from a process that has imported vLLM, which takes most of a plain start on a CPU.

    supervisor -- module, environment, descriptors (socket) --> starter -- fork --> engine process
               <-- pid, later the exit status ---------------------------------

The starter imports vLLM once and initialises no device. It forks an engine for each connection, for all launches whose
engines have the same environment, until its owner ends. studies/forked_starts.py tests whether forked starts give the
same times and spread as plain starts.
"""

import contextlib
import errno
import fcntl
import gc
import hashlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.spec import Spec, devices_per_replica, replicas
from rollout_bench.core.files import private_temporary
from rollout_bench.core.processes import Watch, group_of, pause, signal_groups
from rollout_bench.measure.launch.guardian import mark
from rollout_bench.measure.machine.leases import folder_lock

_ENGINE = ("vllm", "vllm.entrypoints.llm", "vllm.v1.engine.core", "vllm.model_executor.models.qwen3")

MODULES = {
    "cpu": (*_ENGINE, "vllm.v1.worker.cpu_worker"),
    "cuda": (*_ENGINE, "vllm.v1.engine.async_llm", "vllm.v1.worker.gpu_worker"),
}
"""Platform -> modules that an engine imports before it reads its weights; further imports happen after the fork."""

OF_EACH = ("CUDA_VISIBLE_DEVICES", "TMPDIR")
"""Environment variables that no import reads, so that they may differ between engines of one starter."""

IDLE_S = 600.0
"""A starter without engines ends after this time, in seconds."""

IMPORT_S = 600.0
"""Time limit of the import, in seconds."""

ANSWER_S = 60.0
"""Time limit of an answer of the starter, in seconds: one that was stopped must not hold up a launch for ever."""

DIGITS = 16
"""Length of the name of a starter's folder."""

LARGEST = 1 << 20
"""Limit of a message to the starter, in bytes: the environment of a process is smaller."""

_started: list[subprocess.Popen[bytes]] = []
"""Starters that this process started; nobody waits for them, since they end with their owner."""


def can_fork(spec: Spec) -> bool:
    """Return whether the engine of `spec` is a single process on one device, whose start is not being measured.

    Modes that are not interleaved measure the start itself, trace the engine, or start it in further processes.
    """
    apart = spec.platform == "cpu" and spec.engine.multiprocess  # its core would import all again
    single = replicas(spec) * devices_per_replica(spec) == 1 and spec.endpoint is None and not apart
    return spec.platform in MODULES and single and mode_of(spec.mode).interleaves


def starter_for(spec: Spec, module: str, environment: Mapping[str, str], owner: int, signals: int) -> Path | None:
    """Return the socket of the starter of an engine, which is started if there is none yet.

    Args:
        spec: the spec of the launch.
        module: the engine process's module.
        environment: environment of the engine.
        owner: process with which the starter ends.
        signals: descriptor from `signals_as_descriptor`.

    Returns:
        The socket; None if the engine needs a plain start: it cannot be forked, or its import fails, for which a plain
        start reports the reason.

    Raises:
        Interrupted: if a signal arrived.
    """
    folder = private_temporary() if can_fork(spec) else None
    if folder is None:
        return None
    modules = (*MODULES[spec.platform], module)
    common = {name: value for name, value in environment.items() if name not in OF_EACH}
    # containers that share the folder may each have a process with the owner's pid
    who = owner, group_of(owner).started, str(Path("/proc/self/ns/pid").readlink())
    identity = json.dumps([who, sys.executable, modules, sorted(common.items())])
    place = folder / hashlib.sha256(identity.encode()).hexdigest()[:DIGITS]
    place.mkdir(exist_ok=True)
    # another launch may sweep the place of a killed starter just now: then this engine starts plainly
    with contextlib.suppress(FileNotFoundError), folder_lock(place, partial(pause, signals)):
        path, output = place / "socket", place / "output"
        if is_listening(path):
            return path
        for left in (path, output):  # of a starter that was killed
            left.unlink(missing_ok=True)
        with output.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the starter inherits it, so the kernel releases it when that ends
            _sweep(folder)
            program = f"from {__name__} import serve; serve()"
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(path), str(owner), *modules],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=common,
                start_new_session=True,
            )
        _started.append(process)
        until = time.monotonic() + IMPORT_S
        while not is_listening(path):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                return None
            pause(signals, 0.05)
        return path
    return None


def _sweep(folder: Path) -> None:
    """Remove what killed starters left in `folder`: nobody holds the lock of their output."""
    for output in folder.glob("?" * DIGITS + "/output"):
        with contextlib.suppress(OSError), output.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(output.parent, ignore_errors=True)


def is_listening(path: Path) -> bool:
    """Return whether a starter listens at `path`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # a starter removes its folder when its owner ends
    with contextlib.suppress(FileNotFoundError), connection, named_socket(path) as name:
        return connection.connect_ex(name) == 0
    return False


@contextlib.contextmanager
def named_socket(path: Path) -> Iterator[str]:
    """Yield a short name of a socket, since the path of a socket has at most 107 bytes."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Forked:
    """An engine process of a starter, with the used part of the interface of `subprocess.Popen`.

    Args:
        starter: socket of the starter.
        module: the engine process's module, whose `main` runs.
        environment: environment of the process.
        log: descriptor for its output.
        inherited: descriptors that the process gets; the first is its argument.

    Raises:
        OSError: the starter has ended or does not answer.
    """

    def __init__(
        self, starter: Path, module: str, environment: Mapping[str, str], log: int, inherited: Sequence[int]
    ) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """Connection to the process that forked it, which ends the engine when the line closes."""
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        self.line.settimeout(ANSWER_S)
        try:
            with named_socket(starter) as name:
                self.line.connect(name)
            request = json.dumps([module, dict(environment)]).encode()
            socket.send_fds(self.line, [request], [reading, log, *inherited])
            if not (answer := self.line.recv(LARGEST)):
                raise ConnectionResetError(errno.ECONNRESET, "the starter of engines ended", str(starter))
            self.pid, *self.descriptors = json.loads(answer)
        except BaseException as error:
            os.close(writing)
            self.line.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(errno.ETIMEDOUT, "the starter of engines does not answer", str(starter)) from None
            raise
        finally:
            os.close(reading)
        self.stdin = open(writing, "wb", buffering=0)  # noqa: PTH123, SIM115 (a descriptor, closed with the replica)
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for the process, which has ended or is killed; return its exit status, a signal as a negative number."""
        if self._status is None:
            answer = b""
            with contextlib.suppress(TimeoutError):  # only its reaper knows the status
                answer = self.line.recv(LARGEST)
            self._status = int(answer or -signal.SIGKILL)  # a starter that ends takes its engines
            self.line.close()
        return self._status


def serve() -> NoReturn:
    """Import the engine and fork one for each connection, until the owner ends: the starter's process.

    Its arguments are the path of its socket, the pid of its owner, and the modules to import.
    """
    path, owner, *modules = sys.argv[1:]
    place, began, watch = Path(path), time.monotonic(), Watch(int(owner), "owner")
    with _ending_with(watch, place.parent):
        for name in modules:
            importlib.import_module(name)
    took_s = time.monotonic() - began
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        sys.exit("a device is initialised by the import, so that no engine can be forked")
    gc.freeze()  # otherwise each engine's first collection would copy the shared memory
    become = partial(_become, took_s, (place.parent / "output").read_bytes(), _descriptors())
    _serve(place, watch, become)
    os._exit(0)  # the end of an interpreter with vLLM takes a second


@contextlib.contextmanager
def _ending_with(owner: Watch, folder: Path) -> Iterator[None]:
    """End this process, and remove its folder, as soon as the owner ends: an import may take a minute."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if owner.ended():
                shutil.rmtree(folder, ignore_errors=True)
                os._exit(1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # before the first fork, which a second thread could leave with a lock held


def _serve(path: Path, owner: Watch, become: partial[NoReturn]) -> None:
    """Fork engines until the owner ends, or none was alive for `IDLE_S`."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with named_socket(path) as name:
        listening.bind(name)
    listening.listen()
    engines: dict[Watch, socket.socket] = {}
    while not owner.ended():
        waited = [owner, *engines]
        pidfds = [watch.descriptor for watch in waited if watch.descriptor is not None]
        nap_s = IDLE_S if len(pidfds) == len(waited) else 0.5
        awaited: list[socket.socket | int] = [listening, *engines.values(), *pidfds]
        ready = select.select(awaited, [], [], nap_s)[0]
        if not ready and not engines and nap_s == IDLE_S:
            return
        if listening in ready and (engine := _forked(listening.accept()[0], become)):
            engines[engine[0]] = engine[1]
        for watch, line in list(engines.items()):
            if watch.ended():
                status = os.waitstatus_to_exitcode(os.waitpid(watch.pid, 0)[1])
                with contextlib.suppress(OSError):
                    line.send(str(status).encode())
                line.close()
                watch.close()
                del engines[watch]
            elif line in ready:  # its supervisor was killed
                signal_groups([group_of(watch.pid)], signal.SIGKILL)
    shutil.rmtree(path.parent, ignore_errors=True)


def _forked(line: socket.socket, become: partial[NoReturn]) -> tuple[Watch, socket.socket] | None:
    """Fork the engine that a supervisor asks for by `line`; return None if it only looked whether this answers."""
    request, descriptors, *_ = socket.recv_fds(line, LARGEST, 16)
    if not request:
        line.close()
        return None
    pid = os.fork()
    if pid == 0:
        become(*json.loads(request), line, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return Watch(pid, "engine"), line


def _become(
    took_s: float,
    printed: bytes,
    kept: Collection[int],
    module: str,
    environment: Mapping[str, str],
    line: socket.socket,
    descriptors: Sequence[int],
) -> NoReturn:
    """Turn this forked process into the engine process, as if started with `python -m`.

    Args:
        took_s: time of the import, in seconds.
        printed: output of the import, which the log of a plain start also contains.
        kept: descriptors that the import opened.
        module: the engine process's module.
        environment: its environment.
        line: connection to the supervisor.
        descriptors: its standard input, its log, and those that it inherits.
    """
    try:
        os.setsid()
        reading, log, *inherited = descriptors
        for target, descriptor in enumerate((reading, log, log)):
            os.dup2(descriptor, target)
        line.send(json.dumps([os.getpid(), *inherited]).encode())
        for descriptor in _descriptors() - {0, 1, 2, *inherited, *kept}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        mark(Path(environment.get("TMPDIR", "")))
        os.write(1, printed)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (a descriptor)
        sys.argv = [module, str(inherited[0]), str(took_s)]
        sys.modules[module].main()
    except BaseException:
        traceback.print_exc()
    os._exit(1)  # `main` ends the process itself


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 (names, as fast as they come)
