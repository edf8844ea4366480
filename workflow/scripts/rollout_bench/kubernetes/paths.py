"""Where everything lies inside a pod."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from rollout_bench.errors import UserError
from rollout_bench.plan.kubernetes import KubernetesSettings
from rollout_bench.plan.matrix import Experiment

CODE = "/opt/rollout-bench/workflow/scripts"
"""The commands, as the images of containers/ hold them."""

DATA = "/data"
"""The results claim. Launches run there, so that results/ and logs/ have the same paths as at home."""

SCRATCH = "/scratch"
"""Caches and synthetic models; gone with the pod."""

SPEC = "/etc/rollout-bench"
"""The folder that spec.json is mounted in."""


def model_in_pod(experiment: Experiment, settings: KubernetesSettings) -> str:
    """The model as the measuring command is told it inside a pod.

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
    """The workload's data set below the results claim; None where the workload has none."""
    path = experiment.dataset_path
    return None if path is None else f"datasets/{PurePosixPath(path).name}"


def log_in_pod(record: str) -> str:
    """The log of the launch that writes `record`, below the results claim: logs/ mirrors results/."""
    return str(PurePosixPath("logs") / PurePosixPath(record).relative_to("results").with_suffix(".log"))
