"""Which failures keep a launch from being tried again in a run."""

import os
from pathlib import Path

import pytest
from synthetic_records import make_failure, make_record, save

from rollout_bench.contracts.failures import failed_by_itself
from rollout_bench.contracts.store import failure_path, record_path


@pytest.mark.parametrize(
    ("changed", "plan_s", "counts"),
    [
        ({}, -10, True),
        ({}, 10, False),
        ({}, None, True),
        ({"category": "node_failure"}, -10, False),
    ],
    ids=["of this run", "of an earlier run", "without a plan", "of the node"],
)
def test_a_failure_of_this_run_that_any_node_would_repeat_counts(
    tmp_path: Path, changed: dict[str, str], plan_s: float | None, counts: bool
):
    failure = make_failure().model_copy(update=changed)
    save(tmp_path, failure)
    record = record_path(tmp_path, "offline", failure.experiment, failure.launch)
    plan = tmp_path / "plan.json"
    if plan_s is not None:
        plan.touch()
        written_s = failure_path(record).stat().st_mtime
        os.utime(plan, (written_s + plan_s, written_s + plan_s))
    assert failed_by_itself(record, plan, on_cluster=True) is counts
    if changed:
        assert failed_by_itself(record, plan, on_cluster=False), "there is no other node"
    save(tmp_path, make_record())
    assert not failed_by_itself(record, plan, on_cluster=False), "it has a record"
