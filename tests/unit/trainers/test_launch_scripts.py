"""A user's shell script becomes the config that its settings become when they are typed by hand."""

import json
import shlex
from pathlib import Path

import pytest
from refusals import refused
from trainer_commands import Made
from training_runs import FILES, TRL

from rollout_bench.trainers.launch_scripts import trl_arguments
from rollout_bench.trainers.shell_words import commands

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
    return Made("from-trl", tmp_path, capsys)


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


def test_trls_own_command_or_its_program_says_the_trainer(made: Made, tmp_path: Path):
    settings = TRL.replace("num_generations: 8\n", "")
    typed = made("--trainer rloo", settings)
    for start in ("trl rloo", "accelerate launch --num_processes 8 examples/scripts/rloo.py"):
        written(tmp_path, train_sh=f"{start} --config training.yaml\n")
        assert made.call("train.sh") == typed


@pytest.mark.parametrize(
    "start",
    [
        "torchrun --nproc_per_node 4 --nnodes=2 --rdzv_backend c10d",
        "python -m torch.distributed.run --nproc-per-node=8",
        "deepspeed --num_gpus 8 --master_port 9901",
    ],
)
def test_other_launchers_say_the_number_of_processes(made: Made, tmp_path: Path, start: str):
    settings = TRL.replace("num_processes: 8\n", "")
    typed = made("num_processes=8", settings)
    written(tmp_path, train_sh=f"{start} train_grpo.py --config training.yaml\n")
    assert made.call("train.sh") == typed


def test_an_engine_over_several_nodes_is_refused(made: Made, tmp_path: Path):
    made("", TRL)
    written(tmp_path, nodes_yaml="num_machines: 2\nnum_processes: 8\n")
    made.call("training.yaml", "accelerate_config=nodes.yaml", "vllm_mode=colocate", "vllm_tensor_parallel_size=4")
    with refused("an engine has 8 devices and a node 4", "set it to 4 or less"):
        made.call("training.yaml", "accelerate_config=nodes.yaml", "vllm_mode=colocate", "vllm_tensor_parallel_size=8")


def test_a_launcher_of_as_many_as_there_are_asks_for_the_number(made: Made, tmp_path: Path):
    made("num_processes=8", TRL.replace("num_processes: 8\n", ""))
    written(tmp_path, train_sh="torchrun --nproc_per_node=gpu train_grpo.py --config training.yaml\n")
    with refused("num_processes", "num_processes="):
        made.call("train.sh")


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
        (f"{LAUNCH} --num_generations $N --top_k $1", "num_generations ($N), top_k ($1)",
         "add num_generations=VALUE top_k=VALUE to the command"),
        (f"{LAUNCH.replace('4', '$(nvidia-smi -L | wc -l)')}", "num_processes ($(nvidia-smi", "num_processes=VALUE"),
        (f"{LAUNCH.replace('training', '$NAME')}", "config ($NAME)", "write the name of its file in the script"),
        (LAUNCH.replace("--config", "$MORE --config"), "$MORE: stands for words", "write the words"),
        (f"{LAUNCH} --bf16 $EXTRA_ARGS", "$EXTRA_ARGS: stands for words that are not known", "write the words"),
        (f'{LAUNCH} "${{MORE[@]}}"', "${MORE[@]}: stands for words", "write the words"),
        (f"{LAUNCH}\n{LAUNCH}", "has 2 commands accelerate launch or trl grpo", "a script with one training"),
        ("python train.py", "has 0 commands accelerate launch", "num_processes=N"),
        *((LAUNCH.replace("train.py", program), "is by its name no training with GRPO or RLOO", "its YAML")
          for program in ("examples/scripts/online_dpo.py", "nash_md.py", "async_grpo.py", "-m mine.xpo")),
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
    texts = [[word.text for word in command.words] for command in commands(script)]
    assert texts == [["a", "b c", 'd "e" $X', "f g", "h#i", "j"], ["k"], ["l"], ["m"], ["p"]]
    assert [word.variable for word in commands(script)[0].words] == ["", "", "$X", "", "", ""]


ROLLOUT = "actor_rollout_ref.rollout."

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
    return Made("from-verl", tmp_path, capsys)


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


WITH_AN_ARRAY = GRPO_OF_VERL.replace("$@", '"${ROLLOUT[@]}"')


@pytest.mark.parametrize(
    ("script", "problem", "remedy"),
    [
        (GRPO_OF_VERL, "tensor_model_parallel_size ($TP)", "tensor_model_parallel_size=VALUE to the command"),
        (GRPO_OF_VERL.replace("$@", '"${ARGS[@]}"'), "${ARGS[@]}: has a variable", "write its words out"),
        (GRPO_OF_VERL.replace("./config", "$HERE/config"), "--config-path=$HERE/config: has a", "write its words out"),
        (GRPO_OF_VERL.replace("verl.trainer.main_ppo", "recipe.spin.main_spin"),
         "has 0 commands python -m verl.trainer.main_ppo, and one is read; recipe.spin.main_spin is none of those",
         "--cfg job"),
        (f"ROLLOUT=(a.b=1)\nif x; then ROLLOUT+=({ROLLOUT}max_num_seqs=8); fi\n{WITH_AN_ARRAY}",
         "max_num_seqs (${ROLLOUT[@]})", "max_num_seqs=VALUE"),
        (f"source ./env.sh\n{GRPO_OF_VERL.replace('$TP', '${TP:-2}')}", "(${TP:-2})",
         "tensor_model_parallel_size=VALUE to the command"),
        (GRPO_OF_VERL * 2, "has 2 commands", "--cfg job"),
        (f"run() {{ {GRPO_OF_VERL}}}\nrun {ROLLOUT}n=8\n", '"$@" of a function: has a variable', "write its words out"),
        ("accelerate launch grpo.py --num_generations 8\n", "has 0 commands", "`rollout-bench from-trl "),
    ],
)  # fmt: skip
def test_what_only_the_shell_knows_of_verl_is_refused(
    verls: Made, tmp_path: Path, script: str, problem: str, remedy: str
):
    written(tmp_path, grpo_sh=script)
    with refused(problem, remedy):
        verls.call("grpo.sh")


USUAL = r"""#!/bin/bash
set -x
MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B-Instruct}
export NGPUS=8 NNODES="1"
ROOT=/data
rollouts="$ROOT/out"  # where
echo "NGPUS=$NGPUS"
if [ -z "$DEBUG" ]; then
    OFFLOAD=True
fi
python3 -m verl.trainer.main_ppo \
    data.train_batch_size=${BATCH:-64} actor_rollout_ref.model.path="${MODEL_PATH}" actor_rollout_ref.rollout.n=5 \
    trainer.rollout_data_dir=$rollouts/x actor_rollout_ref.actor.fsdp_config.param_offload=$OFFLOAD \
    data.max_response_length=$LENGTH trainer.n_gpus_per_node=$NGPUS trainer.nnodes=$NNODES "$@"
"""


def test_values_that_the_script_assigns_are_taken_and_told(
    verls: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NGPUS", "2")
    monkeypatch.setenv("MODEL_PATH", "a/b")
    written(tmp_path, run_sh=USUAL)
    own = "data.max_response_length=256"
    typed = verls.call(
        "data.train_batch_size=64", "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct",
        "actor_rollout_ref.rollout.n=5", own, "trainer.n_gpus_per_node=8",
    )  # fmt: skip
    assert verls.call("run.sh", own) == typed
    values = "BATCH=64, MODEL_PATH=Qwen/Qwen2.5-7B-Instruct, NGPUS=8, NNODES=1"
    assert f"Values of variables, none from the environment: {values}." in verls.account
    assert f"# Values of variables, none from the environment: {values}." in verls.text
    assert verls.call("run.sh", "LENGTH=256") == typed
    with refused("data.max_response_length ($LENGTH)", "add data.max_response_length=VALUE to the command"):
        verls.call("run.sh")
    with refused("LENGHT: the script run.sh has no such variable", "name one that it has, or a key"):
        verls.call("run.sh", "LENGHT=256")


def test_a_value_that_the_script_replaces_is_refused(verls: Made, tmp_path: Path):
    """As `TP=4 bash run.sh` has no effect on a script with TP=2."""
    script = GRPO_OF_VERL.replace("=64", "=$BATCH")
    written(tmp_path, run_sh=f'TP=2\n: "${{BATCH:=8}}"\n{script}')
    own = verls.call("run.sh")
    assert verls.call("run.sh", "BATCH=8") == own
    assert verls.call("run.sh", "BATCH=16") != own
    with refused("TP=4: the script run.sh gives TP a value of its own", "write the trainer's key with the value"):
        verls.call("run.sh", "TP=4")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ('eval "$(cat settings)"', "line 3: eval $(cat settings)"),
        ("cat <<E\nx\nE\nsource ./none.sh", "line 6: source ./none.sh"),
        ('[ -n "$DEBUG" ] && TP=8', "line 3: TP=8, only if: [ -n $(date) ]"),
        ("if grep -q x y; then TP=8; fi", "line 3: TP=8, only if: grep -q x y"),
        ("for i in 1 2; do TP=$i; done", "line 3: TP=$i, in a loop or a function"),
        ("read TP < file", "line 3: read TP"),
        ("API_KEY=hush read TP < file", "line 3: API_KEY..."),
    ],
)
def test_the_line_that_may_change_a_value_is_named_and_the_users_value_counts(
    verls: Made, tmp_path: Path, change: str, place: str
):
    written(tmp_path, run_sh=f"set -x\nTP=4\n{change.replace('$DEBUG', '$(date)')}\n{GRPO_OF_VERL}")
    with refused(f"tensor_model_parallel_size ($TP), because of {place}", "VALUE to the command, or TP=VALUE"):
        verls.call("run.sh")
    (load,) = verls.call("run.sh", "TP=2")["workload_settings"].values()
    assert load["engine_args"]["tensor_parallel_size"] == 2


@pytest.mark.parametrize(
    "start",
    [
        "srun -N 1 bash -c {}", "bash -c {}", "sh -c {}", "nohup bash -lc {} &", "uv run bash -c {}",
        "ray job submit --address=x -- bash -c {}", "docker run --gpus all image bash -c {}", "eval {}",
    ],
)  # fmt: skip
def test_a_command_in_a_text_is_the_training(verls: Made, tmp_path: Path, start: str):
    script = GRPO_OF_VERL.replace("set -x\n", "").replace("$TP", "2")
    head, _, command = script.partition("\n")
    written(tmp_path, plain_sh=script, text_sh=f"{head}\n{start.format(shlex.quote(command.strip()))}\n")
    assert verls.call("text.sh") == verls.call("plain.sh")


def test_options_of_hydra_are_read_as_hydra_reads_them(verls: Made, tmp_path: Path):
    script = GRPO_OF_VERL.replace("$TP", "2")
    written(tmp_path, plain_sh=script)
    for option in ("-m", "--multirun", "-cn ppo_trainer", "--cfg job --resolve", f"~{ROLLOUT}top_k", "~trainer.logger"):
        written(tmp_path, run_sh=script.replace("$@", option))
        assert verls.call("run.sh") == verls.call("plain.sh")
    written(tmp_path, run_sh=script.replace("$@", "--trust-remote-code"))
    with refused("run.sh: line 3: --trust-remote-code: is no option of hydra's", "leave it out"):
        verls.call("run.sh")


def test_a_folder_that_a_command_prints_may_be_named(verls: Made, tmp_path: Path):
    script = GRPO_OF_VERL.replace("$TP", "2").replace("=./config", '="$CONFIG_PATH" --config-name=own')
    written(tmp_path, run_sh=f'CONFIG_PATH="$(pwd)/own"\n{script}')
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path / "elsewhere", own_yaml=f"{ROLLOUT.split('.')[0]}: {{rollout: {{top_k: 7}}}}\n")
    with refused("--config-path=$CONFIG_PATH: has a variable", "add CONFIG_PATH=VALUE to the command, or write"):
        verls.call("run.sh")
    (load,) = verls.call("run.sh", "CONFIG_PATH=elsewhere")["workload_settings"].values()
    assert load["top_k"] == 7


def test_a_sweep_asks_for_one_of_its_values(verls: Made, tmp_path: Path):
    written(tmp_path, run_sh=GRPO_OF_VERL.replace("$TP", "2").replace("$@", f"-m {ROLLOUT}n=4,8 trainer.seed=1,2"))
    with refused(f"run.sh: line 3: {ROLLOUT}n=4,8: is a sweep", f"add {ROLLOUT}n=VALUE to the command"):
        verls.call("run.sh")
    (load,) = verls.call("run.sh", f"{ROLLOUT}n=8")["workload_settings"].values()
    assert load["samples_per_prompt"] == 8


def test_a_default_that_a_script_removes_counts_where_it_is_known(verls: Made, tmp_path: Path):
    script = GRPO_OF_VERL.replace("$TP", "2")
    for removed, problem, remedy in (
        (f"{ROLLOUT}topk", "verl has no key", f"did you mean '~{ROLLOUT}top_k'"),
        (
            f"{ROLLOUT}response_length",
            "only verl's own classes know its value",
            f"write {ROLLOUT}response_length=VALUE",
        ),
    ):
        written(tmp_path, run_sh=script.replace("$@", f"~{removed}"))
        with refused(f"~{removed}: ", remedy) as raised:
            verls.call("run.sh")
        assert problem in str(raised.value)
    written(tmp_path, run_sh=script.replace("$@", "actor_rollout_ref.model.path=~/m"))
    with refused("behind a key with dots", "write actor_rollout_ref.model.path=$HOME/m"):
        verls.call("run.sh")


def test_a_text_for_another_shell_has_no_variable_that_is_not_exported(verls: Made, tmp_path: Path):
    command = GRPO_OF_VERL.replace("set -x\n", "").replace("$TP", "'$TP'").partition("\n")[2].strip().replace("'", "")
    written(tmp_path, run_sh=f"TP=4\nsrun bash -c {shlex.quote(command)}\n")
    with refused(
        "line 2: the text of bash -c gets only exported variables", "tensor_model_parallel_size=VALUE"
    ) as raised:
        verls.call("run.sh")
    assert "or TP=VALUE" not in str(raised.value)
    with refused("TP=8: the script run.sh gives TP a value of its own", "write the trainer's key"):
        verls.call("run.sh", "TP=8")


def test_a_file_that_is_sourced_under_a_condition_may_change_values(verls: Made, tmp_path: Path):
    script = GRPO_OF_VERL
    written(tmp_path, env_sh="TP=8\n", maybe_sh=f"TP=4\n[ -f x ] && . ./env.sh\n{script}")
    written(tmp_path, never_sh=f"TP=4\nif [ a = b ]; then . ./env.sh; fi\n{script}")
    with refused("because of env.sh line 1: TP=8, only if: [ -f x ]", "TP=VALUE"):
        verls.call("maybe.sh")
    (load,) = verls.call("never.sh")["workload_settings"].values()
    assert load["engine_args"]["tensor_parallel_size"] == 4


def test_a_value_that_a_script_demands_is_given(verls: Made, tmp_path: Path):
    model = "actor_rollout_ref.model.path"
    script = GRPO_OF_VERL.replace("$TP", "2").replace("Qwen/Qwen3-8B", "$MODEL")
    written(tmp_path, run_sh=f"MODEL=${{MODEL:?which}}\n{script}")
    with refused(f"{model} ($MODEL)", f"add {model}=VALUE to the command"):
        verls.call("run.sh")
    verls.call("run.sh", "MODEL=a/other")
    assert "hub:a/other" in verls.text


def test_values_are_taken_for_options_and_files_of_trl(made: Made, tmp_path: Path):
    typed = made("num_processes=4 num_generations=4", TRL)
    script = "DIR=.\nN=4\naccelerate launch --num_processes=$N train.py --config $DIR/training.yaml"
    written(tmp_path, train_sh=f"{script} --num_generations ${{N}}\n")
    assert made.call("train.sh") == typed
    assert "none from the environment: N=4, DIR=.." in made.account


@pytest.mark.parametrize(
    "before",
    [
        "N=$(nvidia-smi -L | wc -l)", "N=`cat n`", "N=$1", "N=$OTHER",
        "N=8; ((N++))", "N=8; ((N /= 2))", "if x; then N=8; fi", "N=8\nif x; then\n  N=4\nfi",
        "N=8; if x\nthen N=4; fi", "case x in\n  a) N=8;;\nesac", "case x in (a) N=8\n;; esac", "f() { N=8; }",
        "f() {\n N=8\n}", "function f {\nN=8\n}", "function f { N=8\n}", "function f() { N=8; }",
        "for N in 8; do echo; done", "for i in 1; do N=8; done", "while read N; do echo; done", "(N=8)",
        "(\n  N=8\n)", "x && N=8", "x ||\n  N=8", "N=8 | x", "N=8 &", "N=8 x", "N=(8)", "N[0]=8", "read N",
        "N=8; read -r N", "N=8; unset N", "declare -i N=8", "N=8; local N=3", "N=8; getopts n: N",
        "N=8; printf -v N 4", "N=8; select N in 1 2; do x; done", "N='8 9'",
        "cat <<E\nN=8\nE", "# N=8", "echo N=8", "'N=8'",
    ],
)  # fmt: skip
def test_what_a_script_assigns_otherwise_is_refused(verls: Made, tmp_path: Path, before: str):
    written(tmp_path, grpo_sh=f"{before}\n{GRPO_OF_VERL.replace('$TP', '$N')}")
    with refused("tensor_model_parallel_size ($N)", "tensor_model_parallel_size=VALUE to the command"):
        verls.call("grpo.sh")


@pytest.mark.parametrize(
    "before",
    ["N=8", "N=8; x", "x; N=8", "export N=8", "readonly N='8'", 'M=8\nN="$M"', "M=8; N=${M}", "N=${N:-8}", "N=${N-8}",
     "N=${1:-8}",
     "N=${M:-8}", "if x; then M=8; fi\nN=8", "f() {\n  M=1\n}\nN=8", "case x in\n a) M=1;;\n b) M=2;;\nesac\nN=8",
     "x && y\nN=8", "x &\nN=8", "for i in 1 2; do x; done\nN=8", "N=8 # N=4", "M=; N=${M:-8}", "N=8\necho \"N=$N\" N=3",
     "(\n x\n)\nN=8", "A=(1 2)\nN=8", "N=8\nexport N", "N=8\r", "N=$((2 * 4))", "N=4\nN=8", "N=; N+=8",
     "N=4; export N=8", "M=8; N=$M; M=4", ": ${N:=4}; N=8",
     "M=${N:-8}; N=$M", "M=3; N=$(( (M + 1) * ${K:-2} ))", "N=${M:-${K:-8}}",
     "N=4\nif [ \"${M:-a}\" = a ]; then N=8; fi", "N=8\nif [ $((1 + 1)) -gt 2 ]; then N=4; fi",
     "if [ a != a ]; then N=4; elif [[ a == a ]] && [ -z \"\" ]; then N=8; else N=2; fi",
     "case ${M:-vllm} in\n  sg*) N=4;;\n  vllm|hf) N=8;;\n  *) N=2;;\nesac"],
)  # fmt: skip
def test_a_plain_assignment_is_read(verls: Made, tmp_path: Path, before: str):
    written(tmp_path, grpo_sh=f"{before}\n{GRPO_OF_VERL.replace('$TP', '$N')}N=4\n")
    (load,) = verls.call("grpo.sh")["workload_settings"].values()
    assert load["engine_args"]["tensor_parallel_size"] == 8


IN_ARRAYS = r"""#!/usr/bin/env bash
set -xeuo pipefail
n=${N:-4}
max_prompt_length=$((1024 * 2))
DEVICE=$(python3 -c 'import torch_npu' && echo npu || echo gpu)
LAUNCH=(python3)
RAY=(ray_kwargs.ray_init.num_cpus=null)
if [ "${USE_UV:-1}" != 0 ] && [ "$DEVICE" = gpu ]; then
    LAUNCH=(uv run python3)
    RAY=(ray_kwargs.ray_init.num_cpus=8)
fi
DATA=(
    data.train_batch_size=64  # prompts
    data.max_prompt_length=${max_prompt_length}
)
ROLLOUT=(actor_rollout_ref.rollout.n=${n})
backend=${BACKEND:-vllm}
if [ "$backend" = vllm ]; then
    ROLLOUT+=(
        actor_rollout_ref.rollout.name="$backend"
        actor_rollout_ref.rollout.max_num_batched_tokens=$((max_prompt_length * 4))
    )
else
    ROLLOUT=(actor_rollout_ref.rollout.name=sglang)
fi
EXTRA=()
MORE="actor_rollout_ref.rollout.top_k=20 trainer.nnodes=1"
n=8
"${LAUNCH[@]}" -m verl.trainer.main_ppo "${DATA[@]}" actor_rollout_ref.model.path=Qwen/Qwen3-8B "${ROLLOUT[@]}" \
    "${EXTRA[@]}" "${RAY[@]}" trainer.n_gpus_per_node=8 $MORE "$@"
"""
"""As verl's own examples are written."""


def test_arrays_calculations_and_conditions_are_followed(verls: Made, tmp_path: Path):
    written(tmp_path, run_sh=IN_ARRAYS)
    typed = verls.call(
        "data.train_batch_size=64", "data.max_prompt_length=2048", "actor_rollout_ref.model.path=Qwen/Qwen3-8B",
        "actor_rollout_ref.rollout.n=4", "actor_rollout_ref.rollout.max_num_batched_tokens=8192",
        "actor_rollout_ref.rollout.top_k=20", "trainer.n_gpus_per_node=8",
    )  # fmt: skip
    assert verls.call("run.sh") == typed


def test_a_sourced_file_beside_the_script_is_read(verls: Made, tmp_path: Path):
    (tmp_path / "run").mkdir()
    written(tmp_path / "run", env_sh="export TP=4\n", grpo_sh=f'. "$(dirname "$0")/env.sh"\n{GRPO_OF_VERL}')
    (load,) = verls.call("run/grpo.sh")["workload_settings"].values()
    assert load["engine_args"]["tensor_parallel_size"] == 4


def test_words_that_xargs_adds_are_unknown(verls: Made, tmp_path: Path) -> None:
    written(tmp_path, grpo_sh=GRPO_OF_VERL.replace("$TP", "2").replace("python3 -m", "echo n=4 | xargs python3 -m"))
    with refused("line 3: xargs adds words", "write the words of this command out"):
        verls.call("grpo.sh")


def test_a_blank_after_a_backslash_is_told(verls: Made, tmp_path: Path) -> None:
    written(tmp_path, grpo_sh=GRPO_OF_VERL.replace("$TP", "2").replace("=512 \\\n", "=512 \\ \n"))
    with refused("ends in a blank after a backslash", "take the blank"):
        verls.call("grpo.sh")


@pytest.mark.parametrize(
    "script",
    [
        "CMD='{}'\nCMD+=' actor_rollout_ref.rollout.n=4'\neval $CMD\n",
        "{} actor_rollout_ref.rollout.n=4\nexit 0\n{} actor_rollout_ref.rollout.n=8\n",
        "exec {} actor_rollout_ref.rollout.n=4\n{} actor_rollout_ref.rollout.n=8\n",
    ],
)
def test_the_command_that_runs_is_read_once(verls: Made, tmp_path: Path, script: str) -> None:
    command = "python3 -m verl.trainer.main_ppo actor_rollout_ref.model.path=Qwen/Qwen3-8B trainer.n_gpus_per_node=8"
    written(tmp_path, grpo_sh=script.replace("{}", command))
    (load,) = verls.call("grpo.sh")["workload_settings"].values()
    assert load["samples_per_prompt"] == 4


def test_a_command_after_a_conditional_exit_may_run(verls: Made, tmp_path: Path) -> None:
    script = GRPO_OF_VERL.replace("$TP", "2")
    written(tmp_path, grpo_sh=f'if [ "$1" = x ]; then\n{script}\nexit 0\nfi\n{script}')
    with refused("has 2 commands", "--cfg job"):
        verls.call("grpo.sh")


@pytest.mark.parametrize(
    "writes",
    [
        "cat > c.env <<E\nTP=4\nE\n",
        "{ echo TP=4; } > c.env\n",
        "(echo TP=4) >> ./c.env\n",
        "ENV=./c.env\necho TP=4 > $ENV\n",
        "echo TP=4 | tee c.env\n",
        "python made.py --out c.env\n",
        "sed -i s/2/4/ c.env\n",
        "if [ ! -f c.env ]; then echo TP=4 > c.env; fi\n",
    ],
)
def test_a_sourced_file_that_the_script_writes_itself_is_unknown(verls: Made, tmp_path: Path, writes: str):
    """What is on the disk may be from an earlier run."""
    written(tmp_path, c_env="TP=2\n", grpo_sh=f"{writes}source c.env\n{GRPO_OF_VERL}")
    with refused("source c.env", "TP=VALUE"):
        verls.call("grpo.sh")


@pytest.mark.parametrize("reads", ["[ -f c.env ] && ", "chmod +x c.env > log.txt\n", "export ENV=c.env\n"])
def test_a_sourced_file_that_the_script_only_names_is_read(verls: Made, tmp_path: Path, reads: str):
    written(tmp_path, c_env="export TP=4\n", grpo_sh=f"{reads}source c.env\n{GRPO_OF_VERL}")
    if reads.startswith("["):
        with refused("only if", "TP=VALUE"):
            verls.call("grpo.sh")
        return
    (load,) = verls.call("grpo.sh")["workload_settings"].values()
    assert load["engine_args"]["tensor_parallel_size"] == 4


@pytest.mark.parametrize(
    "function",
    [
        'run() { python -m MAIN "$@"; }',
        'function run {\n  shift\n  python -m MAIN trainer.nnodes=1 "$@"\n}',
    ],
)
def test_the_arguments_of_a_function_are_those_of_its_call(verls: Made, tmp_path: Path, function: str):
    whole, program = GRPO_OF_VERL.replace("$TP", "2"), "python3 -m verl.trainer.main_ppo"
    call = "run 1" if "shift" in function else "run"
    called = f"{function.replace('python -m MAIN', program)}\n{whole.replace(program, call)}"
    written(tmp_path, grpo_sh=called, plain_sh=whole)
    one, other = (verls.call(name)["workload_settings"] for name in ("grpo.sh", "plain.sh"))
    assert one == other
    twice = called.replace("run()", "run() { :; }\nrun()").replace("function run", "run() { :; }\nfunction run")
    written(tmp_path, twice_sh=twice)
    with refused('"$@" of a function', "write its words out in the script"):
        verls.call("twice.sh")


@pytest.mark.parametrize(
    "writes",
    [
        "sed -i s/8/16/ grpo.yaml",
        "cat > grpo.yaml <<END\nnum_generations: 4\nEND",
        "cp long/grpo.yaml .",
        "cp a grpo.yaml",
    ],
)
def test_a_config_that_the_script_writes_itself_is_refused(tmp_path: Path, writes: str):
    written(tmp_path, grpo_yaml="num_generations: 8\n", grpo_sh=f"{writes}\ntrl grpo --config grpo.yaml\n")
    with refused("line 1 writes grpo.yaml, so what lies there now may be another's", "the YAML that it leaves"):
        trl_arguments(tmp_path / "grpo.sh", [])


def test_a_config_that_the_script_only_copies_elsewhere_is_read(tmp_path: Path):
    copies = 'cp grpo.yaml out/\ncp grpo.yaml "$OUT/grpo.yaml"\ncat grpo.yaml > log.txt\n'
    written(tmp_path, grpo_yaml="num_generations: 8\n", grpo_sh=f"{copies}trl grpo --config grpo.yaml\n")
    assert trl_arguments(tmp_path / "grpo.sh", []).words == [str(tmp_path / "grpo.yaml")]


@pytest.mark.parametrize(
    "sign", ["export HCCL_CONNECT_TIMEOUT=7200", "source /usr/local/Ascend/ascend-toolkit/set_env.sh"]
)
def test_a_script_with_the_toolkit_of_npus_is_of_npus(verls: Made, tmp_path: Path, sign: str):
    script = GRPO_OF_VERL.replace("$TP", "2")
    written(tmp_path, grpo_sh=f"{sign}\n{script}", cuda_sh=f"{sign}\n{script.replace('$@', 'trainer.device=cuda $@')}")
    assert [
        verls.call(*words)["platform"] for words in (["grpo.sh"], ["grpo.sh", "trainer.device=cuda"], ["cuda.sh"])
    ] == [
        "ascend",
        "cuda",
        "cuda",
    ]


def test_a_command_that_only_the_shell_knows_is_named(tmp_path: Path):
    written(tmp_path, grpo_sh='N=$(nproc)\nRUN="accelerate launch --num_processes $N"\n$RUN train.py\n')
    with refused("$RUN: is a command that only the shell knows", "write its words out in the script"):
        trl_arguments(tmp_path / "grpo.sh", [])


def test_the_entry_point_says_whose_batches_are_generated(verls: Made, tmp_path: Path):
    larger = GRPO_OF_VERL.replace("$TP", "1 data.gen_batch_size=192")
    written(tmp_path, plain_sh=larger, filtered_sh=f"{larger.replace('$@', 'algorithm.filter_groups.enable=True')}")
    prompts = {
        words: verls.call(*words)["workload_settings"]["verl-step"]["prompts"]
        for words in (("filtered.sh",), ("filtered.sh", "++trainer.use_v1=false"), ("plain.sh", "--verl", "0.8"))
    }
    assert [*prompts.values()] == [64, 192, 192]
    with refused("data.gen_batch_size: is above train_batch_size, which main_ppo refuses", "~data.gen_batch_size"):
        verls.call("plain.sh")


def test_recipes_have_their_own_defaults(verls: Made, tmp_path: Path):
    dapo = GRPO_OF_VERL.replace("verl.trainer.main_ppo", "recipe.dapo.main_dapo").replace(
        "$TP", "1 data.gen_batch_size=32"
    )
    written(tmp_path, dapo_sh=dapo)
    assert verls.call("dapo.sh")["workload_settings"]["verl-step"]["prompts"] == 32
    apart = "verl.experimental.one_step_off_policy.main_ppo --config-path=config --config-name one_step_off_ppo_trainer"
    script = GRPO_OF_VERL.replace("verl.trainer.main_ppo --config-path=./config", apart).replace("$TP", "1")
    written(tmp_path, apart_sh=script)
    assert verls.call("apart.sh", "rollout.n_gpus_per_node=4")["rollout"]["replicas"] == 4
    written(
        tmp_path,
        stream_sh=dapo.replace("recipe.dapo.main_dapo", "recipe.fully_async_policy.fully_async_main").replace(
            "train_batch_size=64", "train_batch_size=0"
        ),
    )
    with refused("0 is a fully asynchronous training, which has no step", "add data.train_batch_size=128"):
        verls.call("stream.sh")
    assert verls.call("stream.sh", "data.train_batch_size=128")["workload_settings"]["verl-step"]["prompts"] == 128


@pytest.mark.parametrize("module", ["recipe", "verl.experimental"])
def test_a_fully_asynchronous_training_with_a_batch_is_refused_as_by_verl(verls: Made, tmp_path: Path, module: str):
    started = f"{module}.fully_async_policy.fully_async_main"
    written(tmp_path, stream_sh=GRPO_OF_VERL.replace("verl.trainer.main_ppo", started).replace("$TP", "1"))
    with refused("64: verl's fully_async_policy refuses all but 0", "add data.train_batch_size=128 to measure"):
        verls.call("stream.sh")
    assert verls.call("stream.sh", "data.train_batch_size=128")["workload_settings"]["verl-step"]["prompts"] == 128


def test_a_loop_may_assign_behind_its_training(verls: Made, tmp_path: Path):
    loop = f"N=8\nfor i in 1 2; do\n{GRPO_OF_VERL.replace('$TP', '$N')}N=4\ndone\n"
    written(tmp_path, grpo_sh=loop)
    with refused("tensor_model_parallel_size ($N)", "VALUE"):
        verls.call("grpo.sh")


def test_a_secret_of_the_script_is_not_told(verls: Made, tmp_path: Path):
    written(tmp_path, grpo_sh=f"API_KEY=8\n{GRPO_OF_VERL.replace('$TP', '$API_KEY')}")
    verls.call("grpo.sh")
    assert "none from the environment: API_KEY=...." in verls.account


def test_variables_that_a_script_gives_to_its_engines_are_in_the_config(verls: Made, tmp_path: Path):
    exports = "export VLLM_ATTENTION_BACKEND=FLASHINFER HF_HOME=/x NCCL_ALGO=$WHICH\nexport CUDA_VISIBLE_DEVICES=0\n"
    script = exports + GRPO_OF_VERL.replace("$TP", "2").replace("python", "VLLM_USE_V1=1 python", 1)
    written(tmp_path, grpo_sh=script)
    made = verls.call("grpo.sh")
    assert made["engine"]["environment"] == {"VLLM_ATTENTION_BACKEND": "FLASHINFER", "VLLM_USE_V1": "1"}
    assert "are in engine.environment: VLLM_ATTENTION_BACKEND, VLLM_USE_V1." in verls.account
    assert "since only the shell knows the value: NCCL_ALGO." in verls.account


@pytest.mark.parametrize("option", ["--quants", "--quantization=fp8", "--config"])
def test_what_a_config_says_is_said_of_the_config_that_is_made(verls: Made, tmp_path: Path, option: str):
    written(tmp_path, run_sh=GRPO_OF_VERL.replace("$TP", "2"))
    with refused(f"{option}: is no option", "--configfile mine.yaml --config 'quants=[bf16, fp8]'"):
        verls.call("run.sh", option)
    with refused("--output: is no option", "write `> mine.yaml` at the end"):
        verls.call("run.sh", "--output", "mine.yaml")
