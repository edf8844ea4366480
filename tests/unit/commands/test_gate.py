"""The gate of compare: what fails a build, what passes, what needs more launches, and how often it is wrong."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from comparing import BF16, OLD, W8A8, compared, launches, run
from samples.online import Server, make_online, make_online_spec
from synthetic_records import make_spec, save

from rollout_bench.analysis.stats.intervals import welch_interval
from rollout_bench.analysis.timed.comparison import Comparison, Side
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.spec import Spec
from rollout_bench.report import gate as gate_module
from rollout_bench.report.gate import (
    INTERVALS,
    Finding,
    Gate,
    Limit,
    Outcome,
    confidence_of,
    gate_outcome,
    limit_of,
    lines_of,
    outcome_of,
)

RATE = "output_tokens_per_s"
SLOWER = [0.9 * rate for rate in OLD]
SAME = [OLD[2], OLD[0], OLD[3], OLD[1]]
UNSTEADY = [101.0, 97.0, 103.0, 99.0]

NAMED: Any = SimpleNamespace(experiment=SimpleNamespace(mode="offline", **make_spec().axes), used=())
"""A row of which only the names are asked."""


@pytest.mark.parametrize(
    ("rates", "limit", "status", "words"),
    [
        (SLOWER, f"{RATE} < -3%", 1, "The gate fails"),
        (SLOWER, f"{RATE} < -20%", 0, "The gate passes"),
        (SAME, f"{RATE} < -3%", 0, "The gate passes"),
        (UNSTEADY, f"{RATE} < -3%", 4, "of each side would decide"),
        (SLOWER, "default", 1, "The gate fails"),
        (SLOWER, "startup_s > 3%", 4, "The gate is undecided"),
    ],
)
def test_the_exit_status_says_what_is_shown(tmp_path: Path, rates: list[float], limit: str, status: int, words: str):
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, rates), "--fail-if", limit)
    assert (done.returncode, done.stderr) == (status, "")
    assert words in done.stdout
    # the verdict stands first, with what a build sees of it
    assert re.match(rf"The gate .*\. Exit status {status}\.\n", done.stdout)


@pytest.mark.parametrize(
    ("launches_used", "needed", "outcome", "sentence"),
    [
        ((9, 9), 503, "undecided", "undecided; about 503 launches of each side would decide, too many to measure"),
        (
            (9, 9),
            None,
            "undecided",
            "undecided; more than 1,000 launches of each side would decide, too many to measure",
        ),
        ((9, 9), 60, "undecided", "undecided; about 60 launches of each side would decide"),
        ((50, 50), 168, "undecided", "undecided; about 168 launches of each side would decide"),
        ((9, 9), 503, "worse", "worse"),
    ],
)
def test_a_gate_that_no_number_of_launches_decides_names_another_way(
    launches_used: tuple[int, int], needed: int | None, outcome: Outcome, sentence: str
):
    test = Finding("x", "offline", RATE, 0.03, outcome, 0.91, 0.82, 1.02, launches_used, needed, "")
    assert test.sentence == sentence
    for alternated, way in ((False, "measure both in one session"), (True, "launches, quieten the machine")):
        made = gate_of_tests(test, alternated=alternated)
        assert any(way in line for line in lines_of(made)) == ("too many" in sentence)


def gate_of_tests(*tests: Finding, alternated: bool = False) -> Gate:
    return Gate("2026-11-28T00:00:00+00:00", outcome_of(tests), "a", "1", "b", "2", alternated, (), tests)


def test_a_gate_with_several_intervals_says_why_they_are_not_those_of_the_table():
    test = Finding("x", "offline", RATE, 0.03, "undecided", 0.91, 0.82, 1.02, (9, 9), 20, "")
    assert [INTERVALS in lines_of(gate_of_tests(*[test] * count)) for count in (1, 2)] == [False, True]


def test_one_worse_experiment_fails_all_and_files_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("before\n")
    a, b = ([*launches(BF16, OLD), *launches(W8A8, rates)] for rates in (OLD, SLOWER))
    files = [
        "--json",
        str(tmp_path / "gate.json"),
        "--junit",
        str(tmp_path / "gate.xml"),
        "--markdown",
        str(tmp_path / "gate.md"),
    ]
    done = compared(tmp_path, a, b, "--fail-if", f"{RATE} < -3%", *files)
    assert done.returncode == 1
    content = json.loads((tmp_path / "gate.json").read_text())
    assert content["outcome"] == "worse"
    assert {test["experiment"]: test["outcome"] for test in content["tests"]} == {
        "qwen3-90m bf16 small": "undecided",
        "qwen3-90m w8a8 small": "worse",
    }
    cases = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert [[child.tag for child in case] for case in cases] == [["failure"], ["skipped"]]
    block = (tmp_path / "gate.md").read_text()
    assert (tmp_path / "summary.md").read_text() == f"before\n{block}"
    assert block.startswith("**The gate fails: B is worse than A by more than the margin in 1 of 2 tests. Measured")
    assert f"| qwen3-90m w8a8 small (offline) | {RATE} | 0.900x \\[0.884, 0.916\\] | 3 % | worse |" in block
    assert "| qwen3-90m w8a8 small (offline) | t90 | 9.20 s | 10.2 s | +1.02 s |" in block


@pytest.mark.parametrize(
    ("a", "b", "status", "words"),
    [
        (
            [BF16, W8A8],
            [BF16],
            4,
            f"w8a8 small (offline), not compared in {RATE}: undecided (B has no such",
        ),
        ([BF16], [BF16, W8A8], 0, "not tested: qwen3-90m w8a8 small, which is only in b"),
    ],
    ids=["lost", "new"],
)
def test_an_experiment_of_one_side_is_named(tmp_path: Path, a: list[Spec], b: list[Spec], status: int, words: str):
    sides = [[record for spec in specs for record in launches(spec, rates)] for specs, rates in ((a, OLD), (b, SAME))]
    done = compared(tmp_path, *sides, "--fail-if", f"{RATE} < -20%")
    assert (done.returncode, words in done.flat) == (status, True)


@pytest.mark.parametrize(
    ("seconds", "host", "warns"),
    [
        ((30, 90, 150, 210), "bench-1", False),
        ((-30, 30, 150, 210), "bench-1", False),
        ((20, 40, 50, 210), "bench-1", True),
        ((0, 60, 120, 180), "bench-1", True),
        ((1030, 1090, 1150, 1210), "bench-1", True),
        ((30, 90, 150, 210), "bench-2", True),
    ],
    ids=["ABAB", "BABA", "ABBBA", "at once", "later", "two machines"],
)
def test_a_gate_blames_drift_unless_launches_alternated(
    tmp_path: Path, seconds: tuple[int, ...], host: str, warns: bool
):
    start = datetime(2025, 1, 1, tzinfo=UTC)
    times = [f"{start + timedelta(seconds=each):%Y-%m-%dT%H:%M:%SZ}" for each in seconds]
    b = launches(BF16, SLOWER, {"hostname": host})
    b = [record.model_copy(update={"started_at": time}) for record, time in zip(b, times, strict=True)]
    done = compared(tmp_path, launches(BF16, OLD), b, "--fail-if", f"{RATE} < -3%", "--out", "out")
    methods = (tmp_path / "out/compare.md").read_text()
    assert done.returncode == 1
    assert [
        "in another session" in done.stdout,
        "Their launches alternated" not in done.flat,
        "Launches were not interleaved" in methods,
    ] == [warns] * 3


def test_default_leaves_out_what_the_load_sets_and_what_so_few_requests_leave_open(tmp_path: Path):
    spec = make_online_spec(points=[LoadPoint(request_rate=4.0)])
    for side, step_s in (("a", 0.01), ("b", 0.0101)):
        save(tmp_path / side, *(make_online(spec, n, Server(step_s=step_s * (1 + n / 1000))) for n in range(3)))
    gate = run(tmp_path, "a", "b", "--fail-if", "default").stdout.partition("The gate")[2]
    assert ("ttft_s" in gate, RATE in gate, "e2el_p99" in gate) == (True, False, False)
    assert "set by the load" in run(tmp_path, "a", "b", "--fail-if", f"{RATE} < -3%").stderr


def test_default_tests_what_each_mode_compares_by_default(tmp_path: Path):
    sides = launches(BF16, OLD), launches(BF16, SAME)
    tests = compared(tmp_path, *sides, "--fail-if", "default").stdout.partition("The gate")[2]
    assert (RATE in tests, "startup_s" in tests) == (True, False)
    own = ["--fail-if", "startup_s > 20%"]
    more = run(tmp_path, "a", "b", "--fail-if", "default", *own).stdout.partition("The gate")[2]
    assert (RATE in more, "startup_s" in more) == (True, True)


def test_a_gate_of_copies_says_that_nothing_is_compared(tmp_path: Path):
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, OLD), "--fail-if", "default")
    assert done.returncode == 2
    assert "--fail-if: nothing is compared: a has the very same record of launch 0" in done.stderr


@pytest.mark.parametrize("option", ["--json", "--junit", "--markdown", "--history"])
def test_a_file_of_a_gate_needs_a_gate(tmp_path: Path, option: str):
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, SAME), option, "file")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"{option}: there is no gate without --fail-if")
    assert not (tmp_path / "file").exists()


def test_a_gate_measures_at_least_one_launch(tmp_path: Path):
    limit = ["--fail-if", "default", "--until-decided", "0"]
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, SAME), *limit)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "--until-decided 0: is no number of launches")


def test_a_summary_that_cannot_be_written_is_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, SAME), "--fail-if", "default")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)


def test_a_gate_that_crashes_is_no_worse_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate_module, "gate_of", lambda *_: 1 / 0)
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, OLD), "--fail-if", "default")
    assert done.returncode == 2
    assert "the gate did not end" in done.stderr


@pytest.mark.parametrize(
    ("limit", "problem", "remedy"),
    [
        ("output_token_per_s < -3%", "output_token_per_s is not compared", f"did you mean '{RATE} < -3%'?"),
        ("tok/s < -5%", "is no limit", f"'{RATE} < -5%'"),
        ("throughput < -5%", "throughput is not compared", f"did you mean '{RATE} < -5%'?"),
        ("speedup < 0.97", "is no limit", f"'{RATE} < -3%'"),
        ("ttft > 10%", "ttft is not compared", "did you mean 'ttft_s > 10%'?"),
        (f"{RATE} < -3", "is no limit", f"write a number and a margin in percent, '{RATE} < -3%'"),
        (f"{RATE} < 5", "is no limit", f"'{RATE} < -5%'"),
        (f"{RATE} <= -2.5%", "is no limit", f"'{RATE} < -2.5%'"),
        ("step_time_s > 0.02", "is no limit", "'step_time_s > 2%'"),
        ("step_times", "is no limit", "'step_time_s > 3%'"),
        (f"{RATE} < 900", "is no limit", f"'{RATE} < -3%'"),
        ("defualt", "'defualt': is no limit", "did you mean 'default'?"),
        (f"{RATE} > 3%", f"{RATE} is better the higher it is", f"write '{RATE} < -3%'"),
        (f"{RATE} < 3%", f"{RATE} is better the higher it is", f"write '{RATE} < -3%'"),
        (f"{RATE} < -0%", "the margin has to be above 0 and below 100 %", f"write '{RATE} < -3%'"),
        (f"{RATE} < -100%", "the margin has to be above 0 and below 100 %", f"write '{RATE} < -3%'"),
        ("ttft_s > 3%", "no experiment has ttft_s", "measure a mode that has it"),
        ("cycle_s > 3%", "no experiment has cycle_s", "measure a mode that has it"),
    ],
)
def test_a_wrong_limit_ends_with_two_lines_and_status_2(tmp_path: Path, limit: str, problem: str, remedy: str):
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, SAME), "--fail-if", limit)
    first, second = done.stderr.splitlines()
    assert done.returncode == 2
    assert problem in first
    assert remedy in second
    for typed in re.findall(r"'(\w+ [<>] \S+)'", second):
        assert limit_of(typed).number in typed


def gate(
    rng: np.random.Generator, launches: int, slowdown: float, tests: int = 1, scatter: float = 0.01
) -> list[Finding]:
    """Return a gate of `tests` numbers, with a margin of 3 %."""
    found = []
    for _ in range(tests):
        ours, theirs = rng.normal(math.log(1 - slowdown), scatter, launches), rng.normal(0, scatter, launches)
        interval = welch_interval(ours, theirs, confidence_of(tests))
        sides = (Side(launches, float(np.exp(ours.mean()))), Side(launches, float(np.exp(theirs.mean()))))
        ratio = sides[0].value / sides[1].value
        found.append(Comparison(speedup=ratio, low=float(interval.low), high=float(interval.high), sides=sides))
    return [gate_outcome(NAMED, Limit(RATE, 0.03), comparison, tests) for comparison in found]


def share(outcome: Outcome, outcomes: list[Outcome]) -> float:
    return outcomes.count(outcome) / len(outcomes)


@pytest.mark.parametrize("tests", [1, 4])
def test_a_gate_errs_in_a_twentieth_at_most(tests: int):
    rng = np.random.default_rng(1)
    unchanged = [outcome_of(gate(rng, 5, 0.0, tests)) for _ in range(400)]
    assert share("worse", unchanged) == 0
    at_margin = [outcome_of(gate(rng, 5, 0.03, tests)) for _ in range(400)]
    assert share("worse", at_margin) < 0.08
    assert share("not worse", at_margin) < 0.08


def test_a_slowdown_is_found_with_the_launches_asked_for():
    rng = np.random.default_rng(2)
    found: list[Outcome] = []
    for _ in range(200):
        (first,) = gate(rng, 6, 0.05, scatter=0.03)
        assert first.launches
        (last,) = gate(rng, max(6, first.launches), 0.05, scatter=0.03)  # on new launches
        found.append(last.outcome)
    assert share("worse", found) >= 0.8
    assert share("not worse", found) < 0.05
