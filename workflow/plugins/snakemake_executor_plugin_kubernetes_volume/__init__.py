"""Snakemake's executor for Kubernetes, for jobs that share a volume with the Snakemake that submits them.

The plugin snakemake-executor-plugin-kubernetes takes it for granted that there is no shared file system: every file
would go through a storage provider, which is installed when a job starts, and no path in a record would be the one at
home. Nor does it ask for devices other than `nvidia.com/gpu` and `amd.com/gpu`, or for taints and node labels. So this
one, which is found by its name on PYTHONPATH, says that files are shared, and submits the pods of
`rollout_bench.cluster.manifests`: both ways to run on Kubernetes are set in the config's `kubernetes` and `cluster`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_kubernetes as plugin
from kubernetes.client.rest import ApiException
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from urllib3.exceptions import HTTPError

from rollout_bench.cluster.manifests import DATA, LABELS, container, for_block, pod, specs_name

common_settings = replace(
    plugin.common_settings,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_default_storage_provider_args=False,
    auto_deploy_default_storage_provider=False,
)


@dataclass
class ExecutorSettings(plugin.ExecutorSettings):
    """What profiles may set; all else is in the config."""

    mount: str = field(  # the type itself is read, so annotations here are no text
        default=DATA,
        metadata={"help": "Where the results claim is mounted: in the pod that submits, and so in its jobs."},
    )


class Executor(plugin.Executor):
    """Submits a Job for each of Snakemake's, asks what became of it, and deletes it where the workflow is ended."""

    def __post_init__(self) -> None:
        """Raise `WorkflowError` where jobs could not find the files of this folder, or no image."""
        self.plan = self.workflow.globals["matrix"]
        self.mount = Path(self.workflow.executor_settings.mount)
        if not Path.cwd().is_relative_to(self.mount):
            raise WorkflowError(
                f"{Path.cwd()} is not on the results claim, which is to be mounted at {self.mount}\n"
                "  -> run snakemake in a pod that mounts it, in a folder of it: docs/how-to/kubernetes.md"
            )
        if self.plan.config.kubernetes.image is None:
            raise WorkflowError("config: kubernetes.image: is not set\n  -> name the image, with its tag")
        super().__post_init__()
        self.namespace = self.plan.config.kubernetes.namespace

    def register_secret(self) -> None:
        """Nothing: pods take their variables from Secrets that the config names."""

    def unregister_secret(self) -> None:
        """Nothing, as nothing was registered."""

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit `job`; a Job that can't be submitted has failed."""
        body = self.manifest(job, self.format_job_exec(job))
        name = body["metadata"]["name"]
        submitted = SubmittedJobInfo(job=job, external_jobid=name)
        try:
            self._kubernetes_retry(lambda: self.batchapi.create_namespaced_job(self.namespace, body))
        except WorkflowError as error:
            self.report_job_error(submitted, msg=f"{name} can't be submitted: {error}. ")
            return
        self.logger.info(f"{name} is submitted: kubectl -n {self.namespace} describe job {name}")
        self.report_job_submission(submitted)

    def manifest(self, job: JobExecutorInterface, command: str) -> dict[str, Any]:
        """Return the Job that runs `command` for `job`: on devices where it measures a launch, else on cores alone."""
        config = self.plan.config
        if job.is_group():
            raise WorkflowError("cluster.launches_per_job: set it to 1: on Kubernetes each launch has a pod of its own")
        launches = self.plan.launches_at(job.output[0]) if job.output else ()
        if job.output and job.output[0] in self.plan.blocks:
            config = for_block(config, len(launches), self.plan.blocks[job.output[0]].group.at_once)
        launch = launches[0] if launches else None
        spec = None if launch is None else launch.experiment.spec
        words = ["/bin/sh", "-c", command]
        running = container("snakemake", words, config, spec, data=str(self.mount), workdir=str(Path.cwd()))
        # the same in each try of a job, so that a further one may take over from a pod that was killed
        others = [variable for variable in running["env"] if variable["name"] != "ROLLOUT_BENCH_JOB"]
        running["env"] = [*others, {"name": "ROLLOUT_BENCH_JOB", "value": f"{self.run_namespace}-{job.jobid}"}]
        unique = str(plugin.get_uuid(f"{self.run_namespace}-{job.jobid}-{job.attempt}"))[:8]
        name = f"rb-{unique}" if launch is None else f"{specs_name(launch.experiment.spec)}-{launch.index}-{unique}"
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": config.kubernetes.namespace, "labels": LABELS},
            "spec": {
                "backoffLimit": 0,  # Snakemake counts the tries
                "ttlSecondsAfterFinished": config.kubernetes.keep_finished_s,
                "template": {
                    "metadata": {"labels": {} if spec is None else LABELS},
                    "spec": pod(running, config, spec),
                },
            },
        }

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the Jobs that have ended; yield the others, and those of which the cluster does not answer."""
        for submitted in active_jobs:
            name = submitted.external_jobid
            async with self.status_rate_limiter:
                try:
                    status = self.batchapi.read_namespaced_job(name, self.namespace).status
                except ApiException as error:
                    if error.status in (401, 403):
                        raise WorkflowError(f"{name}: {error.reason}: give the service account `get` on jobs") from None
                    if error.status != 404:
                        self.logger.warning(f"{name}: {error.reason}: asked again later")
                        yield submitted
                    else:
                        self.report_job_error(submitted, msg=f"{name} was deleted. ")
                    continue
                except HTTPError as error:
                    self.logger.warning(f"{name}: {error}: asked again later")
                    yield submitted
                    continue
            if status.succeeded:
                self.report_job_success(submitted)
            elif status.failed or any(c.type == "Failed" and c.status == "True" for c in status.conditions or []):
                self.report_job_error(submitted, msg=f"kubectl -n {self.namespace} logs job/{name} says why. ")
            else:
                yield submitted
