"""The folder of leases is open to all users: whatever lies there, nothing is lost, and nobody waits for ever."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contender import Cannot, hold, no_waiting

from rollout_bench.core.errors import UserError
from rollout_bench.measure.machine.leases import alone

NAME = "00000000000000000001-1.json"
"""Of a claim: older than any other."""


def loop(path: Path) -> None:
    path.symlink_to(path)


def link_to_a_file(path: Path) -> None:
    target = path.absolute().parents[1] / "of_somebody"
    target.touch()
    path.symlink_to(target)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


STRANGE: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "link_to_itself": loop,
    "link_to_nothing": lambda path: path.symlink_to("nothing"),
    "link_to_a_file": link_to_a_file,
    "link_to_endless": lambda path: path.symlink_to("/dev/zero"),
    "socket": socket_file,
}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise where it takes longer, inside of a system call too."""

    def too_long(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["package.json", "launch-0.json", "1-1.json", "a" + NAME, NAME + ".json", NAME])
@pytest.mark.parametrize("content", ['{"name": "of somebody"}', "no JSON", "[]"])
def test_a_file_that_is_no_claim_stays(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with hold(tmp_path, 1, 1) as got:
        assert not got.left_over
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_a_non_file_is_left_alone_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
):
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    folder = Path("leases")
    folder.mkdir()
    make(folder / NAME)
    with at_most(seconds=20), hold(folder, 1, 1, pause=no_waiting):
        pass
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("there", [True, False], ids=["to_a_folder", "to_nothing"])
def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path, there: bool):
    target = tmp_path / "of_somebody"
    if there:
        target.mkdir()
    (tmp_path / "leases").symlink_to(target)
    with pytest.raises(UserError, match="leases: is a link") as error, hold(tmp_path / "leases", 1, 1):
        pass
    assert "ROLLOUT_BENCH_LEASES" in error.value.remedy
    assert not there or list(target.iterdir()) == []


def test_a_folder_that_becomes_a_link_later_is_not_followed(tmp_path: Path):
    (tmp_path / "leases").symlink_to(tmp_path)
    with pytest.raises(OSError, match="leases"), alone(tmp_path / "leases", no_waiting):
        pass


def test_what_another_user_calls_a_launch_can_only_be_read(tmp_path: Path):
    said: list[str] = []
    with hold(tmp_path, 1, 1) as got:
        claim = json.loads(got.claim.path.read_text())
        claim["name"] = "evil\x1b[2J\x07\r\nwaiting \u202egnp"
        claim["holds"] += ["\x1b]0;title\x07\nmore"]
        got.claim.path.write_text(json.dumps(claim))
        with pytest.raises(Cannot), hold(tmp_path, 1, 1, said=said, pause=no_waiting):
            pass
    assert said[0].isprintable()
    assert r"evil\x1b[2J\x07 waiting \u202egnp holds d0, \x1b]0;title\x07 more" in said[0]


def test_a_holder_notices_that_its_file_vanished_or_changed(tmp_path: Path):
    with hold(tmp_path, 1, 1) as got:
        assert not got.is_lost()
        content = got.claim.path.read_text()
        got.claim.path.unlink()
        assert got.is_lost()
        got.claim.path.write_text(content)
        assert got.is_lost()
