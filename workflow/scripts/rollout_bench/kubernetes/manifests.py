"""What is applied to a cluster: a Job for each launch, and before them the specs that they measure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.errors import UserError
from rollout_bench.files import json_text
from rollout_bench.kubernetes.launches import CONTAINER, pod_of_launch
from rollout_bench.kubernetes.names import job_name, specs_name
from rollout_bench.kubernetes.paths import DATA
from rollout_bench.kubernetes.pods import LABELS, Parts, cautious, contained
from rollout_bench.plan.config import Config
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.schedule import Launch, Schedule

HEADER = "# Written by `snakemake kubernetes_manifests`, which replaces or removes it when it is asked again.\n"
"""The first line of every file of ours; a file without it is somebody else's."""

SPECS = "000000-specs.yaml"
COLLECTOR = Path("collector") / "pod.yaml"
"""In a folder of its own, where `kubectl apply -f results/manifests` does not look."""

COLLECTOR_NAME = "rollout-bench-collector"


def manifests(plan: Schedule, records: Iterable[str]) -> dict[str, str]:
    """File name -> content of everything that measures the launches of `records`.

    The names begin with a launch's place among all of the config's, so that `kubectl apply` of the folder makes the
    Jobs in the order they are to run, and a launch keeps its file when others are measured.

    Raises:
        UserError: a setting that is missing or can't be, by the key's name.
    """
    wanted = sorted((plan.by_record[record] for record in records), key=lambda found: found[0])
    if wanted and plan.config.kubernetes.image is None:
        raise UserError(
            "config: kubernetes.image: is not set",
            "name the image that was built from containers/, with its tag: docs/how-to/kubernetes.md",
        )
    files = {
        f"{position + 1:06d}-{job_name(launch.experiment.spec, launch.index)}.yaml": _text(job(launch, plan.config))
        for position, launch in wanted
    }
    if not files:
        return {}
    experiments = {launch.experiment.name: launch.experiment for _, launch in wanted}
    specs = [specs_of(experiment, plan.config.kubernetes.namespace) for experiment in experiments.values()]
    return {SPECS: _text(*specs), **files, str(COLLECTOR): _text(collector(plan.config))}


def job(launch: Launch, config: Config) -> Parts:
    """The Job that measures `launch`.

    A launch that failed by itself has said why and is not tried again by the cluster; one whose node failed is, as
    often as `cluster.retries` says, and a disruption by the cluster does not count.
    """
    settings, spec = config.kubernetes, launch.experiment.spec
    labels = {
        **LABELS,
        "rollout-bench/mode": spec.mode,
        "rollout-bench/key": spec.key(),
        "rollout-bench/launch": str(launch.index),
    }
    queue = {} if settings.queue is None else {"kueue.x-k8s.io/queue-name": settings.queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(spec, launch.index),
            "namespace": settings.namespace,
            "labels": {**labels, **queue},
            "annotations": {"rollout-bench/record": launch.record},
        },
        "spec": {
            **({} if settings.queue is None else {"suspend": True}),
            "backoffLimit": config.cluster.retries,
            "ttlSecondsAfterFinished": settings.keep_finished_s,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": pod_of_launch(launch, config)},
        },
    }


def specs_of(experiment: Experiment, namespace: str) -> Parts:
    """The ConfigMap with an experiment's spec.json; its name changes with its content, so it never has to change."""
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


def collector(config: Config) -> Parts:
    """A pod that does nothing for an hour but hold the results claim, for `collect.py --pod` to read it through."""
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


class _Dumper(yaml.CSafeDumper):
    """Writes texts so that every reader takes them for text: a key like 1234e567 is a number to YAML 1.2."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: two parts that are one object are written twice."""
        return True


def _quoted(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if re.match(r"[0-9.+-]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def _text(*documents: Parts) -> str:
    return HEADER + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)
