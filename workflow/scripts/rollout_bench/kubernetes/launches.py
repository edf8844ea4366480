"""The pod of one launch: the measuring command, with its spec mounted and a synthetic model built before."""

from __future__ import annotations

from rollout_bench.kubernetes.names import specs_name
from rollout_bench.kubernetes.paths import CODE, SPEC, dataset_in_pod, log_in_pod, model_in_pod
from rollout_bench.kubernetes.pods import Parts, container, pod
from rollout_bench.placement.inventory import usual_isolation
from rollout_bench.plan.config import Config
from rollout_bench.plan.schedule import Launch

CONTAINER = "launch"


def pod_of_launch(launch: Launch, config: Config) -> Parts:
    """The spec of the pod that measures `launch`.

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
    return pod(measuring, config, experiment.spec, before=before, volumes=[spec])


def _measuring(launch: Launch, config: Config) -> list[str]:
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
