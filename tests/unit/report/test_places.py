"""Launches of a pair that ran on other devices, nodes, or beside others are told, and compared where that evens out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.pairs import _even
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import Placement
from rollout_bench.report.summary import summarise

BASE, OTHER = make_spec(), make_spec(quant="w8a8")


def place(devices: Sequence[str] = ("GPU-a",), node: str = "one", neighbours: Sequence[str] = ()) -> Placement:
    visible = [str(number) for number, _ in enumerate(devices)]
    return Placement(
        node=node,
        devices=list(devices),
        visible=visible,
        isolation="per_device",
        waited_s=0.0,
        neighbours=list(neighbours),
    )


def put(results: Path, spec, rate: float, places: Sequence[Placement | None]) -> None:
    records = [
        make_record(spec, number, [rate + number / 10] * 3).model_copy(update={"placement": where})
        for number, where in enumerate(places)
    ]
    save(results, *records)


def row(results: Path) -> Row:
    return rows_of(collect(results, make_plan([BASE, OTHER], len(list(results.glob("offline/*/launch-*.json"))) // 2)))[
        1
    ]


def codes(results: Path) -> list[list[str]]:
    return [[flag.code for flag in launch.flags] for launch in row(results).launches]


@pytest.mark.parametrize(
    ("own", "other", "flags"),
    [
        (place(), place(), []),
        (None, place(), []),
        (place(), None, []),
        (place(["GPU-b"]), place(), ["other_device"]),
        (place(["GPU-a", "GPU-b"]), place(["GPU-b", "GPU-a"]), []),
        (place(["GPU-a", "GPU-b"]), place(["GPU-a", "GPU-c"]), ["other_device"]),
        (place(["GPU-a", "GPU-b"]), place(["GPU-a"]), []),
        (place([]), place(), []),
        (place(node="two"), place(), ["other_node"]),
        (place(["cores-0-1"], node="two"), place(["cores-0-1"]), ["other_node"]),
        (place(neighbours=["x"]), place(neighbours=["y", "z"]), []),
        (place(neighbours=["x"]), place(), ["other_neighbours"]),
        (place(), place(neighbours=["x"]), ["other_neighbours"]),
        (place(["GPU-b"], neighbours=["x"]), place(), ["other_device", "other_neighbours"]),
    ],
)
def test_a_pair_is_marked_for_what_differs_about_its_places(
    tmp_path: Path, own: Placement | None, other: Placement | None, flags: list[str]
):
    put(tmp_path, BASE, 400, [other, place()])
    put(tmp_path, OTHER, 500, [own, place()])
    assert codes(tmp_path) == [flags, []]


A, B, C, D = (place([f"GPU-{name}"]) for name in "abcd")
ALONE, BESIDE = place(), place(neighbours=["offline/z/launch-3"])


@pytest.mark.parametrize(
    ("own", "other", "pairs"),
    [
        ([B, B], [A, A], [0]),
        ([B, A], [A, B], [0, 1]),
        ([B, A, B], [A, B, A], [0, 1, 2]),
        ([B, D], [A, C], [0, 1]),
        ([B, A, B, B], [A, A, A, A], [0, 1]),
        ([B, B, A, A], [A, A, B, B], [0, 1, 2, 3]),
        ([place(node="two")] * 3, [place()] * 3, [0]),
        ([BESIDE] * 3, [ALONE] * 3, [0]),
        ([BESIDE, ALONE, BESIDE], [ALONE, BESIDE, BESIDE], [0, 1, 2]),
    ],
)
def test_pairs_in_different_places_count_while_no_place_has_one_side_more_than_once_more_often(
    tmp_path: Path, own: Sequence[Placement], other: Sequence[Placement], pairs: Sequence[int]
) -> None:
    put(tmp_path, BASE, 400, other)
    put(tmp_path, OTHER, 500, own)
    assert list(row(tmp_path).comparison.pairs) == pairs


def test_sides_that_each_had_a_device_of_their_own_get_no_verdict_and_the_conclusion_says_why(tmp_path: Path) -> None:
    put(tmp_path, BASE, 400, [A, A])
    put(tmp_path, OTHER, 500, [B, B])
    comparison = row(tmp_path).comparison
    assert (comparison.verdict, comparison.low) == ("unknown", None)
    made = " ".join(summarise(collect(tmp_path, make_plan([BASE, OTHER], 2))).text.split())
    why = "1 of its 2 launches make no fair pair: the baseline's ran on other devices, and the sides did not swap them"
    assert f"No verdict: w8a8 ({why})." in made
    assert "run the same command again: - rollout-bench discard --invalid" in made


@pytest.mark.parametrize(
    ("own", "other", "least"),
    [("bdf", "ace", 0.94), ("bab", "aba", 0.94), ("baa", "aaa", 0.94), ("bca", "aab", 0.94), ("bbb", "aaa", 0.0)],
)
def test_what_tells_devices_apart_is_in_the_interval_of_such_pairs(own: str, other: str, least: float) -> None:
    """The last ones are those that are left out: nearly all of their intervals miss."""
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


def test_marked_pairs_are_compared_and_the_summary_says_where_they_ran(tmp_path: Path):
    put(tmp_path, BASE, 400, [place(), place(["GPU-b"])])
    put(tmp_path, OTHER, 500, [place(["GPU-b"], neighbours=["offline/z/launch-3"]), place(["GPU-a"])])
    comparison = row(tmp_path).comparison
    assert (list(comparison.pairs), comparison.verdict) == ([0, 1], "faster")
    text = " ".join(summarise(collect(tmp_path, make_plan([BASE, OTHER], 2))).text.split())
    assert "other_device 2/2" in text
    assert "It ran on GPU-b, its partner in the baseline on GPU-a: devices may differ in speed." in text
    assert "It ran beside other launches of the node, its partner in the baseline alone" in text


def test_pods_on_one_node_are_on_one_node(tmp_path: Path):
    put(tmp_path, BASE, 400, [place(), place()])
    put(tmp_path, OTHER, 500, [place(), place()])
    moved = [
        record.model_copy(update={"environment": record.environment.model_copy(update={"hostname": f"pod-{number}"})})
        for number, record in enumerate(row(tmp_path).experiment.records)
    ]
    save(tmp_path, *moved)
    assert row(tmp_path).against.differences == ()
    save(tmp_path, *(record.model_copy(update={"placement": None}) for record in moved))
    assert {difference.fact for difference in row(tmp_path).against.differences} == {"hostname"}
