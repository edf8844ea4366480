"""What is missing, in doubt, torn from its block or given up, and how it is measured again."""

import json
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
from planned import merged_with
from rooms import Rooms, matrix_of
from synthetic_records import make_block, make_record, save

from rollout_bench import snakefile
from rollout_bench.commands.discard import in_doubt, main
from rollout_bench.commands.plan import show, torn_lines
from rollout_bench.contracts.postmortem import Cause, failure_of
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import read_record, write_failure, write_launched
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.schedule import Schedule, ScheduledLaunch, lost_one, schedule, set_aside, with_partners
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
    with filelock.FileLock("results/.lock"), pytest.raises(UserError, match="another workflow is running"):
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
        lock.close()
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
        snakefile._held.pop().close()
    dropped = {record for record in asked if "_w8a8_" in record}
    assert set(asked) & again == set(asked) - (dropped if given_up else set())
    assert set(asked) <= set(snakefile.next_round(plan)), "another process, as a dry run after it"


def plan_with(tmp_path: Path, overlay: str, *measured: tuple[str, int]) -> PlanFile:
    """Return a plan of which these launches, quant and index, are measured."""
    config, matrix = matrix_of(overlay)
    plan = schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    for launch in plan.launches:
        if (launch.experiment.spec.quant.name, launch.index) in measured:
            write_launched(tmp_path / launch.record, make_record(launch.experiment.spec, launch.index))
    return plan.plan_file(estimate=False)


def test_a_launch_missing_beside_its_baseline_comes_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = [(quant, index) for quant in ("bf16", "w8a16") for index in (0, 2)]
    plan = plan_with(tmp_path, "", *done, ("w8a8", 2))
    (line,) = torn_lines(plan, tmp_path / "results")
    assert line.startswith("no pair: offline/qwen3-90m_w8a8_demo-")
    assert ": launch 0: missing, and the baseline's is there" in line
    assert line.endswith(
        "; raising launches adds whole blocks, and rollout-bench discard --invalid has it measured whole afterwards"
    )
    show(plan, tmp_path / "results")
    assert line in capsys.readouterr().out


def test_whole_and_future_blocks_need_no_line(tmp_path: Path):
    plan = plan_with(tmp_path, "", *[(quant, 0) for quant in ("bf16", "w8a16", "w8a8")])
    assert torn_lines(plan, tmp_path / "results") == []
    assert torn_lines(plan_with(tmp_path, "interleave: false", ("bf16", 1)), tmp_path / "results") == []


def test_with_launches_auto_the_limit_is_to_be_raised(tmp_path: Path):
    (line,) = torn_lines(plan_with(tmp_path, "launches: auto\nquants: [bf16, w8a8]", ("bf16", 1)), tmp_path / "results")
    assert line.endswith("has it measured whole afterwards")
    assert "; raising precision.max_launches adds whole blocks, and " in line


def test_a_block_that_lost_a_record_is_measured_whole_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config, matrix = matrix_of("launches: 2")
    plan = schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    blocks = [[launch.record for launch in block.launches] for block in plan.blocks.values()]
    for index, block in enumerate(plan.blocks.values()):
        specs = [launch.experiment.spec for launch in block.launches]
        save(Path("results"), *make_block(specs, index, [[400.0] * 3] * len(specs)))
    assert lost_one(plan) == set()
    gone = Path(blocks[1][-1])
    gone.unlink()
    assert lost_one(plan) == set(blocks[1][:-1])
    write_failure(gone, failure_of("e", 1, "starting", Cause("crash", "It fell.", "Read the log."), "log", None, None))
    assert lost_one(plan) == set(), "what failed would fail again"


def test_a_quant_that_a_block_never_had_measures_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config, matrix = matrix_of("launches: 1")
    plan = schedule(config, matrix, 7, interleaving(config, matrix, Rooms(), on_cluster=False))
    (block,) = plan.blocks.values()
    specs = [launch.experiment.spec for launch in block.launches][:-1]
    save(Path("results"), *make_block(specs, 0, [[400.0] * 3] * len(specs)))
    assert lost_one(plan) == set()
