"""What a kit holds, and where its packages come from."""

import gzip
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from rollout_bench.commands import kit as command
from rollout_bench.core.errors import UserError
from rollout_bench.exchange import kit, kit_bootstrap


@pytest.mark.parametrize(("platform", "backends"), [("cpu", [[], ["--torch-backend", "cpu"]]), ("cuda", [[]])])
def test_torch_for_a_cpu_may_come_from_its_own_index(
    platform: str, backends: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    failed = SimpleNamespace(returncode=1)
    monkeypatch.setattr(kit, "as_pip", lambda *_: {})
    monkeypatch.setattr(kit.subprocess, "run", lambda words, **_: asked.append(words) or failed)
    with pytest.raises(UserError, match="the packages were not resolved"):
        kit.packages_of(platform, "3.12", ["numpy==1.0"], None)
    assert asked == [[*asked[0], *backend] for backend in backends]


def test_files_of_configs_lie_where_a_kit_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loads = {
        "own": {"dataset": {"format": "prompts", "path": "data/mine.jsonl"}},
        "shaped": {"profile": {"harness": "guidellm", "path": "shape.yaml"}},
        "ours": {"profile": {"harness": "guidellm", "path": "sanity_random"}},
        "there": {"dataset": {"format": "prompts", "path": "/there/prompts.jsonl"}},
    }
    named = ["data/mine.jsonl", "shape.yaml"]
    Path("data").mkdir()
    for name in named:
        Path(name).write_text(name)
    Path("mine.yaml").write_text(yaml.safe_dump({"workload_settings": loads}))
    monkeypatch.setattr(command, "packages_of", lambda *_: [])
    assert command.main(["pack", "new", "--configfile", "mine.yaml", "--part-mib", "999"]) == 0
    subprocess.run(["tar", "xf", "new/kit.00"], check=True)
    monkeypatch.setattr(command, "home", lambda: tmp_path / "tree")
    monkeypatch.setattr(command, "measure_configs", lambda *_: 1)
    command.run(Path("new"), 600.0)
    assert {name: Path("new/work", name).read_text() for name in named} == {name: name for name in named}


@pytest.mark.parametrize("path", ["missing.jsonl", "../mine.jsonl"])
def test_a_data_set_that_cannot_be_packed_is_named(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jsonl").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="is no file below this folder"):
        list(kit.files_named({"workload_settings": {"own": {"dataset": {"path": path}}}}))


def damaged(part: bytes, sums: str | bytes) -> Callable[[Path], None]:
    """Return what writes a kit's folder with one part and its checksums."""

    def write(folder: Path) -> None:
        (folder / "kit.00").write_bytes(part)
        (folder / kit_bootstrap.SUMS).write_bytes(sums if isinstance(sums, bytes) else sums.encode())

    return write


NO_ARCHIVE = f"{hashlib.sha256(b'no archive').hexdigest()}  kit.00\n"


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (damaged(b"", ""), "SHA256SUMS: is damaged"),
        (damaged(b"", b"\xff\xfe"), "SHA256SUMS: is damaged"),
        (damaged(b"no archive", f"{NO_ARCHIVE}\n"), "can't be unpacked"),
        (damaged(b"no archive", NO_ARCHIVE), "can't be unpacked"),
        (damaged(gzip.compress(b"x" * 9999)[:-9], NO_ARCHIVE), "is damaged"),
        (lambda folder: (folder / "unfinished").touch(), "can't be unpacked"),
    ],
    ids=["no_parts", "binary_sums", "blank_line", "foreign_archive", "cut", "unfinished_is_a_file"],
)
def test_a_damaged_kit_is_named_and_leaves_no_tree(
    write: Callable[[Path], None], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setattr(kit_bootstrap, "__file__", str(tmp_path / "kit.py"))
    with pytest.raises(SystemExit, match=problem):
        kit_bootstrap.main()
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), 1])
def test_a_kit_refuses_a_time_that_is_none(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no time for a launch"):
        command.run(tmp_path, 60 * minutes)


def test_a_platform_by_its_common_name_is_the_one_that_is_meant() -> None:
    with pytest.raises(UserError) as raised:
        command.main(["pack", "k", "--platform", "gpu"])
    assert raised.value.remedy == "did you mean cuda?"
