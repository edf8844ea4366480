"""The parts of a launch's time add up to the whole."""

from __future__ import annotations

import pytest
from synthetic_online import make_online_spec
from synthetic_records import make_record, make_spec
from synthetic_rollouts import rollout_spec
from synthetic_starts import start_spec

from rollout_bench.analysis.timed.launches import parts_of
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec


def with_process(record: Record, process_s: float | None) -> Record:
    startup = record.startup.model_copy(update={"process_s": process_s})
    return record.model_copy(update={"startup": startup, "wall_s": 100.0})


@pytest.mark.parametrize("process_s", [0.4, None])
def test_parts_are_told_apart_and_add_up(process_s: float | None) -> None:
    record = with_process(make_record(rates=(100.0, 200.0), warmup_rates=(50.0,)), process_s)
    first, *counted = [iteration.elapsed_s for iteration in record.iterations]
    cost = parts_of(record)
    assert cost.process_s == (process_s or 0.0)
    assert (cost.import_s, cost.init_s) == (8.0, 3.0)
    assert (cost.warmup_s, cost.measured_s) == (first, sum(counted))
    assert cost.other_s == pytest.approx(100.0 - 8.0 - 3.0 - first - sum(counted) - (process_s or 0.0))
    assert cost.wall_s == pytest.approx(record.wall_s)


def test_a_record_of_an_earlier_version_has_no_start_of_the_process() -> None:
    old = make_record().model_dump()
    assert old["startup"].pop("process_s") is None
    assert parts_of(Record.model_validate(old)).process_s == 0.0


def test_the_start_of_a_server_is_one_part() -> None:
    record = make_record(make_online_spec())
    cost = parts_of(record)
    assert (cost.import_s, cost.init_s, cost.server_start_s) == (0, 0, 11)
    assert cost.wall_s == pytest.approx(record.wall_s)


@pytest.mark.parametrize("spec", [make_spec(), rollout_spec(), start_spec()])
def test_an_engine_whose_start_is_seen_has_two(spec: Spec) -> None:
    cost = parts_of(make_record(spec))
    assert (cost.import_s, cost.init_s, cost.server_start_s) == (8, 3, 0)
