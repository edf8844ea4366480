"""What a cluster is asked to make: a Job for a launch, its pod, the spec that it reads, the claim that it writes."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

from rollout_bench.contracts.spec import Platform, Spec, devices_needed
from rollout_bench.core.errors import UserError, near_miss
from rollout_bench.core.files import json_text
from rollout_bench.measure.machine.inventory import usual_isolation
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.pods import KubernetesSettings, NewClaim, Toleration
from rollout_bench.plan.schedule import ScheduledLaunch

LONGEST = 52
"""A pod is called as its Job with six characters more, and a node's name for it ends at 63."""

_LONGEST_NUMBER = 5


def job_name(spec: Spec, launch: int) -> str:
    """Name of a launch's Job: a DNS label of at most 52 characters that holds the experiment's key and the launch."""
    return f"{specs_name(spec)}-{launch}"


def specs_name(spec: Spec) -> str:
    """Name of the ConfigMap with an experiment's spec: a DNS label that ends in its key.

    Model, quant, workload and setting are there for people and may be cut short; the key makes it unique.
    """
    key = spec.key()
    words = re.sub(r"[^a-z0-9]+", "-", spec.names.lower())
    room = LONGEST - len(f"rb---{key}") - _LONGEST_NUMBER
    return f"rb-{words[:room].strip('-')}-{key}"


CODE = "/opt/rollout-bench/workflow/scripts"
"""The commands, as the images of containers/ hold them."""

DATA = "/data"
"""The results claim. Launches run there, so that results/ and logs/ have the same paths as at home."""

SCRATCH = "/scratch"
"""Caches and synthetic models; gone with the pod."""

SPEC = "/etc/rollout-bench"
"""The folder that spec.json is mounted in."""


def model_in_pod(experiment: Experiment, settings: KubernetesSettings) -> str:
    """Return the model as the measuring command is told it inside a pod.

    Raises:
        UserError: the weights are in a folder that no pod has.
    """
    name, weights = experiment.spec.model.name, experiment.spec.model.weights or ""
    if experiment.checkpoint is not None:
        return f"{SCRATCH}/models/{PurePosixPath(experiment.checkpoint.folder).name}"
    if experiment.spec.endpoint is not None or weights.startswith("hub:"):
        return experiment.model_path
    if settings.models_claim is None:
        raise UserError(
            f"config: kubernetes.models_claim: is not set, and {name} has its weights in the folder {weights}",
            "name the PersistentVolumeClaim that holds them, or take them from a hub: hub:<owner>/<name>",
        )
    path = os.path.normpath(PurePosixPath(settings.models_path) / weights)
    if not PurePosixPath(path).is_relative_to(settings.models_path) or weights.startswith("~"):
        raise UserError(
            f"config: model_settings.{name}.weights: {weights} does not lie below kubernetes.models_path,"
            f" {settings.models_path}",
            "name it relative to model_base, or set kubernetes.models_path to a folder above it",
        )
    return path


def dataset_in_pod(experiment: Experiment) -> str | None:
    """Return the workload's data set below the results claim; None where the workload has none."""
    path = experiment.dataset_path
    return None if path is None else f"datasets/{PurePosixPath(path).name}"


def log_in_pod(record: str) -> str:
    """Return the log of the launch that writes `record`, below the results claim: logs/ mirrors results/."""
    return str(PurePosixPath("logs") / PurePosixPath(record).relative_to("results").with_suffix(".log"))


USUAL = {"cuda": "nvidia.com/gpu", "ascend": "huawei.com/Ascend910"}
"""Extended resource of a platform's devices: what NVIDIA's and Ascend's device plugins call them."""

KNOWN = (*USUAL.values(), "huawei.com/Ascend310P", "amd.com/gpu")


def device_resource(configured: str | None, platform: Platform) -> str | None:
    """Return the extended resource that launches ask for.

    None where devices are no resource: on cpu, of others' servers.

    Args:
        configured: `cluster.device_resource`.

    Raises:
        UserError: it has no domain, or is another spelling of a known one.
    """
    if configured is None:
        return USUAL.get(platform)
    where = f"config: cluster.device_resource: {configured!r}"
    if "/" not in configured:
        meant = USUAL.get(platform) or near_miss(configured, KNOWN) or "nvidia.com/gpu"
        raise UserError(f"{where} has no domain, and Kubernetes wants DOMAIN/NAME", f"did you mean '{meant}'?")
    domain, _, name = configured.partition("/")
    vendors = [known.partition("/")[0] for known in KNOWN]
    vendor = next(iter(get_close_matches(domain.lower(), vendors, n=1, cutoff=0.85)), domain)
    meant = next((known for known in KNOWN if known.lower() == f"{vendor}/{name}".lower()), f"{vendor}/{name}")
    if meant != configured:
        raise UserError(f"{where} is nothing that the known device plugins offer", f"did you mean '{meant}'?")
    return configured


Parts = dict[str, Any]
"""A piece of a manifest."""

LABELS = {"app.kubernetes.io/name": "rollout-bench"}
"""Of every pod that works on a launch; those that need a node for themselves keep away from it."""

_MARGIN_S = 300
"""What a pod may take beside the launch: pulling the image, building a synthetic model."""

_GRACE_S = 90
"""What a launch that is asked to end gets for ending its engine."""


def for_block(config: Config, launches: int, at_once: int) -> Config:
    """Return `config` with the limits of a pod that measures a block: the time of all, the memory of those alive.

    Args:
        config: limits of one launch.
        launches: of the block.
        at_once: engines that are alive at the same time.
    """
    cluster = config.cluster
    several = cluster.model_copy(
        update={
            "runtime_min": None if cluster.runtime_min is None else launches * cluster.runtime_min,
            "memory_mb": None if cluster.memory_mb is None else at_once * cluster.memory_mb,
        }
    )
    return config.model_copy(update={"cluster": several, "timeout_s": launches * config.timeout_s})


def pod(
    container: Parts, config: Config, spec: Spec | None, *, before: Sequence[Parts] = (), volumes: Sequence[Parts] = ()
) -> Parts:
    """Return the spec of a pod whose `container` works on a launch of `spec`; None: on nothing that is measured.

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
    """Return what every pod of ours has: no second start in place, no access to the cluster, the user it runs as.

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
    """Return what every container of ours may not do: gain rights, or keep those of root that it does not need.

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
) -> Parts:
    """Return a container that runs `command` beside the results claim, on the devices that `spec` needs.

    Args:
        spec: what it works on; None: it takes no device, and gets no Secret.
        mounts: mounts beside those that every container has.

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
    variables = {"HOME": SCRATCH, "TMPDIR": SCRATCH} | ({} if spec is None else settings.environment)
    return _without_empty(
        {
            "name": name,
            "image": settings.image,
            "workingDir": DATA,
            "command": [_as_it_is(word) for word in command],
            "env": [
                *({"name": name, "value": _as_it_is(value)} for name, value in variables.items()),
                _field("ROLLOUT_BENCH_NODE", "spec.nodeName"),
                _field("ROLLOUT_BENCH_JOB", "metadata.labels['batch.kubernetes.io/job-name']"),
            ],
            "envFrom": [] if spec is None else [{"secretRef": {"name": secret}} for secret in settings.secrets],
            "securityContext": contained(settings),
            # Devices can't be had but whole: both alike. Cores and memory too, so that nobody takes them meanwhile.
            "resources": {"requests": asked, "limits": asked},
            "volumeMounts": [*_mounts(settings), *mounts],
        }
    )


def _as_it_is(text: str) -> str:
    """Return `text` so that Kubernetes, which fills variables into $(NAME), leaves it alone."""
    return text.replace("$(", "$$(")


def _volumes(settings: KubernetesSettings) -> list[Parts]:
    models = {"claimName": settings.models_claim, "readOnly": True}
    return [
        {"name": "results", "persistentVolumeClaim": {"claimName": settings.results_claim}},
        {"name": "scratch", "emptyDir": {} if settings.scratch is None else {"sizeLimit": settings.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
        *([] if settings.models_claim is None else [{"name": "models", "persistentVolumeClaim": models}]),
        *({"name": f"host-{i}", "hostPath": {"path": path}} for i, path in enumerate(settings.host_paths)),
    ]


def _mounts(settings: KubernetesSettings) -> list[Parts]:
    read_only = {} if settings.models_claim is None else {"models": settings.models_path}
    read_only |= {f"host-{i}": path for i, path in enumerate(settings.host_paths)}
    return [
        {"name": "results", "mountPath": DATA},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        *({"name": name, "mountPath": path, "readOnly": True} for name, path in read_only.items()),
    ]


def _is_exclusive(config: Config, spec: Spec | None) -> bool:
    """Return whether no other launch may be on the node: on cpu, and of others' servers, they would slow each other."""
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


CONTAINER = "launch"


def pod_of_launch(launch: ScheduledLaunch, config: Config) -> Parts:
    """Return the spec of the pod that measures `launch`.

    Raises:
        UserError: a setting that is missing or can't be, by the key's name.
    """
    experiment = launch.experiment
    mount = {"name": "spec", "mountPath": SPEC, "readOnly": True}
    measuring = container(CONTAINER, _measuring(launch, config), config, experiment.spec, mounts=[mount])
    before = []
    if experiment.checkpoint is not None:
        out = f"--out={model_in_pod(experiment, config.kubernetes)}"
        building = ["python", f"{CODE}/build_checkpoint.py", *experiment.checkpoint.arguments, out]
        before = [container("build-model", building, config, None)]
    spec = {"name": "spec", "configMap": {"name": specs_name(experiment.spec)}}
    return pod(looked_into(measuring, config), config, experiment.spec, before=before, volumes=[spec])


def looked_into(measuring: Parts, config: Config) -> Parts:
    """Return the container that measures, or under `kubernetes.debug` one that waits, with the command at hand."""
    if not config.kubernetes.debug:
        return measuring
    command = shlex.join(word.replace("$$(", "$(") for word in measuring["command"])
    launch = {"name": "LAUNCH", "value": _as_it_is(command)}
    return {**measuring, "command": ["sleep", "infinity"], "env": [*measuring["env"], launch]}


def _measuring(launch: ScheduledLaunch, config: Config) -> list[str]:
    dataset = dataset_in_pod(launch.experiment)
    return [
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
        f"--isolation={config.isolation or usual_isolation(launch.experiment.spec.platform)}",
        "--attempt=1",  # a Job that is applied again keeps what it measured
    ]


COLLECTOR_NAME = "rollout-bench-collector"


def job(launch: ScheduledLaunch, config: Config) -> Parts:
    """Return the Job that measures `launch`."""
    spec = launch.experiment.spec
    labels = {
        "rollout-bench/mode": spec.mode,
        "rollout-bench/key": spec.key(),
        "rollout-bench/launch": str(launch.index),
    }
    made = job_of(job_name(spec, launch.index), pod_of_launch(launch, config), config, labels)
    made["metadata"]["annotations"] = {"rollout-bench/record": launch.record}
    return made


def job_of(name: str, pod: Parts, config: Config, labels: Mapping[str, str]) -> Parts:
    """Return the Job that runs `pod`, whose container is called `CONTAINER`.

    What fails by itself has said why and is not tried again by the cluster; a pod whose node failed is, as often as
    `cluster.retries` says, and a disruption by the cluster does not count.

    Args:
        name: its name.
        pod: spec of the pod.
        config: says how often, and which queue lets it begin.
        labels: of Job and pod, beside those that all have.
    """
    settings = config.kubernetes
    all_labels = {**LABELS, **labels}
    queue = {} if settings.queue is None else {"kueue.x-k8s.io/queue-name": settings.queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": {**all_labels, **queue}},
        "spec": {
            **({} if settings.queue is None else {"suspend": True}),
            "backoffLimit": 0 if settings.debug else config.cluster.retries,
            "ttlSecondsAfterFinished": settings.keep_finished_s,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]},
                    },
                ]
            },
            "template": {"metadata": {"labels": all_labels}, "spec": pod},
        },
    }


def specs_of(experiment: Experiment, namespace: str) -> Parts:
    """Return the ConfigMap with an experiment's spec.json.

    Its name changes with its content, so it never has to change.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": specs_name(experiment.spec),
            "namespace": namespace,
            "labels": {**LABELS, "rollout-bench/key": experiment.spec.key()},
        },
        "immutable": True,
        "data": {"spec.json": json_text(experiment.spec)},
    }


def claim(config: Config, new: NewClaim) -> Parts:
    """Return the claim that takes the results: pods of several nodes write to it."""
    settings = config.kubernetes
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": settings.results_claim, "namespace": settings.namespace, "labels": LABELS},
        "spec": _without_empty(
            {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": new.storage_class,
                "resources": {"requests": {"storage": new.size}},
            }
        ),
    }


def collector(config: Config) -> Parts:
    """Return a pod that holds the results claim for an hour, for `rollout-bench collect --pod` to read it through."""
    settings = config.kubernetes
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": COLLECTOR_NAME, "namespace": settings.namespace},
        "spec": {
            **cautious(settings),
            "activeDeadlineSeconds": 3600,
            "containers": [
                {
                    "name": "collector",
                    "image": settings.image,
                    "command": ["sleep", "3600"],
                    "securityContext": contained(settings),
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                    "volumeMounts": [{"name": "results", "mountPath": DATA, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "results", "persistentVolumeClaim": {"claimName": settings.results_claim}}],
        },
    }
