"""The profile for Kubernetes submits jobs as pods that find the files of the volume. No cluster takes part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from stub_kubernetes import Cluster
from workspace import TINY, Workspace

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand

SETTINGS = {
    "quants": ["bf16", "w8a8"],
    "kubernetes": {"image": "bench:1", "namespace": "bench", "secrets": ["hub"]},
    "cluster": {"cpus_per_device": 4},
}


class OnCluster(Workspace):
    """A workspace whose snakemake submits to a stand-in for a cluster, and whose folder stands for the claim."""

    cluster: Cluster

    @property
    def environment(self) -> dict[str, str]:
        paths = f"{self.path}/workflow/plugins:{self.path}/workflow/scripts"
        return {**super().environment, "PYTHONPATH": paths, "KUBECONFIG": str(self.path / "kubeconfig")}

    def command(self, *arguments: str) -> list[str]:
        profile = ["--workflow-profile", "profiles/kubernetes", "--kubernetes-volume-mount", str(self.path)]
        return super().command(*profile, "--seconds-between-status-checks", "1", *arguments)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[OnCluster]:
    workspace = OnCluster(tmp_path / "claim", {**TINY, **SETTINGS})
    workspace.cluster = Cluster(workspace.environment)
    workspace.cluster.kubeconfig(workspace.path / "kubeconfig")
    yield workspace
    workspace.cluster.close()


def test_a_job_runs_in_a_pod_on_the_files_of_the_volume(workspace: OnCluster):
    config = read_config(yaml.safe_load((workspace.path / "config.yaml").read_text()))
    checkpoints = [experiment.checkpoint for experiment in expand(config, probe_engine(None)).experiments]
    folder = next(found.folder for found in checkpoints if found is not None and found.folder.endswith("w8a8"))
    done = workspace.snakemake(folder)
    assert done.returncode == 0, done.stdout
    assert (workspace.path / folder / "config.json").is_file()
    _, container = submitted(workspace)
    assert container["resources"]["limits"] == {"cpu": "4"}
    assert "envFrom" not in container
    assert "pip install" not in container["command"][-1]
    assert workspace.cluster.secrets == []


def test_a_launch_asks_for_its_devices_and_its_failure_is_in_the_summary(workspace: OnCluster):
    own = {"weights": {"bf16": "nowhere"}, "engine_args": {"tensor_parallel_size": 2}}
    workspace.overlay({"platform": "cuda", "models": ["own"], "quants": ["bf16"], "model_settings": {"own": own}})
    done = workspace.snakemake("--retries", "0")
    assert done.returncode == 1, done.stdout
    (failure,) = workspace.failures
    assert "missing_weights" in (workspace.path / "results/failures" / failure).read_text()
    assert "there is no model folder" in (workspace.path / "results/summary.md").read_text()
    job, container = submitted(workspace)
    assert job["metadata"]["name"].startswith("rb-own-bf16-short-")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert f"kubectl -n bench logs job/{job['metadata']['name']}" in done.stdout


def test_a_folder_that_no_pod_has_is_an_error(workspace: OnCluster):
    done = workspace.snakemake("--kubernetes-volume-mount", "/data")
    assert done.returncode == 1
    assert "is not on the results claim, which is to be mounted at /data" in done.stdout
    assert workspace.cluster.jobs == {}


def submitted(workspace: OnCluster) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the one Job that was submitted, checked against the schema, and its container."""
    (job,) = workspace.cluster.jobs.values()
    kubernetes_validate.validate(job, "1.32", strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return job, container
