"""Whoever ends a block or a launch of it: nothing runs on, and nothing is half-written."""

import signal
from pathlib import Path

import pytest
from running_blocks import RunningBlock, block, check_all_over

from rollout_bench.contracts.store import failure_path

MANY = 2000
"""Passes: more than are made before a test ends the block."""

pytestmark = pytest.mark.usefixtures("leases")


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
    assert made.finish() == 128 + kill
    assert made.left_behind() == []
    assert "Traceback" not in made.said
    check_all_over(made, leases)


def test_a_killed_command_ends_everything_and_the_next_call_resumes(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for("c .*iteration 1/")
    made.process.kill()
    made.finish()
    check_all_over(made, leases)
    assert made.records() == {}
    assert failures(made) == set()
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


def failures(made: RunningBlock) -> set[str]:
    return {name for name, out in made.outs.items() if failure_path(out).exists()}
