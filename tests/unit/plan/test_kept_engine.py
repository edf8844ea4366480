"""What an engine's Python answers is kept, and asked for again once its environment has changed."""

import json
import re
import subprocess
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rollout_bench.core.errors import UserError
from rollout_bench.plan import engine
from rollout_bench.plan.checks import check_engine_arg
from rollout_bench.plan.engine import probe_engine


class Environment:
    """A virtual environment beside that of the tests."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder)
        self.python = str(folder / "bin" / "python")
        (self.packages,) = folder.glob("lib/python*/site-packages")

    def install(self, version: str, folder: Path | None = None) -> Path:
        """Install an engine that has nothing but its metadata; return that."""
        metadata = (folder or self.packages) / f"vllm-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        return metadata

    @property
    def version(self) -> str:
        """The version that a probe finds."""
        return probe_engine(self.python).version


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return a list that gets each interpreter that is asked; nothing is kept yet."""
    real, found = engine.ask, []
    monkeypatch.setattr(engine, "ask", lambda python: found.append(python) or real(python))
    monkeypatch.setattr(engine, "private_temporary", lambda: tmp_path)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Environment:
    """Return an environment with vLLM 0.30.0."""
    made = Environment(tmp_path / "engine")
    made.install("0.30.0")
    return made


def test_an_unchanged_environment_is_asked_once(installed: Environment, asked: list[str]):
    assert [installed.version, installed.version, asked] == ["0.30.0", "0.30.0", [installed.python]]


def _upgrade(installed: Environment, aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed.packages / "vllm-0.30.0.dist-info").rename(aside)
    installed.install("0.31.0")


def _rewrite_metadata(installed: Environment, aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = installed.packages / "vllm-0.30.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("0.30.0", "0.31.0"))


def _extend_path(installed: Environment, aside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.install("0.31.0", aside)
    monkeypatch.setenv("PYTHONPATH", str(aside))


@pytest.mark.parametrize("change", [_upgrade, _rewrite_metadata, _extend_path])
def test_another_engine_there_is_noticed(
    installed: Environment,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[..., None],
):
    assert installed.version == "0.30.0"
    change(installed, tmp_path / "aside", monkeypatch)
    assert (installed.version, len(asked)) == ("0.31.0", 2)


def test_a_changed_path_file_is_noticed(tmp_path: Path, asked: list[str]):
    installed, sources = Environment(tmp_path / "engine"), [tmp_path / "one", tmp_path / "other"]
    for version, folder in zip(("0.30.0", "0.31.0"), sources, strict=True):
        installed.install(version, folder)
    link = installed.packages / "vllm.pth"
    link.write_text(f"{sources[0]}\n")
    assert installed.version == "0.30.0"
    link.write_text(f"{sources[1]}\n")  # in place, as an editable installation may
    assert installed.version == "0.31.0"


def test_an_installation_and_a_removal_are_noticed(installed: Environment, asked: list[str], tmp_path: Path):
    assert installed.version == "0.30.0"
    harness = installed.packages / "guidellm-0.8.1.dist-info"
    harness.mkdir()
    (harness / "METADATA").write_text("Metadata-Version: 2.1\nName: guidellm\nVersion: 0.8.1\n")
    assert probe_engine(installed.python).harnesses == {"guidellm": "0.8.1"}
    harness.rename(tmp_path / "gone")
    assert probe_engine(installed.python).harnesses == {}
    (installed.packages / "vllm-0.30.0.dist-info").rename(tmp_path / "gone too")
    with pytest.raises(UserError, match="there is no vLLM"):
        probe_engine(installed.python)


def test_a_script_that_starts_an_interpreter_is_always_asked(installed: Environment, asked: list[str], tmp_path: Path):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {installed.python} "$@"\n')
    script.chmod(0o755)
    assert [probe_engine(str(script)).version for _ in range(2)] == ["0.30.0"] * 2
    assert asked == [str(script)] * 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"asked": 1, "watched": {}, "found": 1}'])
def test_a_damaged_answer_is_asked_for_again(installed: Environment, asked: list[str], tmp_path: Path, content: str):
    assert installed.version == "0.30.0"
    (kept,) = tmp_path.glob("engine-*.json")
    kept.write_text(content)
    assert (installed.version, len(asked)) == ("0.30.0", 2)


def commit(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *words], check=True)


def test_an_editable_source_is_asked_again_and_told_with_its_changes(installed: Environment, tmp_path: Path):
    source = tmp_path / "source"
    (source / "vllm").mkdir(parents=True)
    (source / "vllm" / "__init__.py").touch()
    commit(source)
    origin = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (installed.packages / "vllm-0.30.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    (installed.packages / "source.pth").write_text(str(source))
    plain = installed.version
    assert re.fullmatch(r"0\.30\.0 \(editable, git [0-9a-f]{7,}\)", plain)
    (source / "vllm" / "__init__.py").write_text("faster = True")
    assert re.fullmatch(re.escape(plain[:-1]) + r", changed [0-9a-f]{8}\)", installed.version)


def test_another_vllm_on_the_path_is_not_measured_as_the_installed_one(
    installed: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stray = tmp_path / "src" / "vllm"
    stray.mkdir(parents=True)
    (stray / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(stray.parent))
    with pytest.raises(UserError, match=rf"imports vLLM from {stray}, not the installed vllm 0\.30\.0"):
        probe_engine(installed.python)


def test_keys_that_vllm_ascend_does_not_read_are_refused(tmp_path: Path):
    for name, text in {
        "vllm/envs.py": "",
        "vllm_ascend/ascend_config.py": 'additional_config.get("enable_cpu_binding")',
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    made = engine.InstalledEngine(
        "vllm", "0.23.0", {"vllm-ascend": "0.23.0"}, frozenset(), "python3", {}, tmp_path / "vllm"
    )
    check = partial(check_engine_arg, made, "engine_args.additional_config", "additional_config")
    check({"enable_cpu_binding": True})
    for key, remedy in {"enable_cpu_bindin": "did you mean 'enable_cpu_binding'?", "torchair": "leave it out"}.items():
        with pytest.raises(
            UserError, match=f"additional_config.{key}: vllm-ascend 0.23.0 reads no such key"
        ) as refused:
            check({key: True})
        assert refused.value.remedy == remedy
