"""Pods get no right and no secret that they don't need: Pod Security's level "restricted" admits them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from planned import merged_with
from snakemake.utils import update_config

from rollout_bench.cluster.manifest_files import manifests
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import schedule

MODELS = """
models: [synthetic, folder]
quants: [bf16]
launches: 1
model_settings:
  synthetic: {synthetic: {preset: qwen3-tiny}}
  folder: {weights: {bf16: own}}
kubernetes: {image: 'bench:1', models_claim: weights, secrets: [hub]}
"""

ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim"}
"""Of those that "restricted" allows, the ones that launches need."""


def pods(overlay: str = "{}") -> list[dict[str, Any]]:
    """Return the specs of all pods: of each launch, and of the one that records are collected through."""
    merged = merged_with(MODELS)
    update_config(merged, yaml.safe_load(overlay))
    config = read_config(merged)
    plan = schedule(config, expand(config, probe_engine(None)))
    files = manifests(plan, list(plan.by_record), {})
    made = [document for text in files.values() for document in yaml.safe_load_all(text)]
    found = [d["spec"]["template"]["spec"] if d["kind"] == "Job" else d["spec"] for d in made if "spec" in d]
    assert len(found) == 3
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_the_level_restricted_admits_every_pod(platform: str):
    """Check the rules of https://kubernetes.io/docs/concepts/security/pod-security-standards that a pod can break."""
    for pod in pods(f"platform: {platform}"):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        for volume in pod["volumes"]:
            assert len(set(volume) & ALLOWED_VOLUMES) == 1
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


@pytest.mark.parametrize("user", ["null", "0"])
def test_an_image_s_own_user_may_be_root_and_then_keeps_the_runtime_s_capabilities(user: str):
    for pod in pods(f"kubernetes: {{user_id: {user}}}"):
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["securityContext"].get("runAsNonRoot")
        for container in containers(pod):
            assert container["securityContext"] == {"allowPrivilegeEscalation": False}


def test_no_pod_gets_a_token_of_the_cluster():
    assert all(pod["automountServiceAccountToken"] is False for pod in pods("kubernetes: {service_account: bench}"))


def test_only_the_container_that_measures_gets_the_secrets():
    found = {container["name"]: container.get("envFrom", []) for pod in pods() for container in containers(pod)}
    assert found == {"launch": [{"secretRef": {"name": "hub"}}], "build-model": [], "collector": []}


def test_models_and_paths_of_the_node_can_only_be_read():
    launches = [pod for pod in pods("kubernetes: {host_paths: [/usr/local/dcmi]}") if "initContainers" not in pod]
    mounts = {mount["name"]: mount for pod in launches[:1] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["models"]["readOnly"] is mounts["host-0"]["readOnly"] is True
