"""Launches of a block take turns; a failed one is left out, and nothing is left or half-written at its end."""

import errno
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from running_blocks import block, check_all_over

from rollout_bench.commands import measure
from rollout_bench.contracts.failures import NODE_STATUS
from rollout_bench.contracts.store import failure_path, read_failure
from rollout_bench.measure.launch.request import LaunchRequest
from rollout_bench.measure.machine.device import DeviceReading
from rollout_bench.measure.machine.readings import HostMonitor

pytestmark = [pytest.mark.usefixtures("leases"), pytest.mark.slow]


def test_passes_never_overlap_and_records_name_their_rounds(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, 4).start()
    made.wait_for("importing|initializing|measuring")
    assert made.finish() == 0, made.said
    records = made.records()
    assert set(records) == set("abc")
    first = records["a"].block
    assert first.members == [f"offline/{made.specs[name].experiment()}" for name in "abc"]
    assert [sorted(order) for order in first.order] == [[0, 1, 2]] * 4
    passes = sorted((began, "abc".index(name)) for name, what, began, _ in made.worked() if what == "pass")
    assert [position for _, position in passes] == [position for order in first.order for position in order]
    for record in records.values():
        assert record.startup.forked
        assert (record.block.id, record.block.order) == (first.id, first.order)
        assert record.block.waited_s > 4 * 2 * 0.05
        assert [iteration.round for iteration in record.iterations] == [None, 0, 1, 2, 3]
    spans = sorted((began, ended) for _, what, began, ended in made.worked() if not what.startswith("spun"))
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    check_all_over(made, leases)


def test_an_engine_awaiting_its_turn_uses_no_cpu_time(tmp_path: Path) -> None:
    made = block(tmp_path, 3, "ab", a="spins", b="slow").start()
    made.wait_for("b .*iteration 1/")
    engine, deadline = made.engine_of("a"), time.monotonic() + 60
    while engine.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert made.finish() == 0, made.said


def test_turns_of_others_do_not_count_towards_a_launchs_limit(tmp_path: Path) -> None:
    made = block(tmp_path, 5, b="slow", c="slow").start("--timeout-s", "7")
    assert made.finish() == 0, made.said
    assert made.records()["a"].wall_s > 7


def test_existing_records_stay_and_a_single_missing_launch_runs_alone(tmp_path: Path) -> None:
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
    assert (alone.block, {it.round for it in alone.iterations}) == (None, {None})
    assert made.start("--attempt", "1").finish() == 0


@pytest.mark.parametrize(("mates", "others"), [(None, 2), (lambda: {41}, 1)])
def test_memory_held_by_other_engines_of_the_block_is_unflagged(
    monkeypatch: pytest.MonkeyPatch, mates: Callable[[], set[int]] | None, others: int
) -> None:
    reading = DeviceReading(0.0, "GPU-1", {os.getpid(): 1 << 30, 41: 2 << 30, 42: 3 << 30})
    around = HostMonitor("cuda", [{}], lambda: ([], {os.getpid()}), mates=mates)
    monkeypatch.setattr(around, "read_devices", lambda: [reading])
    around.before()
    _, (use,) = around.meanwhile()
    assert use.other_processes == others


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("fails", "there is no such thing"),
        ("dies", "signal 9"),
        ("hangs", "hung in phase measuring"),
    ],
)
def test_a_failed_launch_is_left_out_and_others_go_on(tmp_path: Path, leases: Path, how: str, cause: str) -> None:
    made = block(tmp_path, 4, b=how).start("--timeout-s", "8")
    made.wait_for("importing|initializing|measuring")
    assert made.finish() == 1
    assert {name: len(record.iterations) for name, record in made.records().items()} == {"a": 5, "c": 5}
    assert [sorted(order) for order in made.records()["a"].block.order[-2:]] == [[0, 2]] * 2
    assert cause in read_failure(failure_path(made.outs["b"])).cause
    assert len([line for line in made.said.splitlines() if line.startswith("  -> ")]) == 1
    of_failed = [name for name in made.left_behind() if made.specs["b"].experiment() in name]
    assert of_failed == [f"failures/offline/{made.specs['b'].experiment()}/launch-0.json"]
    check_all_over(made, leases)


def test_a_full_disk_of_the_leases_fails_each_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(measure, "lease", full)
    made = block(tmp_path)
    launches = [
        LaunchRequest(spec, str(made.weights), 0, made.outs[name], made.logs[name]) for name, spec in made.specs.items()
    ]
    assert measure.measure_blocks(launches, 0, 0) == dict.fromkeys(made.outs.values(), NODE_STATUS)
    failures = [read_failure(failure_path(out)) for out in made.outs.values()]
    assert {(failure.category, failure.cause) for failure in failures} == {
        ("disk_full", "a file: No space left on device")
    }


@pytest.mark.parametrize(("how", "after"), [({}, {"a": 0, "b": 1, "c": 2}), ({"b": "dies"}, {"a": 0, "c": 0})])
def test_a_kill_in_a_shared_start_loses_one_workload(
    tmp_path: Path, leases: Path, how: dict[str, str], after: dict[str, int]
) -> None:
    made = block(tmp_path, 4, **how)
    made.in_turn = True
    made.start().wait_for("importing|initializing|measuring")
    assert made.finish() == len(how), made.said
    assert {name: len(record.after or ()) for name, record in made.records().items()} == after
    assert failure_path(made.outs["b"]).exists() == bool(how)
    check_all_over(made, leases)


MANY = 2000
"""Passes: more than are made before a test ends the block."""


@pytest.mark.parametrize(
    ("kill", "moment"),
    [
        (signal.SIGINT, "short a.*importing|a .*initializing"),
        (signal.SIGTERM, "b .*measuring"),
        (signal.SIGINT, "c .*iteration 1/"),
    ],
)
def test_a_signal_ends_all_and_nothing_is_written(
    tmp_path: Path, leases: Path, kill: signal.Signals, moment: str
) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for(moment)
    made.process.send_signal(kill)
    assert (made.finish(), made.left_behind()) == (128 + kill, [])
    assert "Traceback" not in made.said
    check_all_over(made, leases)


def test_a_killed_command_ends_everything_and_the_next_call_resumes(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for("c .*iteration 1/")
    made.process.kill()
    made.finish()
    check_all_over(made, leases)
    assert not [out for out in made.outs.values() if out.exists() or failure_path(out).exists()]
    again = block(tmp_path, 1)
    assert again.start("--attempt", "1").finish() == 0, again.said


def test_a_killed_guardian_is_replaced_and_all_are_measured(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, 15).start()
    made.wait_for("b .*iteration 1/")
    for guardian in made.guardians():
        guardian.kill()
    assert made.finish() == 0, made.said
    assert set(made.records()) == {"a", "b", "c"}
    check_all_over(made, leases)
