"""The request for one launch: its spec, the places of its results, and the devices that it may use."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rollout_bench.contracts.spec import Isolation, Spec, WorkloadSpec, is_local
from rollout_bench.contracts.store import reference_path
from rollout_bench.core.errors import UserError
from rollout_bench.measure.launch.outcome import LaunchOutcome, in_workflow
from rollout_bench.measure.launch.preflight import check_dataset_given
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.machine.leases import LeaseRequest
from rollout_bench.workloads.requests import Source


@dataclass(frozen=True)
class LaunchRequest:
    """Arguments of the measuring command for one launch; it does nothing by itself.

    Args:
        spec: the experiment.
        model: folder with the weights, or hub id.
        launch: index of the launch, from 0.
        out: path of the record.
        log: file for the engine's output.
        dataset: the workload's data set, if it has one.
        timeout_s: limit for the whole launch in seconds, without waiting for turns in a block.
        isolation: which other launches may run on the node; None for the default.
        devices: largest number of devices that the workflow's launches hold together; None for all.
        first_device: preferred device; None derives it from the index of the launch.
        attempt: number of the attempt, from 1; None measures again even if a record exists.
        die_with_parent: process of the call that this launch belongs to; None if it is started by hand.
        turn: number of the launch's block in its job; blocks of a job use the same engines one after the other.
    """

    spec: Spec
    model: str
    launch: int
    out: Path
    log: Path
    dataset: Path | None = None
    timeout_s: float = 3600.0
    isolation: Isolation | None = None
    devices: int | None = None
    first_device: int | None = None
    attempt: int | None = None
    die_with_parent: int | None = None
    turn: int = 0

    @property
    def name(self) -> str:
        """Return <mode>/<experiment>."""
        return f"{self.spec.mode}/{self.spec.experiment()}"

    @property
    def wanted(self) -> LeaseRequest:
        """Return what the launch needs from its node."""
        first = self.launch if self.first_device is None else self.first_device
        return LeaseRequest(self.spec, self.out, self.isolation, self.devices, first)

    @property
    def loaded(self) -> str:
        """Return the model for the engine to load: an absolute path or a hub id."""
        local = self.spec.endpoint is None and is_local(self.model)
        return str(Path(self.model).expanduser().absolute()) if local else self.model

    @property
    def owner(self) -> int:
        """Return the process that owns what its launches share."""
        return self.die_with_parent or os.getpid()

    @cached_property
    def outcome(self) -> LaunchOutcome:
        """Return the outcome of the launch."""
        return LaunchOutcome(self.spec, self.launch, self.out.absolute(), self.log)

    def source(self, workload: WorkloadSpec, vocabulary: int) -> Source:
        """Return a router's source of requests for a workload, with `vocabulary` token ids."""
        args = self.spec.engine.args
        tokenizer, code = str(args.get("tokenizer") or self.loaded), bool(args.get("trust_remote_code"))
        return Source(workload, vocabulary, tokenizer, self.dataset, code)

    def job(self, timeout_s: float, traces: Path | None = None, *, is_last: bool = True) -> Job:
        """Return the work for the engine's processes.

        Args:
            timeout_s: what is left of the launch's time limit, in seconds.
            traces: folder from `folder_for_traces`.
            is_last: whether no later launch uses the engine.
        """
        reference = reference_path(self.out.absolute(), self.spec)
        return Job(
            spec=self.spec,
            model=self.loaded,
            dataset=None if self.dataset is None else str(self.dataset.absolute()),
            launch=self.launch,
            timeout_s=timeout_s,
            traces=None if traces is None else str(traces),
            reference=None if reference is None else str(reference),
            is_last=is_last,
        )

    def check(self, spec_file: Path) -> None:
        """Raise `UserError` if the arguments contradict each other or the spec from `spec_file`."""
        folder = self.out.absolute().parent.name
        if in_workflow(self.out) and folder != self.spec.experiment():
            raise UserError(
                f"{self.out}: the spec {spec_file} belongs to experiment {self.spec.experiment()}, not {folder}",
                "give the spec.json in the record's folder, or run the workflow",
            )
        if self.launch < 0 or (
            re.fullmatch(r"launch-\d+\.json", self.out.name) and self.out.name != f"launch-{self.launch}.json"
        ):
            raise UserError(
                f"--launch {self.launch} does not fit --out {self.out}",
                f"give --out .../launch-{abs(self.launch)}.json",
            )
        check_dataset_given(self.spec, self.dataset)
        if self.devices is not None and self.devices < 1:
            raise UserError(f"--devices {self.devices} is not a number of devices", "give a whole number above 0")
        if not 0 < self.timeout_s < 1e8:
            raise UserError(f"--timeout-s {self.timeout_s:g} is not a valid time", "give a number of seconds above 0")
