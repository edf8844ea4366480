"""What outlived a launch whose command and guardian were both killed is ended by the next, and nothing else is."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest
from launching import tiny_spec

from rollout_bench.core import processes as processes_of
from rollout_bench.measure.launch import guardian
from rollout_bench.measure.machine.leases import LeaseRequest, lease

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, [HERE, HERE.parents[1] / "fixtures", HERE.parents[2] / "src"]))

PROGRAM = """
import os, sys
from pathlib import Path
from test_supervised_replicas import session
session(Path(sys.argv[1]), os.pipe()[0], "hangs", listen=lambda event: print(event, flush=True)).run()
"""


KILLED_BEFORE_A_WORD = """
import os, signal, subprocess
start = subprocess.Popen.__init__
def started(self, command, **more):
    start(self, command, **more)
    guardians.append("guardian" in str(command))
    if sum(guardians) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
guardians = []
subprocess.Popen.__init__ = started
"""
"""Has the supervisor killed as soon as it has started a second guardian, before it can tell it anything."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    return folder


@pytest.fixture
def processes(tmp_path: Path, temporary: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, psutil.Process]]:
    """Yield a supervisor in a pass, its guardian and its engine, which would sleep for a minute.

    A parameter is the code that the supervisor runs before.
    """
    environment = {**os.environ, "PYTHONPATH": PATHS}
    command = [sys.executable, "-c", getattr(request, "param", "") + PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        next(line for line in supervisor.stdout if "begins" in line)
        found = {"supervisor": psutil.Process(supervisor.pid)}
        for child in found["supervisor"].children():
            found["guardian" if "guardian" in " ".join(child.cmdline()) else "engine"] = child
        yield found
        for process in found.values():
            if process.is_running():
                process.kill()


def left_behind(temporary: Path) -> Path:
    """Return a temporary folder as a launch leaves it that was killed with its guardian."""
    folder = temporary / f"{guardian.PREFIX}left"
    folder.mkdir()
    (folder / guardian.LOCK).touch()
    return folder


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


LOOK = guardian.processes_in


def asleep(folder: Path) -> subprocess.Popen[bytes]:
    """Return a process of the launch whose temporary folder this is, once its variables show that."""
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, "TMPDIR": str(folder)})
    while process.pid not in LOOK(folder):
        time.sleep(0.01)
    return process


def test_the_next_launch_ends_what_outlived_guardian_and_command(
    processes: dict[str, psutil.Process], temporary: Path, tmp_path: Path
):
    (folder,) = temporary.iterdir()
    assert not guardian.end_left_behind(print)
    assert folder.is_dir(), "the launch was alive"
    processes["guardian"].suspend()
    processes["supervisor"].kill()
    processes["supervisor"].wait()
    assert not guardian.end_left_behind(print)
    assert folder.is_dir(), "the guardian would have seen to it"
    processes["guardian"].kill()
    while is_alive(processes["guardian"]):  # only its end frees the folder's lock
        time.sleep(0.01)
    assert is_alive(processes["engine"])
    with lease(LeaseRequest(tiny_spec(), tmp_path / "a/b/launch-0.json"), time.sleep, print):
        assert not is_alive(processes["engine"])
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("processes", [KILLED_BEFORE_A_WORD], indirect=True, ids=["killed_before_a_word"])
def test_a_guardian_of_a_killed_command_ends_the_engine(processes: dict[str, psutil.Process], temporary: Path):
    processes["guardian"].kill()
    assert processes["supervisor"].wait() == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while list(temporary.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(temporary.iterdir()) == [], "the second guardian removes the folder once it has ended the engine"
    assert not is_alive(processes["engine"])


def test_processes_started_after_the_look_are_ended_too(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(temporary)
    started = [asleep(folder)]

    def look_and_start_another(folder: Path) -> list[int]:
        found = LOOK(folder)
        if len(started) == 1:  # as if the first had done so, and was gone at once when it was killed
            started.append(asleep(folder))
            started[0].kill()
            started[0].wait()
        return found

    monkeypatch.setattr(guardian, "processes_in", look_and_start_another)
    assert guardian.end_left_behind(print)
    assert not folder.exists()
    assert started[1].wait() == -signal.SIGKILL


def test_a_killed_process_that_is_found_no_more_is_waited_for(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(temporary)
    with asleep(folder) as dying:
        looks = iter([[dying.pid]])
        monkeypatch.setattr(guardian, "processes_in", lambda _: next(looks, []))
        monkeypatch.setattr(os, "kill", lambda *given, kill=os.kill: threading.Timer(0.3, kill, given).start())
        assert guardian.end_left_behind(print)
        assert dying.wait(0) == -signal.SIGKILL


def test_an_unkillable_process_is_named_and_found_again_later(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(temporary)
    printed: list[str] = []
    with asleep(folder) as stuck:
        with monkeypatch.context() as patch:  # nothing but a driver holds a process that is killed
            patch.setattr(guardian, "LIMIT_S", 0.2)
            patch.setattr(os, "kill", lambda *_: None)
            assert guardian.end_left_behind(printed.append)
        (message,) = printed
        assert f"processes {stuck.pid}\n" in message
        assert len(message.splitlines()) == 2
        assert (folder / guardian.STUCK).read_text().startswith(f"{stuck.pid}:")
        monkeypatch.setattr(Path, "read_bytes", lambda _: b"")  # as of one that is being killed
        assert guardian.end_left_behind(printed.append)
        assert stuck.wait() == -signal.SIGKILL
    assert printed == [message]
    assert not folder.exists()


def test_a_folder_of_that_name_without_an_engine_stays(temporary: Path):
    mine, linked, elsewhere = (temporary / name for name in ("rollout-engine-mine", "rollout-engine-link", "elsewhere"))
    for folder in (mine, elsewhere):
        folder.mkdir()
        (folder / "file").touch()
    (elsewhere / guardian.LOCK).touch()
    linked.symlink_to(elsewhere)
    assert not guardian.end_left_behind(print)
    assert (mine / "file").is_file()
    assert (linked / "file").is_file()


def test_leftovers_of_another_users_launch_are_left_alone(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(temporary)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
        guardian.end_left_behind(print)
        assert folder.is_dir()
    guardian.end_left_behind(print)
    assert not folder.exists()


def test_shared_memory_is_removed_once_all_its_users_are_dead(temporary: Path):
    memory = SharedMemory(create=True, size=4096)
    path = processes_of.SHARED_MEMORY / memory.name.lstrip("/")
    foreign = temporary / "psm_elsewhere"
    foreign.touch()
    (left_behind(temporary) / guardian.NOTED).write_text(f"{path}\n{foreign}\n")
    try:
        assert path in processes_of.shared_memory_of([os.getpid()])
        assert processes_of.shared_memory_of([1 << 22]) == set()
        guardian.end_left_behind(print)
        assert not path.exists()
        assert foreign.exists(), "only what lies where shared memory does is removed"
    finally:
        memory.close()
        with contextlib.suppress(FileNotFoundError):
            memory.unlink()
