"""The pod of one launch: what runs in it, on what devices, with what mounted."""

from __future__ import annotations

import math
from typing import Any

from rollout_bench.kubernetes.devices import device_resource
from rollout_bench.kubernetes.names import specs_name
from rollout_bench.kubernetes.paths import CODE, DATA, SCRATCH, SPEC, dataset_in_pod, log_in_pod, model_in_pod
from rollout_bench.plan.config import Config
from rollout_bench.plan.devices import devices_needed
from rollout_bench.plan.kubernetes import KubernetesSettings, Toleration
from rollout_bench.plan.schedule import Launch

Parts = dict[str, Any]
"""A piece of a manifest."""

CONTAINER = "launch"

_MARGIN_S = 300
"""What a pod may take beside the launch: pulling the image, building a synthetic model."""

_GRACE_S = 90
"""What a launch that is asked to end gets for ending its engine."""


def pod(launch: Launch, config: Config) -> Parts:
    """The spec of the pod that measures `launch`.

    Its deadline is the pod's and not the Job's: a Job's runs from its creation on, while it waits for devices.

    Raises:
        UserError: a setting that is missing or can't be, by the key's name.
    """
    settings, experiment = config.kubernetes, launch.experiment
    runtime_s = math.ceil(config.timeout_s) + _MARGIN_S
    parts: Parts = {
        **cautious(settings),
        "activeDeadlineSeconds": runtime_s if config.cluster.runtime_min is None else 60 * config.cluster.runtime_min,
        "terminationGracePeriodSeconds": _GRACE_S,
        "serviceAccountName": settings.service_account,
        "schedulerName": settings.scheduler,
        "nodeSelector": settings.node_selector,
        "tolerations": [_toleration(taint) for taint in settings.tolerations],
        "initContainers": [] if experiment.checkpoint is None else [_building(launch, config)],
        "containers": [_measuring(launch, config)],
        "volumes": _volumes(launch, settings),
    }
    return _without_empty(parts)


def cautious(settings: KubernetesSettings) -> Parts:
    """What every pod of ours has: no second start in place, no access to the cluster, the user it runs as."""
    user = settings.user_id
    runs_as = (
        {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "runAsNonRoot": user != 0}
    )
    return _without_empty(
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
            "securityContext": runs_as,
        }
    )


def _measuring(launch: Launch, config: Config) -> Parts:
    resources = _cores_and_memory(launch, config)
    devices = devices_needed(launch.experiment.spec)
    resource = device_resource(config.cluster.device_resource, launch.experiment.spec.platform)
    if resource is not None and devices:
        resources[resource] = str(devices)
    return {
        "name": CONTAINER,
        **_common(config.kubernetes),
        "command": measuring_command(launch, config),
        # Devices can't be had but whole: both alike. Of cores and memory too, so that nobody takes them meanwhile.
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [
            *_common_mounts(),
            {"name": "spec", "mountPath": SPEC, "readOnly": True},
            {"name": "results", "mountPath": DATA},
            *([] if config.kubernetes.models_claim is None else [_mounted("models", config.kubernetes.models_path)]),
            *(_mounted(f"host-{i}", path) for i, path in enumerate(config.kubernetes.host_paths)),
        ],
    }


def measuring_command(launch: Launch, config: Config) -> list[str]:
    """The command line that measures `launch` inside its pod."""
    dataset = dataset_in_pod(launch.experiment)
    words = [
        "python",
        f"{CODE}/run_launch.py",
        f"--spec={SPEC}/spec.json",
        f"--model={model_in_pod(launch.experiment, config.kubernetes)}",
        *([] if dataset is None else [f"--dataset={dataset}"]),
        f"--launch={launch.index}",
        f"--out={launch.record}",
        f"--log={log_in_pod(launch.record)}",
        f"--timeout-s={config.timeout_s:g}",
        f"--limits={config.timeouts.model_dump_json()}",
    ]
    return [word.replace("$(", "$$(") for word in words]  # Kubernetes puts variables in place of $(NAME)


def _building(launch: Launch, config: Config) -> Parts:
    checkpoint = launch.experiment.checkpoint
    assert checkpoint is not None
    resources = _cores_and_memory(launch, config)
    out = model_in_pod(launch.experiment, config.kubernetes)
    return {
        "name": "build-model",
        **_common(config.kubernetes),
        "command": ["python", f"{CODE}/build_checkpoint.py", *checkpoint.arguments, f"--out={out}"],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [*_common_mounts(), {"name": "results", "mountPath": DATA}],
    }


def _cores_and_memory(launch: Launch, config: Config) -> dict[str, str]:
    cores = config.cluster.cpus_per_device * max(1, devices_needed(launch.experiment.spec))
    memory = config.cluster.memory_mb
    return {"cpu": str(cores), **({} if memory is None else {"memory": f"{memory}Mi"})}


def _common(settings: KubernetesSettings) -> Parts:
    parts = {
        "image": settings.image,
        "workingDir": DATA,
        "env": [
            {"name": "HOME", "value": SCRATCH},
            {"name": "TMPDIR", "value": SCRATCH},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    return _without_empty(parts)


def _common_mounts() -> list[Parts]:
    return [{"name": "scratch", "mountPath": SCRATCH}, {"name": "shared-memory", "mountPath": "/dev/shm"}]


def _mounted(name: str, path: str) -> Parts:
    return {"name": name, "mountPath": path, "readOnly": True}


def _volumes(launch: Launch, settings: KubernetesSettings) -> list[Parts]:
    models = {"claimName": settings.models_claim, "readOnly": True}
    return [
        {"name": "spec", "configMap": {"name": specs_name(launch.experiment.spec)}},
        {"name": "results", "persistentVolumeClaim": {"claimName": settings.results_claim}},
        {"name": "scratch", "emptyDir": {} if settings.scratch is None else {"sizeLimit": settings.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
        *([] if settings.models_claim is None else [{"name": "models", "persistentVolumeClaim": models}]),
        *({"name": f"host-{i}", "hostPath": {"path": path}} for i, path in enumerate(settings.host_paths)),
    ]


def _toleration(taint: Toleration) -> Parts:
    operator = "Exists" if taint.value is None else "Equal"
    found = {"key": taint.key, "operator": operator, "value": taint.value, "effect": taint.effect}
    return {name: part for name, part in found.items() if part is not None}


def _without_empty(parts: Parts) -> Parts:
    return {name: part for name, part in parts.items() if part not in (None, {}, [])}
