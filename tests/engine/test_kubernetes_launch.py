"""From the config to the summary: what the Job says is run here, in folders that stand for the mounts of its pod."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub_server import running_stub
from workspace import REPOSITORY, TINY, Workspace

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
        assert container["workingDir"] == "/data"
        done = run([sys.executable, *words[1:]], container, folders["data"], places, workspace)
        assert done.returncode == 0, done.stderr
    return folders["data"]


def run(
    words: list[str], container: dict[str, Any], data: Path, places: dict[str, Path], workspace: Workspace
) -> subprocess.CompletedProcess[str]:
    values = {each["name"]: replaced(each["value"], places) for each in container["env"] if "value" in each}
    environment = workspace.environment | values
    return subprocess.run(words, cwd=data, env=environment, capture_output=True, text=True, check=False)


def manifest(workspace: Workspace, pattern: str) -> dict[str, Any]:
    (document,) = manifests(workspace, pattern)
    return document


def manifests(workspace: Workspace, pattern: str) -> list[dict[str, Any]]:
    (path,) = workspace.path.glob(f"results/manifests/{pattern}")
    return list(yaml.safe_load_all(path.read_text()))


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


def test_one_pod_measures_all_endpoints_and_leaves_a_summary_on_the_claim(tmp_path: Path):
    with running_stub(tmp_path) as url:
        endpoints = {name: {"url": f"{url}/v1", "model": "stub"} for name in ("one", "other")}
        modes = {"modes": ["online"], "models": [], "endpoints": endpoints, "quants": ["bf16"], "interleave": "auto"}
        workspace = Workspace(tmp_path / "home", {**TINY, **LOCAL, **modes})
        done = workspace.snakemake("kubernetes_manifests")
        assert "results/manifests: 1 jobs; 2 files written, 0 removed" in done.stdout
        mounted, job = manifests(workspace, "launcher.yaml")
        shutil.copy(REPOSITORY / "config.yaml", workspace.path)  # the image has its own
        node = {name: tmp_path / name for name in ("data", "scratch", "config")}
        for folder in node.values():
            folder.mkdir()
        (node["data"] / "config.yaml").write_text("launches: of an earlier run\n")
        for name, content in mounted["data"].items():
            (node["config"] / name).write_text(content)
        places = {
            "/etc/rollout-bench": node["config"],
            "/scratch": node["scratch"],
            "/opt/rollout-bench": workspace.path,
        }
        (container,) = job["spec"]["template"]["spec"]["containers"]
        words = [replaced(word, places) for word in container["command"]]
        done = run(words, container, node["data"], places, workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    records = sorted(path.parent.name for path in node["data"].glob("results/online/*/launch-0.json"))
    assert [name.split("_")[0].split("-")[0] for name in records] == ["one", "other"]
    assert "one" in (node["data"] / "results/summary.md").read_text()
