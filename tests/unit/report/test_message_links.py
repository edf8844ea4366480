"""What each link takes of a step, from records: sums over messages, medians over steps, in a table and a figure."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from synthetic_messages import make_messages, make_messages_spec

from rollout_bench.analysis.inside.message_links import LinkUse, link_uses, message_runs
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import chosen
from rollout_bench.contracts.store import messages_path, record_path, write_messages
from rollout_bench.report.figures.inside.message_figures import messages_figure
from rollout_bench.report.tables.message_tables import messages_views

SPEC = make_messages_spec()


def path_of(results: Path, launch: int = 0) -> Path:
    return record_path(results, "messages", SPEC.experiment(), launch)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two launches, the second with steps of twice the length."""
    for launch, step_s in enumerate((1e-3, 2e-3)):
        record, rows = make_messages(SPEC, launch, step_s=step_s)
        path_of(tmp_path, launch).parent.mkdir(parents=True, exist_ok=True)
        write_messages(path_of(tmp_path, launch), record, rows)
    return tmp_path


def uses(results: Path) -> dict[tuple[int, str, str], LinkUse]:
    ((run,), problems) = message_runs(results, chosen(collect(results, None).others))
    assert problems == []
    return {(use.batch, use.phase, use.link): use for use in link_uses(run)}


def test_a_link_takes_the_sum_of_its_messages_and_the_median_over_steps(results: Path):
    found = uses(results)
    assert {link for _, phase, link in found if phase == "decode"} == {
        "core_to_workers", "workers_to_core", "core_to_front_end"
    }  # fmt: skip
    requests = found[8, "prefill", "front_end_to_core"]
    assert (requests.messages, requests.size_bytes, requests.distance) == (8, 8 * 500, None)
    assert requests.busy_s == pytest.approx(8 * 6e-6)  # 1 + (52 - 50) + 3 us
    decode = found[8, "decode", "core_to_workers"]
    assert (decode.steps, decode.messages, decode.size_bytes, decode.distance) == (6, 1, 1000, 40)
    assert decode.share == pytest.approx((6e-6 / 1e-3 + 6e-6 / 2e-3) / 2)


def test_the_table_has_a_line_for_each_link(results: Path):
    ((run,), _) = message_runs(results, chosen(collect(results, None).others))
    (view,) = [table for table in messages_views([run]) if "by link" in table.title]
    headers = [column.header for column in view.columns]
    lines = [dict(zip(headers, line, strict=True)) for line in view.cells]
    assert len(lines) == 2 * (4 + 3)
    line = next(e for e in lines if (e["batch"], e["phase"], e["link"]) == ("8", "decode", "core to workers"))
    assert (line["bytes a step"], line["distance"], line["us a step"]) == ("1,000", "40", "6.00")


def test_the_figure_has_a_line_for_each_link_in_bytes(results: Path):
    runs, _ = message_runs(results, chosen(collect(results, None).others))
    figure = messages_figure(runs, "here", "")
    (axes,) = figure.axes
    drawn = [[(int(x), int(y)) for x, y in line.get_xydata()] for line in axes.lines]  # type: ignore[union-attr]
    assert drawn[0] == [(0, 4000)]  # requests come before the first step alone
    assert drawn[1] == [(0, 4000), (1, 1000), (2, 1000), (3, 1000)]
    assert messages_figure([], "here", "").axes == []


def test_a_side_file_that_is_not_the_record_s_is_told_and_the_other_launch_counts(results: Path):
    side = messages_path(path_of(results))
    lines = gzip.decompress(side.read_bytes()).splitlines(keepends=True)
    side.write_bytes(gzip.compress(b"".join(lines[:-1])))
    ((run,), (problem,)) = message_runs(results, chosen(collect(results, None).others))
    assert [launch.record.launch for launch in run.launches] == [1]
    assert f"{side}: has {len(lines) - 1} of {len(lines)} rows" in problem


def test_a_row_of_a_step_that_the_record_lacks_costs_its_launch_and_is_named(results: Path):
    record, rows = make_messages(SPEC, 1)
    rows[-1] = rows[-1].model_copy(update={"step": 99})
    write_messages(path_of(results, 1), record, rows)
    ((run,), problems) = message_runs(results, chosen(collect(results, None).others))
    assert [launch.record.launch for launch in run.launches] == [0]
    assert f"line {len(rows)}: is of step 99" in problems[0]
