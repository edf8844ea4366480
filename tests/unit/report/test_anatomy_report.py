"""The anatomy of a step in a summary: where it stands, what it is read from, its verdicts, and when it says nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_texts_are_apart
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import counted, in_two, make_plan, make_record, make_sequences, make_spec

from rollout_bench.analysis.stats.anatomy import running
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pass_times_of, pool_sequences
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.spec import Spec, lengths_differ
from rollout_bench.contracts.store import record_path, write_record
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.differences import compare_folders
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.anatomy_figures import anatomy_figure, typical_pass
from rollout_bench.report.figures.style import settings
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise

HEADING = "## Anatomy of a step: offline, cpu"


def of(spec: Spec, **workload: object) -> Spec:
    return spec.model_copy(update={"workload": spec.workload.model_copy(update=workload)})


def put(results: Path, record: Record, ends: Sequence[float], tokens: Sequence[int] = (32,)) -> None:
    """Write `record`; its sequences end at these shares of an iteration and have these tokens, both again and again."""
    rows = [
        row.model_copy(
            update={
                "scheduled_s": 0.0,
                "first_token_s": 0.001,
                "last_token_s": record.iterations[row.iteration].elapsed_s * ends[place % len(ends)],
                "output_tokens": tokens[place % len(tokens)],
            }
        )
        for place, row in enumerate(make_sequences(record))
    ]
    write(results, counted(record, rows), rows)


def write(results: Path, record: Record, rows: Sequence[SequenceRow]) -> None:
    spec = record.spec
    write_record(record_path(results, spec.mode, spec.experiment(), record.launch), record, rows)


def summary(
    results: Path, *specs: Spec, metrics: Sequence[str] = ("output_tokens_per_s",), launches: int = 4
) -> Summary:
    comparison = ComparisonSettings(metrics={"offline": list(metrics)})
    collection = collect(results, make_plan(specs, launches, comparison=comparison) if specs else None)
    return summarise(collection, pool_sequences(results, collection), figures=True, results=results)


def table(made: Summary) -> dict[str, dict[str, str]]:
    """Return the lines of the table, heading -> cell, by their quant; empty where there is none."""
    _, found, rest = made.markdown.partition(HEADING)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest.split("\n## ")[0].splitlines()]
    lines = [line for line in lines if found and line]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def headings(made: Summary) -> list[str]:
    return [line.partition(":")[0] for line in made.markdown.splitlines() if line.startswith("## ")]


# half of each group of four is complete after a quarter of the step, one after a half, and the last with the step
ENDS, TOKENS = (0.25, 0.25, 0.5, 1.0), (8, 8, 16, 96)


def test_a_step_of_different_lengths_has_a_table_after_that_of_throughput(tmp_path: Path) -> None:
    put(tmp_path, make_record(make_spec(), rates=[256.0] * 3), ENDS, TOKENS)  # 4 s an iteration
    made = summary(tmp_path)
    there = headings(made)
    assert there.index("## Anatomy of a step") == there.index("## Throughput") + 1
    assert table(made)["bf16"] == {
        "quant": "bf16", "makespan s": "4.00", "t50 s": "1.00", "t90 s": "4.00", "t99 s": "4.00", "tail s": "0 (0 %)",
        "fill s": "0", "drain s": "3.00", "occupancy %": "50.0", "group p50 s": "4.00", "group p90 s": "4.00",
        "straggler s": "3.00", "longest sequence": "96 tok at 24.0 tok/s, 3.000x",
    }  # fmt: skip
    assert "- tail s: Makespan - t90" in made.markdown
    (line,) = csv.DictReader(io.StringIO(made.tables["anatomy.csv"]))
    assert (line["launches_valid"], line["sequences"], line["t50_s"]) == ("1", "32.0", "1.0")
    assert {name: float(line[name]) for name in line if "/" in name} == {
        "timing_s/gen": 4.0,
        "timing_per_token_ms/gen": 4000 / 1024,
        "response_length/mean": 32,
        "response_length/max": 96,
        "response_length/min": 8,
        "response_length/clip_ratio": 0.25,
    }


def test_equal_lengths_show_nothing_new_but_where_a_tail_or_a_verdict_is_of_them(tmp_path: Path) -> None:
    spec = make_spec()
    for number, (ends, shown) in enumerate((((1.0,), False), ((0.5,) * 31 + (1.0,), True))):
        put(tmp_path / str(number), make_record(spec), ends)
        made = summary(tmp_path / str(number))
        assert bool(table(made)) == shown
        assert ("anatomy.csv" in made.tables) == shown
        assert ("anatomy.svg" in made.markdown) is False  # whether there is a figure is known before
    assert table(summary(tmp_path / "0", spec, metrics=["t90_s"], launches=1))


def test_results_without_times_of_single_sequences_show_nothing_new(tmp_path: Path) -> None:
    per_prompt = of(make_spec(), requests="per_prompt", ignore_eos=False)
    record = make_record(per_prompt)
    write(tmp_path, record, make_sequences(record, times=False))
    made = summary(tmp_path)
    assert not lengths_differ(per_prompt)
    assert "natomy" not in made.markdown
    assert made.tables == {}
    assert "t90" not in made.csv


def test_metrics_of_sequences_are_in_the_table_for_programs_only_where_they_are_compared(tmp_path: Path) -> None:
    spec = make_spec()
    put(tmp_path, make_record(spec, rates=[256.0] * 3), ENDS, TOKENS)
    assert "t90_s" not in summary(tmp_path, spec).csv
    (line,) = csv.DictReader(io.StringIO(summary(tmp_path, spec, metrics=["group_p90_s", "t90_s"], launches=1).csv))
    assert (line["t90_s"], line["group_p90_s"], "tail_s" in line) == ("4.0", "4.0", False)


@pytest.mark.parametrize(
    ("rate", "share", "says", "t90_says"),
    [
        (1.25, 0.5, "faster", "faster"),
        (1.25, 1.0, "it is faster (1.254x)", "it is slower (0.627x)"),
        (1.25, 0.625, "it is faster (1.254x)", "it is not told from it (1.003x)"),
        (0.8, 0.25, "it is slower (0.802x)", "it is faster (1.605x)"),
    ],
)
def test_where_verdicts_on_the_step_and_on_its_t90_disagree_the_summary_says_so(
    tmp_path: Path, rate: float, share: float, says: str, t90_says: str
) -> None:
    specs = [make_spec(), make_spec(quant="w8a8")]
    for launch in range(4):
        # nine in ten end at this share of the step, the others with it; of the baseline at half of it
        put(tmp_path, make_record(specs[0], launch, [256.0] * 3), (0.5,) * 30 + (1.0,) * 2)
        rates = [256.0 * rate * (1 + 0.002 * launch)] * 3
        put(tmp_path, make_record(specs[1], launch, rates), (share,) * 30 + (1.0,) * 2)
    made = summary(tmp_path, *specs, metrics=["output_tokens_per_s", "t90_s"])
    notes = " ".join(made.text.split())
    assert "t90 speed-up" in made.markdown
    assert ("output tok/s and t90 s disagree" in notes) == (says != t90_says)
    if says != t90_says:
        assert f"{says}; by t90 s, which leaves out the last tenth of the sequences, {t90_says}." in notes


def test_two_folders_are_compared_by_a_metric_of_sequences_that_neither_summary_was_of(tmp_path: Path) -> None:
    for launch in range(3):
        put(tmp_path / "a", make_record(make_spec(), launch, [256.0] * 3), (0.5,) * 30 + (1.0,) * 2)
        put(tmp_path / "b", make_record(make_spec(), launch, [255.0 - launch] * 3), (0.25,) * 30 + (1.0,) * 2)
    made = compare_folders(tmp_path / "a", tmp_path / "b", ComparisonSettings(metrics={"offline": ["t90_s"]}))
    (line,) = csv.DictReader(io.StringIO(made.csv))
    assert (line["metric"], float(line["value_a"])) == ("t90_s", pytest.approx(2))
    assert float(line["speedup"]) == pytest.approx(2, rel=0.01)


def test_a_verdict_that_lacks_its_times_says_why(tmp_path: Path) -> None:
    specs = [of(make_spec(quant=quant), requests="per_prompt") for quant in ("bf16", "w8a8")]
    for spec in specs:
        for launch in range(3):
            record = make_record(spec, launch)
            write(tmp_path, record, make_sequences(record, times=False))
    made = summary(tmp_path, *specs, metrics=["t90_s"], launches=3)
    assert "no t90 s: requests: per_prompt keeps no times of single sequences" in made.text


def test_loads_at_a_rate_are_no_steps_and_each_other_load_of_a_sweep_is_one(tmp_path: Path) -> None:
    points = [LoadPoint(concurrency=4), LoadPoint(concurrency=8), LoadPoint(request_rate=10.0)]
    spec = of(make_online_spec(points=points), ignore_eos=False)
    record, rows = make_online(spec)
    rows = [row.model_copy(update={"output_tokens": row.output_tokens - 2 * row.sample}) for row in rows]
    save_online(tmp_path, (counted(record, rows), rows))
    made = summary(tmp_path)
    lines = list(csv.DictReader(io.StringIO(made.tables["anatomy.csv"])))
    assert [line["workload"].rpartition(" @ ")[2] for line in lines] == ["4 at once", "8 at once"]
    assert [float(line["most_running"]) for line in lines] == [4, 8]
    assert "a sequence counts as running from when its request was sent" in " ".join(made.text.split())
    assert lengths_differ(spec)
    assert not lengths_differ(of(make_online_spec(points=points[2:]), ignore_eos=False))
    findings = Findings(collect(tmp_path, None), results=tmp_path)
    assert [place.rpartition(" @ ")[2] for place in findings.pass_times] == ["4 at once", "8 at once"]


def test_behind_a_server_as_many_sequences_run_as_have_begun_to_answer(tmp_path: Path) -> None:
    spec = make_online_spec(points=[LoadPoint(concurrency=8)])
    record, rows = make_online(spec, server=Server(slots=8, prefill_s=0.0))
    passes = pass_times_of(record, rows)
    assert len(passes) == 3
    for times in passes:
        at_s, sequences = running(times.begins_s, times.ends_s)
        own = [row for row in rows if row.iteration == times.index]
        moments = np.arange(at_s[0], at_s[-1], 0.01)
        drawn = sequences[np.searchsorted(at_s, moments, side="right") - 1]
        counts = [sum((r.first_token_s or 0) <= at < (r.last_token_s or 0) for r in own) for at in moments]
        assert len(counts) > 30
        assert max(abs(one - other) for one, other in zip(drawn, counts, strict=True)) <= 1


def test_warm_up_and_failed_requests_are_in_no_step() -> None:
    record, rows = make_online(make_online_spec(), server=Server(failing=4))
    found = pass_times_of(record, rows)
    assert [times.index for times in found] == [1, 2, 3]
    assert {times.ends_s.size for times in found} == {24}


def test_the_figure_draws_each_replica_of_the_pass_with_the_median_makespan(tmp_path: Path) -> None:
    spec = of(make_spec(workload="tail", args={"data_parallel_size": 2}), ignore_eos=False)
    record = make_record(spec, rates=[128.0, 256.0, 512.0])
    record = record.model_copy(update={"iterations": [in_two(each) for each in record.iterations]})
    rows = [row.model_copy(update={"replica": row.prompt // 4}) for row in make_sequences(record)]
    write(tmp_path, record, rows)
    collection = collect(tmp_path, None)
    findings = Findings(collection, results=tmp_path)
    assert "anatomy" in figure_names(rows_of(collection), collection)
    (launches,) = findings.pass_times.values()
    assert typical_pass(launches).elapsed_s == 4
    with settings():
        figure = anatomy_figure(findings.drawn, findings.pass_times, "here", "")
    assert [axes.get_title(loc="left")[-9:] for axes in figure.axes] == ["replica 0", "replica 1"]
    for axes, end, marks in zip(figure.axes, (2, 4), ([1, 15 / 8, 2], [3, 31 / 8, 4]), strict=True):
        curve, *drawn = (line.get_xydata() for line in axes.lines)
        assert np.asarray(curve).max(axis=0) == pytest.approx([end, 16])
        assert [float(np.asarray(mark)[0, 0]) for mark in drawn] == pytest.approx(marks)


@pytest.mark.parametrize(("models", "workloads", "replicas"), [(1, 1, 1), (2, 2, 2), (3, 4, 1), (4, 2, 3)])
def test_labels_of_the_figure_do_not_overlap(tmp_path: Path, models: int, workloads: int, replicas: int) -> None:
    for model in ("qwen3-1.7b", "a-model-with-quite-a-long-name-12b-instruct", "pangu-7b", "qwen3-30b-a3b")[:models]:
        for workload in ("verl-default", "long-tail", "a-workload-with-a-long-name", "chat")[:workloads]:
            for quant in ("bf16", "w8a8"):
                record = make_record(make_spec(model, quant, workload))
                rows = [row.model_copy(update={"replica": row.prompt % replicas}) for row in make_sequences(record)]
                write(tmp_path, record, rows)
    findings = Findings(collect(tmp_path, None), results=tmp_path)
    with settings():
        figure = anatomy_figure(findings.drawn, findings.pass_times, "here", "1 of 9 planned launches measured.")
        assert_texts_are_apart(figure)
    said = " ".join(text.get_text() for text in figure.texts)
    assert ("Not shown for want of room" in said) == (models > 3 or workloads * replicas > 4)


def test_without_times_the_figure_says_so(tmp_path: Path) -> None:
    collection = collect(tmp_path, None)
    with settings():
        drawn = anatomy_figure(Findings(collection).drawn, {}, "here", "")
    assert drawn.axes == []
    assert any("No step has times of single sequences" in text.get_text() for text in drawn.texts)
