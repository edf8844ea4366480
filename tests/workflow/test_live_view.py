"""The live view of a run in a terminal: running launches with their progress, and the number of ended launches."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import termios
import time

import pytest
import stand_in
from workspace import Workspace

from rollout_bench.core import interrupts

ROWS = 40
DRAWN = re.compile(r"\x1b7(.*?)\x1b8")  # the view, between keeping and restoring the position of the cursor
ERASED = f"\x1b[r\x1b[{ROWS}H\x1b[J"  # the region, and the live line


def run_in_terminal(space: Workspace, interrupt_at: str | None = None, ci: str = "") -> tuple[int, str]:
    """Run `snakemake` in a pseudo terminal, with Ctrl-C at a text; return its status and all that was written."""
    own, side = pty.openpty()
    termios.tcsetwinsize(side, (ROWS, 160))
    run = subprocess.Popen(
        space.command("--cores", "1"),
        cwd=space.path,
        env={**space.environment, "TERM": "xterm", "CI": ci},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    written, deadline = "", time.monotonic() + 30
    with contextlib.suppress(OSError):  # all processes have closed the terminal
        while True:
            written += os.read(own, 1 << 16).decode(errors="replace")
            if interrupt_at is not None and (interrupt_at in written or time.monotonic() > deadline):
                os.killpg(run.pid, signal.SIGINT)
                interrupt_at = None
    os.close(own)
    return run.wait(), written


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which the first launch succeeds, and the second fails."""
    settings = {**stand_in.CONFIG, "quants": ["bf16"], "launches": 2}
    return Workspace(tmp_path_factory.mktemp("view") / "it", settings).with_made_engine(
        {0: "linger", 1: "no memory for kv"}
    )


@pytest.fixture(scope="module")
def failed(space: Workspace) -> tuple[list[str], str]:
    """Return the drawings of the view in a failed run, and the lines above it."""
    status, written = run_in_terminal(space)
    assert status == 1, written
    return DRAWN.findall(written), DRAWN.sub("", written)


def test_the_live_line_has_the_running_launch_and_its_pass(failed: tuple[list[str], str]):
    passes = [drawing for drawing in failed[0] if "iteration 3/3, 100.0k tok/s" in drawing]
    assert all("launch 1 of 2: tiny bf16 small (offline), " in drawing for drawing in passes)
    assert re.search(r"; ━*─* \d:\d\d elapsed", passes[0])
    assert "1 failed; 1 flagged" in failed[0][-2]


def test_ended_launches_and_errors_stay_above_the_view(failed: tuple[list[str], str]):
    assert re.search(r"launch 1 of 2: tiny .* 100.0k tok/s \(.*batch_not_at_once.*\), \d+:\d\d", failed[1])
    assert re.search(r"launch 2 of 2: tiny .* failed, \d+:\d\d", failed[1])
    assert "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`\r\n  -> " in failed[1]
    assert not re.search(r"iteration \d|Finished jobid|Building DAG", failed[1])


def test_the_view_is_erased_after_failure_and_ctrl_c(failed: tuple[list[str], str], space: Workspace):
    assert failed[0][-1] == ERASED
    space.behave({1: "hang"})
    status, written = run_in_terminal(space, interrupt_at="initializing")
    assert status == interrupts.INTERRUPTED, written
    assert "CalledProcessError" not in written
    assert DRAWN.findall(written)[-1] == ERASED


def test_continuous_integration_gets_lines_and_no_view(space: Workspace):
    space.behave({1: "linger"})
    status, written = run_in_terminal(space, ci="1")
    assert status == 0, written
    assert not DRAWN.search(written)
    assert re.search(r"launch 2 of 2: tiny .* 100.0k tok/s.*, \d+:\d\d", written)
