"""A pod that works on a launch: on what devices, with what mounted, as whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rollout_bench.kubernetes.devices import device_resource
from rollout_bench.kubernetes.paths import DATA, SCRATCH
from rollout_bench.plan.config import Config
from rollout_bench.plan.devices import devices_needed
from rollout_bench.plan.kubernetes import KubernetesSettings, Toleration
from rollout_bench.plan.spec import Spec

Parts = dict[str, Any]
"""A piece of a manifest."""

LABELS = {"app.kubernetes.io/name": "rollout-bench"}
"""Of every pod that works on a launch; those that need a node for themselves keep away from it."""

_MARGIN_S = 300
"""What a pod may take beside the launch: pulling the image, building a synthetic model."""

_GRACE_S = 90
"""What a launch that is asked to end gets for ending its engine."""


def pod(
    container: Parts, config: Config, spec: Spec | None, *, before: Sequence[Parts] = (), volumes: Sequence[Parts] = ()
) -> Parts:
    """The spec of a pod whose `container` works on a launch of `spec`; None: on nothing that is measured.

    Its deadline is the pod's and not the Job's: a Job's runs from its creation on, while it waits for devices.

    Args:
        before: containers that run to their end first.
        volumes: volumes beside those that every pod has.
    """
    settings = config.kubernetes
    runtime_s = math.ceil(config.timeout_s) + _MARGIN_S
    parts: Parts = {
        **cautious(settings),
        "activeDeadlineSeconds": runtime_s if config.cluster.runtime_min is None else 60 * config.cluster.runtime_min,
        "terminationGracePeriodSeconds": _GRACE_S,
        "serviceAccountName": settings.service_account,
        "schedulerName": settings.scheduler,
        "nodeSelector": settings.node_selector,
        "tolerations": [_toleration(taint) for taint in settings.tolerations],
        "affinity": _alone() if _is_exclusive(config, spec) else {},
        "initContainers": list(before),
        "containers": [container],
        "volumes": [*_volumes(settings), *volumes],
    }
    return _without_empty(parts)


def cautious(settings: KubernetesSettings) -> Parts:
    """What every pod of ours has: no second start in place, no access to the cluster, the user it runs as.

    With `contained` in its containers, and a user other than root, it keeps to Pod Security's level "restricted".
    """
    user = settings.user_id
    runs_as = (
        {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user, "runAsNonRoot": user != 0}
    )
    return _without_empty(
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
            "securityContext": {**runs_as, "seccompProfile": {"type": "RuntimeDefault"}},
        }
    )


def contained(settings: KubernetesSettings) -> Parts:
    """What every container of ours may not do: gain rights, or keep those of root that it does not need.

    Root keeps the runtime's usual ones: without them it can't open an Ascend device, which is another user's file.
    """
    capabilities = {} if settings.user_id in (None, 0) else {"capabilities": {"drop": ["ALL"]}}
    return {"allowPrivilegeEscalation": False, **capabilities}


def container(
    name: str,
    command: Sequence[str],
    config: Config,
    spec: Spec | None,
    *,
    mounts: Sequence[Parts] = (),
    data: str = DATA,
    workdir: str = DATA,
) -> Parts:
    """A container that runs `command` beside the results claim, on the devices that `spec` needs.

    Args:
        spec: what it works on; None: it takes no device, and gets no Secret.
        mounts: mounts beside those that every container has.
        data: where the results claim is mounted.
        workdir: where the command runs.

    Raises:
        UserError: `cluster.device_resource` is no name that a cluster can have.
    """
    settings = config.kubernetes
    devices = 0 if spec is None else devices_needed(spec)
    resource = None if spec is None else device_resource(config.cluster.device_resource, spec.platform)
    memory = config.cluster.memory_mb
    asked = {
        "cpu": str(config.cluster.cpus_per_device * max(1, devices)),
        **({} if memory is None else {"memory": f"{memory}Mi"}),
        **({} if resource is None or not devices else {resource: str(devices)}),
    }
    return _without_empty(
        {
            "name": name,
            "image": settings.image,
            "workingDir": workdir,
            "command": [word.replace("$(", "$$(") for word in command],  # Kubernetes fills variables into $(NAME)
            "env": [
                {"name": "HOME", "value": SCRATCH},
                {"name": "TMPDIR", "value": SCRATCH},
                _field("ROLLOUT_BENCH_NODE", "spec.nodeName"),
                _field("ROLLOUT_BENCH_JOB", "metadata.labels['batch.kubernetes.io/job-name']"),
            ],
            "envFrom": [] if spec is None else [{"secretRef": {"name": secret}} for secret in settings.secrets],
            "securityContext": contained(settings),
            # Devices can't be had but whole: both alike. Cores and memory too, so that nobody takes them meanwhile.
            "resources": {"requests": asked, "limits": asked},
            "volumeMounts": [*_mounts(settings, data), *mounts],
        }
    )


def _volumes(settings: KubernetesSettings) -> list[Parts]:
    models = {"claimName": settings.models_claim, "readOnly": True}
    return [
        {"name": "results", "persistentVolumeClaim": {"claimName": settings.results_claim}},
        {"name": "scratch", "emptyDir": {} if settings.scratch is None else {"sizeLimit": settings.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
        *([] if settings.models_claim is None else [{"name": "models", "persistentVolumeClaim": models}]),
        *({"name": f"host-{i}", "hostPath": {"path": path}} for i, path in enumerate(settings.host_paths)),
    ]


def _mounts(settings: KubernetesSettings, data: str) -> list[Parts]:
    read_only = {} if settings.models_claim is None else {"models": settings.models_path}
    read_only |= {f"host-{i}": path for i, path in enumerate(settings.host_paths)}
    return [
        {"name": "results", "mountPath": data},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        *({"name": name, "mountPath": path, "readOnly": True} for name, path in read_only.items()),
    ]


def _is_exclusive(config: Config, spec: Spec | None) -> bool:
    """Whether no other launch may be on the node: on cpu, and of others' servers, they would slow each other."""
    if spec is None or config.isolation is not None:
        return config.isolation == "exclusive"
    return spec.platform not in ("cuda", "ascend")


def _alone() -> Parts:
    term = {"labelSelector": {"matchLabels": LABELS}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _field(name: str, path: str) -> Parts:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _toleration(taint: Toleration) -> Parts:
    operator = "Exists" if taint.value is None else "Equal"
    found = {"key": taint.key, "operator": operator, "value": taint.value, "effect": taint.effect}
    return {name: part for name, part in found.items() if part is not None}


def _without_empty(parts: Parts) -> Parts:
    return {name: part for name, part in parts.items() if part not in (None, {}, [])}
