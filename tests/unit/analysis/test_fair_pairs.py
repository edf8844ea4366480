"""Launches are a pair where they took turns and ran in like places, or where unlike places even out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.pairs import SLACK_S, _even, round_s
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import Placement

BASE, OTHER, THIRD = SPECS = [make_spec(quant=quant) for quant in ("bf16", "w8a8", "w8a16")]
LAUNCH_S = 1800.0


def row_of(results: Path, own: Sequence[dict[str, object]], theirs: Sequence[dict[str, object]]) -> Row:
    """Write launches, each with changes to its record, and return the row of w8a8."""
    for spec, rate, changes in ((BASE, 400, theirs), (OTHER, 500, own)):
        made = (make_record(spec, number, [rate + number**2 / 10] * 3) for number, _ in enumerate(changes))
        save(results, *(record.model_copy(update=more) for record, more in zip(made, changes, strict=True)))
    return rows_of(collect(results, make_plan([BASE, OTHER], len(own))))[1]


def at(*minutes: float) -> list[dict[str, object]]:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [{"started_at": f"{begin + timedelta(minutes=each):%Y-%m-%dT%H:%M:%SZ}"} for each in minutes]


WEEK = 7 * 24 * 60.0


@pytest.mark.parametrize(
    ("own", "theirs", "pairs"),
    [
        ((1, 2, 5), (0, 3, 4), [0, 1, 2]),  # in turn
        ((0, WEEK, 2 * WEEK), (0, WEEK, 2 * WEEK), [0, 1, 2]),  # rounds on different days
        ((0.5, WEEK, 2.5), (0, 1, 2), [0, 2]),  # one measured again
        ((WEEK, WEEK + 1, WEEK + 2), (0, 1, 2), []),  # added later
        ((WEEK, WEEK + 1, WEEK + 2), (0, 1, WEEK + 2), [2]),  # added together
    ],
)
def test_launches_that_did_not_take_turns_are_no_pair(
    tmp_path: Path, own: Sequence[float], theirs: Sequence[float], pairs: list[int]
) -> None:
    row = row_of(tmp_path, at(*own), at(*theirs))
    assert list(row.comparison.pairs) == pairs
    assert [launch.launch for launch in row.launches if not launch.flags] == pairs
    assert pairs or (row.comparison.verdict, row.comparison.speedup) == ("unknown", None)


@pytest.mark.parametrize(
    ("starts_s", "paired"),
    [
        ((0.0, LAUNCH_S, 2 * LAUNCH_S), [True, True]),
        ((2 * LAUNCH_S, LAUNCH_S, 0.0), [True, True]),
        ((0.0, 3 * LAUNCH_S, 5 * LAUNCH_S), [True, True]),  # each launch between them failed once
        ((0.0, 6 * LAUNCH_S + SLACK_S, -6 * LAUNCH_S - SLACK_S - 1), [True, False]),
    ],
)
def test_a_round_may_last_twice_as_long_as_usual(tmp_path: Path, starts_s: Sequence[float], paired: list[bool]) -> None:
    for spec, start_s in zip(SPECS, starts_s, strict=True):
        (began,) = at(start_s / 60)
        save(tmp_path, make_record(spec).model_copy(update={**began, "wall_s": LAUNCH_S}))
    rows = rows_of(collect(tmp_path, make_plan(SPECS, 1)))
    assert [launch.paired for row in rows[1:] for launch in row.launches] == paired
    assert round_s(collect(tmp_path, None).experiments) == 2 * len(SPECS) * LAUNCH_S + SLACK_S


def place(devices: Sequence[str] = ("GPU-a",), node: str = "one", neighbours: Sequence[str] = ()) -> Placement:
    visible = [str(number) for number, _ in enumerate(devices)]
    return Placement(
        node=node, devices=list(devices), visible=visible, isolation="per_device", waited_s=0.0,
        neighbours=list(neighbours),
    )  # fmt: skip


A, B, C, D = (place([f"GPU-{name}"]) for name in "abcd")
BESIDE = place(neighbours=["offline/z/launch-3"])


@pytest.mark.parametrize(
    ("own", "other", "flags"),
    [
        (None, A, []),
        (B, A, ["other_device"]),
        (place(["GPU-a", "GPU-b"]), place(["GPU-b", "GPU-a"]), []),
        (place(["GPU-a", "GPU-b"]), place(["GPU-a", "GPU-c"]), ["other_device"]),
        (place(node="two"), A, ["other_node"]),
        (BESIDE, place(neighbours=["y", "z"]), []),
        (A, BESIDE, ["other_neighbours"]),
        (place(["GPU-b"], neighbours=["x"]), A, ["other_device", "other_neighbours"]),
    ],
)
def test_a_pair_is_marked_for_unlike_places(
    tmp_path: Path, own: Placement | None, other: Placement | None, flags: list[str]
) -> None:
    row = row_of(tmp_path, [{"placement": own}, {"placement": A}], [{"placement": other}, {"placement": A}])
    assert [[flag.code for flag in launch.flags] for launch in row.launches] == [flags, []]


@pytest.mark.parametrize(
    ("own", "other", "pairs"),
    [
        ([B, B], [A, A], [0]),
        ([B, A], [A, B], [0, 1]),
        ([B, D], [A, C], [0, 1]),
        ([B, A, B, B], [A, A, A, A], [0, 1]),
        ([B, B, A, A], [A, A, B, B], [0, 1, 2, 3]),
        ([place(node="two")] * 3, [A] * 3, [0]),
        ([BESIDE] * 3, [A] * 3, [0]),
        ([BESIDE, A, BESIDE], [A, BESIDE, BESIDE], [0, 1, 2]),
    ],
)
def test_unlike_places_count_while_sides_swap_them(
    tmp_path: Path, own: Sequence[Placement], other: Sequence[Placement], pairs: list[int]
) -> None:
    row = row_of(tmp_path, [{"placement": each} for each in own], [{"placement": each} for each in other])
    assert list(row.comparison.pairs) == pairs


@pytest.mark.parametrize(
    ("own", "other", "least"),
    [("bdf", "ace", 0.94), ("bab", "aba", 0.94), ("baa", "aaa", 0.94), ("bca", "aab", 0.94), ("bbb", "aaa", 0.0)],
)
def test_intervals_of_swapped_devices_hold_the_truth(own: str, other: str, least: float) -> None:
    """Those of the last are left out: nearly all of them miss."""
    random, held, draws = np.random.default_rng(33), 0, 2000
    for _ in range(draws):
        speed = dict(zip("abcdef", 0.02 * random.standard_normal(6), strict=True))
        noise = 0.001 * random.standard_normal((3, 2))
        logs = [speed[i] - speed[j] + n[0] - n[1] for i, j, n in zip(own, other, noise, strict=True)]
        found = t_interval(logs, 0.95)
        held += found is not None and found[0] <= 0 <= found[1]
    assert held / draws >= least
    assert least or held / draws < 0.3
    both = dict(enumerate(zip(*([place([name]) for name in side] for side in (own, other)), strict=True)))
    assert (_even(both) == [0, 1, 2]) == bool(least)
