"""Each file in configs/ is a good config, laid over the default one as its first lines say."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned import REPOSITORY, planned

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_can_be_planned(path: Path):
    assert planned(path.read_text()).experiments
