"""A mode is a folder: one from outside works like ours, and without one of ours the others are as before."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in
import toy_mode
from comparing import summarised
from every_mode import SAMPLES, save_mode
from workspace import REPOSITORY, Workspace

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
    assert "toy, cpu: 4 launches, one launch at a time." in summary
    assert "toy speed-up" in summary
    refused = space.by_itself("-n", "--config", "toy={toys: none}")
    assert "config: toy.toys: 'none'" in refused.stdout


KEYS = REPOSITORY / "tests" / "unit" / "plan"
SUMMARISED_AND_PLANNED = """
import json, sys
from rollout_bench.commands import summarise
from test_keys import named
assert summarise.main(sys.argv[1:]) == 0
print("PLANNED" + json.dumps(named("cuda")))
"""


_MODES = list(SAMPLES)

# No mode imports another one (.importlinter), so half of them can be missing together.
MISSING = (" ".join(_MODES[: len(_MODES) // 2]), " ".join(_MODES[len(_MODES) // 2 :]))


@pytest.mark.parametrize("missing", MISSING)
def test_without_modes_folders_the_others_work_as_before(missing: str, tmp_path: Path):
    modes = missing.split()
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.pyc.*"))
    for mode in modes:
        shutil.rmtree(tmp_path / "src" / "rollout_bench" / "modes" / mode)
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    results = tmp_path / "results"
    for other in SAMPLES.keys() - {*modes}:
        save_mode(results, other, 0)
    summarised(tmp_path, str(results), "--all")
    before = (results / "summary.md").read_text()
    path = os.pathsep.join(map(str, (tmp_path / "src", REPOSITORY / "tests" / "fixtures", KEYS)))
    line = [sys.executable, "-c", SUMMARISED_AND_PLANNED, str(results), "--all"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (results / "summary.md").read_text() == before
    planned = json.loads(done.stdout.partition("PLANNED")[2])
    pinned = json.loads((KEYS / "keys.json").read_text())["cuda"]
    configs = {name: REPOSITORY / "config" / name for name in pinned}
    named = {name for name, path in configs.items() if re.search(rf"\b({'|'.join(modes)})\b", path.read_text())}
    rest = set() if "config.yaml" in named else pinned.keys() - named  # all are laid over that one
    assert {name: planned[name] for name in rest} == {name: pinned[name] for name in rest}
