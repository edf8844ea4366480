"""Files of results are written whole or not at all, whatever the file system refuses."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from synthetic_records import make_record, make_spec, save

from rollout_bench.contracts.store import read_record, record_path, write_record
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole

BF16 = make_spec()


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_record_that_cannot_be_rewritten_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    save(tmp_path, make_record(BF16))
    path = record_path(tmp_path, "offline", BF16.experiment(), 0)
    before = {each: each.read_bytes() for each in path.parent.iterdir()}

    def refuse(_: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError) as error:
        save(tmp_path, make_record(BF16, rates=[500.0]))
    assert f"cannot be written: {os.strerror(refusal)}" in error.value.problem
    assert ("free some space" in error.value.remedy) == (refusal in (errno.ENOSPC, errno.EDQUOT))
    assert ({each: each.read_bytes() for each in path.parent.iterdir()}, read_record(path).launch) == (before, 0)


def test_a_link_and_the_permissions_of_a_file_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_is_no_regular_file_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        write_whole(tmp_path / "pipe", b"through")
        assert reader.communicate()[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_in_place_of_a_folder_gives_two_lines(tmp_path: Path) -> None:
    (tmp_path / "offline").write_text("")
    with pytest.raises(UserError, match="cannot be written") as error:
        save(tmp_path, make_record(BF16))
    assert len(str(error.value).splitlines()) == 2


def fill(folder: Path) -> None:
    for launch in range(9):
        write_record(folder / f"launch-{launch}.json", make_record(BF16), [])


def test_a_full_disk_has_whole_records_and_gives_the_remedy(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", tmp_path]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(UserError, match=r"No space left on device[^$]*free some space"):
            fill(tmp_path)
        written = sorted(tmp_path.glob("*.json"))
        assert 0 < len(written) < 9
        assert [read_record(path).key for path in written] == [BF16.key()] * len(written)
        assert list(tmp_path.glob(".*")) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("name", [".", "made"])
def test_a_folder_is_not_written_over(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        write_whole(Path(name), b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
