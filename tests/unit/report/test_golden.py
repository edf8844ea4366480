"""What a summary says in each mode, word by word, is what somebody has read: `make golden` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_mode import SAVED
from golden import GOLDEN, SEVERAL, files_of

from rollout_bench.contracts.modes import MODES


@pytest.mark.parametrize("mode", [*SAVED, SEVERAL])
def test_a_summary_says_what_is_committed(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files_of(mode) == {path.name: path.read_text() for path in (GOLDEN / mode).iterdir()}


def test_each_mode_has_its_files() -> None:
    assert set(SAVED) == set(MODES) == {path.name for path in GOLDEN.iterdir()} - {SEVERAL}
