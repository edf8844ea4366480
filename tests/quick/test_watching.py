"""Looking on at a command: what it took by itself, how far it was when."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from timing import Command
from watching import Moment, Watched, watch

BUSY = "all(iter(lambda: __import__('time').process_time() < 0.8, False))"
"""Keeps a processor busy for longer than it takes to look at it a few times, however fast it is."""


def test_what_a_command_took_is_told_apart_from_what_it_started(tmp_path: Path) -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); input_; print('well done')"
    command = Command([sys.executable, "-c", script.replace("input_", BUSY)], tmp_path, {}, "well done")
    found = watch(command, lambda: 7)
    assert 0 < found.own_s < found.processor_s
    assert found.peak_bytes > 1 << 20
    assert found.threads == 1
    assert [moment.done for moment in found.moments] == [7]


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with status 3"):
        watch(Command([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, {}, ""))


def test_parts_of_a_run_lie_on_lines_between_its_moments() -> None:
    moments = [Moment(1.0, 0, 0.5), Moment(3.0, 20, 1.5), Moment(13.0, 40, 2.5)]
    parts = [Watched(moments=moments).part(number, 4) for number in range(4)]
    assert parts == [(1.0, 0.5), (1.0, 0.5), (5.0, 0.5), (5.0, 0.5)]
