"""One Job that measures a config on Kubernetes: its pod runs the workflow, and leaves the results on a claim."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2

from rollout_bench.contracts.spec import Platform, devices_needed
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Experiment

HOME = "/opt/rollout-bench"
"""The project, as the images of containers/ hold it."""

TEMPLATE = Path(__file__).with_name("job.yaml.j2")

RESOURCES: Mapping[Platform, str] = {"cuda": "nvidia.com/gpu", "ascend": "huawei.com/Ascend910"}
"""What the vendors' device plugins call a device."""


def manifest(experiments: Sequence[Experiment], platform: Platform, config: Config, merged: Mapping[str, Any]) -> str:
    """Return the manifest of the Job and of what it mounts, as YAML.

    Args:
        experiments: what the config comes to; the pod has as many devices as the largest launch needs.
        platform: whose devices these are.
        config: says what the pod is like.
        merged: the same config as it was read.

    Raises:
        UserError: no image is named, or the template can't be read or filled.
    """
    settings = config.kubernetes
    if settings.image is None:
        raise UserError(
            "config: kubernetes.image: is not set",
            "name the image that was built from containers/, with its tag: docs/clusters.md",
        )
    text = json.dumps(_in_pod(merged, settings.models_claim is not None), indent=1, sort_keys=True)
    devices = max((devices_needed(each.spec) for each in experiments), default=0)
    resources = {"cpu": str(settings.cpus), "memory": settings.memory}
    if devices and platform in RESOURCES:
        resources[config.cluster.device_resource or RESOURCES[platform]] = str(devices)
    laid_over = ["--replace-workflow-config", "--configfile", "/etc/rollout-bench/config.json"]
    command = ["snakemake", "--snakefile", f"{HOME}/Snakefile", "--cores", "all", "--keep-incomplete", *laid_over]
    path = Path(settings.template) if settings.template else TEMPLATE
    try:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(path.read_text()).render(
            **settings.model_dump(),
            name=f"rollout-bench-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
            config=text,
            command=command,
            resources=resources,
        )
    except (OSError, UnicodeDecodeError, jinja2.TemplateError) as error:
        raise UserError(f"{path}: {error}", "see the template that is there without kubernetes.template") from None


def _in_pod(merged: Mapping[str, Any], has_models: bool) -> dict[str, Any]:
    """Return the config with paths as a pod has them: data sets on the claim, weights on theirs."""
    workloads = {}
    for name, workload in merged["workload_settings"].items():
        dataset = workload.get("dataset") if isinstance(workload, Mapping) else None
        if isinstance(dataset, Mapping) and "path" in dataset:
            path = f"/data/datasets/{PurePosixPath(dataset['path']).name}"
            workload = {**workload, "dataset": {**dataset, "path": path}}
        workloads[name] = workload
    python = merged["engine"].get("python")
    engine = {**merged["engine"], "python": python if str(python).startswith(f"{HOME}/") else None}
    models = {"model_base": "/models"} if has_models else {}
    return {**merged, **models, "workload_settings": workloads, "engine": engine}
