"""What a summary says in each mode, word by word, is what somebody has read: `make golden` writes it anew."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping

import pytest
from every_mode import SAMPLES
from golden import GOLDEN, SEVERAL, files_of

from rollout_bench.contracts.modes import MODES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, str]]:
    """Return a function that returns the files of a mode's summary, made once."""

    @functools.cache
    def make(mode: str) -> Mapping[str, str]:
        return files_of(mode, tmp_path_factory.mktemp(mode))

    return make


@pytest.mark.parametrize("place", [f"{path.parent.name}/{path.name}" for path in sorted(GOLDEN.glob("*/*"))])
def test_a_summary_says_what_is_committed(made: Callable[[str], Mapping[str, str]], place: str) -> None:
    mode, name = place.split("/")
    committed = (GOLDEN / place).read_text()
    changed = [*difflib.unified_diff(committed.splitlines(), made(mode)[name].splitlines(), "committed", "made", n=1)]
    assert changed == [], "\n".join(["`make golden` writes it anew:", *changed])


@pytest.mark.parametrize("mode", [*SAMPLES, SEVERAL])
def test_a_summary_has_the_committed_files(made: Callable[[str], Mapping[str, str]], mode: str) -> None:
    assert set(made(mode)) == {path.name for path in (GOLDEN / mode).iterdir()}


def test_each_mode_has_its_files() -> None:
    assert set(SAMPLES) == set(MODES) == {path.name for path in GOLDEN.iterdir()} - {SEVERAL}
