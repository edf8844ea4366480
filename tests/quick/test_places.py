"""Launches of a pair that ran on other devices, nodes, or beside others are told, and still compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
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
    return rows_of(collect(results, make_plan([BASE, OTHER], 2)))[1]


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
