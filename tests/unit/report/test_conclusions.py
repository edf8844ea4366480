"""What a summary concludes if little can be compared, and a comparison of two folders if much can."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from comparing import BF16, NEW, OLD, W8A8, launches, run
from samples.online import Server, make_online, make_online_spec
from synthetic_records import INVALID, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.failures import CRASH_FIX
from rollout_bench.contracts.flags import MEANINGS
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag, Placement
from rollout_bench.report.conclusions import run_arguments
from rollout_bench.report.summary import summary_of
from rollout_bench.rules.arguments import value_of
from rollout_bench.rules.planned import override

SLOWER = [0.9 * rate for rate in OLD]


def test_a_failure_hides_no_value_of_others(tmp_path: Path):
    failing = make_spec(model="large")
    save(tmp_path, make_record(BF16, rates=[100.0] * 3), make_failure(failing))
    first, second, *_ = summary_of(tmp_path, collect(tmp_path, make_plan([BF16, failing], 1))).answers
    assert first.lead.startswith("qwen3-90m bf16 small: 100")
    cause = "no memory is left for KV cache blocks -> raise gpu_memory_utilization or lower max_model_len"
    assert second.lead == f"No result: 1 launch failed: {cause}."


@pytest.mark.parametrize(("setting", "is_said"), [("b", True), ("a", False)])
def test_settings_without_a_baseline_are_said_to_be_uncompared(tmp_path: Path, setting: str, is_said: bool):
    save(tmp_path, *(make_record(make_spec(setting=name), rates=[100.0] * 3) for name in {"a", setting}))
    sentence = "The settings are not compared with each other; `--config 'baseline={setting: a}'` does."
    collection = replace(collect(tmp_path, None), baseline={})
    assert (sentence in summary_of(tmp_path, collection).answers[0].items) == is_said


@pytest.mark.parametrize(("count", "remedy"), [(1, "may be chance"), (2, "2 launches crashed alike")])
def test_a_crash_of_several_launches_is_not_called_chance(tmp_path: Path, count: int, remedy: str):
    crash = {"category": "crash", "cause": "ValueError: no", "fix": CRASH_FIX}
    save(tmp_path, *(make_failure(BF16, launch).model_copy(update=crash) for launch in range(count)))
    assert remedy in summary_of(tmp_path, collect(tmp_path, make_plan([BF16], count))).answers[0].lead


@pytest.mark.parametrize(
    ("neighbours", "words"),
    [([[], []], "2 launches, one launch at a time."), ([[], ["x"]], "2 launches, 1 of them beside other launches")],
)
def test_launches_side_by_side_are_not_told_as_one_at_a_time(tmp_path: Path, neighbours: list[list[str]], words: str):
    where = {"node": "one", "devices": ["GPU-a"], "visible": ["0"], "isolation": "per_device", "waited_s": 0.0}
    for launch, beside in enumerate(neighbours):
        place = Placement(**where, neighbours=beside)
        save(tmp_path, make_record(BF16, launch, rates=[100.0] * 3).model_copy(update={"placement": place}))
    assert words in summary_of(tmp_path, collect(tmp_path, make_plan([BF16], 2))).markdown


def test_the_next_step_is_to_mend_what_would_be_invalid_again(tmp_path: Path):
    flag = Flag(code="quant_not_proven", severity="invalid", sentence="It has bfloat16 weights.")
    save(tmp_path, make_record(BF16, rates=[100.0] * 3).model_copy(update={"validity": [flag]}))
    answer, *_ = summary_of(tmp_path, collect(tmp_path, make_plan([BF16], 1))).answers
    (step,) = [line for line in answer.items if line.startswith("Next")]
    assert step.startswith("Next: name the weights of the quantization")


def sweep(side: Path, step_s: float, *flags_of_launch_0: object) -> None:
    spec = make_online_spec(points=[LoadPoint(request_rate=4.0), LoadPoint(concurrency=2)])
    for launch in range(3):
        record, rows = make_online(spec, launch, Server(step_s=step_s * (1 + launch / 1000)))
        flags = [] if launch else list(flags_of_launch_0)
        save(side, (record.model_copy(update={"validity": [*record.validity, *flags]}), rows))


def test_two_folders_are_concluded_by_mode_and_load(tmp_path: Path):
    for side, step_s, rates in (("a", 0.010, OLD), ("b", 0.008, NEW)):
        sweep(tmp_path / side, step_s)
        save(tmp_path / side, *(make_record(BF16, launch, rates=[rate] * 3) for launch, rate in enumerate(rates)))
    conclusions = run(tmp_path, "a", "b").flat.partition("B over A: ")[0]
    assert re.findall(r"Conclusion: ([^.]+?)[:.]? (?:bf16|No difference)", conclusions) == [
        "offline, output tok/s",
        "online, TTFT ms",
        "online, output tok/s",
    ]
    assert conclusions.count("No result") == conclusions.count("No verdict") == 0


@pytest.mark.parametrize(
    ("w8a8", "w8a16", "headline"),
    [
        (SLOWER, SLOWER, "All 3 are slower than A: "),
        (OLD[::-1], SLOWER, "Slower than A: "),
        (NEW, SLOWER, "w8a8 is 1.1"),
    ],
)
def test_a_headline_says_whether_all_are_slower(tmp_path: Path, w8a8: list[float], w8a16: list[float], headline: str):
    for spec, rates in ((BF16, SLOWER), (W8A8, w8a8), (make_spec(quant="w8a16"), w8a16)):
        save(tmp_path / "a", *launches(spec, OLD))
        save(tmp_path / "b", *launches(spec, rates))
    assert run(tmp_path, "a", "b").flat.partition("Conclusion")[2].strip().startswith(headline)


@pytest.mark.parametrize("invalid", [True, False])
def test_a_launch_of_several_loads_is_in_doubt_once(tmp_path: Path, invalid: bool):
    sweep(tmp_path / "results", 0.01, *([INVALID] if invalid else []))
    (first, *_) = summary_of(tmp_path / "results", collect(tmp_path / "results", None)).answers
    doubts = [item for item in first.items if "is invalid" in item]
    invalid_doubt = f"1 of 3 launches is invalid and in no number: {MEANINGS['cpu_shared']} (cpu_shared: 1)."
    assert doubts == ([invalid_doubt] if invalid else [])


def test_the_next_command_names_a_key_once_with_all_that_the_first_one_set(tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec()))
    first = "workload_settings={asked: {output_tokens: 16, online: {request_rate: [5], seed: 3}}}"
    found = replace(collect(tmp_path, None), files=(), overrides=(first, "quants=[bf16]"))
    changed = "workload_settings={asked: {online: {request_rate: [5, 40]}}}"
    both = "workload_settings={asked: {output_tokens: 16, online: {request_rate: [5, 40], seed: 3}}}"
    assert run_arguments([changed], found) == ["run", "--config", "quants=[bf16]", both]


@pytest.mark.parametrize("value", [6, 0.5, True, None, "auto", ["bf16", "w8a8"], {}, {"demo": {"prompts": "16"}}])
def test_the_next_command_repeats_what_the_first_one_laid_over_its_files(value: object, tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec()))
    word = override("asked", value)
    found = replace(collect(tmp_path, None), files=("mine.yaml",), overrides=(word, "launches=2"))
    assert run_arguments(["launches=6"], found) == ["run", "--configfile", "mine.yaml", "--config", word, "launches=6"]
    assert value_of(word.partition("=")[2]) == value
    assert '"' not in word
    assert "'" not in word


def test_the_next_command_names_a_config_of_the_package_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, make_record(make_spec()))
    monkeypatch.chdir(tmp_path)
    found = replace(collect(tmp_path, None), files=("config/cycle.yaml", "elsewhere/mine.yaml"), overrides=())
    assert run_arguments([], found) == ["run", "--configfile", "config/cycle.yaml", "mine.yaml"]
