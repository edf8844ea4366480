"""Predictions from a made calibration, through vLLM's own scheduler, and what is recommended by them."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from comparing import run
from launching import FORKED
from planned import planned
from samples.cycle import cycled
from samples.drift import save_drift
from samples.steps import save_steps
from synthetic_records import make_record, save
from workspace import Workspace

from rollout_bench.modes.steps import predict_commands as predict
from rollout_bench.modes.steps.predict.prediction import Replays
from rollout_bench.workloads.requests import Source

OVERLAY = {
    "platform": "cpu",
    "models": ["qwen3-tiny"],
    "quants": ["bf16"],
    "modes": ["rollout"],
    "workloads": ["own"],
    "launches": 1,
    "settings": ["default", "seqs2", "seqs3"],
    "setting_settings": {f"seqs{n}": {"engine_args": {"max_num_seqs": n}} for n in (2, 3)},
    "baseline": {"quant": None, "setting": "seqs2"},
    "engine_args": {"max_num_seqs": 8, "max_num_batched_tokens": 128, "max_model_len": 256, "enforce_eager": True},
    "model_settings": {"qwen3-tiny": {"synthetic": {"preset": "qwen3-tiny"}}},
    "workload_settings": {
        "own": {"prompts": 4, "samples_per_prompt": 2, "prompt_tokens": 40, "output_tokens": 30, "engine_args": {}}
    },
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("predictions")
    (calibration,) = planned({**OVERLAY, "modes": ["steps"], "settings": ["default"]}).experiments
    save_steps(folder / "results", calibration.spec, 0)
    return Workspace(folder, OVERLAY)


@pytest.fixture(scope="module")
def replays() -> Iterator[Replays]:
    with Replays(sys.executable) as replays, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FORKED.parent), prepend=os.pathsep)  # or vLLM imports itself to see the model
        yield replays


@pytest.fixture(autouse=True)
def one_engine(replays: Replays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the calls inside this process share an engine, whose import takes longer than all that they do."""
    monkeypatch.setattr(predict, "Replays", lambda _: nullcontext(replays))
    predict.valid_records.cache_clear()


def rows(said: str) -> dict[str, list[float]]:
    """Return experiment -> the numbers of its row."""
    found = re.findall(r"^qwen3-tiny bf16 ((?:seqs\d )?)own +(.*)$", said, re.MULTILINE)
    return {name.strip() or "default": [float(n.replace(",", "")) for n in re.findall(r"[\d.,]+\d|\d", row)]
            for name, row in found}  # fmt: skip


def test_a_step_takes_the_time_of_its_steps(space: Workspace):
    done = space.bench("predict")
    assert done.returncode == 0, done.stdout
    found = rows(done.stdout)
    # 4 prompts of 40 tokens in two steps, the siblings share 32 of them; then 8 sequences decode 29 times.
    decodes_s = sum(2e-3 + 8e-4 + 8e-6 * (40 + n) for n in range(1, 30))
    prefills_s = 2 * 2e-3 + 1e-4 * 8 * 40
    step_s, low_s, high_s = found["default"][:3]
    assert decodes_s < step_s < 1.02 * (decodes_s + prefills_s)
    assert low_s < step_s < high_s < 1.2 * low_s
    assert found["seqs2"][0] > found["seqs3"][0] > step_s
    assert "results/prediction.svg: A step of 30.0 output tokens a sequence takes " in done.stdout
    assert (space.path / "results/prediction.svg").read_bytes().startswith(b"<?xml")


def test_a_prediction_is_of_the_lengths_of_all_launches(space: Workspace):
    own = {"prompts": 1, "samples_per_prompt": 1, "prompt_tokens": 40}
    own |= {"output_tokens": {"distribution": "lognormal", "median": 20, "sigma": 1, "low": 2, "high": 60}}
    drawn = {"workload_settings": {"own": own}, "settings": ["default"], "iterations": 1, "launches": 3}
    spec = planned({**OVERLAY, **drawn}).experiments[0].spec
    source, first = Source(spec.workload, 1000, "", None), spec.measuring.warmup_iterations
    lengths = [source.requests(launch, first)[0].output_tokens for launch in range(3)]
    steps_s = [2e-3 + 1e-4 * 40 + sum(2e-3 + 1e-4 + 1e-6 * (40 + k) for k in range(1, n)) for n in lengths]
    said = run(space.path, "--config", *(f"{key}={value}" for key, value in drawn.items()), main=predict.predict).stdout
    assert rows(said)["default"][0] == pytest.approx(np.mean(steps_s), rel=0.1)
    assert steps_s[0] > 1.5 * np.mean(steps_s)


def test_the_best_is_recommended_with_a_config_to_confirm_it(space: Workspace):
    done = run(space.path, main=predict.recommend)
    assert done.returncode == 0, done.stdout
    assert "best: qwen3-tiny bf16 own: " in done.stdout
    # two at a time take four times as many steps, each with a quarter of the sequences
    assert re.search(r"worse: qwen3-tiny bf16 seqs2 own: [\d.]+ \[.+\]x its time: 12\d engine steps of", done.stdout)
    confirming = yaml.safe_load((space.path / "confirm.yaml").read_text())
    assert confirming == {"settings": ["default", "seqs2"], "quants": ["bf16"], "modes": ["rollout"]}
    plan = space.bench("plan", "--configfile", "confirm.yaml").stdout
    assert "seqs2" in plan
    assert "seqs3" not in plan
    more = ("workloads=[own, longer]", "workload_settings={longer: {prompts: 2, prompt_tokens: 40, output_tokens: 60}}")
    said = run(space.path, "--config", *more, main=predict.recommend).stdout
    assert [each in said for each in ("best: qwen3-tiny bf16 own: ", "best: qwen3-tiny bf16 longer: ")] == [True, True]


def test_measured_steps_stand_beside_predicted_ones(space: Workspace):
    spec, cycle = (planned({**OVERLAY, "modes": [mode], "settings": ["default"]}).experiments[0].spec
                   for mode in ("rollout", "cycle"))  # fmt: skip
    transition_s, results = 0.5, space.path / "results"
    save(results, make_record(spec), cycled(make_record(cycle), transition_s))
    said = run(space.path, main=predict.predict).stdout
    assert "the interval held the measured time of 0 of 1 experiment" in said
    step_s, low_s, high_s, *whole_s = rows(said)["default"][:6]
    assert whole_s == pytest.approx([each + transition_s for each in (step_s, low_s, high_s)], rel=1e-3)
    assert space.bench("summarise", "results", "--all").returncode == 0
    assert "were predicted. The interval did not hold." in " ".join((results / "summary.txt").read_text().split())


def test_a_quantization_that_drifts_too_far_is_left_out(tmp_path: Path):
    overlay = {**OVERLAY, "quants": ["bf16", "w8a8"], "settings": ["default"], "baseline": {"quant": "bf16"}}
    overlay |= {"prediction": {"drift_nats": 0.05}, "drift": {"batch_sizes": [1, 8]}}
    space, results = Workspace(tmp_path, overlay), tmp_path / "results"
    for number, each in enumerate(planned({**overlay, "modes": ["steps"]}).experiments):
        save_steps(results, each.spec, 0, 1 - 0.5 * number)
    said = run(space.path, main=predict.recommend).stderr
    assert "bf16 own: its drift is not known: rollout-bench run --config modes=[drift]" in said
    for number, each in enumerate(planned({**overlay, "modes": ["drift"]}).experiments):
        save_drift(results, each.spec, 0, 0.2 * number)
    said = run(space.path, main=predict.recommend).stdout
    assert "best: qwen3-tiny bf16 own: " in said
    assert re.search(r"left out: qwen3-tiny w8a8 own: its mean \|d\| reaches 0\.\d+ nats per token", said)


def test_longer_contexts_than_calibrated_are_refused(space: Workspace):
    longer = "workload_settings={own: {output_tokens: 210, prompt_tokens: 40}}"
    done = run(space.path, "--config", longer, main=predict.predict)
    assert done.returncode == 1
    assert "calibrated up to" in done.stderr
    marked = run(space.path, "--config", longer, "prediction={extrapolate: true}", main=predict.predict)
    assert "(extrapolated)" in marked.stdout


def test_an_engine_without_calibration_is_refused(space: Workspace):
    done = run(space.path, "--config", "engine_args={kv_cache_dtype: fp8}", main=predict.predict)
    assert done.returncode == 1
    assert "its calibration is of another engine" in done.stderr
    assert "modes=[steps]" in done.stderr


def test_what_is_not_predicted_is_refused(space: Workspace):
    done = run(space.path, "--config", "workload_settings={own: {ignore_eos: false}}", main=predict.predict)
    assert done.returncode == 1
    assert "ignore_eos: false is not predicted" in done.stderr


def test_a_folder_without_calibrations_says_how_to_make_one(tmp_path: Path):
    done = run(Workspace(tmp_path, OVERLAY).path, main=predict.predict)
    assert done.returncode == 1
    assert "there is no valid calibration of it" in done.stderr
