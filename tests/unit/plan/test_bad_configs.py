"""Every wrong config is refused in two lines, before anything runs."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from planned import merged_with, planned
from refusals import refusals, refused, write_files

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the wrong configs name."""
    found = tmp_path_factory.mktemp("refused")
    write_files(__file__, found)
    return found


@refusals(__file__)
def test_a_wrong_config_is_refused_in_two_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: Any, problem: str, remedy: str
):
    monkeypatch.chdir(folder)
    with refused(problem, remedy):
        planned(given)


def test_a_harness_not_installed_is_named_with_its_requirements():
    engine = dataclasses.replace(probe_engine(None), harnesses={})
    with refused("harness: guidellm is not installed", "requirements/guidellm.in"):
        expand(read_config(merged_with("{modes: [online], harness: guidellm}")), engine)
