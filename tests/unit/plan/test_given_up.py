"""A block's launch that failed by itself in this run is not asked for again in it, and in the next run it is."""

from pathlib import Path

import pytest
from rooms import Rooms, matrix_of

from rollout_bench import snakefile
from rollout_bench.contracts.postmortem import Cause, failure_of
from rollout_bench.contracts.store import write_failure
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.schedule import schedule


@pytest.mark.parametrize(("category", "given_up"), [("unknown", True), ("disk_full", False)])
def test_a_failed_launch_is_retried_only_if_its_node_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, category: str, given_up: bool
):
    monkeypatch.chdir(tmp_path)
    config, matrix = matrix_of("launches: auto")
    plan = schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    asked = [record for record in snakefile.next_round(plan) if record in plan.by_record]
    snakefile.begin(plan, plan.outputs_for(asked))
    try:
        failed = next(record for record in asked if "_w8a8_" in record and record.endswith("-0.json"))
        cause = Cause(category, "it broke", "mend it")
        write_failure(Path(failed), failure_of("e", 0, "starting", cause, "log", None, None))
        again = set(snakefile.next_round(plan))
    finally:
        snakefile._held.pop().release()
    dropped = {record for record in asked if "_w8a8_" in record}
    assert set(asked) & again == set(asked) - (dropped if given_up else set())
    assert set(asked) <= set(snakefile.next_round(plan)), "another process, as a dry run after it"
