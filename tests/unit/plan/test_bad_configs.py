"""Every wrong config is told in two lines, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_configs import BAD_OVERLAYS, Bad
from planned import planned

from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import check_config_file


def test_there_are_at_least_sixty_and_no_two_alike():
    assert len({bad.name for bad in BAD_OVERLAYS}) == len({bad.overlay for bad in BAD_OVERLAYS}) == len(BAD_OVERLAYS)
    assert len(BAD_OVERLAYS) >= 60


def test_the_default_config_is_good():
    assert len(planned("{}").experiments) == 3


def test_weights_below_the_home_folder_have_the_same_key_for_every_user(monkeypatch: pytest.MonkeyPatch):
    overlay = "{models: [o], quants: [bf16], model_settings: {o: {weights: {bf16: ~/x}}}}"
    found = []
    for home in ("/home/a", "/home/b"):
        monkeypatch.setenv("HOME", home)
        found += planned(overlay).experiments
    assert [experiment.model_path for experiment in found] == ["/home/a/x", "/home/b/x"]
    assert found[0].spec.key() == found[1].spec.key()


@pytest.mark.parametrize("bad", BAD_OVERLAYS, ids=lambda bad: bad.name)
def test_a_wrong_config_is_told_in_two_lines(bad: Bad):
    with pytest.raises(UserError) as raised:
        planned(bad.overlay)
    problem, remedy = str(raised.value).split("\n")
    assert bad.problem in problem
    assert bad.remedy in remedy


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
