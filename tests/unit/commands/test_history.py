"""The history of gates: whole lines, from which entry on a number is worse, and figures."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparing import BF16, OLD, OTHER_ENGINE, Done, compared, launches, run

from rollout_bench.analysis.stats.changepoint import fall_of
from rollout_bench.commands import history
from rollout_bench.core.errors import UserError
from rollout_bench.core.locks import append_whole
from rollout_bench.report.gate import Finding, Gate, Measured
from rollout_bench.report.history import conclusion_of, lasting_fall, name_of, read_history, series_of, text_of

RATE = "output_tokens_per_s"


def gates(values: Sequence[float], number: str = RATE, width: float = 0.01, **last: str) -> list[Gate]:
    """Return a gate for each value of B, each in an engine of its own; the last one with other facts."""
    found = [Measured(value, value * (1 - width), value * (1 + width), "machine", "load") for value in values]
    found[-1] = replace(found[-1], **last)
    tests = [Finding("bf16", "offline", number, 0.03, "not worse", 1, 1, 1, (6, 6), None, "", each) for each in found]
    return [
        Gate("2026-11-26T04:00:00Z", "not worse", "a", "0", "b", f"{n}", False, (), (t,)) for n, t in enumerate(tests)
    ]


EARLIER = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.0, 101.0, 100.0, 99.8]


@pytest.mark.parametrize(
    ("values", "number", "first"),
    [
        ([*EARLIER, 90, 91, 90], RATE, 10),
        ([*EARLIER, 110, 111], "step_time_s", 10),
        ([*EARLIER, 110, 111], RATE, None),
        ([*EARLIER, 90, *EARLIER], RATE, None),
        ([*EARLIER, 98, 98, 98], RATE, None),
        ([10 * value for value in EARLIER], RATE, None),
        ([100, 90], RATE, None),
        ([100], RATE, None),
    ],
    ids=["drop", "rise_of_a_time", "rise_of_a_rate", "recovered", "within_margin", "unchanged", "two", "one"],
)
def test_a_fall_that_stays_is_dated(values: list[float], number: str, first: int | None):
    (series,) = series_of(gates(values, number))
    fall = lasting_fall(series)
    assert (fall and fall.first) == first


def test_an_unchanged_series_is_seldom_called_worse_and_a_step_is_found():
    """Sessions differ by 1 %: 4.7 % of series of 200 may signal, of which the margin leaves fewer."""
    random = np.random.default_rng(1)
    unchanged = [0.01 * random.standard_normal(200) for _ in range(60)]
    assert sum(any(fall_of(x[:n], 0.03, 0.95) for n in range(20, 201, 20)) for x in unchanged) <= 3
    steps = [np.concatenate([x[:20], x[20:25] - 0.05]) for x in unchanged]
    found = [next((n for n in range(21, 26) if fall_of(x[:n], 0.03, 0.95)), None) for x in steps]
    assert sum(n is not None for n in found) >= 0.8 * len(steps)


@pytest.mark.parametrize("fact", ["machine", "load"])
def test_values_of_another_machine_or_load_are_apart(fact: str):
    assert [len(series) for series in series_of(gates([100, 100, 50], **{fact: "other"}))] == [2, 1]


def test_launches_that_are_compared_again_are_one_entry():
    made = gates([*EARLIER, 90])
    (series,) = series_of([*made, *made[-1:] * 3])
    assert [entry.of_b.value for entry in series] == [*EARLIER, 90]


def test_a_fall_names_the_engine_and_how_much_worse_it_is():
    (series,) = series_of(gates([*EARLIER, 90, 91, 90]))
    assert conclusion_of(series) == (
        "worse from 10 on (2026-11-26): 0.903x [0.894, 0.913] of the mean of the 10 before it"
    )


def test_numbers_with_the_same_conclusion_share_a_line() -> None:
    (gate,) = gates([100])
    both = tuple(replace(test, experiment=name) for test in gate.tests for name in "xy")
    text = " ".join(text_of([replace(gate, tests=both)]).split())
    assert "2 numbers are not judged, with one session of B: " in text
    assert f"{name_of(both[0])}, {name_of(both[1])}." in text


def kept(folder: Path) -> Done:
    """Append a gate that passes and one that fails, of another engine; return the latter."""
    (folder / "0").mkdir()
    compared(folder / "0", launches(BF16, OLD), launches(BF16, OLD[::-1]), "--fail-if", "default", "--history", "../h")
    slower = launches(BF16, [0.9 * rate for rate in OLD], OTHER_ENGINE)
    return compared(folder, launches(BF16, OLD), slower, "--fail-if", "default", "--history", "h")


def test_a_history_is_concluded_and_drawn(tmp_path: Path):
    assert kept(tmp_path).returncode == 1
    done = run(tmp_path, "h", "--out", "drawn", main=history.main)
    assert done.returncode == 0
    assert (
        f"{RATE} of qwen3-90m bf16 small (offline) is not shown to get worse from one B to the next, in 2 sessions"
        in done.flat
    )
    assert "The last column compares the B of a gate with its A" in done.flat, "the row says worse"
    (drawn,) = (tmp_path / "drawn").iterdir()
    assert drawn.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{0}\n{1:.100}\n{1}\n", "h: line 2: Invalid JSON"),
        ("{0}\n{{}}\n", "h: line 2: when: Field required"),
        ("{0}\n\n{1}\n", "h: line 2: "),
        ("", "h: has no entry"),
        (("value", 0.0), "h: line 1: tests: 0: of_b: value: "),
        (("value", 5e-324), "h: line 1: tests: 0: of_b: value: "),
        (("high", 1e308), "h: line 1: tests: 0: of_b: high: "),
        (("margin", 1.0), "h: line 1: tests: 0: margin: "),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, content: str | tuple[str, float], problem: str):
    kept(tmp_path)
    lines = (tmp_path / "h").read_text().splitlines()
    if isinstance(content, str):
        damaged = content.format(*lines)
    else:
        name, value = content
        gate = json.loads(lines[0])
        (gate["tests"][0] if name == "margin" else gate["tests"][0]["of_b"])[name] = value
        damaged = json.dumps(gate)
    (tmp_path / "h").write_text(damaged)
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


def test_a_pipe_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a regular file"):
        read_history(tmp_path / "pipe")
