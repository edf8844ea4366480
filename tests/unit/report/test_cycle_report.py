"""The summary tells what a whole step costs, from which length on a quantization pays, and what failed its proofs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from comparing import run
from drawn import assert_texts_are_apart
from synthetic_cycles import OUTPUT_CHANGED, WITHOUT_EFFECT, cycle_record, cycle_spec
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.cycles.net_gains import NetGain, TokenRange, net_gain
from rollout_bench.analysis.cycles.step_costs import step_costs
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.launches import parts_of
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.commands import summarise as command
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_failure
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.cycle_figures import cycle_figure, pieces
from rollout_bench.report.figures.style import settings
from rollout_bench.report.parts import Findings
from rollout_bench.report.rendering import WIDTH
from rollout_bench.report.summary import Summary, summarise

BF16, FP8, W8A16 = cycle_spec(), cycle_spec("fp8"), cycle_spec("w8a16")

STEADY, AS_STEADY = (1.0, 1.004, 0.997, 0.999), (0.998, 1.003, 1.001, 0.998)
"""What a launch's rate is times: launches scatter by 0.3 %, those of a baseline and those of what is compared."""


def launches(
    results: Path,
    spec: Spec,
    rate: float,
    transition_s: float,
    *,
    scatter: Sequence[float] | None = None,
    flags: Sequence[Flag] = (),
) -> None:
    """Write launches of `spec` with about `rate` output tokens per second, and transitions of about that length."""
    usual = STEADY if (spec.quant.name, spec.setting) == ("bf16", None) else AS_STEADY
    for launch, factor in enumerate(scatter or usual):
        own = transition_s * (1 + (factor - 1) / 2)
        save(results, cycle_record(spec, launch, [rate * factor] * 3, transition_s=own, flags=flags))


def summary(
    results: Path, *specs: Spec, baseline: Mapping[str, str] | None = None, comparison: ComparisonSettings | None = None
) -> Summary:
    return summarise(collect(results, make_plan(specs, 4, baseline=baseline, comparison=comparison)))


def said(made: Summary, heading: str) -> list[str]:
    """Return what a section above the tables says."""
    return [item for section in made.answers if section.heading == heading for item in section.items]


def table(made: Summary, heading: str) -> list[dict[str, str]]:
    """Return the lines of a table, each by its headings."""
    text = made.markdown.partition(f"## {heading}: cycle, ")[2].partition("##")[0]
    header, _, *lines = (
        line.strip("| ").replace(" |  |", " | - |").split(" | ") for line in text.splitlines() if line.startswith("|")
    )
    return [dict(zip(header, line, strict=True)) for line in lines]


# generation takes 1024 tokens / rate = 2.56 s with 400 tokens per second; a sequence has 32 tokens


def test_a_faster_quantization_is_told_with_its_transitions_and_the_length_that_it_pays_from(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6)
    sentence, note = said(summary(tmp_path, BF16, FP8), "What a step costs")
    found = re.fullmatch(
        r"With fp8 a whole step takes (.*)x \[(.*), (.*)\] as long as with bf16: it is faster. "
        r"Generation takes 0.781x \(2.00 s against 2.56 s\), the transition 2.000x \(0.600 s against 0.300 s\). "
        r"It pays from (\d+) output tokens a sequence on \(measured: 32\).",
        sentence,
    )
    assert found is not None, sentence
    factor, low, high, pays = map(float, found.groups())
    assert low < factor < high
    assert factor == pytest.approx(2.6 / 2.86, rel=0.002)
    assert 32 * 0.3 / 0.56 <= pays < 32 * 0.3 / 0.56 + 3
    assert note.startswith("The lengths assume that generation takes time in proportion to the output tokens")


def test_a_slower_quantization_never_pays(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 300, 0.6)
    sentence = said(summary(tmp_path, BF16, FP8), "What a step costs")[0]
    assert "as long as with bf16: it is slower." in sentence
    assert "It does not pay at any length (measured: 32)." in sentence


def test_a_faster_generation_is_no_gain_where_the_update_takes_more(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 2.0)
    made = summary(tmp_path, BF16, FP8)
    sentence = said(made, "What a step costs")[0]
    assert "a whole step takes 1.399x" in sentence
    assert "it is slower" in sentence
    assert 85 < float(re.findall(r"It does not pay up to (\d+) output tokens", sentence)[0]) < 97
    conclusion = " ".join(said(made, "Conclusion"))
    assert conclusion.startswith("Slower than bf16 (whole step s): fp8 0.71")


def test_an_inconclusive_step_has_its_interval(tmp_path: Path) -> None:
    noisy = (1.0, 1.03, 0.96, 1.01)
    launches(tmp_path, BF16, 400, 0.3, scatter=noisy)
    launches(tmp_path, FP8, 400, 0.3, scatter=noisy[::-1])
    sentence = said(summary(tmp_path, BF16, FP8), "What a step costs")[0]
    assert re.match(
        r"Inconclusive: with fp8 a whole step takes .*x \[.*\] as long as with bf16. Generation takes ",
        sentence,
    ), sentence
    assert "At which lengths it pays is inconclusive (measured: 32)." in sentence


def test_steps_of_other_work_get_no_answer_on_what_pays(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    for launch, factor in enumerate(AS_STEADY):
        record = cycle_record(FP8, launch, [512 * factor] * 3, transition_s=0.3)
        fewer = [one.model_copy(update={"output_tokens": one.output_tokens // 2}) for one in record.iterations]
        save(tmp_path, record.model_copy(update={"iterations": fewer}))
    sentence = said(summary(tmp_path, BF16, FP8), "What a step costs")[0]
    assert "Their steps are not the same work" in sentence
    assert "It pays" not in sentence


def test_one_launch_of_each_gives_ratios_and_neither_a_verdict_nor_a_length(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3, scatter=[1.0])
    launches(tmp_path, FP8, 512, 0.6, scatter=[1.0])
    (sentence,) = said(summary(tmp_path, BF16, FP8), "What a step costs")
    assert sentence == (
        "No verdict on fp8 against bf16 (0.909x as long): it needs 1 more launch of each side. Generation takes 0.781x "
        "(2.00 s against 2.56 s), the transition 2.000x (0.600 s against 0.300 s). From which length on it pays takes "
        "at least 2 launches of each side."
    )


def test_without_a_baseline_the_step_is_told_alone(tmp_path: Path) -> None:
    launches(tmp_path, FP8, 512, 0.5)
    (sentence,) = said(summary(tmp_path, FP8), "What a step costs")
    assert sentence == (
        "fp8: a whole step takes 2.50 s, 2.00 s of generation and 0.500 s of transition (20 %). Nothing valid is there "
        "to compare it with."
    )


def test_settings_are_told_apart_by_their_names_and_models_where_there_are_several(tmp_path: Path) -> None:
    specs = [
        cycle_spec(model=model, sleep=sleep, setting=setting, platform="cuda")
        for model in ("qwen3-90m", "qwen3-1.7b")
        for sleep, setting in (("1", None), ("2", "sleep-2"))
    ]
    for spec in specs:
        launches(tmp_path, spec, 400, 0.5 if spec.setting else 0.3)
    made = summary(tmp_path, *specs, baseline={"setting": "default"})
    first, second, _ = said(made, "What a step costs")
    assert first.startswith("qwen3-90m: With sleep-2 a whole step takes 1.070x")
    assert second.startswith("qwen3-1.7b: With sleep-2 a whole step takes 1.070x")
    assert re.search(r"It does not pay up to \d+ output tokens a sequence \(measured: 32\)\.", first)
    memory = table(made, "Memory")[0]
    assert {name: float(memory[name]) for name in list(memory)[3:]} == {
        "device free GiB": 20,
        "device free asleep GiB": 60,
        "device free after GiB": 20,
        "host GiB": 2,
        "host asleep GiB": 3,
        "host after GiB": 2,
    }
    parts = table(made, "Parts of a transition")[0]
    assert parts["sleep ms"] == "15.0"
    assert float(parts["wake weights ms"]) == 15.0
    assert "pause ms" not in parts


def test_the_tables_add_up(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6)
    made = summary(tmp_path, BF16, FP8)
    bf16, fp8 = table(made, "What a step costs")
    parts = table(made, "Parts of a transition")
    for line, of_transition in zip((bf16, fp8), parts, strict=True):
        generation, transition, whole = (float(line[of]) for of in ("generation s", "transition s", "whole step s"))
        assert whole == pytest.approx(generation + transition, abs=0.002)
        assert float(of_transition["share %"]) == pytest.approx(100 * transition / whole, abs=0.1)
    assert bf16["whole-step speed-up"] == "(baseline)"
    assert fp8["whole-step speed-up"].startswith("1.100x ^")
    assert fp8["transition speed-up"].startswith("0.500x v")
    assert table(made, "Throughput")[1]["speed-up"].startswith("1.280x ^")
    assert "whole-step speed-up" not in table(made, "Throughput")[1]
    for line, transition_s in zip(parts, (0.3, 0.6), strict=True):
        parts_ms = [float(line[f"{name} ms"]) for name in ("drain", "pause", "update", "reset prefix cache", "resume")]
        assert sum(parts_ms) == pytest.approx(1e3 * transition_s, rel=0.01)
    of_bf16, of_fp8 = table(made, "Parts of an update")
    assert of_bf16["quantize ms"] == "-"
    split = [float(of_fp8[f"{name} ms"]) for name in ("transfer", "quantize", "load")]
    assert sum(split) == pytest.approx(float(parts[1]["update ms"]), rel=0.01)
    assert (of_fp8["handed over MB"], of_fp8["buckets"]) == ("170.0", "3")
    (gain,) = table(made, "Lengths at which it pays")
    assert (gain["tokens measured"], gain["pays"][:5]) == ("32", "from ")
    assert "does not pay" not in gain
    assert "Definitions, cycles" in made.markdown


def test_tables_of_engines_that_sleep_fit_a_terminal(tmp_path: Path) -> None:
    specs = [
        cycle_spec(quant, sleep="1", update=update, setting=setting, platform="cuda")
        for quant in ("bf16", "fp8", "w8a8")
        for update, setting in (("in_process", "update-in-process"), ("reload", "update-reload"))
    ]
    for number, spec in enumerate(specs):
        launches(tmp_path, spec, 400 + 20 * number, 0.3 + number / 10)
    made = summary(tmp_path, *specs)
    assert max(map(len, made.text.splitlines())) <= WIDTH
    assert made.text.isascii()


def test_tables_of_several_models_and_workloads_fit_a_terminal(tmp_path: Path) -> None:
    specs = [
        cycle_spec(quant, workload, model=model, sleep="2", platform="cuda")
        for model in ("qwen3-90m", "qwen3-30b-a3b")
        for workload in ("small", "long-answers")
        for quant in ("bf16", "w8a8")
    ]
    for number, spec in enumerate(specs):
        launches(tmp_path, spec, 400 + 20 * number, 0.3 + number / 10)
    assert max(map(len, summary(tmp_path, *specs).text.splitlines())) <= WIDTH


def test_programs_get_the_same_in_plain_units(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6)
    made = summary(tmp_path, BF16, FP8)
    bf16, fp8 = csv.DictReader(io.StringIO(made.tables["cycle.csv"]))
    assert float(fp8["whole_s"]) == pytest.approx(2.6, rel=0.002)
    assert float(fp8["update_s"]) == pytest.approx(0.48, rel=0.002)
    assert float(fp8["even_at_tokens"]) == pytest.approx(32 * 0.3 / 0.56, rel=0.01)
    assert (bf16["pays_first_tokens"], bf16["sleep_s"]) == ("", "")
    assert bf16["host_asleep_bytes"] == str(2.0 * 2**30)
    _, line = csv.DictReader(io.StringIO(made.csv))
    assert float(line["cycle_s"]) == pytest.approx(0.6, rel=0.002)
    assert float(line["whole_step_s"]) == pytest.approx(2.6, rel=0.002)
    assert (line["whole_step_s_verdict"], line["cycle_s_verdict"], line["verdict"]) == ("faster", "slower", "faster")


def test_warm_up_passes_and_invalid_launches_are_in_no_number(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    other = Flag(code="cpu_shared", severity="invalid", sentence="Others computed.")
    save(tmp_path, cycle_record(BF16, 4, [10.0] * 3, transition_s=100.0, flags=[other]))
    (row,) = rows_of(collect(tmp_path, None))
    found = step_costs(row)
    assert found is not None
    assert found.generation_s == pytest.approx(2.56, rel=0.002)  # the warm-up takes 5.12 s
    assert found.transition_s == pytest.approx(0.3, rel=0.002)
    assert found.updates == 4 * 4


@pytest.mark.parametrize(
    ("flag", "tells"),
    [
        (OUTPUT_CHANGED, "an update changes what the model generates"),
        (WITHOUT_EFFECT, "updates do not take full effect"),
    ],
)
def test_launches_that_failed_a_proof_are_a_finding_and_no_number(tmp_path: Path, flag: Flag, tells: str) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6, flags=[flag])
    made = summary(tmp_path, BF16, FP8)
    finding, passed = said(made, "Proofs of new weights")
    assert finding.startswith(f"fp8: {tells} ({flag.code}, 4 of 4 launches)")
    assert finding.endswith(f"Seen first: {flag.sentence} None of its launches is in a number.")
    assert passed.startswith("16 updates passed all proofs: bf16. After each")
    _, fp8 = table(made, "What a step costs")
    assert (fp8["launches"], fp8["whole step s"], fp8["empty because"]) == (
        "0/4/4",
        "-",
        f"no valid launch: {flag.code}",
    )
    (line,) = [line for line in csv.DictReader(io.StringIO(made.tables["cycle.csv"])) if line["quant"] == "fp8"]
    assert (line["launches_valid"], line["whole_s"]) == ("0", "")
    (alone,) = said(made, "What a step costs")
    assert alone.startswith("bf16: a whole step takes 2.86 s")


def test_where_nothing_is_valid_the_summary_says_why(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3, flags=[OUTPUT_CHANGED])
    made = summary(tmp_path, BF16)
    assert said(made, "What a step costs") == []
    assert len(said(made, "Proofs of new weights")) == 1
    assert table(made, "What a step costs")[0]["empty because"] == "no valid launch: output_changed"


def test_one_launch_that_failed_a_proof_is_told_and_the_others_count(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6, scatter=STEADY[:3])
    save(tmp_path, cycle_record(FP8, 3, [9000.0] * 3, flags=[WITHOUT_EFFECT]))
    made = summary(tmp_path, BF16, FP8)
    assert "0.909x" in said(made, "What a step costs")[0]
    finding, passed = said(made, "Proofs of new weights")
    assert "(update_without_effect, 1 of 4 launches)" in finding
    assert "None of its launches" not in finding
    assert passed.startswith("28 updates passed all proofs: bf16; fp8.")


def test_what_takes_no_new_weights_is_a_finding_that_no_further_launch_would_change(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6, flags=[OUTPUT_CHANGED])
    failure = make_failure(W8A16).model_copy(update={"category": "not_updatable", "cause": "vLLM can't repack them"})
    for launch in range(4):
        path = record_path(tmp_path, "cycle", W8A16.experiment(), launch)
        write_failure(path, failure.model_copy(update={"launch": launch}))
    made = summary(tmp_path, BF16, FP8, W8A16)
    finding = said(made, "Proofs of new weights")[1]
    assert finding.startswith(
        "w8a16: its weights can't be updated (not_updatable, 4 of 4 launches), so nothing is known"
    )
    assert "vLLM can't repack them." in finding
    assert [item for item in said(made, "Conclusion") if item.startswith("Next: ")] == []


def test_another_metric_than_the_whole_step_can_decide(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6)
    comparison = ComparisonSettings(metrics={"cycle": ["output_tokens_per_s"]})
    made = summary(tmp_path, BF16, FP8, comparison=comparison)
    assert said(made, "What a step costs")[0].startswith("With fp8 output tok/s is 1.280x")
    assert "whole-step speed-up" not in made.markdown
    assert "whole_step_s_verdict" not in made.csv


def test_records_without_transitions_have_neither_the_columns_nor_the_words(tmp_path: Path) -> None:
    save(tmp_path, *(make_record(spec, launch) for spec in (make_spec(), make_spec(quant="fp8")) for launch in (0, 1)))
    made = summarise(collect(tmp_path, None))
    header = next(csv.reader(io.StringIO(made.csv)))
    assert not {"cycle_s", "whole_step_s"} & set(header)
    assert "transition" not in made.markdown
    assert "cycle.csv" not in made.tables
    assert "cycle" not in figure_names(rows_of(collect(tmp_path, None)), collect(tmp_path, None))


def test_a_launchs_time_counts_transitions_as_measured() -> None:
    record = cycle_record(transition_s=0.5)
    without = make_record(BF16)
    assert parts_of(record).measured_s == pytest.approx(parts_of(without).measured_s + 3 * 0.5)
    assert parts_of(record).warmup_s == pytest.approx(parts_of(without).warmup_s + 0.5)


def gain(results: Path, rate: float, transition_s: float) -> NetGain | None:
    launches(results, BF16, 400, 0.3)
    launches(results, FP8, rate, transition_s)
    own, other = (step_costs(row) for row in reversed(rows_of(collect(results, make_plan([BF16, FP8], 4)))))
    assert own is not None
    assert other is not None
    assert net_gain(own, other, Comparison(pairs={0: 1.0}), 0.95) is None
    pairs = dict.fromkeys(range(4), 1.0)
    unsure = net_gain(own, other, Comparison(pairs=pairs, verdict="undetected"), 0.95)
    assert unsure is not None
    assert unsure.found is None
    return net_gain(own, other, Comparison(pairs=pairs, verdict="faster"), 0.95)


@pytest.mark.parametrize(
    ("rate", "transition_s", "pays", "loses"),
    [
        (512.0, 0.2, TokenRange(1, None), None),
        (300.0, 0.6, None, TokenRange(1, None)),
        (512.0, 0.6, "from", None),
        (300.0, 0.1, None, "from"),
        (360.0, 0.1, None, "from"),
        (512.0, 2.0, None, "up to"),
    ],
)
def test_the_lengths_that_pay_are_whole_tokens_around_the_measured_one(
    tmp_path: Path, rate: float, transition_s: float, pays: object, loses: object
) -> None:
    def kind(tokens: TokenRange | None) -> object:
        if tokens is None or tokens == TokenRange(1, None):
            return tokens
        return "from" if tokens.last is None else "up to"

    found = gain(tmp_path, rate, transition_s)
    assert found is not None
    assert (kind(found.pays), kind(found.loses)) == (pays, loses)
    assert found.found is not None
    assert found.found.first <= 32 <= (found.found.last or 32)


def test_the_figure_adds_up_to_the_whole_step_and_its_texts_are_apart(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3)
    launches(tmp_path, FP8, 512, 0.6)
    launches(tmp_path, W8A16, 512, 0.6, flags=[OUTPUT_CHANGED])
    sleeping = cycle_spec("fp8", sleep="2", setting="sleep-2")
    launches(tmp_path, sleeping, 512, 1.6)
    collection = collect(tmp_path, make_plan([BF16, FP8, sleeping, W8A16], 4))
    rows = Findings(collection).drawn
    assert "cycle" in figure_names(rows, collection)
    for row in rows[:3]:
        found = step_costs(row)
        assert found is not None
        assert sum(pieces(found).values()) == pytest.approx(found.whole_s)
    with settings():
        figure = cycle_figure(rows, "here", "")
        assert_texts_are_apart(figure)
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if patch.get_width()]
    assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(3.6, rel=0.01)
    assert len(axes.collections) == 3 * 4  # a point for each valid launch
    texts = [text.get_text() for text in axes.texts]
    assert "no valid launch" in texts
    assert "2.60" in texts


def test_the_figure_of_nothing_valid_says_so(tmp_path: Path) -> None:
    launches(tmp_path, BF16, 400, 0.3, flags=[OUTPUT_CHANGED])
    rows = rows_of(collect(tmp_path, make_plan([BF16], 4)))
    with settings():
        assert "No launch is valid." in [text.get_text() for text in cycle_figure(rows, "here", "").texts]


def test_two_folders_of_cycles_are_compared_by_the_whole_step(tmp_path: Path) -> None:
    launches(tmp_path / "a", BF16, 400, 0.6)
    launches(tmp_path / "b", BF16, 401, 0.3)
    done = run(tmp_path, "a", "b")
    assert done.returncode == 0, done.stderr
    assert "whole-step speed-up" in done.flat
    assert "1.107x ^" in done.flat  # 3.16 s against 2.85 s
    asked = run(tmp_path, "a", "b", "--metric", "cycle_s")
    assert "2.000x ^" in asked.flat
    assert "whole-step speed-up" not in asked.flat


def test_the_command_summarises_a_folder_of_cycles(tmp_path: Path) -> None:
    launches(tmp_path / "results", BF16, 400, 0.3)
    launches(tmp_path / "results", FP8, 512, 0.6)
    done = run(tmp_path, "results", main=command.main)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "cycle.csv").is_file()
    assert "Parts of a transition: cycle, cpu" in (tmp_path / "results" / "summary.txt").read_text()
