"""The first lines of a summary: who is better, how surely, what is in doubt, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.answers import shortly_named
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.summary import summarise

BF16, W8A8, FP8, W8A16 = (make_spec(quant=quant) for quant in ("bf16", "w8a8", "fp8", "w8a16"))
FAST, SAME = (1.30, 1.31, 1.29, 1.30), (1.0, 1.02, 0.98, 1.005)
RATES = (400.0, 402.0, 398.0, 401.0)


def records(spec: Spec, factors: Sequence[float] = (1.0,) * 4, flags: Sequence[Flag] = ()) -> list[Record]:
    return [
        make_record(spec, launch, [rate * factor] * 2, flags=flags if launch == 0 else ())
        for launch, (rate, factor) in enumerate(zip(RATES, factors, strict=True))
    ]


def conclusion(results: Path, specs: Sequence[Spec], found: Sequence[Record], **settings: object) -> list[str]:
    """Return the items below the heading `Conclusion`, each on one line."""
    save(results, *found)
    text = summarise(collect(results, make_plan(specs, launches=4, **settings))).markdown
    _, _, rest = text.partition("## Conclusion\n")
    return [" ".join(item.split()) for item in rest.partition("\n## ")[0].strip().removeprefix("- ").split("\n- ")]


def test_who_is_faster_comes_first_with_its_interval(tmp_path: Path) -> None:
    lines = conclusion(tmp_path, [BF16, W8A8], [*records(BF16), *records(W8A8, FAST)])
    assert lines[0].startswith("Faster than bf16 (output tok/s): w8a8 1.300x \\[1.2")
    assert len(lines) == 1


def test_an_inconclusive_comparison_has_its_interval_and_a_next_step_that_says_what_it_costs(tmp_path: Path) -> None:
    lines = [
        line.replace("\\", "") for line in conclusion(tmp_path, [BF16, W8A8], [*records(BF16), *records(W8A8, SAME)])
    ]
    told = re.fullmatch(r"Inconclusive against bf16 \(output tok/s\): w8a8 1.00\dx \[(.*), (.*)\]\.", lines[0])
    assert told is not None, lines
    assert lines[1].startswith("Next: four times the launches, 16, would narrow the intervals to about ")
    assert lines[1].endswith("with n looks, false findings are up to n times 5 %:")
    half = re.search(r"to about (.*) % or less", lines[1])
    assert half is not None, lines
    assert float(half[1]) / 100 == pytest.approx((float(told[2]) / float(told[1])) ** 0.25 - 1, rel=0.2)
    assert lines[2] == "snakemake --config launches=16"


def test_the_best_is_named_with_what_can_not_be_told_from_it(tmp_path: Path) -> None:
    close = [factor * 1.001 for factor in FAST]
    found = [*records(BF16), *records(W8A8, FAST), *records(FP8, close)]
    lines = conclusion(tmp_path, [BF16, W8A8, FP8], found)
    assert "Highest mean: fp8, not distinguishable from w8a8." in lines
    alone = conclusion(
        tmp_path / "alone", [BF16, W8A8, FP8], [*records(BF16), *records(W8A8, FAST), *records(FP8, SAME)]
    )
    assert "Best: w8a8; the others are significantly worse." in alone


@pytest.mark.parametrize(
    ("mean", "line"),
    [
        (1.019, "w8a8, not distinguishable from bf16"),
        (0.981, "bf16, not distinguishable from w8a8"),
    ],
)
def test_what_a_verdict_does_not_tell_from_the_best_is_not_called_worse(tmp_path: Path, mean: float, line: str) -> None:
    # one side alone is asked whether one is better than another, so that is sure a little sooner
    close = [mean + off for off in (-0.005, 0.018, -0.016, 0.003)]
    found = [*records(BF16), *records(W8A8, close), *records(FP8, (0.80, 0.81, 0.79, 0.80))]
    lines = conclusion(tmp_path, [BF16, W8A8, FP8], found)
    assert any("Inconclusive against bf16: w8a8" in each for each in lines)
    assert f"Highest mean: {line}." in lines


def test_doubts_are_told_with_what_to_do(tmp_path: Path) -> None:
    busy = Flag(code="cpu_shared", severity="invalid", sentence="Busy.")
    found = [*records(BF16), *records(W8A8, FAST, [busy])]
    lines = conclusion(tmp_path, [BF16, W8A8], found)
    assert "In doubt: 1 of 8 launches invalid and left out of all numbers (cpu_shared 1)." in lines
    assert lines[-2].endswith("move what is in doubt aside, and run the same command again:")
    assert lines[-1].replace("\\", "") == "rollout-bench discard --invalid"


def test_what_is_missing_is_the_next_step(tmp_path: Path) -> None:
    save(tmp_path, make_failure(W8A8, 3))
    lines = conclusion(tmp_path, [BF16, W8A8], [*records(BF16), *records(W8A8, FAST)[:3]])
    assert "In doubt: 1 launch failed." in lines
    assert lines[-1] == "Next: look under Failed, then run the same command again, which measures what is missing."


def test_nothing_that_was_compared_gives_no_conclusion(tmp_path: Path) -> None:
    save(tmp_path, *records(BF16))
    assert "## Conclusion" not in summarise(collect(tmp_path, make_plan([BF16], launches=4))).markdown


def test_settings_are_compared_by_their_names(tmp_path: Path) -> None:
    few = BF16.model_copy(update={"setting": "few"})
    lines = conclusion(tmp_path, [BF16, few], [*records(BF16), *records(few, FAST)], baseline={"setting": "default"})
    assert lines[0].startswith("Faster than default (output tok/s): few 1.300x")


def test_where_the_load_sets_the_throughput_the_next_metric_is_told(tmp_path: Path) -> None:
    specs = [make_online_spec(quant=quant, points=[LoadPoint(request_rate=4.0)]) for quant in ("bf16", "w8a8")]
    for spec, step_s in zip(specs, (0.01, 0.008), strict=True):
        save_online(tmp_path, *(make_online(spec, launch, Server(step_s=step_s)) for launch in range(4)))
    settings = ComparisonSettings(metrics={"online": ["output_tokens_per_s", "tpot_s"]})
    lines = conclusion(tmp_path, specs, [], comparison=settings)
    assert lines[0].startswith("Faster than bf16 (TPOT): w8a8 1.2")


def test_with_a_baseline_of_two_axes_each_is_called_by_both_and_one_that_all_share_is_left_out(tmp_path: Path) -> None:
    both = {"quant": "bf16", "setting": "default"}
    bf16, w8a8 = (spec.model_copy(update={"setting": "kv8"}) for spec in (BF16, W8A8))
    found = [*records(BF16), *records(bf16, SAME), *records(w8a8, FAST)]
    lines = conclusion(tmp_path / "four", [BF16, bf16, w8a8], found, baseline=both)
    assert any(line.startswith("Faster than bf16 (output tok/s): w8a8 kv8 1.") for line in lines), lines
    lines = conclusion(tmp_path / "one", [BF16, bf16], [*records(BF16), *records(bf16, FAST)], baseline=both)
    assert any(line.startswith("Faster than default (output tok/s): kv8 1.") for line in lines), lines


def test_a_column_says_what_settings_set_but_not_what_their_names_say(tmp_path: Path) -> None:
    few, swept = (
        make_spec(args=args).model_copy(update={"setting": name})
        for name, args in {
            "few": {"max_num_seqs": 4},
            "max-num-seqs-8+dtype-auto": {"max_num_seqs": 8, "dtype": "auto", "enforce_eager": True},
        }.items()
    )
    default = make_spec(args={"enforce_eager": True, "max_num_seqs": 16})
    save(tmp_path, *records(default), *records(few), *records(swept))
    text = summarise(collect(tmp_path, make_plan([default, few, swept], launches=4))).markdown
    assert "| quant | setting | sets | launches |" in text
    assert "| bf16 | default | enforce_eager=true, max_num_seqs=16 | 4/4/4 |" in text
    assert "| bf16 | few | enforce_eager=false, max_num_seqs=4 | 4/4/4 |" in text
    assert "| bf16 | max-num-seqs-8+dtype-auto | - | 4/4/4 |" in text
    alone = summarise(collect(tmp_path, make_plan([default], launches=4))).markdown
    assert " sets " not in alone.partition("## ")[2].partition("\n\n")[0]


def test_figures_name_a_sweep_s_combinations_by_their_values_and_say_of_what_and_other_settings_as_they_are(
    tmp_path: Path,
) -> None:
    swept = [
        make_spec(args={"max_num_seqs": seqs, **({"enforce_eager": True} if eager else {})}).model_copy(
            update={"setting": f"max-num-seqs-{seqs}+enforce-eager-{str(eager).lower()}"}
        )
        for seqs in (8, 16)
        for eager in (True, False)
    ]
    default = make_spec(args={"max_num_seqs": 32, "enforce_eager": True})
    save(tmp_path, *records(default), *(one for spec in swept for one in records(spec)))
    rows = rows_of(collect(tmp_path, make_plan([default, *swept], launches=4)))
    named, values_of = shortly_named(rows)
    assert values_of == "max_num_seqs+enforce_eager"
    assert [row.label for row in named] == ["default", "8+true", "8+false", "16+true", "16+false"]
    few = default.model_copy(update={"setting": "few"})
    save(tmp_path, *records(few))
    rows = rows_of(collect(tmp_path, make_plan([default, few, *swept], launches=4)))
    named, values_of = shortly_named(rows)
    assert values_of == ""
    assert [row.label for row in named] == ["default", "few", *(spec.setting for spec in swept)]
    assert shortly_named([]) == ([], "")


def test_figures_name_settings_with_their_quant_where_quants_differ_too(tmp_path: Path) -> None:
    few = [spec.model_copy(update={"setting": "few"}) for spec in (BF16, W8A8)]
    save(tmp_path, *(one for spec in (BF16, W8A8, *few) for one in records(spec)))
    rows = rows_of(collect(tmp_path, make_plan([BF16, W8A8, *few], launches=4)))
    assert shortly_named(rows) == (rows, "")
    assert [row.label for row in rows] == ["bf16", "w8a8", "bf16 few", "w8a8 few"]
    assert shortly_named(rows[:2]) == (rows[:2], "")


def test_where_no_launch_is_valid_the_conclusion_says_so_and_what_to_do(tmp_path: Path) -> None:
    busy = Flag(code="cpu_shared", severity="invalid", sentence="Others used 50 % of the cores.")
    found = [make_record(spec, launch, [400.0] * 2, flags=[busy]) for spec in (BF16, W8A8) for launch in range(4)]
    lines = conclusion(tmp_path, [BF16, W8A8], found)
    assert lines[0].startswith("In doubt: 8 of 8 launches invalid and left out of all numbers (cpu_shared 8)"), lines
    assert lines[1].startswith("Next: ")
    assert "discard --invalid" in lines[2]


def test_evidence_of_one_launch_is_not_said_of_others_with_the_same_flag(tmp_path: Path) -> None:
    def text(name: str, *sentences: str) -> str:
        found = [
            make_record(BF16, launch, [400.0] * 4, flags=[Flag(code="not_steady", severity="warning", sentence=said)])
            for launch, said in enumerate(sentences)
        ]
        save(tmp_path / name, *found)
        return " ".join(summarise(collect(tmp_path / name, make_plan([BF16], len(found)))).text.split())

    assert "launch 0, 1: not_steady (warning): In launch 0: It rose." in text("apart", "It rose.", "It fell.")
    assert "launch 0, 1: not_steady (warning): It rose." in text("alike", "It rose.", "It rose.")


@pytest.mark.parametrize("state", ["invalid", "failed", "missing", "damaged"])
def test_what_could_be_the_best_and_has_no_number_is_told_and_the_best_is_that_of_the_others(
    tmp_path: Path, state: str
) -> None:
    busy = Flag(code="cpu_shared", severity="invalid", sentence="Busy.")
    found = [*records(BF16), *records(FP8, FAST), *records(W8A16, SAME)]
    if state in ("invalid", "damaged"):
        flags = [busy] if state == "invalid" else []
        found += [make_record(W8A8, launch, [900.0] * 2, flags=flags) for launch in range(4)]
    if state == "failed":
        save(tmp_path, *(make_failure(W8A8, launch) for launch in range(4)))
    save(tmp_path, *found)
    if state == "damaged":
        for path in (tmp_path / "offline" / W8A8.experiment()).glob("launch-?.json"):
            path.write_text(path.read_text()[:200])
    lines = conclusion(tmp_path, [BF16, W8A8, FP8, W8A16], [])
    why = "no valid launch" if state == "invalid" else "not measured"
    assert any("No verdict: w8a8 (" in line and why in line for line in lines), lines
    assert "Best of those that have a verdict: fp8; the others of these are significantly worse." in lines
    assert state == "missing" or any(line.startswith("In doubt: 4 ") and state in line for line in lines), lines
    remedy = "the same command again" if state in ("failed", "missing") else "discard --invalid"
    assert remedy in lines[-1]


@pytest.mark.parametrize("besides", [[], [FP8]])
def test_what_ran_on_unlike_machines_is_named_and_its_launches_are_counted(tmp_path: Path, besides: list[Spec]) -> None:
    busy = [Flag(code="cpu_shared", severity="invalid", sentence="Busy.")]
    odd = [make_record(W8A8, launch, [500.0] * 2, environment={"cpu_model": f"EPYC {launch}"}) for launch in range(3)]
    found = [*records(BF16, flags=busy), *odd, make_record(W8A8, 3, [500.0] * 2, flags=busy)]
    found += [record for spec in besides for record in records(spec, FAST, flags=busy)]
    lines = conclusion(tmp_path, [BF16, W8A8, *besides], found)
    why = (
        "No verdict: w8a8 (launch 1 and its partner in the baseline ran on unlike machines or engines: cpu_model EPYC 1"
    )
    assert any(why in line for line in lines), lines
    counts = f"{2 + len(besides)} of {8 + 4 * len(besides)} launches invalid"
    assert any(line.startswith(f"In doubt: {counts}") for line in lines), lines
