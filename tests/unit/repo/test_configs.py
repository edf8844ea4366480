"""Each file in configs/ is a good config, laid over the default one as its first lines say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from planned import REPOSITORY, planned

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_can_be_planned(path: Path):
    assert planned(path.read_text()).experiments


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_first_lines_say_how_to_call_it(path: Path):
    comments = re.match(r"(#.*\n)+", path.read_text())
    assert comments is not None
    assert f"configs/{path.name}" in comments[0]
    assert "snakemake --configfile" in comments[0]


def test_the_online_config_has_both_modes_a_sweep_and_as_many_launches_as_it_says():
    path = REPOSITORY / "configs/online.yaml"
    experiments = planned(path.read_text()).experiments
    assert {experiment.spec.mode for experiment in experiments} == {"offline", "online"}
    loads = [experiment.spec.load for experiment in experiments if experiment.spec.load is not None]
    assert {len(load.points) for load in loads} == {1, 3}
    launches = len(experiments) * yaml.safe_load(path.read_text())["launches"]
    assert f"{launches} launches." in path.read_text()


def test_the_workflow_catalogue_is_told_what_it_asks_for():
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert {name: type(value) for name, value in usage["mandatory-flags"].items()} == {"desc": str, "flags": str}
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
