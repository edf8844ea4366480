"""Settings of trainers that a user can get wrong: what is changed in a good file, and words of the two lines."""

from __future__ import annotations

from typing import NamedTuple

VERL = """
actor_rollout_ref:
  model: {path: Qwen/Qwen3-8B, trust_remote_code: false}
  rollout:
    name: vllm
    n: 8
    tensor_model_parallel_size: 1
    gpu_memory_utilization: 0.4
    prompt_length: ${oc.select:data.max_prompt_length,512}
    response_length: ${data.max_response_length}
    engine_kwargs: {vllm: {}, sglang: {attention_backend: x}}
    multi_turn: {enable: false, max_user_turns: null}
data: {train_batch_size: 256, max_prompt_length: 512, max_response_length: 256}
trainer: {n_gpus_per_node: 8, nnodes: 1, project_name: demo}
"""
"""A run of verl as somebody writes it: 256 prompts, 8 samples of each, 8 engines."""


class BadTrainer(NamedTuple):
    """One wrong run: the command's arguments behind the file, what replaces the file, words of problem and remedy."""

    name: str
    arguments: str
    content: str | None
    problem: str
    remedy: str


ROLLOUT = "actor_rollout_ref.rollout"


def _verl(name: str, override: str, problem: str, remedy: str) -> BadTrainer:
    return BadTrainer(name, override, None, problem, remedy)


def _file(name: str, content: str, problem: str, remedy: str) -> BadTrainer:
    return BadTrainer(name, "", content, problem, remedy)


BAD_VERL = [
    _verl(
        "no_world", "~trainer.n_gpus_per_node", "trainer.n_gpus_per_node: is missing", "add trainer.n_gpus_per_node=8"
    ),
    _verl("world_open", "trainer.n_gpus_per_node=???", "trainer.n_gpus_per_node: is missing", "n_gpus_per_node=8"),
    _verl("world_zero", "trainer.n_gpus_per_node=0", "n_gpus_per_node: 0 is not a whole number from 1", "correct it"),
    _verl("nodes_a_word", "trainer.nnodes=two", "trainer.nnodes: 'two' is not a whole number", "trainer.nnodes=VALUE"),
    _verl(
        "tp_does_not_divide",
        f"{ROLLOUT}.tensor_model_parallel_size=3",
        "tensor_model_parallel_size 3 does not divide the 8 devices",
        "a divisor of them",
    ),
    _verl("tp_too_large", f"{ROLLOUT}.tensor_model_parallel_size=16", "16 does not divide the 8", "divisor"),
    _verl(
        "tp_and_dp",
        f"{ROLLOUT}.tensor_model_parallel_size=4 {ROLLOUT}.data_parallel_size=4",
        "tensor_model_parallel_size 4 x data_parallel_size 4 does not divide the 8 devices",
        "divisor",
    ),
    _verl(
        "override_misspelt",
        f"{ROLLOUT}.max_num_seq=8",
        "verl has no key",
        "did you mean 'actor_rollout_ref.rollout.max",
    ),
    _verl(
        "override_section",
        "actor_rollout_ref.rolout.n=8",
        "no key actor_rollout_ref.rolout.n",
        "'actor_rollout_ref.rollout'",
    ),
    _verl("override_top", "dta.train_batch_size=8", "verl has no key dta.train_batch_size", "did you mean 'data'?"),
    _verl("override_without_value", f"{ROLLOUT}.n", f"{ROLLOUT}.n: is no override", "write KEY=VALUE"),
    _verl("override_of_nothing", "=8", "=8: is no override", "+KEY=VALUE"),
    _verl("override_torn", f"{ROLLOUT}.n=[1,", "its value can't be read", "as in a YAML file"),
    _verl("override_group", "actor_rollout_ref/rollout=vllm", "chooses a file of verl's own", "--cfg job"),
    _verl("override_below_a_value", "+trainer.nnodes.of=1", "nnodes is no mapping", "set nnodes as a whole"),
    _verl("deleted_twice", "~data.nothing", "data.nothing is not in the file", "leave it out"),
    _file(
        "key_misspelt",
        VERL.replace("max_prompt", "max_promt", 2),
        "max_promt_length",
        "did you mean 'data.max_prompt_length'",
    ),
    _file("torn", VERL + "  model: [", "no valid YAML", "give the YAML that verl is started with"),
    _file("key_twice", VERL + "data: {}\n", "key 'data' stands twice", "give the YAML"),
    _file("a_list", "- 1\n", "must have keys at its top", "give the YAML"),
    _file("empty", "", "must have keys at its top", "give the YAML"),
    _file(
        "interpolation_of_nothing",
        VERL.replace("${data.max_response_length}", "${data.longest}"),
        "response_length: its interpolation can't be resolved: Interpolation key 'data.longest' not found",
        "add actor_rollout_ref.rollout.response_length=VALUE",
    ),
    _file(
        "interpolation_of_itself",
        VERL.replace("n: 8", "n: ${actor_rollout_ref.rollout.n}"),
        "rollout.n: its interpolation can't be resolved",
        "rollout.n=VALUE",
    ),
    _file(
        "interpolation_torn",
        VERL.replace("n: 8", "n: '${data.'"),
        "OmegaConf can't read it: no viable alternative at input '${data.'",
        "mend the file",
    ),
    _file(
        "resolver_unknown",
        VERL.replace("n: 8", "n: '${hydra:job.num}'"),
        "Unsupported interpolation type hydra",
        "rollout.n=VALUE",
    ),
    _file(
        "variable_unset",
        VERL.replace("Qwen/Qwen3-8B", "'${oc.env:NO_SUCH_MODEL_AT_ALL}'"),
        "Environment variable 'NO_SUCH_MODEL_AT_ALL' not found",
        "model.path=VALUE",
    ),
    _verl(
        "checkpoint_gone",
        "actor_rollout_ref.model.path=/nowhere/Qwen3",
        "/nowhere/Qwen3: no model there",
        "model.path=FOLDER",
    ),
    _verl(
        "checkpoint_far",
        "actor_rollout_ref.model.path=hdfs://a/b",
        "model.path: is an address, and no folder",
        "on this machine",
    ),
    _verl("checkpoint_of_no_one", "~actor_rollout_ref.model.path", "model.path: is missing", "model.path=FOLDER"),
    _verl("checkpoint_no_id", "actor_rollout_ref.model.path='a b/c'", "neither a folder nor OWNER/NAME", "OWNER/NAME"),
    _verl("another_engine", f"{ROLLOUT}.name=sglang", "'sglang' is not measured here", "rollout.name=vllm"),
    _verl("another_device", "trainer.device=gpu", "trainer.device: 'gpu' is not known", "known: cuda, npu, cpu"),
    _verl("another_quantization", f"{ROLLOUT}.quantization=torchao", "'torchao' can't be taken over", "add-a-quant.md"),
    _verl("another_dtype", f"{ROLLOUT}.dtype=float32", "'float32' is not measured here", "rollout.dtype"),
    _verl("no_room", f"+{ROLLOUT}.max_model_len=512", "512 leaves no room", "set it to 768"),
    _verl("samples_none", f"{ROLLOUT}.n=null", "rollout.n: None is not a whole number", "rollout.n=VALUE"),
    _verl("samples_half", f"{ROLLOUT}.n=2.5", "rollout.n: 2.5 is not a whole number", "rollout.n=VALUE"),
    _verl(
        "memory_in_percent",
        f"{ROLLOUT}.gpu_memory_utilization=40",
        "40 is not a number above 0 and up to 1",
        "correct it",
    ),
    _verl("switch_a_word", f"+{ROLLOUT}.enforce_eager=maybe", "'maybe' is not true or false", "correct it"),
    _verl(
        "too_hot", f"+{ROLLOUT}.temperature=500", "temperature: 500.0 should be less than", "docs/reference/config.md"
    ),
    _verl(
        "arguments_a_list",
        f"{ROLLOUT}.engine_kwargs.vllm=[1]",
        "engine_kwargs.vllm: [1] is not a mapping",
        "correct it",
    ),
    _verl("argument_a_secret", f"+{ROLLOUT}.engine_kwargs.vllm.hf_token=x", "hf_token: may be a secret", "take it out"),
]
