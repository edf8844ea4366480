"""TRL's settings, become a config that can be planned."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_pages import REPOSITORY, blocks, commands
from planned import assert_preset, planned
from refusals import refusals, refused
from training_runs import TRL

from rollout_bench.commands import trainers
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.trainers.keys import READERS, Influence, KeyRegistry

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

    def __call__(self, arguments: str = "", content: str = TRL) -> dict[str, Any]:
        (self.path / "config.yaml").write_text(content)
        words = ["rollout-bench from-trl", str(self.path / "config.yaml"), *shlex.split(arguments)]
        self._monkeypatch.setattr(sys, "argv", words)
        assert trainers.from_trl() == 0
        self.text, self.account = self._capsys.readouterr()
        return dict(yaml.safe_load(self.text))

    def planned(self, arguments: str = "", content: str = TRL) -> dict[str, Any]:
        """Return workload and engine arguments of the one experiment that the config comes to."""
        self(arguments, content)
        (experiment,) = planned(self.text).experiments
        spec = experiment.spec
        return {**spec.workload.model_dump(), **spec.engine.args, **spec.of(RolloutSpec).model_dump()}


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, capsys, monkeypatch)


def test_seven_colocated_engines_have_whole_groups_of_their_own_process(made: Made):
    plan = made.planned("num_processes=7", SMALL)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["data_parallel_size"]) == (28, 16, 7)
    assert (plan["router"], plan["logprobs"]) == ("sticky", 0)
    assert (plan["prompt_tokens"], plan["output_tokens"], plan["temperature"]) == (512, 2048, 0.7)
    assert (plan["max_num_seqs"], plan["max_num_batched_tokens"]) == (64, 4096)
    assert (plan["gpu_memory_utilization"], plan["enable_prefix_caching"]) == (0.5, False)
    assert "28 prompts, 16 of each, 448 sequences; 7 engines (colocate)" in made.account


def test_one_engine_of_seven_has_its_own_process_s_groups(made: Made):
    plan = made.planned("num_processes=7 --one-engine", SMALL)
    assert (plan["prompts"], plan["samples_per_prompt"]) == (4, 16)
    assert "data_parallel_size" not in plan
    assert "one engine, its part of 64 sequences, of 4 distinct prompts." in made.account
    assert "Left out: the other engines, and the wait for the slowest one." in made.account


def test_processes_get_equal_sequences_even_across_group_borders(made: Made):
    plan = made.planned("per_device_train_batch_size=4")
    assert (plan["prompts"], plan["data_parallel_size"], plan["router"]) == (4, 8, "round_robin")
    assert "4 each. There they are samples of 1 prompt or one more; the router, round_robin, spreads" in made.account
    plan = made.planned("per_device_train_batch_size=4 --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"]) == (1, 4)


def test_training_with_a_server_sends_whole_prompts_to_one_engine(made: Made):
    plan = made.planned("num_processes=7", SMALL.replace("colocation: true", "colocation: false"))
    assert (plan["prompts"], plan["samples_per_prompt"]) == (28, 16)
    assert "here each is a request to AsyncLLM" in made.account
    assert plan["gpu_memory_utilization"] == 0.9
    assert "max_num_seqs" not in plan


def test_tensor_parallelism_over_all_devices_is_one_engine(made: Made):
    plan = made.planned("num_processes=8", LARGE)
    assert (plan["prompts"], plan["samples_per_prompt"], plan["tensor_parallel_size"]) == (8, 4, 8)
    assert (plan["max_model_len"], plan["max_num_seqs"]) == (1024, 32)


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
    assert plan["router"] == "sticky"
    plan = made.planned(f"{two} --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"], plan["tensor_parallel_size"]) == (4, 8, 2)
    three = "vllm_mode=server +server.data_parallel_size=3"
    assert made.planned(three)["router"] == "sticky"
    plan = made.planned(f"{three} --one-engine")
    assert (plan["prompts"], plan["samples_per_prompt"]) == (3, 8)


def test_rloo_has_defaults_of_its_own(made: Made):
    plan = made.planned("--trainer rloo", TRL.replace("num_generations: 8\n", ""))
    assert (plan["prompts"], plan["samples_per_prompt"]) == (32, 2)
    assert "A step of RLOO: 32 prompts, 2 of each" in made.account


def test_the_last_of_a_doubled_key_holds_as_in_trl(made: Made):
    plan = made.planned(content=f"num_generations: 2\ntemperature: 0.1\n{TRL}temperature: 0.3\n")
    assert (plan["samples_per_prompt"], plan["temperature"]) == (8, 0.3)
    assert (
        "warning: the last one holds, as TRL reads it, of keys that stand twice: num_generations, temp" in made.account
    )


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        (
            "colocate",
            "+server.enable_prefix_caching=false +server.enforce_eager=true +server.kv_cache_dtype=fp8"
            " +server.dtype=float16 +server.max_model_len=400 +server.trust_remote_code=true"
            " +server.vllm_model_impl=transformers +server.gpu_memory_utilization=0.8",
        ),
        (
            "server",
            "+vllm_enable_prefix_caching=false +vllm_dtype=float16 +vllm_max_model_length=400 +vllm_max_model_len=400"
            " +trust_remote_code=true +vllm_model_impl=transformers +vllm_gpu_memory_utilization=0.2",
        ),
    ],
)
def test_the_engines_have_nothing_of_the_other_mode_s_keys(made: Made, mode: str, keys: str):
    expected = made(f"vllm_mode={mode}")
    assert made(f"vllm_mode={mode} {keys}") == expected
    other = made.account.partition("read by other runs than this one:\n")[2]
    assert all(key[1:].partition("=")[0] in other for key in keys.split())


def test_a_name_that_is_a_date_is_a_text(made: Made):
    assert made.planned(content=f"{TRL}run_name: 2026-11-22\n")["prompts"] == 8


def test_keys_of_one_s_own_script_are_named_as_unknown(made: Made):
    made("+min_p=0.1 +my_own_key=1")
    unknown = made.account.partition(f"\n{Influence.UNKNOWN.value}:\n")[2]
    assert "my_own_key" in unknown
    assert "min_p = 0.1: no token is left out" in made.account


def test_the_preset_is_what_trl_s_own_defaults_come_to(made: Made):
    made("--one-engine", "{model_name_or_path: a/b, use_vllm: true, num_processes: 8, max_prompt_length: 512}")
    assert_preset("trl-grpo", yaml.safe_load(made.text)["workload_settings"]["trl-step"])


def test_the_page_shows_what_its_command_prints(made: Made):
    page = REPOSITORY / "docs" / "trl.md"
    command, _ = commands(page, "rollout-bench")
    files = {block.text.partition("\n")[0]: block.text for block in blocks(page, "text")}
    assert command.words[1:3] == ("from-trl", "grpo.yaml")
    assert command.words[-2:] == (">", "mine.yaml")
    made(shlex.join(command.words[3:-2]), files["# grpo.yaml"])
    shown = "".join(line for line in made.text.splitlines(keepends=True) if not line.startswith("#"))
    configs = [block.text for block in blocks(page, "yaml") if block.text.startswith("# mine.yaml\n")]
    assert [f"# mine.yaml\n{shown}"] == configs


def test_no_key_of_transformers_own_training_is_unknown():
    from transformers import TrainingArguments  # seconds, and only here

    registry = KeyRegistry.of("TRL", "grpo")
    names = [field.name for field in dataclasses.fields(TrainingArguments)]
    assert [name for name in names if name not in registry.keys and not registry.below(name)] == []


def test_each_key_has_an_entry_that_explains_it():
    for path, key in KeyRegistry.of("TRL", "grpo").keys.items():
        assert key.says, path
        assert not isinstance(key.read, str) or key.read.removesuffix(" or null") in READERS, path
        assert key.influence is Influence.UNSUPPORTED or not key.unless


@refusals(__file__, "trl")
def test_a_wrong_run_is_refused_in_two_lines(made: Made, given: dict[str, Any], problem: str, remedy: str):
    with refused(problem, remedy):
        made(given.get("arguments", ""), given.get("content", TRL).replace(*given.get("edit", ["", ""])))
