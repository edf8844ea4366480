"""A user's shell script becomes the config that its settings become when they are typed by hand."""

import json
from pathlib import Path

import pytest
from refusals import refused
from trainer_commands import Made
from training_runs import FILES, TRL

from rollout_bench.trainers.launch_scripts import commands

PULL_REQUEST = """CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6 accelerate launch \\
    --config_file examples/accelerate_configs/deepspeed_zero3.yaml \\
    --num_processes=7 \\
    src/open_r1/grpo.py \\
    --config config.yaml
"""
"""experiment.sh of TRL's pull request 3162."""

WITH_A_SERVER = """#!/bin/bash
export OUT="$HOME/out"  # don't end here
# accelerate launch old.py --config "old.yaml
cat > notes <<EOF
It's no command: accelerate launch x.py
EOF
trl vllm-serve --model a/b --tensor-parallel-size 2 --data_parallel_size=2 > server.log 2>&1 &
nohup accelerate launch --config_file "zero3.yaml" --multi_gpu train.py --config training.yaml \\
  --output_dir "${OUT:-out}/x y" --reward_funcs accuracy format --system-prompt "You are: 'good'" --top_k -1 \\
  --vllm_mode server --temperature 5e-1 --no_shuffle_dataset --generation_kwargs '{"top_p": 0.5}' "$@" 2>&1 | tee log
"""


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.chdir(tmp_path)
    return Made("from-trl", tmp_path, capsys, monkeypatch)


def written(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)


@pytest.mark.parametrize("option", [[], ["--one-engine"], ["--cycle"]])
def test_the_script_of_the_pull_request_is_what_is_typed_by_hand(made: Made, tmp_path: Path, option: list[str]):
    typed = made(" ".join(["num_processes=7", *option]), FILES["1.5b"])
    (tmp_path / "run").mkdir()
    written(tmp_path / "run", experiment_sh=PULL_REQUEST, config_yaml=FILES["1.5b"])
    assert made.call("run/experiment.sh", *option) == typed
    assert "experiment.sh" in made.text.splitlines()[0]
    larger = made.call("run/experiment.sh", "per_device_train_batch_size=32", *option)
    assert larger["workload_settings"]["trl-step"]["prompts"] == 2 * typed["workload_settings"]["trl-step"]["prompts"]


def test_a_script_has_launch_overrides_and_server(made: Made, tmp_path: Path):
    settings = TRL.replace("num_processes: 8", "generation_kwargs: {temperature: 0.9, top_k: 7}")
    by_hand = "num_processes=4 vllm_mode=server temperature=0.5 +generation_kwargs.top_p=0.5"
    server = "+server.model=a/b +server.tensor_parallel_size=2 +server.data_parallel_size=2"
    typed = made(f"{by_hand} ~generation_kwargs.temperature ~generation_kwargs.top_k {server}", settings)
    written(tmp_path, train_sh=WITH_A_SERVER, zero3_yaml="num_processes: 4")
    assert made.call("train.sh") == typed
    assert (typed["rollout"]["replicas"], typed["workload_settings"]["trl-step"]["top_k"]) == (2, -1)


def test_trls_own_command_says_the_trainer(made: Made, tmp_path: Path):
    settings = TRL.replace("num_generations: 8\n", "")
    typed = made("--trainer rloo", settings)
    written(tmp_path, train_sh="trl rloo --config training.yaml\n")
    assert made.call("train.sh") == typed


@pytest.mark.parametrize(
    ("launch", "zero3", "is_sharded"),
    [
        ("", {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}}, True),
        ("", {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 2}}, False),
        ("", {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "ds.json"}}, True),
        ("", {"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": "FULL_SHARD"}}, True),
        ("", {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}, True),
        ("", {"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": "NO_SHARD"}}, False),
        ("", {"distributed_type": "MULTI_GPU"}, False),
        ("--zero_stage 3", {}, True),
        ("--zero_stage 2", {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}}, False),
        ("--deepspeed_config_file ds.json", {}, True),
        ("--use_fsdp", {}, True),
    ],
)
def test_a_placement_shards_as_accelerate_does(
    made: Made, tmp_path: Path, launch: str, zero3: dict[str, object], is_sharded: bool
):
    script = f"accelerate launch {launch} --config_file zero3.yaml train.py --config training.yaml\n"
    written(tmp_path, train_sh=script, zero3_yaml=json.dumps({"num_processes": 4, **zero3}))
    written(tmp_path, training_yaml=FILES["1.5b"], ds_json='{"zero_optimization": {"stage": 3}}')
    assert ("strategy" in made.call("train.sh", "--placement")["placement"]) == is_sharded


LAUNCH = "accelerate launch --num_processes 4 train.py --config training.yaml"


@pytest.mark.parametrize(
    ("script", "problem", "remedy"),
    [
        (f"{LAUNCH} --num_generations $N --top_k ${{K:-5}}", "num_generations ($N), top_k (${K:-5})",
         "add num_generations=VALUE top_k=VALUE to the command"),
        (f"{LAUNCH.replace('4', '$(nvidia-smi -L | wc -l)')}", "num_processes ($(nvidia-smi", "num_processes=VALUE"),
        (f"{LAUNCH.replace('training', '$NAME')}", "config ($NAME)", "write the name of its file in the script"),
        (LAUNCH.replace("--config", "$MORE --config"), "$MORE: stands for words", "write the words"),
        (f"{LAUNCH} --bf16 $EXTRA_ARGS", "$EXTRA_ARGS: stands for words that are not known", "write the words"),
        (f'{LAUNCH} "${{MORE[@]}}"', "${MORE[@]}: stands for words", "write the words"),
        (f"{LAUNCH}\n{LAUNCH}", "has 2 commands accelerate launch or trl grpo", "a script with one training"),
        ("python train.py", "has 0 commands accelerate launch", "num_processes=N"),
        ("accelerate launch --num_processes 4 $FILE", "starts no file of Python", "write the words"),
        (f"{LAUNCH} --num_generation 4", "--num_generation: there is no such key", "in full: --num_generations"),
        (f"{LAUNCH} --per_device_train 4", "--per_device_train: there is no such key", "per_device_train_batch_size"),
        (f"trl vllm-serve --config a.yaml\n{LAUNCH}", "trl vllm-serve: --config: is not read", "write its keys"),
        (LAUNCH.replace("--num_processes 4", "--config_file none.yaml"), "none.yaml: cannot be read",
         "accelerate_config=FILE"),
    ],
)  # fmt: skip
def test_what_only_the_shell_knows_is_refused(made: Made, tmp_path: Path, script: str, problem: str, remedy: str):
    written(tmp_path, train_sh=script, training_yaml=TRL.replace("num_processes: 8\n", ""))
    with refused(problem, remedy):
        made.call("train.sh")


def test_the_users_own_override_is_taken_for_a_variable(made: Made, tmp_path: Path):
    written(tmp_path, train_sh=f"{LAUNCH} --num_generations $N", training_yaml=TRL)
    (load,) = made.call("train.sh", "num_generations=4")["workload_settings"].values()
    assert load["samples_per_prompt"] == 4


def test_words_are_read_as_the_shell_does():
    script = r"""a 'b c' "d \"e\" $X" f\ g h#i \
  j; k && l | m >n 2>&1 # o
p"""
    texts = [[word.text for word in command] for command in commands(script)]
    assert texts == [["a", "b c", 'd "e" $X', "f g", "h#i", "j"], ["k"], ["l"], ["m"], ["p"]]
    assert [word.variable for word in commands(script)[0]] == ["", "", "$X", "", "", ""]


GRPO_OF_VERL = r"""set -x
gsm8k=$HOME/data/gsm8k/train.parquet
python3 -m verl.trainer.main_ppo --config-path=./config \
    data.train_files="['$gsm8k']" data.train_batch_size=64 data.max_prompt_length=512 \
    actor_rollout_ref.model.path=Qwen/Qwen3-8B +trainer.note="${NOTE:-none}" \
    actor_rollout_ref.rollout.n=5 'actor_rollout_ref.rollout.prompt_length=${data.max_prompt_length}' \
    actor_rollout_ref.rollout.tensor_model_parallel_size=$TP trainer.n_gpus_per_node=8 $@ 2>&1 | tee log
"""


@pytest.fixture
def verls(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.chdir(tmp_path)
    return Made("from-verl", tmp_path, capsys, monkeypatch)


def test_a_script_of_verl_is_what_its_overrides_are(verls: Made, tmp_path: Path):
    written(tmp_path, grpo_sh=GRPO_OF_VERL)
    tensor = "actor_rollout_ref.rollout.tensor_model_parallel_size=2"
    typed = verls.call(
        "data.train_batch_size=64",
        "actor_rollout_ref.model.path=Qwen/Qwen3-8B",
        "actor_rollout_ref.rollout.n=5",
        tensor,
    )
    assert verls.call("grpo.sh", tensor) == typed
    assert (typed["rollout"]["replicas"], typed["workload_settings"]["verl-step"]["prompts"]) == (4, 64)


@pytest.mark.parametrize(
    ("script", "problem", "remedy"),
    [
        (GRPO_OF_VERL, "tensor_model_parallel_size ($TP)", "tensor_model_parallel_size=VALUE to the command"),
        (GRPO_OF_VERL.replace("$@", '"${ARGS[@]}"'), "${ARGS[@]}: has a variable", "write its words out"),
        (GRPO_OF_VERL.replace("./config", "$HERE/config"), "--config-path=$HERE/config: has a", "write its words out"),
        (GRPO_OF_VERL.replace("verl.trainer.main_ppo", "recipe.dapo.main_dapo"), "has 0 commands python -m verl",
         "--cfg job"),
        (GRPO_OF_VERL * 2, "has 2 commands", "--cfg job"),
    ],
)  # fmt: skip
def test_what_only_the_shell_knows_of_verl_is_refused(
    verls: Made, tmp_path: Path, script: str, problem: str, remedy: str
):
    written(tmp_path, grpo_sh=script)
    with refused(problem, remedy):
        verls.call("grpo.sh")
