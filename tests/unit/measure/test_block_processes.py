"""Whoever ends a block or a launch of it: nothing runs on, and nothing is half-written."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from running_blocks import RunningBlock, block, check_all_over

from rollout_bench.contracts.store import failure_path, read_failure

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


def test_a_killed_coordinator_ends_everything_and_the_next_call_resumes(tmp_path: Path, leases: Path) -> None:
    made = block(tmp_path, MANY).start()
    made.wait_for("c .*iteration 1/")
    made.process.kill()
    made.finish()
    check_all_over(made, leases)
    assert made.records() == {}
    assert failures(made) == set()
    again = block(tmp_path, 1)
    assert again.start("--attempt", "1").finish() == 0, again.said


@pytest.mark.parametrize("both", [False, True])
def test_a_killed_launch_is_reported_and_the_others_go_on(tmp_path: Path, leases: Path, both: bool) -> None:
    made = block(tmp_path, 15).start()
    made.wait_for("b .*iteration 1/")
    victims = [made.launch_of("b")]
    victims += [int(guardian.pid) for guardian in made.guardians_of(victims[0])] if both else []
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert made.finish() == 1
    assert set(made.records()) == {"a", "c"}
    assert read_failure(failure_path(made.outs["b"])).category == "killed"
    assert re.search("was killed", made.said)
    check_all_over(made, leases)


def failures(made: RunningBlock) -> set[str]:
    return {name for name, out in made.outs.items() if failure_path(out).exists()}
