"""Every wrong config is refused in two lines, before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from planned import merged_with, planned
from refusals import refusals, refused, write_files

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import check_config_file, read_config
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


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfea: 1", "is not UTF-8 text: byte 0 is 0xff"),
        (b"models: [a\nquants: b", "line 2, column 7: no valid YAML"),
        (b"models:\n\t- a", "line 2, column 1: no valid YAML"),
        (b"- a\n- b", "must have keys at its top"),
        (b"", "must have keys at its top"),
        (b"just words", "must have keys at its top"),
        (b"a: 1\na: 2", "key 'a' stands twice"),
    ],
    ids=["not_utf8", "bracket_open", "tab", "a_list", "empty", "a_word", "key_twice"],
)
def test_an_unreadable_config_file_is_named_with_line_and_column(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml") as raised:
        check_config_file(path)
    assert problem in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2


def test_a_config_file_that_is_missing_or_a_folder_is_named(tmp_path: Path):
    for path, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=problem):
            check_config_file(path)


def test_a_harness_that_is_not_installed_is_named_with_its_requirements():
    engine = dataclasses.replace(probe_engine(None), harnesses={})
    with refused("harness: guidellm is not installed", "requirements/guidellm.in"):
        expand(read_config(merged_with("{modes: [online], harness: guidellm}")), engine)
