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

from rollout_bench.cluster.manifests import CONTAINER, DATA, LABELS, SPEC, Parts, container, for_block, job_of, pod
from rollout_bench.contracts.modes import ONLINE
from rollout_bench.plan.config import Config
from rollout_bench.plan.schedule import ScheduledLaunch

HOME = "/opt/rollout-bench"
"""The project, as the images of containers/ hold it."""

_FILE = "config.json"

_BEGINNING = f"[ -e config.yaml ] || cp {HOME}/config.yaml . && exec"
"""The workflow reads config.yaml where it runs, and there is none on a new claim."""


def launcher(launches: Sequence[ScheduledLaunch], config: Config, merged: Mapping[str, Any]) -> tuple[Parts, Parts]:
    """Return the ConfigMap with what is to be measured, and the Job that measures it.

    Args:
        launches: those of endpoints that are missing.
        config: what they were planned from.
        merged: the same as it was read.
    """
    settings = config.kubernetes
    text = json.dumps(_for_endpoints(merged), indent=1, sort_keys=True)
    name = f"rb-endpoints-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    snakemake = f"snakemake --snakefile {HOME}/Snakefile --keep-incomplete --configfile {SPEC}/{_FILE}"
    spec = launches[0].experiment.spec
    mount = {"name": "config", "mountPath": SPEC, "readOnly": True}
    measuring = container(CONTAINER, ["sh", "-c", f"{_BEGINNING} {snakemake}"], config, spec, mounts=[mount])
    volume = {"name": "config", "configMap": {"name": name}}
    template = pod(measuring, for_block(config, _at_most(launches, config), 1), spec, volumes=[volume])
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
    return {**merged, "models": [], "modes": [ONLINE.name], "workload_settings": workloads}


def _at_most(launches: Sequence[ScheduledLaunch], config: Config) -> int:
    """Return how many launches the Job measures at most: with `auto`, as many as every experiment may get."""
    if config.launches != "auto":
        return len(launches)
    return config.most_launches * len({launch.experiment.name for launch in launches})
