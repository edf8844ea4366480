"""Devices are held by one launch at a time, whatever lies in the folder of leases, and each replica is told its own."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from contender import Cannot, hold, no_waiting
from launching import tiny_spec

from rollout_bench.core.errors import UserError
from rollout_bench.core.processes import Interrupted, pause, signals_as_descriptor
from rollout_bench.measure.machine import inventory, leases
from rollout_bench.measure.machine.device import Device, DeviceError
from rollout_bench.measure.machine.leases import LeaseRequest, check_folder, folder_lock
from rollout_bench.modes.rollout.settings import RolloutSpec

CONTENDER = Path(__file__).parents[2] / "fixtures" / "contender.py"


def is_free(folder: Path, count: int = 1, wanted: int = 1, isolation="per_device") -> bool:
    try:
        with hold(folder, count, wanted, isolation, pause=no_waiting):
            return True
    except Cannot:
        return False


# --- one holder at a time ---


def test_many_processes_never_hold_one_device_twice(tmp_path: Path):
    log = tmp_path / "log"
    kinds = [["1", "20"], ["1", "20"], ["2", "15"], ["3", "10"], ["1", "5", "exclusive"]]
    line = [sys.executable, CONTENDER, tmp_path / "leases", log, "3"]
    running = [subprocess.Popen([*line, *kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for kind in kinds]
    for process in running:
        process.stdout.readline()  # by the last one's all have imported, so none is done before another begins
        process.stdout.close()
    for process in running:
        process.stdin.close()
    assert [process.wait(300) for process in running] == [0] * len(kinds)
    held = [line.split() for line in log.read_text().splitlines()]
    assert len(held) == 70
    meanwhile = [(a, b) for a, b in combinations(held, 2) if int(a[0]) < int(b[1]) and int(b[0]) < int(a[1])]
    assert meanwhile, "nothing ran side by side"
    assert not [pair for pair in meanwhile if "exclusive" in (pair[0][2], pair[1][2])]
    assert not [pair for pair in meanwhile if set(pair[0][3].split(",")) & set(pair[1][3].split(","))]
    assert list((tmp_path / "leases").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: {"name": "x", "held by": ["d0"]}, "a launch of another version"),
        (
            lambda claim: (
                claim
                | {"name": "evil\x1b[2J\x07\r\nwaiting \u202egnp", "holds": ["d0", "d1", "\x1b]0;title\x07\nmore"]}
            ),
            r"evil\x1b[2J\x07 waiting \u202egnp holds d0, d1, \x1b]0;title\x07 more",
        ),
    ],
    ids=["of another version", "of somebody evil"],
)
def test_a_living_claim_keeps_all_away_and_reads_safely(tmp_path: Path, change: Callable[[dict], dict], words: str):
    printed: list[str] = []
    with hold(tmp_path, 2, 1) as got:
        got.claim.path.write_text(json.dumps(change(json.loads(got.claim.path.read_text()))))
        with pytest.raises(Cannot), hold(tmp_path, 2, 1, printed=printed, pause=no_waiting):
            pass
    assert printed[0].isprintable()
    assert words in printed[0]


def test_an_exclusive_launch_and_all_others_wait_for_each_other(tmp_path: Path):
    with hold(tmp_path, 4, 1):
        assert not is_free(tmp_path, 4, isolation="exclusive")
        assert is_free(tmp_path, 4)
    with hold(tmp_path, 4, 1, "exclusive"):
        assert not is_free(tmp_path, 4)


# --- kill -9 ---

HOLDER = """
import subprocess, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}]
from contender import hold
with hold(Path({folder!r}), 2, 1) as got:
    guardian = subprocess.Popen(["sleep", "60"], pass_fds=[got.descriptor])
    print(guardian.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(tmp_path: Path):
    """Yield the pid of a process that inherited the lease of a holder that was killed."""
    code = HOLDER.format(tests=str(CONTENDER.parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        guardian = int(holder.stdout.readline())
        holder.kill()
    yield guardian
    with contextlib.suppress(ProcessLookupError):
        os.kill(guardian, signal.SIGKILL)


def test_a_lease_lasts_until_its_last_inheritor_has_ended(tmp_path: Path, killed: int):
    assert is_free(tmp_path, 2)
    assert not is_free(tmp_path, 2, wanted=2)
    os.kill(killed, signal.SIGKILL)
    with hold(tmp_path, 2, 2) as got:
        assert got.left_over, "nobody saw to the memory of what the killed launch held"
    with hold(tmp_path, 2, 2) as got:
        assert not got.left_over


WAITER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from contender import hold
class Said(list):
    def append(self, text):
        print(text, flush=True)
with hold(Path({folder!r}), 1, 1, printed=Said()):
    pass
"""


def test_who_was_killed_while_it_waited_leaves_nothing(tmp_path: Path):
    code = WAITER.format(tests=str(CONTENDER.parent), folder=str(tmp_path))
    with hold(tmp_path, 1, 1):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as waits:
            assert waits.stdout.readline().startswith("waiting for devices: offline/a/launch-0 holds d0")
            waits.kill()
        assert len(list(tmp_path.iterdir())) == 1
    with hold(tmp_path, 1, 1) as got:
        assert not got.left_over


def test_a_wait_for_a_killed_launchs_memory_is_bounded():
    in_use = [{1, 2}, {2}, set()]
    naps: list[float] = []
    inventory.wait_until_free(lambda: in_use.pop(0), naps.append)
    inventory.wait_until_free(lambda: {1}, naps.append, limit_s=0)
    assert (in_use, len(naps)) == ([], 2)


# --- waiting ---


def test_who_waits_says_who_holds_the_devices_now(tmp_path: Path):
    printed: list[str] = []
    holders = contextlib.ExitStack()

    def held_by(name: str) -> None:
        holders.close()
        holders.enter_context(hold(tmp_path, 1, 1, name=name))

    naps = iter([lambda: None, lambda: held_by("offline/a/launch-1"), lambda: None, holders.close])
    held_by("offline/a/launch-0")
    with hold(tmp_path, 1, 1, printed=printed, pause=lambda seconds: next(naps)() if seconds > 0.01 else None):
        assert [re.match(r"waiting for devices: (\S+) holds d0 ", text)[1] for text in printed] == [
            f"offline/a/launch-{number}" for number in range(2)
        ]


def test_a_signal_ends_the_wait_at_once(tmp_path: Path):
    with hold(tmp_path, 1, 1), signals_as_descriptor() as signals:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Interrupted), hold(tmp_path, 1, 1, pause=lambda seconds: pause(signals, max(seconds, 100))):
            pass
        assert time.monotonic() - began < 60
    assert list(tmp_path.iterdir()) == []


def test_every_user_may_use_and_clear_the_lease_folder(tmp_path: Path):
    check_folder(tmp_path / "leases")
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o777
    with hold(tmp_path / "leases", 1, 1) as got:
        assert got.claim.path.stat().st_mode & 0o777 == 0o666


NAME = "00000000000000000001-1.json"
"""Of a claim: older than any other."""


STRANGE: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "link_to_itself": lambda path: path.symlink_to(path),
    "link_to_nothing": lambda path: path.symlink_to("nothing"),
    "link_to_a_file": lambda path: path.symlink_to(__file__),
    "link_to_endless": lambda path: path.symlink_to("/dev/zero"),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
}


@pytest.mark.parametrize("name", ["package.json", "launch-0.json", "1-1.json", "a" + NAME, NAME + ".json", NAME])
@pytest.mark.parametrize("content", ['{"name": "of somebody"}', "no JSON", "[]"])
def test_a_file_that_is_no_claim_stays(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with hold(tmp_path, 1, 1) as got:
        assert not got.left_over
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_a_non_file_is_left_alone_and_blocks_nobody(tmp_path: Path, make: Callable[[Path], object]):
    make(tmp_path / NAME)
    free: list[bool] = []
    held = threading.Thread(target=lambda: free.append(is_free(tmp_path)), daemon=True)
    held.start()
    held.join(20)
    assert free == [True]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("target", ["of_somebody", "nothing"])
def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path, target: str):
    (tmp_path / "of_somebody").mkdir()
    (tmp_path / "leases").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match="leases: is a link") as error, hold(tmp_path / "leases", 1, 1):
        pass
    assert "ROLLOUT_BENCH_LEASES" in error.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leases", "of_somebody"]
    assert list((tmp_path / "of_somebody").iterdir()) == []


def test_a_folder_that_becomes_a_link_later_is_not_followed(tmp_path: Path):
    (tmp_path / "leases").symlink_to(tmp_path)
    with pytest.raises(OSError, match="leases"), folder_lock(tmp_path / "leases", no_waiting):
        pass


def test_a_holder_notices_that_its_file_vanished_or_changed(tmp_path: Path):
    with hold(tmp_path, 1, 1) as got:
        content = got.claim.path.read_text()
        got.claim.path.unlink()
        assert got.is_lost()
        got.claim.path.write_text(content)
        assert got.is_lost()


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Return a node with four GPUs, nothing restricted."""
    found = [Device(f"GPU-{number}", str(number), (f"GPU-{number}",), number) for number in range(4)]
    monkeypatch.setattr(inventory.gpus, "gpus", lambda: found)
    monkeypatch.setenv("ROLLOUT_BENCH_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


def wanted(
    launch: int = 0, isolation=None, devices: int | None = None, platform: str = "cuda", **engine_args
) -> LeaseRequest:
    spec = tiny_spec(engine={"args": engine_args}).model_copy(update={"platform": platform})
    return LeaseRequest(spec, Path(f"results/offline/tiny-00000000/launch-{launch}.json"), isolation, devices, launch)


def leased(want: LeaseRequest):
    return leases.lease(want, no_waiting, lambda _: None)


def test_launches_side_by_side_get_own_devices_and_name_neighbours(gpus: list[Device]):
    with leased(wanted(1)) as one, leased(wanted(2)) as other, leased(wanted(3, tensor_parallel_size=1)):
        assert one.environments({"A": "a"}) == [
            {"A": "a", "CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        ]
        assert other.environments({})[0]["CUDA_VISIBLE_DEVICES"] == "2"
        assert one.neighbours() == ["offline/tiny-00000000/launch-2", "offline/tiny-00000000/launch-3"]
        placement = one.placement(one.neighbours()[:1])
        assert (placement.devices, placement.visible, placement.isolation) == (["GPU-1"], ["1"], "per_device")
        assert placement.neighbours == ["offline/tiny-00000000/launch-2"]
    with leased(wanted(0)) as alone:
        assert alone.neighbours() == []


def test_an_engine_gets_numbers_for_the_uuids_of_a_shell(gpus: list[Device], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-3")
    with leased(wanted()) as held:
        assert held.everything
        assert held.environments({"CUDA_VISIBLE_DEVICES": "GPU-3"}) == [
            {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        ]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with leased(wanted(tensor_parallel_size=4)) as held:
        assert held.environments({}) == [{}]


def test_each_replica_is_told_its_own_devices(gpus: list[Device]):
    with leased(wanted(tensor_parallel_size=2, data_parallel_size=2)) as held:
        assert [e["CUDA_VISIBLE_DEVICES"] for e in held.environments({})] == ["0,1", "2,3"]
        assert held.placement([]).devices == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tensor_parallel_size": 8}, "needs 8 devices (tensor_parallel_size 8); 4 are visible here"),
        ({"tensor_parallel_size": 2, "devices": 1}, "4 are visible here, of which devices allows 1"),
        (
            {"tensor_parallel_size": 2, "data_parallel_size": 4},
            "needs 8 devices (tensor_parallel_size 2 x data_parallel_size 4)",
        ),
    ],
)
def test_asking_for_too_many_devices_fails_before_any_wait(gpus: list[Device], changes: dict, problem: str):
    everything = hold(Path(os.environ["ROLLOUT_BENCH_LEASES"]), 4, 4)
    with everything, pytest.raises(DeviceError) as error, leased(wanted(**changes)):
        pass
    assert problem in error.value.problem
    assert error.value.category == "too_few_devices"


def test_a_launch_on_unknown_devices_runs_alone_without_replicas(gpus: list[Device], monkeypatch):
    monkeypatch.setattr(inventory.gpus, "gpus", lambda: None)
    with leased(wanted()) as held:
        assert held.environments({"A": "a"}) == [{"A": "a"}]
        assert (held.placement([]).isolation, held.placement([]).devices) == ("exclusive", [])
        with pytest.raises(Cannot), leased(wanted(1)):
            pass
    step = wanted(data_parallel_size=2)
    shared = replace(step, spec=step.spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec()}))
    for want, key in ((step, "data_parallel_size"), (shared, "rollout.replicas")):
        with pytest.raises(DeviceError, match="no tool here lists the devices") as refused, leased(want):
            pass
        assert refused.value.remedy.endswith(f"or lower {key} to 1")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a block needs cores to leave to others")
def test_a_block_of_cores_is_where_the_launch_stays(gpus: list[Device]):
    allowed = os.sched_getaffinity(0)
    with leased(wanted(1, "per_device", 2, "cpu")) as held:
        assert held.cores == [os.sched_getaffinity(0)]
        assert len(os.sched_getaffinity(0)) == len(allowed) // 2
        assert held.environments({})[0] == {"CPU_VISIBLE_MEMORY_NODES": "0"}
        (name,) = held.placement([]).devices
        assert name.startswith("cores-")
    assert os.sched_getaffinity(0) == allowed
    with leased(wanted(platform="cpu", data_parallel_size=2)) as held:
        assert all(held.cores)
        assert not held.cores[0] & held.cores[1]
        assert os.sched_getaffinity(0) == held.cores[0] | held.cores[1]
