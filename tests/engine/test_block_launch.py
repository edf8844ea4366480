"""A block on the real engine: engines alive at once, passes in turn, and what a record says of it."""

from __future__ import annotations

import pytest
from launching import own_flags
from running_blocks import RunningBlock

from rollout_bench.contracts.record import Block, Record
from rollout_bench.contracts.store import failure_path, read_failure

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunningBlock:
    of = {"b": {"workload": {"output_tokens": 24}}}
    made = RunningBlock(tmp_path_factory.mktemp("block"), changes={"measuring": {"iterations": "auto"}}, of=of)
    assert made.start("--order-seed", "3").finish() == 0, made.said
    return made


@pytest.fixture(scope="module")
def records(made: RunningBlock) -> dict[str, Record]:
    return made.records()


def block_of(record: Record) -> Block:
    assert record.block is not None
    return record.block


def test_every_launch_has_its_record_and_no_doubt_of_its_own(records: dict[str, Record]) -> None:
    assert set(records) == {"a", "b", "c"}
    assert [own_flags(record) for record in records.values()] == [[], [], []]
    assert len({block_of(record).id for record in records.values()}) == 1


def test_as_many_passes_count_in_each_as_starts_and_warm_up_say(records: dict[str, Record]) -> None:
    counted = [sum(not it.warmup for it in record.iterations) for record in records.values()]
    assert counted == [counted[0]] * 3
    assert 8 <= counted[0] <= 32
    assert [sum(it.warmup for it in record.iterations) for record in records.values()] == [1, 1, 1]


def test_iterations_name_their_rounds_and_the_record_the_order_of_each(records: dict[str, Record]) -> None:
    order = block_of(records["a"]).order
    for position, record in enumerate(records.values()):
        assert block_of(record).order == order
        rounds = [it.round for it in record.iterations if not it.warmup]
        assert rounds == [number for number, of in enumerate(order) if position in of] == list(range(len(order)))
        assert [it.round for it in record.iterations if it.warmup] == [None]
    assert len({tuple(of) for of in order}) > 1


def test_what_each_generates_is_what_it_generates_by_itself(made: RunningBlock, records: dict[str, Record]) -> None:
    assert {it.output_tokens for it in records["a"].iterations} == {4 * 2 * 16}
    assert {it.output_tokens for it in records["b"].iterations} == {4 * 2 * 24}


def test_an_engine_starts_once_the_one_before_has_warmed_up(made: RunningBlock) -> None:
    lines = made.said.splitlines()
    moments = [
        next(number for number, line in enumerate(lines) if f" {name} (" in line and words in line)
        for name in "abc"
        for words in (": importing", ": warm-up 1/1")
    ]
    assert moments == sorted(moments)


def test_a_launch_whose_engine_is_killed_and_one_that_cannot_start_are_left_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = RunningBlock(
        tmp_path_factory.mktemp("failing"),
        names=("a", "b", "c"),
        changes={"measuring": {"iterations": 40}},
        of={"b": {"engine": {"args": {"load_format": "dummy", "max_model_len": 4096}}}},
    )
    made.start()
    made.wait_for(r" c .*iteration 2/")
    made.engine_of("c").kill()
    assert made.finish() == 1
    assert set(made.records()) == {"a"}
    assert [it.round for it in made.records()["a"].iterations] == [None, *range(40)]
    assert read_failure(failure_path(made.outs["c"])).category == "crash"
    assert failure_path(made.outs["b"]).exists()
    assert made.survivors() == []
