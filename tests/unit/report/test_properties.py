"""What holds of the summary of every mode, whatever was measured."""

from __future__ import annotations

import csv
import functools
import io
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from every_mode import SAMPLES, save_mode
from golden import made
from synthetic_records import INVALID, make_failure, make_plan

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path, write_failure
from rollout_bench.modes.cycle.record import PartName
from rollout_bench.modes.startup.numbers import PHASE
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.figures import charts
from rollout_bench.report.figures.pictures import drawings
from rollout_bench.report.parts import Findings
from rollout_bench.report.rendering import WIDTH, csv_text
from rollout_bench.report.summary import Summary, summary_of

EACH = pytest.mark.parametrize("mode", SAMPLES)

STATE = {"launches_measured", "launches_invalid", "launches", "flags"}
"""Columns that tell of invalid launches, not of what they measured."""

Lines = list[dict[str, str]]


def summarised(results: Path, plan: PlanFile | None) -> Summary:
    collection = collect(results, plan)
    assert collection.damaged == []
    made = summary_of(results, collection)
    assert not [section for section in made.sections if "can't be" in section.heading]
    return made


def files_of(made: Summary) -> dict[str, Lines]:
    """Return the lines of each file for programs."""
    texts = {"summary.csv": made.csv, **made.tables}
    return {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}


def numbers_of(results: Path) -> list[object]:
    """Return all that files and tables show of what was measured."""
    made = summarised(results, None)
    tables = {table.title: [[c.header for c in table.columns], *table.cells] for table in made.views}
    files = {name: [list(lines[0]), *map(dict.values, lines)] for name, lines in files_of(made).items() if lines}
    return [
        (name, [cell for cell, column in zip(line, header, strict=True) if column not in STATE])
        for name, (header, *lines) in (tables | files).items()
        for line in lines
    ]


def drawn_of(results: Path) -> dict[str, charts.Chart]:
    """Return what each figure is drawn of, without the crosses of invalid launches and what explains them."""
    findings = Findings(collect(results, None), results)
    found = {name: chart for name, of in drawings().items() if (chart := of(findings)).panels}
    return {
        name: replace(chart, marks="", panels=[_without_crosses(panel) for panel in chart.panels])
        for name, chart in found.items()
    }


def _without_crosses(panel: charts.Rows | charts.Lines) -> charts.Rows | charts.Lines:
    if isinstance(panel, charts.Rows):
        return replace(panel, bars=[replace(bar, crosses=()) for bar in panel.bars])
    return panel


Found = Callable[[str], tuple[Path, PlanFile, Summary]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return a function that returns made records of a mode, their plan and their summary, made once."""

    @functools.cache
    def find(mode: str) -> tuple[Path, PlanFile, Summary]:
        folder = tmp_path_factory.mktemp(mode)
        plan = made(mode, folder)
        return folder, plan, summarised(folder, plan)

    return find


@EACH
def test_an_invalid_launch_changes_no_number(mode: str, tmp_path: Path) -> None:
    sound, spoilt, taken, low, high = (tmp_path / name for name in ("sound", "spoilt", "taken", "low", "high"))
    for launch in (1, 2):
        save_mode(sound, mode, launch)
    for folder in (spoilt, taken):
        shutil.copytree(sound, folder)
    save_mode(spoilt, mode, 0, absurd=True, flags=[INVALID])
    save_mode(taken, mode, 0, absurd=True)
    numbers = numbers_of(sound)
    assert numbers_of(spoilt) == numbers
    assert numbers_of(taken) != numbers  # or the line above would hold of what shows nothing
    assert drawn_of(spoilt) == drawn_of(sound)
    for folder in (low, high):  # without a valid launch nothing measured is shown
        save_mode(folder, mode, 0, absurd=folder is high, flags=[INVALID])
    assert numbers_of(low) == numbers_of(high)


@EACH
def test_the_order_of_experiments_does_not_matter(mode: str, found: Found) -> None:
    folder, plan, summary = found(mode)
    turned = plan.model_copy(update={"experiments": plan.experiments[::-1]})
    one, other = (
        {name: sorted(sorted(line.items()) for line in lines) for name, lines in files_of(each).items()}
        for each in (summary, summarised(folder, turned))
    )
    assert one == other


@EACH
def test_a_table_shows_what_the_file_has(mode: str, found: Found) -> None:
    *_, summary = found(mode)
    lines = files_of(summary)["summary.csv"]
    numbers = {number.header: number for number in NUMBERS.values()}
    whole = [table for table in summary.views if len(table.cells) == len(lines) and "sweep" not in table.title]
    for table in whole:
        for column, *shown in zip(table.columns, *table.cells, strict=True):
            number = numbers.get(column.header)
            if number is not None and number.name in lines[0]:
                values = [number.text(float(line[number.name])) for line in lines if line[number.name]]
                known = [cell for cell in shown if cell != "-"]
                assert known == ["?" if cell == "?" else value for cell, value in zip(known, values, strict=True)]


UNITS = (
    "s", "ms", "us", "%", "ms (%)", "tok/s", "req/s", "requests/s", "sequences/s", "goodput/s", "tok/s per W",
    "J per token", "W per device", "GiB", "MB", "tokens", "device-seconds", "bytes a step", "devices", "engines",
    "sequences per engine", "prompts/engine",
)  # fmt: skip
UNIT = re.compile(rf"(?:^|[ /,])(?:{'|'.join(map(re.escape, UNITS))})(?:$|[ /:,])")
BARE = {
    # counts
    "accepted length", "pays from",
    "aborted", "batch", "buckets", "cache files", "device", "drafts", "in flight", "most in flight", "launches",
    "messages a step",
    "most at once", "preemptions", "prompts", "replicas", "sequences", "sequences at once", "sequences thrown away",
    "timed steps", "p99 lacks", "tokens per draft", "TP", "turns",
    # ratios
    "longest / median", "perplexity ratio", "profiler overhead", "prefill speed-up", "decode speed-up", "break-even at",
    "rest",
    # nats
    "mean |d|", "mean d", "sd d", "p95 |d|", "max |d|", "KL k1", "KL k3",
    # texts
    "keeps up",
    "distance", "already sent", "pickle5", "difference", "tokens measured", "p99", "traced",
}  # fmt: skip
OBVIOUS = {"attention", "KV cache", "norm", "sampling"}
"""Categories of operators that are what they are called."""


@EACH
def test_each_number_has_a_unit_and_a_definition(mode: str, found: Found) -> None:
    *_, summary = found(mode)
    columns = [(table.title, c) for table in summary.views for c in table.columns if not c.words]
    defined = {column.header for _, column in columns if column.definition.endswith((".", ")"))}
    assert {column.header for _, column in columns} - defined - OBVIOUS == set()
    text = summary.markdown.replace("\\", "")
    assert [h for h in defined if f"{h.removeprefix('prefill ').removeprefix('decode ')}: " not in text] == []
    assert [c.header for title, c in columns if not (UNIT.search(f"{c.header}, {title}") or c.header in BARE)] == []


@EACH
def test_no_sentence_is_wider_than_a_terminal(mode: str, found: Found) -> None:
    text = found(mode)[-1].text
    tables = [part for part in text.split("\n\n") if re.search(r"^-{40,}", part, re.MULTILINE)]
    assert tables != []
    others = [line for part in text.split("\n\n") if part not in tables for line in part.splitlines()]
    assert max(map(len, others)) <= WIDTH
    assert text.isascii()


HOSTILE = "a | b <script>x</script> [bold]y[/bold] *z* `c` \x1b[31mred \u202e &#27; {{ 7 }}\n## Verdicts\n- faster"
FLAG = Flag(code="odd_[bold]<u>", severity="warning", sentence=HOSTILE)


class Page(HTMLParser):
    """Tags of a page, closed as they were opened, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.named: dict[str, list[str]] = {"id": [], "href": []}
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.named.setdefault(name, []).append(value or "")
        if tag not in ("meta", "img", "br", "link", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@EACH
def test_markup_in_what_is_quoted_is_harmless(mode: str, tmp_path: Path) -> None:
    specs = save_mode(tmp_path, mode, 0, flags=[FLAG])
    failure = make_failure(specs[-1], 1).model_copy(update={"cause": HOSTILE})
    write_failure(record_path(tmp_path, mode, failure.experiment, 1), failure)
    found = summarised(tmp_path, make_plan(specs, 2))
    for text in (found.text, found.markdown, found.html):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "{{ 7 }}" in " ".join(text.split())
    assert r"a \| b \<script\>x\</script\> \[bold\]y\[/bold\] \*z\*" in found.markdown
    assert "\n## Verdicts\n- faster" not in found.markdown
    page = Page(found.html)
    assert page.tags.count("script") == 1  # its own
    assert "u" not in page.tags
    assert not re.search(r"https?:|url\(|@import|<link", found.html)
    assert len(set(page.named["id"])) == len(page.named["id"])
    assert {link[1:] for link in page.named["href"] if link.startswith("#")} <= set(page.named["id"])


SHARES = ("generate", "sleep", "gather", "train", "reduce", "optimize", "wake", "update", "reset", "idle")
PHASES = (
    *(f"phase_{name}" for name in PHASE), "rest",
)  # fmt: skip
TRANSITION = tuple(f"transition_{name}" for name in get_args(PartName))


@pytest.mark.parametrize(
    ("mode", "file", "whole", "parts"),
    [
        ("offline", "summary.csv", "launch_s", ("process", "import", "init", "warmup", "measured", "other")),
        ("online", "summary.csv", "launch_s", ("server_start", "warmup", "measured", "other")),
        ("offline", "summary.csv", "makespan_s", ("t90", "tail")),
        ("cycle", "summary.csv", "whole_step_s", ("step_time", "cycle")),
        ("cycle", "summary.csv", "cycle_s", TRANSITION),
        ("cycle", "summary.csv", "transition_update_s", ("update_transfer", "update_quantize", "update_load")),
        ("startup", "summary.csv", "until_token_s", PHASES),
        ("placement", "placement.csv", "", SHARES),
    ],
)
def test_parts_add_up_to_their_whole(mode: str, file: str, whole: str, parts: Sequence[str], found: Found) -> None:
    lines = files_of(found(mode)[-1])[file]
    lines = [line for line in lines if not whole or line[whole]]  # the others have no valid launch
    assert lines != []
    for line in lines:
        total = sum(float(line.get(f"{part}_{'s' if whole else 'share'}") or 0) for part in parts)
        assert total == pytest.approx(float(line[whole]) if whole else 1.0, rel=1e-6)


def test_parts_of_a_profiled_step_add_up_to_it(found: Found) -> None:
    lines = files_of(found("profile")[-1])["profile.csv"]
    for phase in {(line["quant"], line["phase"]) for line in lines}:
        own = [line for line in lines if (line["quant"], line["phase"]) == phase]
        assert sum(float(line["us"]) for line in own) == pytest.approx(float(own[0]["step_us"]))
        assert sum(float(line["share"]) for line in own) == pytest.approx(1)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@cmd", " =1", "\tx"])
def test_no_spreadsheet_runs_a_cell_of_a_file(cell: str) -> None:
    assert csv_text(pd.DataFrame({"name": [cell], "value": [-1.5]})).splitlines()[1].lstrip('"').startswith(f"'{cell}")


def test_no_terminal_obeys_a_cell_of_a_file() -> None:
    assert csv_text(pd.DataFrame({"name": ["\x1b[31m\u202e"]})) == "name\n\\x1b[31m\\u202e\n"
