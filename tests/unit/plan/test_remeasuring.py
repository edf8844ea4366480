"""What is missing, in doubt, torn from its block or given up, and how it is measured again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rooms import Rooms, matrix_of
from synthetic_records import INVALID, make_block, make_record, save

from rollout_bench.contracts.failures import Cause, failure_of
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import read_record, write_failure
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.schedule import (
    Schedule,
    ScheduledLaunch,
    of_unsound_blocks,
    scanned_records,
    schedule,
    set_aside,
    with_partners,
)
from rollout_bench.rules import call, rounds, run

FAILURE = failure_of("e", 0, "starting", Cause("crash", "It fell.", "Read the log."), "log", None, None)
WARNING = Flag(code="not_steady", severity="warning", sentence="Slower.")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Three launches of each quant, of which w8a8's launch 1 is invalid and bf16's launch 2 has a warning."""
    monkeypatch.chdir(tmp_path)
    flags = {("w8a8", 1): [INVALID], ("bf16", 2): [WARNING]}
    for launch in schedule(*matrix_of("launches: 3")).launches:
        spec = launch.experiment.spec
        save(Path("results"), make_record(spec, launch.index, flags=flags.get((spec.quant.name, launch.index), ())))
    return schedule(*matrix_of("launches: 3"))


def in_blocks(overlay: str) -> Schedule:
    config, matrix = matrix_of(overlay)
    return schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))


def measure_blocks(plan: Schedule, leave_out: int = 0) -> list[list[Path]]:
    """Write the records of all blocks of a plan without their last `leave_out` members; return the records."""
    blocks = [block.launches[: len(block.launches) - leave_out] for block in plan.blocks]
    for index, launches in enumerate(blocks):
        save(Path("results"), *make_block([x.experiment.spec for x in launches], index, [[400.0] * 3] * len(launches)))
    return [[Path(launch.record) for launch in launches] for launches in blocks]


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
def test_an_unsound_block_is_measured_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], is_again: bool
):
    monkeypatch.chdir(tmp_path)
    plan = in_blocks("launches: 2")
    records = measure_blocks(plan)[1]
    assert of_unsound_blocks(plan, scanned_records(plan)) == set()
    damage(records[-1])
    assert of_unsound_blocks(plan, scanned_records(plan)) == {
        str(record) for record in records if is_again and record.exists()
    }


def test_a_quant_that_is_added_has_its_blocks_measured_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    plan = in_blocks("launches: 1")
    ((first, second),) = measure_blocks(plan, leave_out=1)
    assert of_unsound_blocks(plan, scanned_records(plan)) == {str(first), str(second)}


def test_a_launch_without_a_block_is_measured_again_alone(plan: Schedule) -> None:
    assert plan.missing_now() == []
    plan.again.update(of_unsound_blocks(plan, scanned_records(plan)))
    (again,) = plan.missing_now()
    assert "_w8a8_" in again
    assert again.endswith("launch-1.json")


def test_records_are_kept_aside_with_all_that_lies_beside_them(plan: Schedule) -> None:
    again = sorted(launch.record for launch in plan.launches if launch.index == 1)
    beside = {path for record in again for path in Path(record).parent.glob(f"{Path(record).stem}.*")}
    assert len(beside) > len(again)
    folder = set_aside(again)
    assert not any(path.exists() for path in beside)
    assert all((folder / path.relative_to("results")).exists() for path in beside)
    assert not read_record(folder / Path(again[-1]).relative_to("results")).valid
    assert set(plan.missing_now()) == set(again)


AUTO = """
launches: auto
precision: {half_width: 0.02, max_launches: 8}
"""
NOISE = [0.0, 0.012, -0.012, 0.006, -0.006, 0.012]


def measure(launch: ScheduledLaunch, noise: float = 1.0) -> None:
    sign = 1 if launch.experiment.spec.quant.name == "bf16" else -1
    rates = [400 * (1 + sign * noise * NOISE[launch.index])] * 3
    save(Path("results"), make_record(launch.experiment.spec, launch.index, rates))


@pytest.fixture
def auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schedule]:
    """Blocks of `launches: auto`, with nothing measured yet; a run that begins in the test ends with it."""
    monkeypatch.chdir(tmp_path)
    yield in_blocks(AUTO)
    if call.has_begun():
        call.HELD.pop().close()


def test_launches_in_doubt_are_measured_again_though_fewer_are_wanted(auto: Schedule) -> None:
    for launch in auto.launches:
        if launch.index < 6:
            measure(launch)
    changed = {x.record for x in auto.launches if x.experiment.spec.quant.name == "w8a8" and x.index in (1, 5)}
    auto.again.update(with_partners(changed, auto.experiments, auto.config.baseline.axes))
    run.begin(auto, auto.outputs_for(r for r in rounds.next_round(auto) if r in auto.by_record))
    moved = {launch.record for launch in auto.launches if launch.index in (1, 5)}
    assert moved.isdisjoint(path for path in auto.by_record if Path(path).exists())
    for launch in auto.launches:
        if launch.index < 5:  # the block of launches 1 was measured again, and now few are enough
            measure(launch, noise=0.01)
    assert max(rounds.wanted_launches(auto).values()) < 6
    assert set(rounds.next_round(auto)) >= {record for record in moved if record.endswith("-5.json")}


@pytest.mark.parametrize(("category", "given_up"), [("unknown", True), ("disk_full", False)])
def test_a_failed_launch_is_retried_only_if_its_node_failed(auto: Schedule, category: str, given_up: bool):
    asked = [record for record in rounds.next_round(auto) if record in auto.by_record]
    run.begin(auto, auto.outputs_for(asked))
    failed = next(record for record in asked if "_w8a8_" in record and record.endswith("-0.json"))
    write_failure(Path(failed), FAILURE.model_copy(update={"category": category}))
    again = set(rounds.next_round(auto))
    dropped = {record for record in asked if "_w8a8_" in record and given_up}
    assert set(asked) & again == set(asked) - dropped
    call.HELD.pop().close()
    assert set(asked) <= set(rounds.next_round(auto)), "another process, as a dry run after it"
