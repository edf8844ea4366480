"""What is missing, in doubt, torn from its block or given up, and how it is measured again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rooms import Rooms, matrix_of
from synthetic_records import INVALID, disturbed, make_block, make_record, save

from rollout_bench.contracts.failures import SERVER_GONE, Cause, failure_of
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import read_record, write_failure
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.remeasuring import of_unsound_blocks, scanned_records, set_aside, with_partners
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import RESULTS, ScheduledLaunch, schedule
from rollout_bench.rules import call, planned, rounds, run

FAILURE = failure_of("e", 0, "starting", Cause("crash", "It fell.", "Read the log."), "log", None, None)
WARNING = Flag(code="not_steady", severity="warning", sentence="Slower.")


@pytest.fixture
def measured(tmp_path: Path) -> ResultsState:
    """Three launches of each quant, of which w8a8's launch 1 is invalid and bf16's launch 2 has a warning."""
    flags = {("w8a8", 1): [INVALID], ("bf16", 2): [WARNING]}
    plan = schedule(*matrix_of("launches: 3"))
    for launch in plan.launches:
        spec = launch.experiment.spec
        save(tmp_path, make_record(spec, launch.index, flags=flags.get((spec.quant.name, launch.index), ())))
    return ResultsState(plan, tmp_path)


def in_blocks(overlay: str, folder: Path = RESULTS) -> ResultsState:
    config, matrix = matrix_of(overlay)
    return ResultsState(schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False)), folder)


def measure_blocks(state: ResultsState, leave_out: int = 0) -> list[list[str]]:
    """Write the records of all blocks of a plan without their last `leave_out` members; return the records."""
    blocks = [block.launches[: len(block.launches) - leave_out] for block in state.schedule.blocks]
    for launches in blocks:
        specs = [launch.experiment.spec for launch in launches]
        save(state.folder, *make_block(specs, launches[0].index, [[400.0] * 3] * len(launches)))
    return [[launch.record for launch in launches] for launches in blocks]


def edit(record: Path, **fields: object) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | fields, indent=1))


def fail(record: Path) -> None:
    record.unlink()
    write_failure(record, FAILURE)


@pytest.mark.parametrize(
    ("damage", "is_again"),
    [
        (Path.unlink, True),
        (lambda record: edit(record, validity=[INVALID.model_dump()]), True),
        (lambda record: edit(record, validity=[INVALID.model_dump() | {"code": "weights_differ"}]), False),
        (lambda record: record.write_bytes(record.read_bytes()[:-100]), True),
        (lambda record: edit(record, block=None), True),
        (fail, False),
    ],
    ids=["lost", "invalid", "wrong weights", "damaged", "measured alone", "failed"],
)
def test_an_unsound_block_is_measured_whole_again(tmp_path: Path, damage: Callable[[Path], object], is_again: bool):
    state = in_blocks("launches: 2", tmp_path)
    records = measure_blocks(state)[1]
    assert of_unsound_blocks(state, scanned_records(state)) == set()
    damage(state.path(records[-1]))
    assert of_unsound_blocks(state, scanned_records(state)) == {
        record for record in records if is_again and state.path(record).exists()
    }


@pytest.mark.parametrize(("share", "is_again"), [(0.3, False), (0.6, True)])
def test_launches_of_a_block_are_measured_again_if_the_summary_counts_none(
    tmp_path: Path, share: float, is_again: bool
):
    state = in_blocks("launches: 1", tmp_path)
    (block,) = state.schedule.blocks
    specs = [launch.experiment.spec for launch in block.launches]
    first, *others = make_block(specs, 0, [[400.0] * 3] * len(specs))
    save(state.folder, disturbed(first, share), *(disturbed(one, 0.0) for one in others))
    assert any(flag.severity == "invalid" for flag in disturbed(first, share).validity)
    assert of_unsound_blocks(state, scanned_records(state)) == {one.record for one in block.launches if is_again}


def test_a_quant_that_is_added_has_its_blocks_measured_whole(tmp_path: Path):
    state = in_blocks("launches: 1", tmp_path)
    ((first, second),) = measure_blocks(state, leave_out=1)
    assert of_unsound_blocks(state, scanned_records(state)) == {first, second}


def test_a_launch_without_a_block_is_measured_again_alone(measured: ResultsState) -> None:
    assert measured.missing == ()
    (again,) = replace(measured, again=frozenset(of_unsound_blocks(measured, scanned_records(measured)))).missing
    assert "_w8a8_" in again
    assert again.endswith("launch-1.json")


def test_a_launch_whose_server_went_away_at_a_load_is_measured_again(measured: ResultsState) -> None:
    launch = measured.schedule.launches[0]
    gone, busy = (
        Flag(code=code, severity="invalid", sentence="Refused.", load=load)
        for code, load in ((SERVER_GONE, "2 req/s"), ("requests_failed", "4 req/s"))
    )
    edit(measured.path(launch.record), validity=[busy.model_dump()])
    assert launch.record not in planned.measured_again(measured).again, "it would be too busy again"
    edit(measured.path(launch.record), validity=[gone.model_dump()])
    again = planned.measured_again(measured)
    assert launch.record in again.again
    said = "2 req/s: the server went away: measured again, with all loads of its launch"
    assert any(line.endswith(said) for line in again.changed), again.changed


def test_records_are_kept_aside_with_all_that_lies_beside_them(measured: ResultsState) -> None:
    again = sorted(launch.record for launch in measured.schedule.launches if launch.index == 1)
    records = list(map(measured.path, again))
    beside = {path for record in records for path in record.parent.glob(f"{record.stem}.*")}
    assert len(beside) > len(again)
    folder = set_aside(records, measured.folder)
    assert not any(path.exists() for path in beside)
    assert all((folder / path.relative_to(measured.folder)).exists() for path in beside)
    assert not read_record(folder / records[-1].relative_to(measured.folder)).valid
    assert set(measured.missing) == set(again)


def test_a_state_answers_as_when_it_was_asked_first(measured: ResultsState) -> None:
    assert measured.missing == ()
    record = measured.schedule.launches[0].record
    measured.path(record).unlink()
    assert (measured.is_missing(record), replace(measured).missing) == (False, (record,))


TWO_MODELS = """
models: [a, b]
model_settings: {a: {synthetic: {preset: qwen3-90m}}, b: {synthetic: {preset: qwen3-tiny}}}
launches: 1
"""


def test_a_quant_that_joins_one_model_hides_no_unsound_block_of_another(tmp_path: Path):
    state = in_blocks(TWO_MODELS, tmp_path)
    joined, unsound = measure_blocks(state)
    state.path(joined[-1]).unlink()
    edit(state.path(unsound[-1]), validity=[INVALID.model_dump()])
    at_start = planned.measured_again(in_blocks(TWO_MODELS, tmp_path))
    assert set(at_start.missing) == {*joined, *unsound}
    assert [line.partition(":")[0] for line in at_start.changed] == ["w8a8", "measured again"]


AUTO = """
launches: auto
precision: {half_width: 0.02, max_launches: 8}
"""
NOISE = [0.0, 0.012, -0.012, 0.006, -0.006, 0.012]


def measure(results: Path, launch: ScheduledLaunch, noise: float = 1.0) -> None:
    sign = 1 if launch.experiment.spec.quant.name == "bf16" else -1
    rates = [400 * (1 + sign * noise * NOISE[launch.index])] * 3
    save(results, make_record(launch.experiment.spec, launch.index, rates))


@pytest.fixture
def auto(tmp_path: Path) -> Iterator[ResultsState]:
    """Blocks of `launches: auto`, with nothing measured yet; a run that begins in the test ends with it."""
    yield in_blocks(AUTO, tmp_path)
    if call.has_begun():
        call.HELD.pop().close()


def test_launches_in_doubt_are_measured_again_though_fewer_are_wanted(auto: ResultsState) -> None:
    plan = auto.schedule
    for launch in plan.launches:
        if launch.index < 6:
            measure(auto.folder, launch)
    changed = {x.record for x in plan.launches if x.experiment.spec.quant.name == "w8a8" and x.index in (1, 5)}
    at_start = replace(auto, again=frozenset(with_partners(auto, changed)))
    run.begin(at_start, plan.outputs_for(r for r in rounds.next_round(at_start) if r in plan.by_record))
    moved = {launch.record for launch in plan.launches if launch.index in (1, 5)}
    assert moved.isdisjoint(path for path in plan.by_record if auto.path(path).exists())
    for launch in plan.launches:
        if launch.index < 5:  # the block of launches 1 was measured again, and now few are enough
            measure(auto.folder, launch, noise=0.01)
    assert max(rounds.wanted_launches(auto).values()) < 6
    now = rounds.next_round(call.results_now(at_start))
    assert set(now) & moved == {record for record in moved if record.endswith("-5.json")}


@pytest.mark.parametrize(
    ("category", "on_cluster", "given_up"),
    [("unknown", True, True), ("disk_full", True, False), ("disk_full", False, True)],
)
def test_a_failed_launch_is_retried_only_if_its_node_failed_and_there_are_others(
    auto: ResultsState, category: str, on_cluster: bool, given_up: bool
):
    auto = replace(auto, schedule=replace(auto.schedule, on_cluster=on_cluster))
    asked = [record for record in rounds.next_round(auto) if record in auto.schedule.by_record]
    run.begin(auto, auto.schedule.outputs_for(asked))
    failed = next(record for record in asked if "_w8a8_" in record and record.endswith("-0.json"))
    write_failure(auto.path(failed), FAILURE.model_copy(update={"category": category}))
    again = set(rounds.next_round(call.results_now(auto)))
    dropped = {record for record in asked if "_w8a8_" in record and given_up}
    assert set(asked) & again == set(asked) - dropped
    call.HELD.pop().close()
    assert set(asked) <= set(rounds.next_round(call.results_now(auto))), "another process, as a dry run after it"
