"""A starter forks the engines of one owner that need the same environment, and ends with the owner."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from launching import tiny_spec

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.places import python_path
from rollout_bench.core.processes import Group
from rollout_bench.measure.launch import guardian, starter
from rollout_bench.measure.launch.engine_process import start_process
from rollout_bench.measure.launch.starter import Forked, can_fork, starter_for

ENGINE = """
import os, sys
def main():
    print(os.environ["WHO"], sys.argv[1], flush=True)
    os._exit(int(sys.stdin.readline() or 1))
if __name__ == "__main__":
    main()
"""

Starting = Callable[..., Path | None]


def soon(is_so: Callable[[], bool]) -> bool:
    """Return whether something becomes true within 20 s."""
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so()


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def starting(tmp_path: Path, owner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Starting]:
    """Yield a function that returns the socket of the starter for an engine with further variables."""
    (tmp_path / "played.py").write_text(ENGINE)
    monkeypatch.setattr(starter, "MODULES", {"cpu": ()})
    signals, writing = os.pipe()

    def start(module: str = "played", **variables: str) -> Path | None:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{python_path()}:{tmp_path}", **variables}
        return starter_for(tiny_spec(), module, environment, owner.pid, signals)

    temporary = tmp_path / "longer than the path of a socket may be".replace(" ", "-") / ("t" * 100)
    temporary.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield start
    owner.kill()
    assert soon(lambda: not list(temporary.glob("*/*/socket"))), "a starter outlives its owner"
    os.close(signals)
    os.close(writing)


def forked(path: Path | None, log: Path, **variables: str) -> tuple[Forked, int]:
    """Fork an engine; return it, and the descriptor from which its own inherited one is read."""
    assert path is not None
    reading, writing = os.pipe()
    with log.open("ab") as file:
        process = Forked(path, "played", {"WHO": log.name, **variables}, file.fileno(), [writing])
    os.close(writing)
    return process, reading


def test_engines_with_the_same_environment_are_forked_from_one_process(starting: Starting, tmp_path: Path) -> None:
    one = starting(WHO="a", TMPDIR="a", CUDA_VISIBLE_DEVICES="0")
    assert starting(WHO="a", TMPDIR="b", CUDA_VISIBLE_DEVICES="1") == one
    assert starting(WHO="b") != one
    engines = [forked(one, tmp_path / name)[0] for name in ("first", "second")]
    parents = {psutil.Process(engine.pid).ppid() for engine in engines}
    assert len(parents) == 1
    assert [os.getsid(engine.pid) for engine in engines] == [engine.pid for engine in engines]
    for engine, word in zip(engines, (b"0\n", b"7\n"), strict=True):
        engine.stdin.write(word)
    assert [engine.wait() for engine in engines] == [0, 7]
    for engine in engines:
        engine.stdin.close()
    assert (tmp_path / "second").read_text() == f"second {engines[1].descriptors[0]}\n"


@pytest.mark.parametrize("differs", ["namespace", "start"])
def test_owners_with_the_same_pid_share_no_starter(
    starting: Starting, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    one, link = starting(), os.readlink
    if differs == "start":
        monkeypatch.setattr(starter, "group_of", lambda pid: Group(pid, 1))
    else:
        monkeypatch.setattr(
            os, "readlink", lambda path, **more: "pid:[1]" if "/ns/" in str(path) else link(path, **more)
        )
    assert starting() != one


def test_a_lost_supervisor_ends_its_engine(starting: Starting, tmp_path: Path) -> None:
    path = starting()
    killed, lost = (forked(path, tmp_path / name)[0] for name in "ab")
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    lost.line.close()
    for engine in (killed, lost):
        engine.stdin.close()
    assert soon(lambda: not psutil.pid_exists(lost.pid))


def test_an_engine_whose_launch_was_killed_is_found(starting: Starting, tmp_path: Path) -> None:
    path, folder = starting(), tmp_path / "rollout-engine-x"
    folders = {"a": folder, "b": tmp_path / "rollout-engine-y"}
    engine, other = (forked(path, tmp_path / log, TMPDIR=str(each))[0] for log, each in folders.items())
    assert soon(lambda: guardian.processes_in(folder) == [engine.pid])
    for each in (engine, other):
        each.stdin.close()
        each.wait()


def test_a_stopped_starter_holds_up_no_launch(
    starting: Starting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "ANSWER_S", 0.5)
    path = starting()
    engine = forked(path, tmp_path / "a")[0]
    parent = psutil.Process(engine.pid).parent()
    parent.suspend()
    os.kill(engine.pid, signal.SIGKILL)
    assert engine.wait() == -signal.SIGKILL
    engine.stdin.close()
    with pytest.raises(TimeoutError, match="does not answer"):
        forked(path, tmp_path / "b")
    parent.resume()


def test_without_its_starter_an_engine_starts_plainly(starting: Starting, tmp_path: Path) -> None:
    path = starting()
    engine = forked(path, tmp_path / "a")[0]
    psutil.Process(engine.pid).parent().kill()
    engine.wait()
    engine.stdin.close()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{python_path()}:{tmp_path}", "WHO": "plain"}
    replica = start_process("played", environment, None, tmp_path / "b", starter=path)
    replica.order("7")
    assert replica.wait() == 7
    replica.close()
    assert (tmp_path / "b").read_text().startswith("plain ")
    path.unlink()


def test_what_a_killed_starter_left_is_swept_by_the_next_and_a_living_one_stays(
    starting: Starting, tmp_path: Path
) -> None:
    killed, living = starting(WHO="killed"), starting(WHO="living")
    engine = forked(killed, tmp_path / "a")[0]
    parent = psutil.Process(engine.pid).parent()
    parent.kill()
    engine.wait()
    engine.stdin.close()
    parent.wait()
    assert killed.exists()
    assert starting(WHO="next") is not None
    assert not killed.parent.exists()
    assert starting(WHO="living") == living
    assert starter.is_listening(living)


def test_an_engine_whose_starter_ends_meanwhile_is_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def end() -> None:
        with listening.accept()[0] as connection:
            connection.recv(1 << 20)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, starter.named_socket(path) as name:
        listening.bind(name)
        listening.listen()
        ends = threading.Thread(target=end)
        ends.start()
        with pytest.raises(ConnectionResetError):
            forked(path, tmp_path / "a")
        ends.join()


def test_an_engine_that_cannot_be_imported_starts_plainly(starting: Starting) -> None:
    assert starting("no_such_module") is None
    assert starting() is not None


def test_a_starter_whose_owner_ends_during_the_import_ends_at_once(
    starting: Starting, owner: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)")
    threading.Timer(2, owner.kill).start()
    began = time.monotonic()
    assert starting("slow") is None
    assert time.monotonic() - began < 60
    assert list(Path(tempfile.gettempdir()).glob("*/*")) == []


SPEC = tiny_spec()
APART = tiny_spec(engine={"multiprocess": True})


@pytest.mark.parametrize(
    ("spec", "changes", "forks"),
    [
        (SPEC, {}, True),
        (SPEC, {"platform": "cuda"}, True),
        (SPEC, {"platform": "ascend"}, False),
        (tiny_spec(engine={"args": {"data_parallel_size": 2}}), {}, False),
        (APART, {}, False),
        (APART, {"platform": "cuda"}, True),
        (SPEC, {"mode": "profile"}, False),
    ],
)
def test_only_single_processes_whose_start_is_not_looked_at_fork(
    spec: Spec, changes: dict[str, str], forks: bool
) -> None:
    assert can_fork(spec.model_copy(update=changes)) is forks
