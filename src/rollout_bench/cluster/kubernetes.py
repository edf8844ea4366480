"""The Kubernetes Job that measures a config. Its pod runs the workflow and writes the results to a volume claim."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2

from rollout_bench.contracts.spec import Platform, devices_needed
from rollout_bench.core.errors import UserError
from rollout_bench.llmd.profiled import with_profile_files
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Experiment

HOME = "/opt/rollout-bench"
"""Folder of rollout-bench in the image built from containers/."""

CONFIG = "/etc/rollout-bench"
"""Folder of the config and of its profiles in the pod."""

TEMPLATE = Path(__file__).with_name("job.yaml.j2")

RESOURCES: Mapping[Platform, str] = {"cuda": "nvidia.com/gpu", "ascend": "huawei.com/Ascend910"}
"""Names of a device in the vendors' device plugins."""


def manifest(experiments: Sequence[Experiment], platform: Platform, config: Config, merged: Mapping[str, Any]) -> str:
    """Return the YAML manifest of the Job and of the objects that it mounts.

    Args:
        experiments: all experiments of the config; the pod has enough devices for the largest launch.
        platform: platform of the devices.
        config: the validated config, whose `kubernetes` section describes the pod.
        merged: the same config before validation.

    Raises:
        UserError: if the config names no image, or the template can't be read or filled.
    """
    settings = config.kubernetes
    if settings.image is None:
        raise UserError(
            "config: kubernetes.image: is not set",
            "name the image that was built from containers/, with its tag: docs/clusters.md",
        )
    carries, profiles = with_profile_files(merged, CONFIG)
    text = json.dumps(_with_pod_paths(carries, settings.models_claim is not None), indent=1, sort_keys=True)
    files = {"config.json": text, **profiles}
    devices = max((devices_needed(each.spec) for each in experiments), default=0)
    resources = {"cpu": str(settings.cpus), "memory": settings.memory}
    if devices and platform in RESOURCES:
        resources[config.cluster.device_resource or RESOURCES[platform]] = str(devices)
    laid_over = ["--replace-workflow-config", "--configfile", f"{CONFIG}/config.json"]
    command = ["rollout-bench", "run", "--cores", "all", "--keep-incomplete", *laid_over]
    path = Path(settings.template) if settings.template else TEMPLATE
    try:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(path.read_text()).render(
            **settings.model_dump(),
            name=f"rollout-bench-{hashlib.sha256(''.join(files.values()).encode()).hexdigest()[:8]}",
            config=text,
            files=files,
            command=command,
            resources=resources,
        )
    except (OSError, UnicodeDecodeError, jinja2.TemplateError) as error:
        raise UserError(f"{path}: {error}", "see the template that is there without kubernetes.template") from None


def _with_pod_paths(merged: Mapping[str, Any], has_models: bool) -> dict[str, Any]:
    """Return the config with the pod's paths: data sets on the results claim, weights on the models claim."""
    workloads: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, workload in merged["workload_settings"].items():
        dataset = workload.get("dataset") if isinstance(workload, Mapping) else None
        if isinstance(dataset, Mapping) and "path" in dataset:
            path = f"/data/datasets/{PurePosixPath(dataset['path']).name}"
            if given.setdefault(path, dataset["path"]) != dataset["path"]:
                raise UserError(
                    f"{given[path]} and {dataset['path']}: both would be {path} in the pod", "rename one of the files"
                )
            workload = {**workload, "dataset": {**dataset, "path": path}}
        workloads[name] = workload
    engine = merged.get("engine") or {}
    python = engine.get("python")
    engine = {**engine, "python": python if str(python).startswith(f"{HOME}/") else None}
    models = {"model_base": "/models"} if has_models else {}
    return {**merged, **models, "workload_settings": workloads, "engine": engine}
