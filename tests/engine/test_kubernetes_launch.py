"""From the config to the summary: what the Job says is run here, in folders that stand for the mounts of its pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from workspace import TINY, Workspace

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

LOCAL = {"quants": ["bf16"], "kubernetes": {"image": "bench:1", "secrets": ["hub"]}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that has written its one Job."""
    workspace = Workspace(tmp_path_factory.mktemp("cluster") / "home", {**TINY, **LOCAL})
    done = workspace.snakemake("kubernetes_manifests")
    assert done.returncode == 0, done.stdout
    assert "results/manifests: 1 jobs; 3 files written, 0 removed" in done.stdout
    return workspace


@pytest.fixture(scope="module")
def claim(workspace: Workspace) -> Path:
    """Return what the results claim holds after the Job: its containers' commands were run, one after the other."""
    node = workspace.path.parent
    folders = {name: node / name for name in ("data", "scratch", "spec")}
    for folder in folders.values():
        folder.mkdir()
    job, specs = manifest(workspace, "000001-*.yaml"), manifest(workspace, "000000-specs.yaml")
    pod = job["spec"]["template"]["spec"]
    (mounted,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    assert specs["metadata"]["name"] == mounted
    for name, content in specs["data"].items():
        (folders["spec"] / name).write_text(content)
    places = {
        "/etc/rollout-bench": folders["spec"],
        "/scratch": folders["scratch"],
        "/opt/rollout-bench": workspace.path,
    }
    for container in (*pod["initContainers"], *pod["containers"]):
        words = [replaced(word, places) for word in container["command"]]
        assert words[0] == "python"
        values = {e["name"]: replaced(e["value"], places) for e in container["env"] if "value" in e}
        assert container["workingDir"] == "/data"
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=folders["data"],
            env=workspace.environment | values,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folders["data"]


def manifest(workspace: Workspace, pattern: str) -> dict[str, Any]:
    (path,) = workspace.path.glob(f"results/manifests/{pattern}")
    (document,) = yaml.safe_load_all(path.read_text())
    return document


def replaced(word: str, places: dict[str, Path]) -> str:
    for place, folder in places.items():
        word = word.replace(place, str(folder))
    return word


def test_the_commands_of_a_job_leave_a_record_and_its_log_on_the_claim(claim: Path):
    left = sorted(str(path.relative_to(claim)) for path in claim.rglob("*") if path.is_file())
    (experiment,) = {name.split("/")[2] for name in left}
    assert left == [
        f"logs/offline/{experiment}/launch-0.log",
        f"results/offline/{experiment}/launch-0.json",
        f"results/offline/{experiment}/launch-0.sequences.jsonl.gz",
    ]


def test_what_is_collected_is_measured_for_snakemake_and_needs_no_job_any_more(workspace: Workspace, claim: Path):
    command = [sys.executable, "workflow/scripts/collect.py", str(claim)]
    done = subprocess.run(command, cwd=workspace.path, capture_output=True, text=True, check=False)
    assert done.stdout == "results: 1 records and 0 failures collected, 0 there already, 0 not taken\n", done.stderr
    assert workspace.measurements() == 0
    summarised = workspace.snakemake("results/summary.md")
    assert summarised.returncode == 0, summarised.stdout
    assert "1/1" in (workspace.path / "results/summary.md").read_text()
    again = workspace.snakemake("kubernetes_manifests")
    assert "results/manifests: 0 jobs; 0 files written, 3 removed" in again.stdout
    assert list((workspace.path / "results/manifests").rglob("*.yaml")) == []
