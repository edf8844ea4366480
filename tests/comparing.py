"""compare.py run inside a test's process, and two sides of launches to compare."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from synthetic_records import make_record, make_spec, save

from rollout_bench.commands import compare
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import run_command

BF16, W8A8, W8A16 = make_spec(), make_spec(quant="w8a8"), make_spec(quant="w8a16")

OLD, NEW = (100.0, 101.0, 102.0, 100.5), (120.0, 121.5, 119.5, 120.7)
"""Output tokens per second of the launches of two sides, the second faster."""

OTHER_ENGINE = {"engine_version": "0.33.0", "torch_version": "2.14.0+cpu"}
OTHER_MACHINE = {"device_model": "AMD EPYC 7B13", "cpu_model": "AMD EPYC 7B13", "cpu_cores": 4}


@dataclass
class Done:
    """How the command ended; `flat` is what it printed, with single spaces."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def flat(self) -> str:
        return " ".join(self.stdout.split())


def launches(spec: Spec, rates: Sequence[float], environment: Mapping[str, Any] | None = None) -> list[Record]:
    return [make_record(spec, i, [rate] * 3, environment=environment) for i, rate in enumerate(rates)]


def run(folder: Path, *arguments: str, main: Any = compare.main) -> Done:
    """Run compare.py in `folder`, inside this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(stdout),
        mock.patch.object(sys, "argv", ["compare.py", *arguments]),
        pytest.raises(SystemExit) as end,
    ):
        run_command(main)
    return Done(int(end.value.code or 0), stdout.getvalue(), stderr.getvalue())


def compared(folder: Path, a: Sequence[Record], b: Sequence[Record], *arguments: str) -> Done:
    """Save the two sides as folders a and b, and compare them."""
    save(folder / "a", *a)
    save(folder / "b", *b)
    return run(folder, "a", "b", *arguments)


def refused(folder: Path, a: Sequence[Record], b: Sequence[Record], *arguments: str) -> str:
    """Return the two lines of a refusal."""
    done = compared(folder, a, b, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    return done.stderr


def cell(done: Done, quant: str = "bf16") -> list[str]:
    """Return the words of a line of the table."""
    return next(line.split() for line in done.stdout.splitlines() if line.startswith(f"{quant} "))
