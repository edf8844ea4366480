"""TRL's settings, from YAML or from the commands that start it, become a config that can be planned."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_trainers import BAD_TRL, TRL, TRL_SCRIPT, BadTrainer
from docs_pages import REPOSITORY, blocks, commands
from planned import assert_preset, planned

from rollout_bench.commands import trainers
from rollout_bench.core.errors import UserError
from rollout_bench.trainers.keys import Influence
from rollout_bench.trainers.launch_commands import flags, launched
from rollout_bench.trainers.trl_keys import trl_registry

SMALL = """
model_name_or_path: deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
torch_dtype: bfloat16
dataset_name: open-r1/OpenR1-Math-220k
system_prompt: "Think first."
bf16: true
use_vllm: true
vllm_colocation: true
vllm_gpu_memory_utilization: 0.5
vllm_enable_prefix_caching: false
gradient_accumulation_steps: 4
gradient_checkpointing_kwargs: {use_reentrant: false}
max_prompt_length: 512
max_completion_length: 2048
num_generations: 16
overwrite_output_dir: true
per_device_train_batch_size: 16
reward_funcs: [length]
temperature: 0.7
"""
"""What TRL's pull request 3162 trains with 1.5B parameters, as far as it has to do with generation."""

LARGE = """
model_name_or_path: Qwen/Qwen2.5-14B-Instruct
use_vllm: true
vllm_tp: true
vllm_gpu_memory_utilization: 0.4
vllm_enable_prefix_caching: false
vllm_max_model_len: 1024
gradient_accumulation_steps: 4
max_prompt_length: 512
max_completion_length: 512
num_generations: 4
per_device_train_batch_size: 1
dataset_prompt_column: problem
temperature: 0.7
"""
"""What it trains with 14B parameters."""


class Made:
    """What the command makes of files: the config it prints, and the account."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._capsys, self._monkeypatch = path, capsys, monkeypatch

    def __call__(self, arguments: str = "", content: str = TRL, script: str | None = None) -> dict[str, Any]:
        (self.path / "config.yaml").write_text(content)
        if script is not None:
            (self.path / "run.sh").write_text(script)
        file = self.path / ("config.yaml" if script is None else "run.sh")
        self._monkeypatch.setattr(sys, "argv", ["rollout-bench from-trl", str(file), *shlex.split(arguments)])
        assert trainers.from_trl() == 0
        self.text, self.account = self._capsys.readouterr()
        return dict(yaml.safe_load(self.text))

    def planned(self, arguments: str = "", content: str = TRL, script: str | None = None) -> dict[str, Any]:
        """Return workload and engine arguments of the one experiment that the config comes to."""
        self(arguments, content, script)
        (experiment,) = planned(self.text).experiments
        spec = experiment.spec
        assert spec.rollout is not None
        return {**spec.workload.model_dump(), **spec.engine.args, **spec.rollout.model_dump()}


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, capsys, monkeypatch)


SEVEN = r"""
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6 accelerate launch \
    --config_file examples/accelerate_configs/deepspeed_zero3.yaml \
    --num_processes=7 \
    src/open_r1/grpo.py \
    --config config.yaml
"""


def test_seven_colocated_engines_have_whole_groups_of_their_own_process(made: Made):
    plan = made.planned(content=SMALL, script=SEVEN)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["data_parallel_size"]) == (28, 16, 7)
    assert (plan["entry"], plan["router"], plan["logprobs"]) == ("llm", "sticky", 0)
    assert (plan["prompt_tokens"], plan["output_tokens"], plan["temperature"]) == (512, 2048, 0.7)
    assert (plan["max_num_seqs"], plan["max_num_batched_tokens"]) == (64, 4096)
    assert (plan["gpu_memory_utilization"], plan["enable_prefix_caching"]) == (0.5, False)
    assert "28 prompts, 16 of each, 448 sequences; 7 engines (colocate)" in made.account


def test_one_engine_of_seven_has_its_own_process_s_groups(made: Made):
    plan = made.planned("--one-engine", SMALL, SEVEN)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["entry"]) == (4, 16, "llm")
    assert "data_parallel_size" not in plan
    assert "one engine, its part of 64 sequences, of 4 distinct prompts." in made.account
    assert "Left out: the other engines, and the wait for the slowest one." in made.account


def test_processes_whose_sequences_end_inside_a_group_get_as_many_all_the_same(made: Made):
    plan = made.planned("per_device_train_batch_size=4")
    assert (plan["prompts"], plan["data_parallel_size"], plan["router"]) == (4, 8, "round_robin")
    assert "4 each. There they are samples of 1 prompt or one more; the router, round_robin, spreads" in made.account
    plan = made.planned("per_device_train_batch_size=4 --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"]) == (1, 4)


def test_the_same_training_with_a_server_sends_whole_prompts_to_one_engine(made: Made):
    script = "CUDA_VISIBLE_DEVICES=0 trl vllm-serve --model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B &\n" + SEVEN
    plan = made.planned(content=SMALL.replace("colocation: true", "colocation: false"), script=script)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["entry"]) == (28, 16, "llm")
    assert "here each sample is a request of its own" in made.account
    assert plan["gpu_memory_utilization"] == 0.9
    assert "max_num_seqs" not in plan


def test_generations_of_one_step_of_training_alone_are_asked_for_by_an_override(made: Made):
    plan = made.planned("steps_per_generation=1", SMALL, SEVEN)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["max_num_seqs"]) == (7, 16, 16)


def test_tensor_parallelism_over_all_devices_is_one_engine(made: Made):
    script = (
        "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 accelerate launch --config_file recipes/zero3.yaml"
        " src/open_r1/grpo.py --config config.yaml"
    )
    plan = made.planned(content=LARGE, script=script)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["tensor_parallel_size"]) == (8, 4, 8)
    assert (plan["max_model_len"], plan["max_num_seqs"]) == (1024, 32)


def test_four_processes_and_a_server_beside_them(made: Made):
    script = (
        "CUDA_VISIBLE_DEVICES=0,1,2,3 trl vllm-serve --model Qwen/Qwen2.5-14B-Instruct\n"
        "CUDA_VISIBLE_DEVICES=4,5,6,7 accelerate launch --num_processes=4 src/open_r1/grpo.py --config config.yaml"
    )
    plan = made.planned(content=LARGE.replace("vllm_tp: true\n", ""), script=script)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["tensor_parallel_size"]) == (4, 4, 1)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("num_generations=4", "samples_per_prompt", 4),
        ("generation_batch_size=128", "prompts", 16),
        ("steps_per_generation=3", "prompts", 24),
        ("max_prompt_length=100", "prompt_tokens", 100),
        ("vllm_max_model_length=300", "prompt_tokens", 44),
        ("vllm_max_model_length=8192", "max_model_len", 8192),
        ("vllm_mode=server +server.max_model_len=4096", "max_model_len", 4096),
        ("vllm_mode=server +server.vllm_model_impl=transformers", "model_impl", "transformers"),
        ("max_completion_length=40", "output_tokens", 40),
        ("temperature=0.6", "temperature", 0.6),
        ("top_p=0.9", "top_p", 0.9),
        ("top_k=0", "top_k", -1),
        ("vllm_tensor_parallel_size=2", "tensor_parallel_size", 2),
        ("vllm_gpu_memory_utilization=0.25", "gpu_memory_utilization", 0.25),
        ("trust_remote_code=true", "trust_remote_code", True),
        ("vllm_model_impl=transformers", "model_impl", "transformers"),
    ],
)
def test_a_key_that_is_honoured_reaches_the_plan(made: Made, override: str, key: str, value: Any):
    assert made.planned(override)[key] == value


def test_a_server_s_engines_share_the_prompts(made: Made):
    two = "vllm_mode=server +server.data_parallel_size=2 +server.tensor_parallel_size=2"
    plan = made.planned(two)
    assert (plan["prompts"], plan["data_parallel_size"], plan["tensor_parallel_size"]) == (8, 2, 2)
    assert (plan["entry"], plan["router"]) == ("llm", "sticky")
    plan = made.planned(f"{two} --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"], plan["tensor_parallel_size"]) == (4, 8, 2)
    three = "vllm_mode=server +server.data_parallel_size=3"
    assert made.planned(three)["router"] == "sticky"
    plan = made.planned(f"{three} --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"]) == (3, 8)


def test_the_script_says_how_many_processes_there_are(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(TRL.replace("num_processes: 8\n", ""))
    (tmp_path / "zero.yaml").write_text("num_processes: 6\n")
    for command, processes in {
        "accelerate launch --num_processes 5 --multi_gpu x.py --config config.yaml": 5,
        "accelerate launch --config_file zero.yaml x.py --config config.yaml": 6,
        "accelerate launch -m trl.scripts.grpo --config config.yaml": None,
        "export CUDA_VISIBLE_DEVICES=0,1\naccelerate launch x.py --config config.yaml": 2,
        "torchrun --nproc_per_node=4 --nnodes=2 x.py --config config.yaml": 8,
        "python -m torch.distributed.run --nproc_per_node 8 x.py --config config.yaml": 8,
        "CUDA_VISIBLE_DEVICES=0,1,2,3 python -m accelerate.commands.launch x.py --config config.yaml": 4,
        "CUDA_VISIBLE_DEVICES=$GPUS accelerate launch x.py --config config.yaml": None,
        "CUDA_VISIBLE_DEVICES=0,1 python3 x.py --config config.yaml": 1,
        "trl grpo --accelerate_config zero.yaml --config config.yaml": 6,
        "/opt/bin/trl vllm-serve --model a/b\npython3 x.py --config config.yaml": 1,
        "cd there && nohup trl grpo --config config.yaml --num_processes 3 > log": 3,
    }.items():
        (tmp_path / "run.sh").write_text(f"#!/bin/bash\nset -e  # stop\necho 'begin'\n{command}\n")
        content, _ = launched(tmp_path / "run.sh")
        assert content.get("num_processes", "none") == (processes or "none"), command
        assert content["num_generations"] == 8


def test_a_script_of_which_nobody_knows_how_many_processes_it_starts_is_told(made: Made):
    script = TRL_SCRIPT.replace("--num_processes 8", "")
    with pytest.raises(UserError, match="num_processes: is missing"):
        made(content=TRL.replace("num_processes: 8\n", ""), script=script)


@pytest.mark.parametrize(
    "command", ["trl rloo", "accelerate launch examples/rloo_vlm.py", "accelerate launch -m trl.scripts.rloo"]
)
def test_rloo_has_defaults_of_its_own_and_asks_for_no_log_probabilities(made: Made, command: str):
    plan = made.planned("max_prompt_length=64 num_processes=8", script=f"{command} --model_name_or_path a/b --use_vllm")
    assert (plan["prompts"], plan["samples_per_prompt"], plan["logprobs"]) == (32, 2, None)
    assert "A step of RLOO: 32 prompts, 2 of each" in made.account


@pytest.mark.parametrize(
    "command", ["trl grpo", "python train.py", "accelerate launch x/grpo_vlm.py", "torchrun gspo.py"]
)
def test_what_is_not_called_after_a_trainer_is_read_as_grpo_s(made: Made, command: str):
    assert made.planned(script=f"{command} --config config.yaml")["samples_per_prompt"] == 8
    assert made("--trainer rloo", TRL.replace("num_generations: 8\n", ""))["rollout"]["logprobs"] is False


def test_of_a_key_that_stands_twice_the_last_one_holds_as_in_trl(made: Made):
    plan = made.planned(content=f"num_generations: 2\ntemperature: 0.1\n{TRL}temperature: 0.3\n", script=TRL_SCRIPT)
    assert (plan["samples_per_prompt"], plan["temperature"]) == (8, 0.3)
    assert (
        "warning: the last one holds, as TRL reads it, of keys that stand twice: num_generations, temp" in made.account
    )


def test_flags_win_over_the_yaml_and_overrides_over_flags(made: Made):
    script = TRL_SCRIPT + " --temperature 0.5 --top-p=0.8 --bf16 --reward_funcs a b"
    plan = made.planned("top_p=0.7", script=script)
    assert (plan["temperature"], plan["top_p"]) == (0.5, 0.7)
    assert flags(shlex.split("--bf16 --reward_funcs a b --lr=1")) == {"bf16": True, "reward_funcs": ["a", "b"], "lr": 1}


def test_keys_of_the_other_mode_are_not_honoured(made: Made):
    made("vllm_mode=colocate +server.gpu_memory_utilization=0.8 vllm_gpu_memory_utilization=0.2")
    other = made.account.partition("read by other runs than this one:\n")[2].splitlines()[0]
    assert other.strip() == "server.gpu_memory_utilization"
    made("vllm_mode=server vllm_gpu_memory_utilization=0.2")
    other = made.account.partition("read by other runs than this one:\n")[2].splitlines()[0]
    assert other.strip() == "vllm_gpu_memory_utilization"


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        (
            "colocate",
            "+server.enable_prefix_caching=false +server.enforce_eager=true +server.kv_cache_dtype=fp8"
            " +server.dtype=float16 +server.max_model_len=400 +server.trust_remote_code=true"
            " +server.vllm_model_impl=transformers",
        ),
        (
            "server",
            "+vllm_enable_prefix_caching=false +vllm_dtype=float16 +vllm_max_model_length=400 +vllm_max_model_len=400"
            " +trust_remote_code=true +vllm_model_impl=transformers",
        ),
    ],
)
def test_the_engines_have_nothing_of_the_other_mode_s_keys(made: Made, mode: str, keys: str):
    expected = made(f"vllm_mode={mode}")
    assert made(f"vllm_mode={mode} {keys}") == expected
    other = made.account.partition("read by other runs than this one:\n")[2]
    assert all(key[1:].partition("=")[0] in other for key in keys.split())


def test_a_name_that_is_a_date_is_a_text(made: Made):
    assert made.planned(script=f"{TRL_SCRIPT} --run_name 2026-11-22")["prompts"] == 8


def test_keys_of_one_s_own_script_are_named_as_unknown(made: Made):
    made("+min_p=0.1 +my_own_key=1")
    unknown = made.account.partition(f"\n{Influence.UNKNOWN.value}:\n")[2]
    assert "my_own_key" in unknown
    assert "min_p = 0.1: no token is left out" in made.account


def test_the_preset_is_what_trl_s_own_defaults_come_to(made: Made):
    made("--one-engine", "{model_name_or_path: a/b, use_vllm: true, num_processes: 8, max_prompt_length: 512}")
    assert_preset("trl-grpo", yaml.safe_load(made.text)["workload_settings"]["trl-step"])


def test_the_page_shows_what_its_command_prints(made: Made):
    page = REPOSITORY / "docs" / "how-to" / "train-with-trl.md"
    command, _ = commands(page, "rollout-bench")
    files = {block.text.partition("\n")[0]: block.text for block in blocks(page, "text")}
    (made.path / "grpo.yaml").write_text(files["# grpo.yaml"])
    assert command.words[1:3] == ("from-trl", "run.sh")
    assert command.words[-2:] == (">", "mine.yaml")
    made(shlex.join(command.words[3:-2]), script=files["# run.sh"])
    shown = "".join(line for line in made.text.splitlines(keepends=True) if not line.startswith("#"))
    assert [f"# mine.yaml\n{shown}"] == [block.text for block in blocks(page, "yaml")]


def test_no_key_of_transformers_own_training_is_unknown():
    from transformers import TrainingArguments  # seconds, and only here

    registry = trl_registry()
    names = [field.name for field in dataclasses.fields(TrainingArguments)]
    assert [name for name in names if name not in registry.keys and not registry.holds(name)] == []


def test_each_key_has_one_entry_that_says_what_becomes_of_it():
    for path, key in trl_registry().keys.items():
        assert key.says, path
        assert key.influence is Influence.UNSUPPORTED or not key.off


def test_no_two_wrong_runs_are_alike():
    assert len({bad.name for bad in BAD_TRL}) == len({bad[1:3] for bad in BAD_TRL}) == len(BAD_TRL)


@pytest.mark.parametrize("bad", BAD_TRL, ids=lambda bad: bad.name)
def test_a_wrong_run_is_told_in_two_lines(made: Made, bad: BadTrainer):
    is_script = bad.content is not None and bad.name.startswith("script")
    with pytest.raises(UserError) as raised:
        made(
            bad.arguments, TRL if is_script or bad.content is None else bad.content, bad.content if is_script else None
        )
    problem, remedy = str(raised.value).split("\n")
    assert bad.problem in problem
    assert bad.remedy in remedy
