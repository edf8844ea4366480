"""The folder of manifests holds what is wanted now; what is the same, and what is somebody else's, is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout_bench.cluster.manifest_files import HEADER, Changes, put
from rollout_bench.core.errors import UserError


def test_asking_again_touches_nothing(tmp_path: Path):
    files = {"1-a.yaml": f"{HEADER}a: 1\n", "in/pod.yaml": f"{HEADER}b: 1\n"}
    assert put(tmp_path, files) == Changes(list(files), [])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}
    assert put(tmp_path, files) == Changes([], [])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_wanted_no_longer_goes_and_what_changed_is_written(tmp_path: Path):
    put(tmp_path, {name: f"{HEADER}{name}: 1\n" for name in ("a.yaml", "b.yaml", "c.yaml", "in/pod.yaml")})
    changes = put(tmp_path, {"a.yaml": f"{HEADER}a.yaml: 1\n", "b.yaml": f"{HEADER}b: 2\n"})
    assert changes == Changes(["b.yaml"], ["c.yaml", "in/pod.yaml"])
    assert sorted(path.name for path in tmp_path.rglob("*.yaml")) == ["a.yaml", "b.yaml"]


def test_files_of_others_stay(tmp_path: Path):
    (tmp_path / "claim.yaml").write_text("kind: PersistentVolumeClaim\n")
    (tmp_path / "notes.txt").write_text(HEADER)
    assert put(tmp_path, {}) == Changes([], [])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_of_ours_that_somebody_made_his_own_is_not_overwritten(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("a: mine\n")
    with pytest.raises(UserError, match=r"a\.yaml: was changed or is not of this workflow"):
        put(tmp_path, {"a.yaml": f"{HEADER}a: 1\n"})
    assert (tmp_path / "a.yaml").read_text() == "a: mine\n"
