"""TRL's settings, become a config that can be planned."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_pages import REPOSITORY, blocks, commands
from planned import assert_preset
from refusals import refusals, refused
from trainer_commands import Made, rows
from training_runs import TRL

from rollout_bench.trainers.settings import READERS, Influence, KeyRegistry

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

FILES = {"small": SMALL, "large": LARGE, "usual": TRL}


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made("from-trl", tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("row", rows("steps.yaml"), ids=lambda row: row[0])
def test_a_run_comes_to_what_its_row_says(made: Made, row: list[Any]):
    _, arguments, file, edit, expected, words = row
    plan = made.planned(arguments, FILES[file].replace(*edit or ["", ""]))
    assert {key: plan.get(key) for key in expected} == expected
    assert [word for word in words if word not in made.account] == []


@pytest.mark.parametrize("row", rows("accounts.yaml")["trl"], ids=lambda row: row[0])
def test_the_account_says_what_its_row_says(made: Made, row: list[Any]):
    made.check_account(row)


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


def test_the_preset_is_what_trl_s_own_defaults_come_to(made: Made):
    made("--one-engine", "{model_name_or_path: a/b, use_vllm: true, num_processes: 8, max_prompt_length: 512}")
    assert_preset("trl-grpo", yaml.safe_load(made.text)["workload_settings"]["trl-step"])


def test_the_page_shows_what_its_command_prints(made: Made):
    page = REPOSITORY / "docs" / "trl.md"
    command, _ = commands(page, "rollout-bench")
    files = {block.text.partition("\n")[0]: block.text for block in blocks(page, "text")}
    assert (command.words[1:3], command.words[-2:]) == (("from-trl", "grpo.yaml"), (">", "mine.yaml"))
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
