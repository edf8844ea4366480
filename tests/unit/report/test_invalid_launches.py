"""An invalid launch is no result: no table, file or figure of the modes that generate shows a number of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from synthetic_online import Server, make_online, make_online_spec
from synthetic_records import in_two, make_record, make_sequences, make_spec

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag, Record, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_record
from rollout_bench.plan.serving import Slo
from rollout_bench.report.figure_names import names_of
from rollout_bench.report.figures.save import figure_files
from rollout_bench.report.summary import Summary, summarise

BUSY = Flag(code="cpu_shared", severity="invalid", sentence="Others used the cores.")
WHY = "no valid launch: cpu_shared"

ABSURD = 1000.0
"""Times, bytes and tokens of a launch times so much: as far off as no reader could overlook."""

TABLES = (
    "Throughput: offline", "Anatomy of a step: offline", "Rates, start-up and memory: offline",
    "What a launch costs: offline",
    "Time until a sequence is complete (E2EL), s: offline", "Time to first token (TTFT), s: offline",
    "Output length, tokens: offline", "Throughput: online", "Anatomy of a step: online", "Latency, means: online",
    "Latency, percentiles in ms: online", "Latency over the sweep: online",
    "Output length, tokens: online", "Start-up and memory: online", "What a launch costs: online",
    "Replicas: offline",
)  # fmt: skip
"""How the title of each table begins."""

FIGURES = tuple(
    names_of(
        ["offline", "online"],
        [make_online_spec(points=[LoadPoint(request_rate=r) for r in (1, 2)]).load],
        has_limits=True,
        has_replicas=True,
        has_lengths=True,
    )
)
FILES = ("csv", "replicas.csv", "anatomy.csv")
STATE = {"model", "workload", "quant", "setting", "launches", "flags", "load", "replica", "empty because"}
"""Columns of a table that hold no number that was measured."""
STATE_OF_FILES = {
    "mode", "platform", "model", "workload", "quant", "setting", "experiment", "key", "engine", "flags", "request_rate",
    "concurrency", "launches_measured", "launches_valid", "launches_planned", "launches_failed", "launches_invalid",
    "workload_sequences", "replica", "verdict", "baseline_launches", "pairs",
}  # fmt: skip


def specs(quant: str) -> list[Spec]:
    """One of each kind: offline, with replicas, online, a sweep. The model may end each sequence."""
    kinds = [
        make_spec(quant=quant),
        make_spec(quant=quant, workload="replicated", args={"data_parallel_size": 2}),
        make_online_spec(quant=quant, points=[LoadPoint(concurrency=8)]),
        make_online_spec(quant=quant, workload="swept", points=[LoadPoint(request_rate=r) for r in (4.0, 40.0)]),
    ]
    return [
        spec.model_copy(update={"workload": spec.workload.model_copy(update={"ignore_eos": False})}) for spec in kinds
    ]


def put(results: Path, spec: Spec, launch: int, factor: float | None) -> None:
    """Write a launch; with `factor` it is invalid, and all that it measured times so much."""
    flags = () if factor is None else (BUSY,)
    if spec.load is None:
        record = make_record(spec, launch, [400.0 + 9 * launch, 410.0, 420.0], flags=flags)
        if "data_parallel_size" in spec.engine.args:
            record = record.model_copy(update={"iterations": [in_two(each) for each in record.iterations]})
        rows = make_sequences(record)
    else:
        step_s = 0.008 if spec.quant.name == "w8a8" else 0.01
        record, rows = make_online(spec, launch, Server(step_s=step_s), flags=flags)
    # not all of one length, or no percentile of lengths could be claimed; each iteration has as many tokens as before
    rows = [row.model_copy(update={"output_tokens": row.output_tokens + (3, 1, -1, -3)[row.sample]}) for row in rows]
    record, rows = _times(record, rows, factor or 1.0)
    write_record(record_path(results, spec.mode, spec.experiment(), launch), record, rows)


def _times(record: Record, rows: Sequence[SequenceRow], factor: float) -> tuple[Record, list[SequenceRow]]:
    tokens = 1 if factor == 1 else 3
    startup = record.startup.model_copy(
        update={"import_s": 8 * factor, "init_s": 3 * factor, "reported": {"weights_load_s": 1.5 * factor}}
    )
    engine = record.engine.model_copy(
        update={
            "kv_cache_tokens": int(9600 * factor),
            "weights_bytes_by_dtype": _scaled(record.engine.weights_bytes_by_dtype, lambda value: int(value * factor)),
        }
    )
    iterations = [
        each.model_copy(
            update={
                "elapsed_s": each.elapsed_s * factor,
                "output_tokens": each.output_tokens * tokens,
                "replicas": each.replicas
                and [
                    part.model_copy(
                        update={"elapsed_s": part.elapsed_s * factor, "output_tokens": part.output_tokens * tokens}
                    )
                    for part in each.replicas
                ],
            }
        )
        for each in record.iterations
    ]
    times = ("queued_s", "scheduled_s", "first_token_s", "last_token_s", "due_s", "sent_s")
    changed = [
        row.model_copy(
            update={name: value * factor for name in times if (value := getattr(row, name)) is not None}
            | {"output_tokens": row.output_tokens * tokens}
            | ({"gaps_us": [int(gap * factor) for gap in row.gaps_us]} if row.gaps_us else {})
        )
        for row in rows
    ]
    wall_s = record.wall_s * factor
    update = {"startup": startup, "engine": engine, "iterations": iterations, "wall_s": wall_s}
    return record.model_copy(update=update), changed


def _scaled(weights: Any, scale: Callable[[float], int]) -> Any:
    parts = {
        part: {name: scale(value) for name, value in getattr(weights, part).items()} for part in ("linear", "other")
    }
    return weights.model_copy(update=parts)


@dataclass(frozen=True)
class Report:
    """A summary and the figures beside it, as text."""

    summary: Summary
    figures: dict[str, str]

    @property
    def files(self) -> dict[str, list[dict[str, str]]]:
        """The lines of each file of `FILES`."""
        texts = {"csv": self.summary.csv, **self.summary.tables}
        return {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}

    def table(self, title: str) -> list[dict[str, str]]:
        """Return the lines of the table whose title begins so: heading -> cell. Empty where there is none."""
        _, found, rest = self.summary.markdown.partition(f"## {title}")
        lines = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in rest.split("\n## ")[0].replace("\\", "").splitlines()
            if found and line.startswith("| ")
        ]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def rounded(svg: bytes) -> str:
    """Return a figure without what hangs on the last bits that the solver of its layout found: clip paths, decimals."""
    text = re.sub(r"\bp[0-9a-f]{10}\b", "clip", svg.decode())
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", text)


Make = Callable[[str, float], Report]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make the report of a case, each once, with what its invalid launches measured times a factor.

    sound: launches 1 to 3 of each quant, all valid. one: launch 0 besides, invalid. w8a8: all of w8a8 invalid.
    all: all of both quants.
    """

    @cache
    def make(case: str, factor: float = 1.0) -> Report:
        results = tmp_path_factory.mktemp(case)
        for quant in ("bf16", "w8a8"):
            for spec in specs(quant):
                for launch in range(0 if case == "one" else 1, 4):
                    spoilt = launch == 0 or case in (quant, "all")
                    put(results, spec, launch, factor if spoilt else None)
        collection = replace(collect(results, None), slo=Slo(ttft_ms=100))
        drawn = figure_files(collection, FIGURES, results=results)
        figures = {name.removesuffix(".svg"): rounded(data) for name, data in drawn.items()}
        return Report(summarise(collection, pool_sequences(results, collection)), figures)

    return make


def numbers(line: dict[str, str], besides: set[str]) -> dict[str, str]:
    """Return what was measured of a line of a table or file."""
    return {
        name: cell for name, cell in line.items() if name.removeprefix("ttft_s_").removeprefix("tpot_s_") not in besides
    }


def test_no_table_and_no_figure_of_these_modes_is_without_a_test_here(report: Make) -> None:
    sound = report("sound", 1.0)
    headings = [line.removeprefix("## ") for line in sound.summary.markdown.splitlines() if line.startswith("## ")]
    assert [each for each in headings if sound.table(each) and not each.startswith(TABLES)] == []
    assert [title for title in TABLES if not sound.table(title)] == []
    assert set(sound.figures) == set(FIGURES)
    assert set(sound.files) == set(FILES)


@pytest.mark.parametrize("title", TABLES)
def test_beside_valid_launches_an_invalid_one_changes_no_cell(report: Make, title: str) -> None:
    with_it, without = (
        [numbers(line, {"launches", "flags"}) for line in report(case, ABSURD).table(title)]
        for case in ("one", "sound")
    )
    assert with_it == without


@pytest.mark.parametrize("name", FILES)
def test_beside_valid_launches_an_invalid_one_changes_no_number_of_a_file(report: Make, name: str) -> None:
    with_it, without = (
        [numbers(line, STATE_OF_FILES) for line in report(case, ABSURD).files[name]] for case in ("one", "sound")
    )
    assert with_it == without


@pytest.mark.parametrize("name", FIGURES)
def test_beside_valid_launches_an_invalid_one_changes_no_figure_but_by_a_cross(report: Make, name: str) -> None:
    with_it, without = report("one", ABSURD).figures[name], report("sound", 1.0).figures[name]
    if name == "throughput":
        assert "x: invalid launch" in with_it
        assert "x: invalid launch" not in without
        # That of a launch so fast has no place on the axis, which is that of the valid ones.
        with_it, without = (report("one", factor).figures[name] for factor in (1 / ABSURD, 0.5 / ABSURD))
    assert with_it == without


@pytest.mark.parametrize("title", TABLES)
@pytest.mark.parametrize("case", ["w8a8", "all"])
def test_without_a_valid_launch_cells_are_empty_and_the_row_says_why(report: Make, case: str, title: str) -> None:
    lines = [line for line in report(case, ABSURD).table(title) if case in ("all", line["quant"])]
    for line in lines:
        told = {name: cell for name, cell in numbers(line, STATE).items() if not cell.startswith("-")}
        assert set(told.values()) <= {"(baseline)", f"{WHY} (offline)"}
        assert WHY in [line.get(column) for column in ("empty because", "flags")]
    # A table that shows no number at all is left out; the first one says why.
    assert lines or (case == "all" and not title.startswith("Throughput"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("case", ["w8a8", "all"])
def test_without_a_valid_launch_a_file_has_no_number_and_says_how_many_are_valid(
    report: Make, case: str, name: str
) -> None:
    lines = [line for line in report(case, ABSURD).files[name] if case in ("all", line["quant"])]
    assert lines
    for line in lines:
        assert {name: cell for name, cell in numbers(line, STATE_OF_FILES).items() if cell} == {}
        assert line["launches_valid"] == "0"
    others = [line["launches_valid"] for line in report("w8a8", ABSURD).files[name] if line["quant"] == "bf16"]
    assert set(others) == {"3"}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("case", ["w8a8", "all"])
def test_without_a_valid_launch_a_figure_shows_no_number_and_says_why(report: Make, case: str, name: str) -> None:
    drawn = report(case, ABSURD).figures[name]
    assert drawn == report(case, 1.0).figures[name]
    assert "Left out: qwen3-90m" in drawn
    assert f"({WHY})." in drawn


@pytest.mark.parametrize("case", ["w8a8", "all"])
def test_nothing_at_all_of_a_summary_depends_on_what_an_invalid_launch_measured(report: Make, case: str) -> None:
    one, other = (report(case, factor).summary for factor in (ABSURD, 1.0))
    for content in ("status", "markdown", "html", "csv", "text", "tables"):
        assert getattr(one, content) == getattr(other, content), content


def test_the_first_line_counts_invalid_launches(report: Make) -> None:
    assert "(12 invalid)" in report("w8a8", ABSURD).summary.status
    assert "invalid" not in report("sound", 1.0).summary.status
