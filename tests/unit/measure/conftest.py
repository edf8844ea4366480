"""What several test modules of this room share."""

from pathlib import Path

import pytest

from rollout_bench.measure.machine.leases import VARIABLE


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "leases"
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return folder
