"""Compile caches outlive a launch, are never shared by two engines, and are in no one's way."""

import os
import tempfile
from pathlib import Path

import pytest
from launching import tiny_spec

from rollout_bench.measure.launch.preflight import VARIABLES, with_compile_caches

SPEC = tiny_spec()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def folders(environment: dict[str, str], torch: str = "2.13.0+cpu", spec=SPEC) -> dict[str, str]:
    return {name: value for name, value in with_compile_caches(environment, spec, torch).items() if name in VARIABLES}


def test_two_versions_of_engine_torch_or_plugin_never_share(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    specs = [SPEC, tiny_spec(engine={"version": "0.33.0"}), tiny_spec(engine={"plugins": {"vllm-ascend": "0.23.0"}})]
    found = [folders(home, spec=spec)["VLLM_CACHE_ROOT"] for spec in specs]
    found.append(folders(home, torch="2.14.0")["VLLM_CACHE_ROOT"])
    assert len(set(found)) == 4
    other = folders(home, spec=tiny_spec(workload={"prompts": 9}))
    assert other["VLLM_CACHE_ROOT"] == found[0]


def test_a_link_in_the_temporary_folder_is_not_followed(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "trap").mkdir()
    (temporary / f"rollout-bench-compile-{os.getuid()}").symlink_to(tmp_path / "trap")
    assert folders({}) == {}
