"""The summary tells how evenly replicas shared the steps, where there are some, and nothing of it elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_record, make_spec, save

from rollout_bench.analysis.timed.balance import imbalance, replicated
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Iteration, Record, ReplicaPass
from rollout_bench.report.figures.save import figure_files
from rollout_bench.report.figures.timed_figures import replicas_figure
from rollout_bench.report.summary import Summary, summarise


def step(index: int, *times: tuple[float, float, int]) -> Iteration:
    """Return an iteration of replicas that begin at, take and generate so much."""
    parts = [
        ReplicaPass(start_offset_s=s, elapsed_s=e, requests=4, sequences=4, prompt_tokens=32, output_tokens=tokens)
        for s, e, tokens in times
    ]
    return Iteration(
        index=index,
        warmup=index == 0,
        elapsed_s=max(part.end_s for part in parts),
        requests=8,
        sequences=8,
        prompt_tokens=64,
        output_tokens=sum(part.output_tokens for part in parts),
        replicas=parts,
    )


STEPS = [
    step(0, (0, 9, 100), (0, 1, 100)),  # warm-up
    step(1, (0, 4, 100), (0.002, 2, 80)),
    step(2, (0, 1, 20), (0.001, 3.999, 100)),
]


def replicated_record(launch: int = 0) -> Record:
    record = make_record(make_spec(args={"data_parallel_size": 2}), launch)
    return record.model_copy(update={"iterations": STEPS})


def summary(folder: Path, *records: Record) -> Summary:
    save(folder, *records)
    return summarise(collect(folder, None))


def test_the_step_is_the_slowest_replica_s_and_the_rest_is_idle(tmp_path: Path) -> None:
    save(tmp_path, *(replicated_record(launch) for launch in (0, 1)))
    (found,) = replicated(rows_of(collect(tmp_path, None)))
    assert (found.whole.elapsed_s, found.whole.output_tokens) == (4.0, 150)
    assert [one.elapsed_s for one in found.each] == pytest.approx([2.5, 2.9995])
    assert [one.slowest_share for one in found.each] == [0.5, 0.5]
    assert [one.idle_share for one in found.each] == pytest.approx([1 - 5 / 8, 1 - 5.999 / 8])
    assert found.whole.idle_share == pytest.approx(1 - 10.999 / 16)
    assert found.imbalance == pytest.approx(((4 / 3 - 1) + (3.999 / 2.4995 - 1)) / 2)
    assert found.start_spread_s == 0.002


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=16))
def test_imbalance_is_none_where_all_take_as_long_and_less_than_the_replicas_otherwise(times: list[float]) -> None:
    assert imbalance([times[0]] * len(times)) == pytest.approx(0)
    assert 0 <= imbalance(times) + 1e-9 < len(times)


def test_replicas_have_a_table_and_files_of_their_own(tmp_path: Path) -> None:
    made = summary(tmp_path, replicated_record())
    table = made.markdown.partition("## Replicas: offline, cpu")[2].partition("##")[0]
    lines = table.strip().splitlines()[-3:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["all", "4.000", "150.0", "37.50", "-", "31", "47", "2.0 |"],
        ["0", "2.500", "60.00", "24.00", "50", "38", "-", "- |"],
        ["1", "3.000", "90.00", "30.01", "50", "25", "-", "- |"],
    ]
    header, line = made.csv.splitlines()
    told = dict(zip(header.split(","), line.split(","), strict=False))
    assert (told["replicas"], told["iteration_elapsed_s"]) == ("2", "4.0")
    assert len(made.tables["replicas.csv"].splitlines()) == 3
    assert "Definitions, replicas" in made.markdown


def test_nothing_is_said_of_replicas_where_there_are_none(tmp_path: Path) -> None:
    made = summary(tmp_path, make_record())
    assert "eplica" not in made.markdown + made.csv
    assert made.tables == {}


def test_the_figure_has_a_mark_for_each_replica_of_each_measured_iteration(tmp_path: Path) -> None:
    save(tmp_path, *(replicated_record(launch) for launch in (0, 1)))
    collection = collect(tmp_path, None)
    axes, *_ = replicas_figure(rows_of(collection), "", "").axes
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() != "--"]
    assert marks == [(launch * 2 + n, one.end_s) for launch in (0, 1) for n in (0, 1) for one in parts(STEPS[n + 1])]
    assert "replicas.svg" in figure_files(collection)
    save(tmp_path / "other", make_record())
    assert "replicas.svg" not in figure_files(collect(tmp_path / "other", None))


def parts(iteration: Iteration) -> list[ReplicaPass]:
    assert iteration.replicas is not None
    return iteration.replicas
