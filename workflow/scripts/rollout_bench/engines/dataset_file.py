"""What can be said of a data set before the engine starts: that it is still the one of the spec."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.engines.failures import Cause
from rollout_bench.errors import UserError
from rollout_bench.plan.spec import Spec
from rollout_bench.workloads.datasets import read_bytes, sha256


def check_dataset_given(spec: Spec, dataset: Path | None) -> None:
    """Raises `UserError` where a measuring command was given no data set though `spec` has one, or the reverse."""
    if (dataset is None) != (spec.workload.dataset is None):
        raise UserError(
            f"workload {spec.workload.name} {'needs' if dataset is None else 'has no'} data set",
            "name its file with --dataset" if dataset is None else "leave --dataset out",
        )


def changed(spec: Spec, dataset: Path | None) -> Cause | None:
    """Why `dataset` is not the one that was planned with; None if it is, or if there is none."""
    if spec.workload.dataset is None or dataset is None:
        return None
    try:
        found = sha256(read_bytes(dataset))
    except UserError as error:
        return Cause("dataset_changed", error.problem, "bring the file back, or plan again with another one")
    if found == spec.workload.dataset.sha256:
        return None
    return Cause(
        "dataset_changed",
        f"{dataset}: is another file than when the spec was written: its sha256 begins with {found[:8]}",
        "run `snakemake` again, so that it plans for the file as it is now, or bring the old one back",
    )
