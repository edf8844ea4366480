"""One Job that measures all endpoints: in one pod, so that no two launches load a server at the same time.

The pod runs the workflow itself, as somebody would at home, with the endpoints of the config and nothing else. So
launches take turns and begin again where they ended, and a summary is on the claim in the end. No service account is
needed: it makes nothing on the cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rollout_bench.cluster.manifests import (
    CONTAINER,
    DATA,
    LABELS,
    SPEC,
    Parts,
    container,
    for_block,
    job_of,
    looked_into,
    pod,
)
from rollout_bench.contracts.modes import ONLINE
from rollout_bench.plan.config import Config
from rollout_bench.plan.schedule import ScheduledLaunch

HOME = "/opt/rollout-bench"
"""The project, as the images of containers/ hold it."""

_FILE = "config.json"


def launcher(launches: Sequence[ScheduledLaunch], config: Config, merged: Mapping[str, Any]) -> tuple[Parts, Parts]:
    """Return the ConfigMap with what is to be measured, and the Job that measures what is missing of it.

    Both are the same however much is missing, so that they can be applied again.

    Args:
        launches: all of endpoints, with `launches: auto` as many as there may be.
        config: what they were planned from.
        merged: the same as it was read.
    """
    settings = config.kubernetes
    text = json.dumps(_for_endpoints(merged), indent=1, sort_keys=True)
    name = f"rb-endpoints-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    # in place of the image's own config, and of one that lies on the claim
    laid_over = ["--replace-workflow-config", "--configfile", f"{SPEC}/{_FILE}"]
    command = ["snakemake", "--snakefile", f"{HOME}/Snakefile", "--keep-incomplete", *laid_over]
    spec = launches[0].experiment.spec
    mount = {"name": "config", "mountPath": SPEC, "readOnly": True}
    measuring = looked_into(container(CONTAINER, command, config, spec, mounts=[mount]), config)
    volume = {"name": "config", "configMap": {"name": name}}
    template = pod(measuring, for_block(config, len(launches), 1), spec, volumes=[volume])
    about = {"name": name, "namespace": settings.namespace, "labels": LABELS}
    mounted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "immutable": True, "data": {_FILE: text}}
    return mounted, job_of(name, template, config, {})


def _for_endpoints(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the endpoints alone, with data sets where they are on the claim."""
    workloads = {}
    for name, workload in merged["workload_settings"].items():
        dataset = workload.get("dataset") if isinstance(workload, Mapping) else None
        if isinstance(dataset, Mapping) and "path" in dataset:
            path = f"{DATA}/datasets/{PurePosixPath(dataset['path']).name}"
            workload = {**workload, "dataset": {**dataset, "path": path}}
        workloads[name] = workload
    engine = {**merged["engine"], "python": _python_in_pod(merged["engine"].get("python"))}
    return {**merged, "models": [], "modes": [ONLINE.name], "workload_settings": workloads, "engine": engine}


def _python_in_pod(python: str | None) -> str | None:
    """Return the engine's Python, where it is the image's; one of this machine is in no pod."""
    return python if python is not None and python.startswith(f"{HOME}/") else None
