"""Tables and notes of profiles: every part in its place, sums that hold, words that a reader understands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic_profiles import BF16, W8A8, Parts, make_profiled

from rollout_bench.analysis.inside.profile_report import COLUMNS, ProfileReport, profile_report, profile_table
from rollout_bench.analysis.inside.profiles import CATEGORIES, ProfiledExperiment
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.numbers import MISSING
from rollout_bench.report.headings import View, Views
from rollout_bench.report.page import page
from rollout_bench.report.rendering import WIDTH, markdown, terminal
from rollout_bench.report.tables.profile_tables import (
    MOST_CATEGORIES,
    operator_word,
    profile_notes,
    profile_views,
)
from rollout_bench.report.tables.profile_tables import TIMED as TIMED_COLUMNS

SCRIPTS = Path(__file__).parents[3] / "src" / "rollout_bench"

STEPS, TIMED, ROLES = "Where a step's time goes", "Steps, timed and traced", "Speed-up by role"

EVERYTHING: dict[Phase, Parts] = {
    phase: {**parts, **{(category, ""): 1500.0 for category in CATEGORIES if (category, "") not in parts}}
    for phase, parts in BF16.items()
}


def reported(*profiled: ProfiledExperiment) -> ProfileReport:
    return profile_report(profiled or (make_profiled(), quantized()))


def quantized() -> ProfiledExperiment:
    return make_profiled("w8a8", W8A8, baseline="bf16")


def table(report: ProfileReport, title: str) -> View:
    (found,) = [view for view in profile_views(report) if view.title.startswith(title)]
    return found


def lines(view: View) -> list[dict[str, str]]:
    return [dict(zip([column.header for column in view.columns], cells, strict=True)) for cells in view.cells]


def items(report: ProfileReport, heading: str) -> str:
    return " ".join(i for s in profile_notes(report, profile_views(report)) if s.heading == heading for i in s.items)


def test_a_step_is_a_line_for_each_quant_and_phase_side_by_side() -> None:
    found = table(reported(), STEPS)
    assert found.title.endswith("profile, cpu, model qwen3-90m, workload small")
    assert [(line["phase"], line["quant"]) for line in lines(found)] == [
        ("prefill", "bf16"), ("prefill", "w8a8"), ("decode", "bf16"), ("decode", "w8a8"),
    ]  # fmt: skip
    decode = lines(found)[3]
    assert (decode["step ms"], decode["linear"], decode["quantize"]) == ("20.00", "8.80 (44)", "1.60 (8)")
    assert decode["device waits"] == "4.00 (20)"


def test_columns_of_a_step_add_up_to_it_whatever_has_no_column() -> None:
    found = table(reported(make_profiled(phases=EVERYTHING)), STEPS)
    assert len(found.columns) == 3 + MOST_CATEGORIES + 2
    for line in lines(found):
        parts = [float(cell.split()[0].replace(",", "")) for cell in list(line.values())[3:] if cell != MISSING]
        assert sum(parts) == pytest.approx(float(line["step ms"]), rel=0.01)


def test_speed_up_by_role_adds_up_to_the_whole_step() -> None:
    by_part = {line["part"]: line for line in lines(table(reported(), ROLES))}
    assert list(by_part)[:5] == ["linear", "- qkv", "- gate_up", "quantize", "= linear + quantize"]
    assert list(by_part)[-1] == "whole step"
    assert by_part["- gate_up"]["decode speed-up"] == "2.167x"
    assert by_part["quantize"]["decode speed-up"] == MISSING
    assert by_part["quantize"]["decode saves ms"] == "-1.60"
    assert by_part["= linear + quantize"]["decode saves ms"] == "4.00"
    assert by_part["attention"]["decode saves ms"] == "0"
    assert by_part["sampling"]["prefill ms"] == MISSING
    parts = [
        line for part, line in by_part.items() if part not in ("linear", "quantize", "whole step") and part[0] != "-"
    ]
    for phase in ("prefill", "decode"):
        saved = [float(line[f"{phase} saves ms"]) for line in parts if line[f"{phase} saves ms"] != MISSING]
        assert sum(saved) == pytest.approx(float(by_part["whole step"][f"{phase} saves ms"]))


def test_small_parts_share_a_line() -> None:
    tiny = {"decode": {**BF16["decode"], ("rotary", ""): 20.0, ("embedding", ""): 10.0}}
    report = reported(make_profiled(phases=tiny), make_profiled("w8a8", tiny, baseline="bf16"))
    by_part = {line["part"]: line for line in lines(table(report, ROLES))}
    assert "rotary" not in by_part
    assert by_part["rest"]["decode ms"] == "0.0240"


def test_without_a_baseline_there_is_nothing_on_differences() -> None:
    titles = [view.title for view in profile_views(reported(make_profiled()))]
    assert [title.partition(":")[0].partition(",")[0] for title in titles] == [STEPS, "Steps"]
    assert profile_views(reported(*[])) != []
    nothing = profile_report([])
    assert profile_views(nothing) == []
    assert profile_notes(nothing, []) == []


def test_every_platform_has_its_own_tables() -> None:
    views = profile_views(reported(make_profiled(), make_profiled(platform="cuda")))
    assert [view.title.partition(": ")[2].split(",")[1] for view in views] == [" cpu"] * 2 + [" cuda"] * 2


def test_long_names_of_kernels_keep_both_ends() -> None:
    name = operator_word("void cutlass::Kernel2<" + "cutlass_80_tensorop_bf16_s16816gemm" * 5 + ">(Params)")
    assert len(name) == 44
    assert name.startswith("cutlass::Kernel2<")
    assert name.endswith("(Params)")


def test_tables_fit_into_a_terminal() -> None:
    long = {phase: {**parts, ("linear", "lm_head"): 9_999_999.0} for phase, parts in EVERYTHING.items()}
    mixed: dict[Phase, Parts] = {**long, "mixed": long["prefill"]}
    report = reported(make_profiled(phases=mixed), make_profiled("w8a8-dynamic", mixed, baseline="bf16"))
    text = terminal("x", Views(tuple(profile_views(report)), ()), profile_notes(report, profile_views(report)))
    assert "mixed" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_what_reading_a_trace_had_to_say_is_told() -> None:
    doubtful = replace(quantized(), warnings=("3 events have no end",))
    assert "qwen3-90m w8a8 small: 3 events have no end." in items(reported(doubtful), "Flags of profiles")


def test_unknown_operators_are_named() -> None:
    told = items(
        reported(make_profiled(phases={"decode": {**BF16["decode"], ("other", ""): 9_000.0}})), "Flags of profiles"
    )
    assert "other: 23 % of the step are operators that no rule knows, over 10 %." in told
    assert "operators that match no rule: other_kernel (23 %)." in told


def test_every_column_is_defined_once() -> None:
    report = reported()
    definitions = items(report, "Definitions, profile")
    (section,) = [s for s in profile_notes(report, profile_views(report)) if s.heading == "Definitions, profile"]
    assert len(set(section.items)) == len(section.items)
    for header in (
        "profiler overhead",
        "in trace %",
        "device waits",
    ):
        assert definitions.count(f"{header}: ") == 1


def test_traces_are_linked_where_links_can_be() -> None:
    report = reported(make_profiled(model="a model"))
    sections = profile_notes(report, profile_views(report))
    text = markdown("x", Views((), ()), sections, ())
    assert "[Traces of a model bf16 small](profile/a%20model_bf16_small-00000000/launch-0.traces/)" in text
    assert '<a href="profile/a%20model_bf16_small-00000000/launch-0.traces/">' in page("x", Views((), ()), sections, ())
    assert "Traces of a model bf16 small: profile/a model_bf16_small-" in terminal("x", Views((), ()), sections)
    assert "ui.perfetto.dev" in text


def test_the_how_to_explains_every_column_and_flag() -> None:
    page_text = (Path(__file__).parents[3] / "docs" / "how-to" / "profile.md").read_text()
    assert [c.header for c in TIMED_COLUMNS[4:] if f"{c.header}" not in page_text] == []
    checks = (SCRIPTS / "analysis" / "inside" / "profile_report.py").read_text()
    codes = re.findall(r'ProfileFlag\(\s*"(\w+)"', checks)
    assert len(codes) == 4
    assert [code for code in codes if f"`{code}`" not in page_text] == []


def test_the_table_for_programs_has_every_part_with_its_calls() -> None:
    frame = profile_table(reported())
    assert tuple(frame.columns) == COLUMNS
    decode = frame[(frame["quant"] == "w8a8") & (frame["phase"] == "decode")].set_index(["category", "role"])
    assert decode["us"].sum() == pytest.approx(20_000)
    assert decode["share"].sum() == pytest.approx(1)
    assert decode["saved_us"].sum() == pytest.approx(4_000)
    gate_up = decode.loc[("linear", "gate_up")]
    assert (gate_up["traced_us"], gate_up["calls"], gate_up["speedup"]) == (6_000, 1, pytest.approx(13 / 6))
    assert frame[frame["quant"] == "bf16"]["speedup"].isna().all()
    assert pd.isna(decode.loc[("quantize", "")]["speedup"])
