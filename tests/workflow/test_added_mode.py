"""A mode from outside of the package is planned, measured and summarised like ours."""

import os
from pathlib import Path

import pytest
import stand_in
import toy_mode
from workspace import Workspace

NAMED = "[rollout_bench.modes]\ntoy = toy_mode:TOY\n"


def test_a_mode_of_another_package_is_measured_and_summarised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    about = tmp_path / "toy-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 0\n")
    (about / "entry_points.txt").write_text(NAMED)
    paths = [str(tmp_path), str(Path(toy_mode.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    settings = {**stand_in.CONFIG, "modes": ["toy"], "quants": ["bf16"], "launches": 2, "toy": {"toys": 3}}
    more = {"settings": ["default", "more"], "setting_settings": {"more": {"toy": {"toys": 6}}}}
    settings |= {**more, "baseline": {"quant": None, "setting": "default"}}
    space = Workspace(tmp_path / "workspace", settings).with_made_engine()
    done = space.by_itself("--cores", "1")  # whose modes are read anew
    assert done.returncode == 0, done.stdout
    assert len(list(space.path.glob("results/toy/*/launch-?.json"))) == 4
    summary = (space.path / "results" / "summary.md").read_text()
    assert "toy, cpu: 4 launches, one engine at a time." in summary
    assert "toy speed-up" in summary
    refused = space.by_itself("-n", "--config", "toy={toys: none}")
    assert "config: toy.toys: 'none'" in refused.stdout
