"""What a summary says of messages: the answer first, the issue's steps beside today's, comparisons, files."""

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

from rollout_bench.analysis.inside.issue_6241 import THEN
from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_messages
from rollout_bench.report.earlier import collect_with_earlier
from rollout_bench.report.figures.inside.message_figures import shares_figure
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise
from rollout_bench.report.tables.message_tables import messages_part

PAGE = REPOSITORY / "docs" / "results" / "messages.md"

ISSUE = make_messages_spec("issue", workers=2, steps=16, batches=(4, 8, 32))
SMALL = make_messages_spec("rollout")


def measured(results: Path, spec: Spec, *steps_s: float, slower: float = 1.0) -> None:
    """Write launches with steps of `steps_s`; their messages take `slower` times as long."""
    for launch, step_s in enumerate(steps_s):
        record, rows = make_messages(spec, launch, step_s=step_s)
        factor = slower + launch / 1000
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


def findings(results: Path, baseline: dict[str, str] | None = None) -> Findings:
    plan = make_plan([ISSUE, SMALL], launches=2, baseline=baseline or {})
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
    assert "They do not matter much: even at batch 4" in words
    assert "none. The share is below it from batch 1 to 128" in words
    assert "At the slowest worker they are 2.2 % [" in words
    assert "unknown. The law of times over the batch takes three batches." in words


def test_a_single_launch_leaves_open_whether_messages_matter(tmp_path: Path):
    measured(tmp_path, SMALL, 1e-3)
    words = " ".join(summary(tmp_path).text.split())
    assert "A single launch has no interval, so whether they matter stays open." in words
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


def test_the_issue_s_steps_stand_beside_today_s(results: Path):
    (view,) = [table for table in messages_part(findings(results)).tables if "issue 6241" in table.title]
    assert "small" not in view.title
    assert "TP 2, batch 4" in view.title
    assert len(view.cells) == len(THEN) == 16
    assert view.cells[0] == ("0", "2,616", "4,000", "610", "600", "-", "-", "-", "-")
    assert view.cells[1] == ("1", "2,640", "1,000", "601", "600", "93", "40", "49", "40")
    assert view.cells[15][:2] == ("15", "2,930")
    words = " ".join(summary(results).text.split())
    assert (
        "in 2024 a step sent 2,640 to 2,930 bytes to the workers and 601 to 609 back; today it sends 1,000 and 600"
        in words
    )
    assert "was 37 to 55 bytes to the workers in 2024, and 33 to 45 back; today it is 40 and 40" in words
    assert "A pickled SamplingParams() takes 189 bytes; in 2024 it took 611." in words


def test_no_table_of_the_issue_is_made_of_other_steps(tmp_path: Path):
    measured(tmp_path, SMALL, 1e-3)
    assert not [table for table in messages_part(findings(tmp_path)).tables if "6241" in table.title]


def test_a_law_is_of_all_batches_and_steps_of_an_experiment(results: Path):
    (view,) = [table for table in messages_part(findings(results)).tables if "law of their bytes" in table.title]
    (line,) = [line for line in view.cells if line[0] == "issue" and "front end to core" in line]
    fixed, per_sequence, per_token, steps = line[-6:-2]
    assert per_token.startswith("7.81 ± ")  # 500 bytes a request, of 64 tokens
    assert abs(float(fixed.split()[0])) < 1e-6
    assert abs(float(per_sequence.split()[0])) < 1e-6
    assert steps == str(2 * 3 * 16)


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


def test_messages_get_a_verdict_beside_the_baseline_and_none_without(tmp_path: Path):
    other = make_messages_spec("issue")
    measured(tmp_path, SMALL, 1e-3, 1e-3, 1e-3)
    measured(tmp_path, other, 1e-3, 1e-3, 1e-3, slower=2.0)
    plan = make_plan([SMALL, other], launches=3, baseline={"workload": "rollout"})
    collection = collect(tmp_path, plan)
    tables = messages_part(Findings(collection, inside=look(tmp_path, collection, []))).tables
    (view,) = [table for table in tables if table.title.startswith("Messages beside the baseline")]
    assert [line[-3] for line in view.cells] == ["2", "8"]
    assert {line[-1] for line in view.cells} == {"0.500x v [0.500, 0.501]"}
    assert not [t for t in messages_part(findings(tmp_path)).tables if t.title.startswith("Messages beside")]


@pytest.mark.parametrize("axis", ["results", "engine"])
def test_messages_get_a_verdict_beside_those_of_earlier_results(tmp_path: Path, axis: str):
    old, new = tmp_path / ("old" if axis == "results" else "results"), tmp_path / "results"
    older = SMALL.model_copy(update={"engine": SMALL.engine.model_copy(update={"version": "0.1.0"})})
    measured(old, older if axis == "engine" else SMALL, 1e-3, 1.01e-3, 1e-3, slower=2.0)
    measured(new, SMALL, 1e-3, 1e-3, 1.01e-3)
    plan = make_plan([SMALL], launches=3, baseline={axis: "old" if axis == "results" else "0.1.0"})
    collection = collect_with_earlier(new, plan)
    tables = messages_part(Findings(collection, inside=look(new, collection, []))).tables
    (view,) = [table for table in tables if table.title.startswith("Messages beside the baseline")]
    assert [line[-1].split()[:2] for line in view.cells] == [["1.999x", "^"], ["1.999x", "^"]]


def test_the_figure_has_the_share_over_the_batch_with_its_launches_and_the_limit(results: Path):
    (axes,) = shares_figure(findings(results).inside.messages, "here", "").axes
    drawn = [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines]  # type: ignore[union-attr]
    mean_share = 100 * 12e-6 * (1 / 1e-3 + 1.001 / 1.01e-3) / 2
    assert [x for x, _ in drawn[0]] == [4, 8, 32]
    assert [y for _, y in drawn[0]] == pytest.approx(3 * [mean_share])
    assert [y for _, y in drawn[1]] == pytest.approx(3 * [mean_share / 2])  # the front end: one message of two
    assert {y for _, y in drawn[-1]} == {5.0}
    band = axes.collections[0].get_paths()[0].vertices
    ends = sorted({round(float(y), 6) for _, y in band})
    assert ends == pytest.approx([100 * 12e-6 * 1.001 / 1.01e-3, 1.2], rel=1e-5)
    assert math.isclose(axes.get_ylim()[0], 0)
    assert shares_figure([], "here", "").axes == []


def test_the_page_of_results_is_filled_from_a_summary_one_place_at_a_time(results: Path):
    text = refresh_result.found(summary(results).markdown, "cpu", ["message_shares"])
    assert text.index("### What messages cost today") < text.index("cpu-message-shares.svg") < text.index("| 2,616 |")
    assert "### The law of bytes" in text
    assert "### Verdicts" not in text
    assert "### Messages\n" not in text
    page = refresh_result.filled(PAGE.read_text(), text, "cpu")
    assert page.count(text) == 1
    assert refresh_result.filled(page, text, "cpu") == page
    with pytest.raises(ValueError, match="result: elsewhere -->; there are cpu, h200"):
        refresh_result.filled(page, text, "elsewhere")
