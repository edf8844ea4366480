"""Each file in configs/ is a good config, laid over the default one as its first lines say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from planned import REPOSITORY, planned

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_can_be_planned(path: Path):
    assert planned(path.read_text()).experiments


def test_the_workflow_catalogue_is_told_what_it_asks_for():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert {name: type(value) for name, value in usage["mandatory-flags"].items()} == {"desc": str, "flags": str}
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
