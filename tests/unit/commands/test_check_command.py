"""What check.py prints at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rollout_bench.commands import check


@pytest.mark.parametrize(
    ("missing", "last"), [(0, "no problem found"), (1, "1 problem found"), (2, "2 problems found")]
)
def test_the_last_line_counts_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: int, last: str
) -> None:
    for part in ("_engine", "_devices"):
        monkeypatch.setattr(check, part, lambda *_: [])
    models = [argument for name in "ab"[:missing] for argument in ("--weights", f"{name}={tmp_path / name}")]
    monkeypatch.setattr(sys, "argv", ["check.py", *models])
    assert check.main() == min(missing, 1)
    assert capsys.readouterr().out.splitlines()[-1] == last
