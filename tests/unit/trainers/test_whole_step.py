"""The settings of verl and TRL become configs of a whole step: shared or parted devices, and weight updates."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf
from planned import planned
from refusals import refused
from trainer_commands import USUAL, Made, rows
from training_runs import FILES

from rollout_bench.plan.fit.architecture import known_config
from rollout_bench.trainers.training_log import trl_generation_s, trl_time, verl_generation_s, verl_time

WHOLE_STEPS = rows("whole_steps.yaml")
GENERATE = "profiling/Time taken: GRPOTrainer.vLLM.generate"


def check_planned(
    row: list[Any],
    option: str,
    axis: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Assert that the printed config plans what the row says, for each of its settings or quantizations."""
    _, trainer, arguments, file, expected, words = row
    made = Made(f"from-{trainer}", folder, capsys)
    made(f"{arguments} {option}", FILES.get(file, USUAL[made.command]))
    plan = planned(made.text)
    found = {}
    for spec in (one.spec for one in plan.experiments):
        parts = spec.workload.model_dump(), spec.engine.args, spec.mode_spec.model_dump()
        facts = {key: value for part in parts for key, value in part.items()}
        place = spec.axes[axis]
        found[place] = {key: facts.get(key) for key in expected[place]}
    assert (found, plan.skipped) == (expected, [])
    assert [word for word in words if word not in made.account] == []


@pytest.mark.parametrize("row", WHOLE_STEPS["placements"], ids=lambda row: row[0])
def test_a_placement_has_the_settings_of_the_training(
    row: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    check_planned(row, "--placement", "setting", tmp_path, capsys)


@pytest.mark.parametrize("row", WHOLE_STEPS["cycles"], ids=lambda row: row[0])
def test_a_cycle_has_the_settings_of_the_training(row: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    check_planned(row, "--cycle", "quant", tmp_path, capsys)


def test_a_folder_keeps_its_weights_in_a_placement(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    made = Made("from-trl", tmp_path, capsys)
    (model,) = made(f"--placement model_name_or_path={tmp_path}")["model_settings"].values()
    assert (model, "Weights: random" in made.account) == ({"weights": {"bf16": str(tmp_path)}}, False)


@pytest.mark.parametrize(
    ("trainer", "adapter"), [("trl", "use_peft=true"), ("verl", "+actor_rollout_ref.model.lora_rank=16")]
)
def test_a_stand_in_that_trains_more_than_an_adapter_says_so(
    trainer: str, adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = Made(f"from-{trainer}", tmp_path, capsys)
    for word, is_told in (("", False), (adapter, True)):
        made(f"--placement {word}", USUAL[made.command])
        assert ("the stand-in trains the whole model" in made.account) is is_told


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-1.5B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"])
def test_a_usual_model_of_the_hub_is_placed_in_its_shape(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = Made("from-trl", tmp_path, capsys)
    made(f"--placement model_name_or_path={model}")
    shapes = [one.spec.model.synthetic for one in planned(made.text).experiments]
    known = known_config(model)
    assert [{key: shape[key] for key in known if key in shape} for shape in shapes if shape] == [
        {key: value for key, value in known.items() if key != "model_type"}
    ] * 2
    assert f"Weights: random, in the shape of {model}" in made.account


@pytest.mark.parametrize(("vllm_mode", "place"), [("colocate", "server"), ("server", "colocated")])
def test_the_head_has_what_compares_7_devices_with_7_and_1(
    vllm_mode: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    made = Made("from-trl", tmp_path, capsys)
    keys = "num_processes=7 per_device_train_batch_size=16 model_name_or_path=Qwen/Qwen2.5-1.5B-Instruct"
    made(f"--placement vllm_mode={vllm_mode} {keys}")
    found = re.search(r"For 7 colocated devices against 7 \+ 1, .* --config 'setting_settings=(.*)'", made.text)
    assert found, made.text
    over = {"setting_settings": yaml.safe_load(found[1])}
    merged = OmegaConf.to_container(OmegaConf.merge(yaml.safe_load(made.text), over))
    devices = {
        one.spec.axes["setting"]: one.spec.mode_spec.devices for one in planned(yaml.safe_dump(merged)).experiments
    }
    assert devices == {"colocated": 7, "server": 8}
    assert place in over["setting_settings"]


def test_a_placement_plans_over_the_config_of_the_same_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = Made("from-trl", tmp_path, capsys)
    step = made("model_name_or_path=Qwen/Qwen2.5-1.5B-Instruct")
    over = made("--placement model_name_or_path=Qwen/Qwen2.5-1.5B-Instruct")
    merged = OmegaConf.to_container(OmegaConf.merge(step, over))  # as Snakemake merges them, key by key
    assert [one.spec.model.weights for one in planned(yaml.safe_dump(merged)).experiments] == [None] * 2


def test_prompts_without_a_length_fill_what_answers_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = Made("from-trl", tmp_path, capsys)
    words = "~max_prompt_length vllm_max_model_length=2048 max_completion_length=1024"
    for option in ("", " --placement"):
        (load,) = made(words + option)["workload_settings"].values()
        assert load["prompt_tokens"] == 1024
    made(words)
    assert "Each prompt has 1,024 tokens, what an answer leaves of vllm_max_model_length" in made.account


def written(folder: Path, content: str) -> Path:
    path = folder / "log"
    path.write_text(content)
    return path


def verl_steps() -> list[dict[str, float]]:
    parts = {"gen": 10.0, "old_log_prob": 1.0, "ref": 1.5, "adv": 0.5}
    return [{f"timing_s/{part}": took for part, took in {**parts, "update_actor": 90.0 / step}.items()} for step in
            (1, 9, 10, 15)]  # fmt: skip


def test_verl_s_training_is_the_median_of_later_steps(tmp_path: Path):
    steps = verl_steps()
    as_json = "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in enumerate(steps))
    on_console = "".join(
        f"(TaskRunner pid=7) step:{step} - " + " - ".join(f"{key}:np.float64({value})" for key, value in data.items())
        for step, data in zip(["1", "\nstep:2", "\nstep:3", "\nstep:4"], steps, strict=True)
    )
    for content in (as_json, "Starting\n" + on_console):
        train_s, note = verl_time(written(tmp_path, content), devices=8)
        assert train_s == 8 * (1.0 + 1.5 + 0.5 + 9.0)
        assert "(old_log_prob + ref + adv + update_actor, median of 3 steps after the first)" in note


HISTORY = [{"loss": 0.1, "step": step, "step_time": took} for step, took in enumerate([90.0, 20.0, 30.0, 22.0], 1)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"log_history": [*HISTORY, {"train_runtime": 400.0, "step": 4}], "global_step": 4}, indent=1),
        json.dumps(HISTORY),
        "".join(json.dumps(row) + "\n" for row in HISTORY),
        "".join(json.dumps({f"train/{key}": value for key, value in row.items()}) + "\n" for row in HISTORY),
        "Loading\n" + "".join(f"{ {key: str(value) for key, value in row.items()} }\n" for row in HISTORY),
    ],
    ids=["trainer_state", "list", "lines", "wandb", "console"],
)
def test_trl_s_training_is_the_median_of_later_steps(tmp_path: Path, content: str):
    train_s, note = trl_time(written(tmp_path, content), devices=4, updates=1)
    assert train_s == 4 * 22.0
    assert "too long by the generation in it" in note


STEP = "(TaskRunner pid=7) step:{} - timing_s/old_log_prob:3.0 - timing_s/ref:2.0 - timing_s/update_actor:20.0"


@pytest.mark.parametrize(
    ("read", "content", "problem"),
    [
        (
            verl_time,
            "\n".join(STEP.format(n).replace("0 - timing_s/ref", "0\n- timing_s/ref") for n in range(3)),
            "line 2",
        ),
        (verl_time, "\n".join(STEP.format(n).replace("log_prob", "log_\nprob") for n in range(3)), "line 2"),
        (verl_time, "\n".join(STEP.format(n).replace("update_", "update\n_") for n in range(3)), "has 0 steps"),
        (
            verl_time,
            "\n".join(STEP.format(n).replace("/ref", "/r" if n == 1 else "/ref") for n in range(3)),
            "lacks timing_s/ref",
        ),
        (trl_time, "{'loss': '0.1', 'step_time': '2\n2.0'}\n" * 3, "line 1: is a part of a step"),
    ],
)
def test_a_wrapped_line_is_no_step(tmp_path: Path, read: Any, content: str, problem: str):
    with refused(problem, "give verl's metrics"):
        read(written(tmp_path, content), *([1, 1] if read is trl_time else [1]))


def test_a_csv_of_wandb_holds_the_steps_of_one_run(tmp_path: Path):
    path, steps = tmp_path / "wandb.csv", verl_steps()
    pd.DataFrame(steps).rename(columns=lambda name: f"run - {name}").assign(**{"run - x__MIN": 1}).to_csv(path)
    assert verl_time(path, devices=1)[0] == 1.0 + 1.5 + 0.5 + 9.0
    pd.DataFrame({"a - step_time": [1, 2, 3], "b - step_time": [1, 2, 3]}).to_csv(path)
    with refused("has step_time of several runs", "export one run"):
        trl_time(path, 1, 1)


def test_trl_s_generation_is_no_training(tmp_path: Path):
    path = written(tmp_path, json.dumps([*HISTORY, *({GENERATE: took} for took in (9.0, 10.0, 11.0))]))
    train_s, note = trl_time(path, devices=4, updates=1)
    assert (train_s, note.endswith("without GRPOTrainer.vLLM.generate).")) == (4 * 12.0, True)
    assert trl_time(path, devices=1, updates=2)[0] == 2 * 24.0 - 10.0  # the mean, as only one of two generates


def test_each_generation_of_a_step_is_subtracted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    synced = {GENERATE.replace("vLLM.generate", "sync_weights"): 2.0}
    steps = [row for _ in range(3) for row in (synced, *[{GENERATE: 10.0}] * 4, {"step_time": 62.0})]
    made = Made("from-trl", tmp_path, capsys)
    log = written(tmp_path, json.dumps(steps))
    made(f"--placement --log {log} gradient_accumulation_steps=4 +steps_per_generation=1")
    assert [one.spec.mode_spec.train_s for one in planned(made.text).experiments] == [8 * (62.0 - 4 * 10.0 - 2.0)] * 2
    assert "without GRPOTrainer.sync_weights and 4 x GRPOTrainer.vLLM.generate" in made.account


def test_a_whole_run_gives_the_time_of_its_steps(tmp_path: Path):
    train_s, note = trl_time(written(tmp_path, json.dumps([{"train_runtime": 400.0, "step": 8}])), devices=2, updates=1)
    assert (train_s, "(train_runtime / steps, " in note) == (100.0, True)


def test_the_time_of_a_log_is_planned_and_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = written(tmp_path, json.dumps(HISTORY))
    made = Made("from-trl", tmp_path, capsys)
    made(f"--placement --log {path} steps_per_generation=2")
    assert [one.spec.mode_spec.train_s for one in planned(made.text).experiments] == [8 * 2 * 24.0] * 2
    assert f"from {path}: 48.000 s on 8 devices (step_time, mean of 3 steps after the first" in made.account


@pytest.mark.parametrize(
    ("command", "log", "logged_s"),
    [
        ("from-verl", json.dumps([{"timing_s/gen": took} for took in (90.0, 30.0, 31.5, 33.0)]), 31.5),
        ("from-verl", "".join(f"step:{n} - timing_s/gen:{30 + n}\n" for n in range(4)), 32.0),
        ("from-trl", json.dumps([{GENERATE: took} for took in (90.0, 12.0, 11.0)]), 11.5),
    ],
    ids=["verl's file", "verl's console", "trl"],
)
@pytest.mark.parametrize("option", ["", "--one-engine "])
def test_the_generation_of_a_log_is_part_of_the_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, log: str, logged_s: float, option: str
):
    made = Made(command, tmp_path, capsys)
    made(f"{option}--log {written(tmp_path, log)}")
    assert {one.spec.workload.logged_generation_s for one in planned(made.text).experiments} == {logged_s}
    assert f"Generation took {logged_s} s in a step of the training, by {tmp_path}" in made.account


@pytest.mark.parametrize(
    ("read", "content", "problem", "remedy"),
    [
        (verl_generation_s, json.dumps(HISTORY), "has 0 steps with timing_s/gen", "trainer.logger"),
        (trl_generation_s, json.dumps(HISTORY), "profiling/Time taken: ...vLLM.generate", "wandb or mlflow"),
        (trl_time, json.dumps(HISTORY[:1]), "has 1 step with step_time, but 2 are needed", "trainer_state.json"),
        (trl_time, "\x00not a log", "has 0 steps with step_time", "trainer_state.json"),
        (trl_time, json.dumps([*HISTORY, {GENERATE: 60.0}]), "generation takes longer", "log of one training"),
        (verl_time, json.dumps(HISTORY), "has 0 steps with timing_s/update_actor", "trainer.logger"),
        (verl_time, "[" * 100_000, "has 0 steps with timing_s/update_actor", "trainer.logger"),
    ],
    ids=[
        "no generation of verl",
        "no generation of TRL",
        "one step",
        "binary",
        "longer",
        "of another trainer",
        "nested",
    ],
)
def test_a_log_without_training_is_refused(tmp_path: Path, read: Any, content: str, problem: str, remedy: str):
    path = written(tmp_path, content)
    with refused(problem, remedy):
        read(path, *{trl_time: [1, 1], verl_time: [1]}.get(read, []))
