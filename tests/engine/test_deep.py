"""`check --deep` on the real engine: the proofs hold, whatever else the machine does, but for A/A."""

import json
from pathlib import Path

import pytest
from launching import QUICKLY
from workspace import Workspace

pytestmark = pytest.mark.engine


def test_an_installation_proves_itself(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "workspace", {"engine": {"environment": QUICKLY}}).with_deep_launches(2)
    deep = space.path / "src" / "rollout_bench" / "commands" / "deep.py"
    fewer = deep.read_text().replace('"iterations": 8', '"iterations": 2')  # as much is proven
    assert '"iterations": 2' in fewer
    deep.write_text(fewer)
    done = space.bench("check", "--deep", "--config", "launches=1")
    report = json.loads((space.path / "rollout-bench-check.json").read_text())
    outcomes = {proof["name"]: proof["outcome"] for proof in report["proofs"]}
    alike = outcomes.pop("A/A")
    assert outcomes == dict.fromkeys(("launches", "tokens", "clock", "code", "weights"), "ok"), done.stdout
    assert done.returncode == (alike != "ok"), done.stdout
    assert alike in done.stdout
    assert report["environment"]["variables"].items() >= QUICKLY.items()
    assert not (space.path / "results").exists(), "it measures nothing of the user's"
