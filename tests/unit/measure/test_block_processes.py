"""Whatever ends a block or a launch of it: the others go on or all ends, nothing runs on or is half-written."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from running_blocks import STAND_IN, RunningBlock

from rollout_bench.contracts.store import failure_path, read_failure
from rollout_bench.measure.machine.gpus import DeviceReading
from rollout_bench.measure.machine.leases import VARIABLE
from rollout_bench.measure.machine.readings import Surroundings

MANY = 2000
"""Passes: more than are made before a test ends the block."""


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "leases"
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return folder


def block(tmp_path: Path, iterations: int | str = 3, names: str = "abc", **how: str) -> RunningBlock:
    made = RunningBlock(
        tmp_path / "block", command=STAND_IN, names=list(names), changes={"measuring": {"iterations": iterations}}
    )
    made.behave(**how)
    return made


def check_all_over(made: RunningBlock, leases: Path) -> None:
    """Nothing runs, nothing is held, and no temporary file or folder is left."""
    assert made.survivors() == []
    assert [path for path in leases.iterdir() if not _free(path)] == []
    assert list(leases.parent.joinpath("tmp").glob("rollout-engine-*")) == []
    assert [name for name in made.left_behind() if name.endswith(".tmp")] == []


def _free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_passes_and_what_prepares_them_never_overlap_and_records_say_the_rounds(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, 4).start()
    assert made.finish() == 0, made.said
    records = made.records()
    assert set(records) == set("abc")
    blocks = {name: record.block for name, record in records.items()}
    first = blocks["a"]
    assert first is not None
    assert first.members == [f"offline/{made.specs[name].experiment()}" for name in "abc"]
    assert (first.started, first.at_once) == ("in_turn", 3)
    assert [sorted(order) for order in first.order] == [[0, 1, 2]] * 4
    passes = sorted((began, "abc".index(name)) for name, what, began, _ in made.worked() if what == "pass")
    assert [position for _, position in passes] == [position for order in first.order for position in order]
    for record in records.values():
        assert record.startup.forked
        assert record.block is not None
        assert (record.block.id, record.block.order) == (first.id, first.order)
        assert record.block.waited_s > 4 * 2 * 0.05
        assert [iteration.round for iteration in record.iterations] == [None, 0, 1, 2, 3]
    spans = sorted((began, ended) for _, what, began, ended in made.worked() if not what.startswith("spun"))
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    check_all_over(made, leases)


def test_engines_with_unlike_environments_are_not_forked(tmp_path: Path) -> None:
    made = block(tmp_path, 1)
    other = made.specs["b"]
    made.specs["b"] = other.model_copy(update={"engine": other.engine.model_copy(update={"environment": {"A": "1"}})})
    made.outs["b"] = made.outs["a"].parent.parent / made.specs["b"].experiment() / "launch-0.json"
    assert made.start().finish() == 0, made.said
    assert [record.startup.forked for record in made.records().values()] == [None] * 3


def test_with_two_at_once_the_baseline_is_there_all_the_time(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, 2).start("--at-once", "2")
    assert made.finish() == 0, made.said
    records = made.records()
    rounds = {name: [it.round for it in record.iterations if not it.warmup] for name, record in records.items()}
    assert rounds == {"a": [0, 1, 2, 3], "b": [0, 1], "c": [2, 3]}
    assert {record.block.at_once for record in records.values() if record.block} == {2}
    starts = {name: began for name, what, began, _ in made.worked() if what == "start"}
    assert starts["c"] > max(ended for name, _, _, ended in made.worked() if name == "b")
    check_all_over(made, leases)


def test_an_engine_that_waits_for_its_turn_is_stopped_and_uses_no_cpu_time(tmp_path: Path) -> None:
    made = block(tmp_path, 3, "ab", a="spins", b="slow").start()
    made.wait_for("b .*iteration 1/")
    engine, deadline = made.engine_of("a"), time.monotonic() + 60
    while engine.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert made.finish() == 0, made.said


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("fails", "there is no such thing"),
        ("dies", "signal 9"),
        ("hangs", "hung in phase measuring"),
    ],
)
def test_a_launch_that_fails_is_left_out_whole_and_the_others_go_on(
    tmp_path: Path, leases: Path, how: str, cause: str
) -> None:
    made = block(tmp_path, 4, b=how).start("--timeout-s", "8")
    assert made.finish() == 1
    assert set(made.records()) == {"a", "c"}
    assert [len(record.iterations) for record in made.records().values()] == [5, 5]
    first = made.records()["a"].block
    assert first is not None
    assert [sorted(order) for order in first.order[-2:]] == [[0, 2]] * 2
    assert cause in read_failure(failure_path(made.outs["b"])).cause
    assert len([line for line in made.said.splitlines() if line.startswith("  -> ")]) == 1
    assert [name for name in made.left_behind() if made.specs["b"].experiment() in name] == [
        f"failures/offline/{made.specs['b'].experiment()}/launch-0.json"
    ]
    check_all_over(made, leases)


def test_time_in_which_another_has_its_turn_is_no_part_of_a_launchs_limits(tmp_path: Path) -> None:
    made = block(tmp_path, 5, b="slow", c="slow").start("--timeout-s", "7")
    assert made.finish() == 0, made.said
    assert made.records()["a"].wall_s > 7


def test_records_that_are_there_stay_and_the_only_one_left_is_measured_by_itself(tmp_path: Path) -> None:
    made = block(tmp_path, 2, b="fails", c="fails")
    assert made.start("--attempt", "1").finish() == 0, "the run goes on with other blocks"
    made.behave(c="fails")
    content = made.outs["a"].read_bytes()
    assert made.start("--attempt", "1").finish() == 0
    assert "-> " in made.said
    assert made.outs["a"].read_bytes() == content
    assert made.records()["b"].block is not None
    made.behave()
    assert made.start("--attempt", "1").finish() == 0
    alone = made.records()["c"]
    assert alone.block is None
    assert {it.round for it in alone.iterations} == {None}
    assert made.start("--attempt", "1").finish() == 0


@pytest.mark.parametrize(
    ("kill", "moment"),
    [
        (signal.SIGINT, "short a.*importing|a .*initializing"),
        (signal.SIGTERM, "b .*measuring"),
        (signal.SIGINT, "c .*iteration 3/"),
    ],
)
def test_a_signal_ends_all_and_nothing_is_written(
    tmp_path: Path, leases: Path, kill: signal.Signals, moment: str
) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for(moment)
    made.process.send_signal(kill)
    assert made.finish() == 128 + kill
    assert made.left_behind() == []
    assert "Traceback" not in made.said
    check_all_over(made, leases)


def test_a_killed_coordinator_takes_all_with_it_and_the_next_call_goes_on(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for("c .*iteration 3/")
    made.process.kill()
    made.finish()
    check_all_over(made, leases)
    assert made.records() == {}
    assert failures(made) == set()
    again = block(tmp_path, 1)
    assert again.start("--attempt", "1").finish() == 0, again.said


@pytest.mark.parametrize("both", [False, True])
def test_a_killed_launch_is_told_of_and_the_others_go_on(tmp_path: Path, leases: Path, both: bool) -> None:
    made = block(tmp_path, 15).start()
    made.wait_for("b .*iteration 3/")
    victims = [made.launch_of("b")]
    victims += [int(guardian.pid) for guardian in made.guardians_of(victims[0])] if both else []
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert made.finish() == 1
    assert set(made.records()) == {"a", "c"}
    assert read_failure(failure_path(made.outs["b"])).category == "killed"
    assert re.search("was killed", made.said)
    check_all_over(made, leases)


def test_devices_are_not_given_back_before_the_engines_of_a_killed_launch_have_ended(
    tmp_path: Path, leases: Path
) -> None:
    made = block(tmp_path, 3, "ab", b="lingers").start()
    made.wait_for("b .*iteration 2/")
    os.kill(made.launch_of("b"), signal.SIGKILL)
    assert made.finish() == 1
    assert made.survivors(0.0) == []


def failures(made: RunningBlock) -> set[str]:
    return {name for name, out in made.outs.items() if failure_path(out).exists()}


def test_what_the_blocks_other_engines_hold_of_a_device_is_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    mate, stranger = 41, 42
    holders = {os.getpid(): 1 << 30, mate: 2 << 30, stranger: 3 << 30}
    reading = DeviceReading(0.0, "GPU-1", None, None, None, None, None, holders)
    for mates, others in ((None, 2), (lambda: {mate}, 1)):
        around = Surroundings("cuda", [{}], lambda: ([], {os.getpid()}), mates=mates)
        monkeypatch.setattr(around, "_read_devices", lambda: [reading])
        around.before()
        _, (use,) = around.meanwhile()
        assert use.other_processes == others
