"""Which failures keep a launch from being tried again in a run."""

import os
from pathlib import Path

import pytest
from synthetic_records import make_failure, make_record, save

from rollout_bench.contracts.failures import SERVER_GONE, deciding_codes, failed_by_itself, scan_record
from rollout_bench.contracts.record import Flag
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


@pytest.mark.parametrize(
    ("code", "load", "again"),
    [
        ("requests_failed", None, True),
        ("requests_failed", "16 req/s", False),
        (SERVER_GONE, None, True),
        (SERVER_GONE, "16 req/s", True),
    ],
)
def test_a_launch_with_one_invalid_load_is_measured_again_only_if_its_server_went_away(
    tmp_path: Path, code: str, load: str | None, again: bool
):
    flag = Flag(code=code, severity="invalid", sentence='1 of 2 said "no"', load=load)
    save(tmp_path, make_record(flags=[flag]))
    record = record_path(tmp_path, "offline", make_record().experiment, 0)
    scan = scan_record(record)
    assert scan is not None
    assert scan.is_transient is again
    assert (deciding_codes([flag]) == {code}) is again
    assert scan.lost_loads == ((load,) if load and code == SERVER_GONE else ())
