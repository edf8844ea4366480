"""What is in doubt is measured again with its partners, and the records that were there are kept aside."""

import json
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
from planned import merged_with
from rooms import Rooms, matrix_of
from synthetic_records import make_record, save

from rollout_bench import snakefile
from rollout_bench.commands.discard import in_doubt, main
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import read_record
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import Schedule, ScheduledLaunch, schedule, set_aside, with_partners
from rollout_bench.report.state import STATE_FILE, summary_state

INVALID = Flag(code="cpu_shared", severity="invalid", sentence="Busy.")
WARNING = Flag(code="not_steady", severity="warning", sentence="Slower.")


def plan_of(overlay: str = "") -> Schedule:
    config = read_config(merged_with(f"launches: 3\n{overlay}"))
    return schedule(config, expand(config, probe_engine(None)))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Three launches of each quant, of which w8a8's launch 1 is invalid and bf16's launch 2 has a warning."""
    monkeypatch.chdir(tmp_path)
    plan = plan_of()
    flags = {("w8a8", 1): [INVALID], ("bf16", 2): [WARNING]}
    for launch in plan.launches:
        spec = launch.experiment.spec
        record = make_record(spec, launch.index, flags=flags.get((spec.quant.name, launch.index), ()))
        save(Path("results"), record)
    return plan


def asked(plan: Schedule, *, every: bool = False) -> set[str]:
    """Return what `rollout-bench discard` moves, with the records judged as a summary judges them."""
    return partners(plan, in_doubt(Path("results"), plan.plan_file(estimate=False), every=every))


def partners(plan: Schedule, doubtful: set[str]) -> set[str]:
    return with_partners(doubtful, plan.experiments, plan.config.baseline.named)


def names(records: set[str]) -> set[tuple[str, str]]:
    return {(Path(record).parent.name.split("_")[1], Path(record).stem) for record in records}


@pytest.mark.usefixtures("plan")
def test_what_is_not_in_doubt_stays() -> None:
    plan = plan_of()
    assert partners(plan, set()) == set()


@pytest.mark.usefixtures("plan")
def test_an_invalid_launch_is_measured_again_with_its_partners() -> None:
    again = asked(plan_of())
    assert names(again) == {("bf16", "launch-1"), ("w8a8", "launch-1"), ("w8a16", "launch-1")}


@pytest.mark.usefixtures("plan")
def test_flagged_takes_launches_with_a_warning_too() -> None:
    again = asked(plan_of(), every=True)
    assert {stem for _, stem in names(again)} == {"launch-1", "launch-2"}


@pytest.mark.usefixtures("plan")
def test_a_launch_to_remeasure_is_missing_until_its_record_moves() -> None:
    plan = plan_of()
    plan.again.update(asked(plan))
    assert names(set(plan.missing_now())) == {(quant, "launch-1") for quant in ("bf16", "w8a8", "w8a16")}
    plan.again.clear()
    assert plan.missing_now() == []


def test_records_are_kept_aside_with_all_that_lies_beside_them(plan: Schedule) -> None:
    plan = plan_of()
    again = sorted(asked(plan))
    beside = {path for record in again for path in Path(record).parent.glob(f"{Path(record).stem}.*")}
    folder = set_aside(again)
    assert folder is not None
    assert not any(Path(record).exists() for record in again)
    moved = {folder / path.relative_to("results") for path in beside}
    assert all(path.exists() for path in moved)
    assert len(beside) > len(again)
    assert not read_record(folder / Path(again[-1]).relative_to("results")).valid
    assert set(plan.missing_now()) == set(again)


def test_doubtful_records_move_except_during_a_dry_run_or_measurement(
    plan: Schedule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["discard", "--invalid"])
    with pytest.raises(UserError, match="contains no summary"):
        main()
    state = {**summary_state(Path("results"), plan.plan_file(estimate=False))}
    (Path("results") / STATE_FILE).write_text(json.dumps(state))
    monkeypatch.setattr("sys.argv", ["discard", "--invalid", "--dry-run"])
    assert main() == 0
    assert capsys.readouterr().out.endswith("3 records to be moved\n")
    assert plan.missing_now() == []
    monkeypatch.setattr("sys.argv", ["discard", "--invalid"])
    with filelock.FileLock("results/.lock"), pytest.raises(UserError, match="a workflow is running there"):
        main()
    assert main() == 0
    assert "3 records moved to results/aside/" in capsys.readouterr().out
    assert names(set(plan.missing_now())) == {(quant, "launch-1") for quant in ("bf16", "w8a8", "w8a16")}


@pytest.mark.usefixtures("plan")
def test_an_unreadable_record_is_measured_again_too() -> None:
    plan = plan_of()
    damaged = next(launch.record for launch in plan.launches if launch.index == 0)
    Path(damaged).write_text(json.dumps({}))
    assert {stem for _, stem in names(asked(plan))} == {"launch-0", "launch-1"}


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
    config, matrix = matrix_of(AUTO)
    yield schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    for lock in snakefile._held:
        lock.release()
    snakefile._held.clear()


def test_discarded_launches_are_measured_again_though_fewer_are_wanted(auto: Schedule) -> None:
    for launch in auto.launches:
        if launch.index < 6:
            measure(launch)
    changed = {x.record for x in auto.launches if x.experiment.spec.quant.name == "w8a8" and x.index in (1, 5)}
    auto.again.update(partners(auto, changed))
    snakefile.begin(auto, auto.outputs_for(r for r in snakefile.next_round(auto) if r in auto.by_record))
    moved = {launch.record for launch in auto.launches if launch.index in (1, 5)}
    assert moved.isdisjoint(path for path in auto.by_record if Path(path).exists())
    for launch in auto.launches:
        if launch.index < 5:  # the block of launches 1 was measured again, and now few are enough
            measure(launch, noise=0.01)
    assert max(snakefile._wanted(auto).values()) < 6
    assert set(snakefile.next_round(auto)) >= {record for record in moved if record.endswith("-5.json")}
