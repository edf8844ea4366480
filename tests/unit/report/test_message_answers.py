"""What a summary says of messages: the answer first, files, the figure."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
import refresh_result
from planned import REPOSITORY
from synthetic_messages import make_messages, make_messages_spec
from synthetic_records import make_plan

from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_messages
from rollout_bench.report.figures.inside.message_figures import shares_figure
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise

PAGE = REPOSITORY / "docs" / "results" / "messages.md"

ISSUE = make_messages_spec("issue", workers=2, steps=16, batches=(4, 8, 32))
SMALL = make_messages_spec("rollout")


def measured(results: Path, spec: Spec, *steps_s: float) -> None:
    """Write launches with steps of `steps_s`; the messages of each take a thousandth longer than those before."""
    for launch, step_s in enumerate(steps_s):
        record, rows = make_messages(spec, launch, step_s=step_s)
        factor = 1 + launch / 1000
        rows = [row if row.encode_s is None else scaled(row, factor) for row in rows]
        path = record_path(results, "messages", spec.experiment(), launch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_messages(path, record, rows)


def scaled(row, factor: float):
    reads = [
        read.model_copy(update={name: factor * getattr(read, name) for name in ("transport_s", "waited_s", "decode_s")})
        for read in row.reads
    ]
    return row.model_copy(update={"encode_s": factor * row.encode_s, "reads": reads})


def findings(results: Path) -> Findings:
    plan = make_plan([ISSUE, SMALL], launches=2)
    collection = collect(results, plan)
    return Findings(collection, inside=look(results, collection, []), results=results)


def summary(results: Path) -> Summary:
    found = findings(results)
    return summarise(found.collection, looked=found.inside, results=results)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    measured(tmp_path, ISSUE, 1e-3, 1.01e-3)
    measured(tmp_path, SMALL, 1e-3, 1.02e-3)
    return tmp_path


def test_the_answer_stands_above_all_tables(results: Path):
    made = summary(results)
    for text in (made.text, made.markdown):
        assert text.index("What messages cost today") < text.index("Messages, share of a decode step")
    words = " ".join(made.text.split())
    assert "take 1.2 % [" in words
    assert "At the slowest worker they are 2.2 % [" in words
    assert "A pickled SamplingParams() takes 189 bytes." in words


def test_a_single_launch_has_shares_without_an_interval(tmp_path: Path):
    measured(tmp_path, SMALL, 1e-3)
    words = " ".join(summary(tmp_path).text.split())
    assert "take 1.2 % of a decode step at batch 2, 1.2 % at batch 8." in words


def test_steps_that_overlap_make_shares_the_most_that_could_be_saved(tmp_path: Path):
    record, rows = make_messages(SMALL)
    write_messages(
        record_path(tmp_path, "messages", SMALL.experiment(), 0),
        record.model_copy(update={"async_scheduling": True}),
        rows,
    )
    assert "the most that could be saved" in " ".join(summary(tmp_path).text.split())
    measured(tmp_path / "other", SMALL, 1e-3)
    assert "the most that could be saved" not in " ".join(summary(tmp_path / "other").text.split())


def test_a_difference_saves_what_coding_takes_less_what_it_takes_itself(results: Path):
    words = " ".join(summary(results).text.split())
    # encoding 1 us and decoding 3 us; making 1 us and applying 0.5 us
    assert (
        "rollout, batch 8: a decode step sends 1,000 bytes to the workers; the difference to the step before is 30"
        in words
    )
    assert "Encoding and decoding take 4.00 us, making and applying the difference 1.50 us." in words
    assert "So differences would save at most 2.5 us, 0.25 % of the step." in words


def test_programs_get_a_line_for_each_link_and_phase_and_one_for_each_step_of_the_smallest_batch(results: Path):
    tables = summary(results).tables
    lines = list(csv.DictReader(io.StringIO(tables["messages.csv"])))
    assert len(lines) == (3 + 2) * (4 + 3)  # batches of both; requests come in prefill only
    (line,) = [
        each
        for each in lines
        if (each["workload"], each["batch"], each["phase"], each["link"]) == ("issue", "8", "decode", "core_to_workers")
    ]
    assert line["tensor_parallel_size"] == "2"
    numbers = {name: float(line[name]) for name in ("step_bytes", "pickle5_bytes", "block_ids_bytes", "rest_bytes")}
    assert numbers == {"step_bytes": 1000, "pickle5_bytes": 1007, "block_ids_bytes": 100, "rest_bytes": 900}
    assert float(line["busy_s"]) == pytest.approx(6e-6, rel=0.01)
    assert float(line["slowest_s"]) == pytest.approx(16e-6, rel=0.01)
    steps = list(csv.DictReader(io.StringIO(tables["message_steps.csv"])))
    assert [(each["workload"], each["batch"]) for each in steps] == 16 * [("issue", "4")] + 4 * [("rollout", "2")]
    assert [each["input_bytes"] for each in steps[:2]] == ["4000", "1000"]


def test_the_figure_has_the_share_over_the_batch_with_its_launches(results: Path):
    (axes,) = shares_figure(findings(results).inside.messages, "here", "").axes
    drawn = [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines]  # type: ignore[union-attr]
    mean_share = 100 * 12e-6 * (1 / 1e-3 + 1.001 / 1.01e-3) / 2
    assert [x for x, _ in drawn[0]] == [4, 8, 32]
    assert [y for _, y in drawn[0]] == pytest.approx(3 * [mean_share])
    assert [y for _, y in drawn[1]] == pytest.approx(3 * [mean_share / 2])  # the front end: one message of two
    band = axes.collections[0].get_paths()[0].vertices
    ends = sorted({round(float(y), 6) for _, y in band})
    assert ends == pytest.approx([100 * 12e-6 * 1.001 / 1.01e-3, 1.2], rel=1e-5)
    assert math.isclose(axes.get_ylim()[0], 0)
    assert shares_figure([], "here", "").axes == []


def test_the_page_of_results_is_filled_from_a_summary_one_place_at_a_time(results: Path):
    text = refresh_result.found(summary(results).markdown, "cpu", ["message_shares"])
    answer, figure, table = map(
        text.index, ("### What messages cost today", "cpu-message-shares.svg", "### Messages, by")
    )
    assert answer < figure < table
    assert "### What a worker that remembers would save" in text
    assert "### Verdicts" not in text
    assert "### Messages\n" not in text
    page = refresh_result.filled(PAGE.read_text(), text, "cpu")
    assert page.count(text) == 1
    assert refresh_result.filled(page, text, "cpu") == page
    with pytest.raises(ValueError, match="result: elsewhere -->; there are cpu, h200"):
        refresh_result.filled(page, text, "elsewhere")
