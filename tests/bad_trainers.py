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


def _run(name: str, override: str, problem: str, remedy: str) -> BadTrainer:
    return BadTrainer(name, override, None, problem, remedy)


def _file(name: str, content: str, problem: str, remedy: str) -> BadTrainer:
    return BadTrainer(name, "", content, problem, remedy)


BAD_VERL = [
    _run(
        "no_world", "~trainer.n_gpus_per_node", "trainer.n_gpus_per_node: is missing", "add trainer.n_gpus_per_node=N"
    ),
    _run("world_open", "trainer.n_gpus_per_node=???", "trainer.n_gpus_per_node: is missing", "n_gpus_per_node=N"),
    _run("world_zero", "trainer.n_gpus_per_node=0", "n_gpus_per_node: 0 is not a whole number from 1", "correct it"),
    _run("nodes_a_word", "trainer.nnodes=two", "trainer.nnodes: 'two' is not a whole number", "trainer.nnodes=VALUE"),
    _run(
        "tp_does_not_divide",
        f"{ROLLOUT}.tensor_model_parallel_size=3",
        "tensor_model_parallel_size 3 does not divide the 8 devices",
        "a divisor of them",
    ),
    _run("tp_too_large", f"{ROLLOUT}.tensor_model_parallel_size=16", "16 does not divide the 8", "divisor"),
    _run(
        "tp_and_dp",
        f"{ROLLOUT}.tensor_model_parallel_size=4 {ROLLOUT}.data_parallel_size=4",
        "tensor_model_parallel_size 4 x data_parallel_size 4 does not divide the 8 devices",
        "divisor",
    ),
    _run(
        "override_misspelt",
        f"{ROLLOUT}.max_num_seq=8",
        "verl has no key",
        "did you mean 'actor_rollout_ref.rollout.max",
    ),
    _run(
        "override_section",
        "actor_rollout_ref.rolout.n=8",
        "no key actor_rollout_ref.rolout.n",
        "'actor_rollout_ref.rollout'",
    ),
    _run("override_top", "dta.train_batch_size=8", "verl has no key dta.train_batch_size", "did you mean 'data'?"),
    _run("override_without_value", f"{ROLLOUT}.n", f"{ROLLOUT}.n: is no override", "write KEY=VALUE"),
    _run("override_of_nothing", "=8", "=8: is no override", "+KEY=VALUE"),
    _run("override_torn", f"{ROLLOUT}.n=[1,", "its value can't be read", "as in a YAML file"),
    _run("override_group", "actor_rollout_ref/rollout=vllm", "chooses a file of verl's own", "--cfg job"),
    _run("override_below_a_value", "+trainer.nnodes.of=1", "nnodes is no mapping", "set nnodes as a whole"),
    _run("deleted_twice", "~data.nothing", "data.nothing is not in the file", "leave it out"),
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
    _run(
        "checkpoint_gone",
        "actor_rollout_ref.model.path=/nowhere/Qwen3",
        "/nowhere/Qwen3: no model there",
        "model.path=FOLDER",
    ),
    _run(
        "checkpoint_far",
        "actor_rollout_ref.model.path=hdfs://a/b",
        "model.path: is an address, and no folder",
        "on this machine",
    ),
    _run("checkpoint_of_no_one", "~actor_rollout_ref.model.path", "model.path: is missing", "model.path=FOLDER"),
    _run("checkpoint_no_id", "actor_rollout_ref.model.path='a b/c'", "neither a folder nor OWNER/NAME", "OWNER/NAME"),
    _run("another_engine", f"{ROLLOUT}.name=sglang", "'sglang' is not measured here", "rollout.name=vllm"),
    _run("another_mode", f"+{ROLLOUT}.mode=sync", "'sync' is no mode of verl 0.8 or 0.9", "mode=async"),
    _run("another_device", "trainer.device=gpu", "trainer.device: 'gpu' is not known", "known: cuda, npu, cpu"),
    _run("another_quantization", f"{ROLLOUT}.quantization=torchao", "'torchao' can't be taken over", "add-a-quant.md"),
    _run("another_dtype", f"{ROLLOUT}.dtype=float32", "'float32' is not measured here", "rollout.dtype"),
    _run("no_room", f"+{ROLLOUT}.max_model_len=512", "512 leaves no room", "set it to 768"),
    _run("samples_none", f"{ROLLOUT}.n=null", "rollout.n: None is not a whole number", "rollout.n=VALUE"),
    _run("samples_half", f"{ROLLOUT}.n=2.5", "rollout.n: 2.5 is not a whole number", "rollout.n=VALUE"),
    _run(
        "memory_in_percent",
        f"{ROLLOUT}.gpu_memory_utilization=40",
        "40 is not a number above 0 and up to 1",
        "correct it",
    ),
    _run("switch_a_word", f"+{ROLLOUT}.enforce_eager=maybe", "'maybe' is not true or false", "correct it"),
    _run(
        "too_hot", f"+{ROLLOUT}.temperature=500", "temperature: 500.0 should be less than", "docs/reference/config.md"
    ),
    _run(
        "arguments_a_list",
        f"{ROLLOUT}.engine_kwargs.vllm=[1]",
        "engine_kwargs.vllm: [1] is not a mapping",
        "correct it",
    ),
    _run("samples_beyond_numbers", f"{ROLLOUT}.n={'9' * 400}", "is not a whole number", "rollout.n=VALUE"),
    _run("policy_empty", f"+{ROLLOUT}.scheduling_policy=''", "scheduling_policy: '' is not a text", "correct it"),
    _run("value_of_itself", "++data.extra='&a [*a]'", "nested deeper", "without aliases"),
    _run(
        "engines_as_an_argument",
        f"+{ROLLOUT}.engine_kwargs.vllm.data_parallel_size=2",
        "engine_kwargs.vllm.data_parallel_size: decides how many engines share a step",
        f"set {ROLLOUT}.data_parallel_size",
    ),
    _run(
        "tp_as_an_argument",
        f"+{ROLLOUT}.engine_kwargs.vllm.tensor_parallel_size=4 --one-engine",
        "engine_kwargs.vllm.tensor_parallel_size: decides",
        f"set {ROLLOUT}.tensor_model_parallel_size",
    ),
    _run(
        "engines_beyond_number",
        "trainer.nnodes=1000",
        "rollout.replicas: 8000 should be less than or equal to 1024",
        "docs/reference/config.md",
    ),
    _run("workers_none", f"+{ROLLOUT}.agent.num_workers=0", "agent.num_workers: 0 is not a whole number", "correct it"),
    _run("log_probs_a_word", f"+{ROLLOUT}.calculate_log_probs=some", "'some' is not true or false", "correct it"),
    _run(
        "surplus_a_word", f"+{ROLLOUT}.over_sample_rate=half", "over_sample_rate: 'half' is not a number", "correct it"
    ),
    _run(
        "argument_without_a_space",
        f"+{ROLLOUT}.engine_kwargs.vllm={{kv_cache_dtype:fp8,max_num_seqs:64}}",
        f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype:fp8: is one word in YAML",
        "a space after each colon",
    ),
    _run(
        "quant_as_an_argument",
        f"+{ROLLOUT}.engine_kwargs.vllm.quantization=fp8",
        "engine_kwargs.vllm.quantization: decides which quants are measured",
        f"set {ROLLOUT}.quantization",
    ),
    _run(
        "dtype_as_an_argument",
        f"+{ROLLOUT}.engine_kwargs.vllm.dtype=float16",
        "engine_kwargs.vllm.dtype: decides which quants are measured",
        f"set {ROLLOUT}.dtype",
    ),
    _run(
        "compilation_a_text",
        f"+{ROLLOUT}.cudagraph_capture_sizes=[1] +{ROLLOUT}.engine_kwargs.vllm.compilation_config=3",
        "compilation_config: is no mapping",
        "write it as a mapping",
    ),
    _run(
        "pipeline",
        f"+{ROLLOUT}.pipeline_model_parallel_size=2",
        "pipeline_model_parallel_size: 2 is not 1: verl's vLLM rollout has no other",
        "correct it",
    ),
    _run("section_a_list", "trainer=[1]", "trainer: is no mapping", "write its keys below it, as verl does"),
    _run("section_a_word", "data=foo", "data: is no mapping", "write its keys below it, as verl does"),
    _run(
        "devices_misspelt",
        "trainer.n_gpu_per_node=4",
        "verl has no key trainer.n_gpu_per_node",
        "did you mean 'trainer.n_gpus_per_node'?",
    ),
    _file(
        "file_of_another_trainer",
        "{policy: {model_name: a/b}, grpo: {num_prompts_per_step: 32}, cluster: {gpus_per_node: 8}, data: {seed: 1}}",
        "has no key that says how verl generates",
        "--cfg job",
    ),
    _run("argument_a_secret", f"+{ROLLOUT}.engine_kwargs.vllm.hf_token=x", "hf_token: may be a secret", "take it out"),
]

TRL = """
model_name_or_path: Qwen/Qwen3-1.7B
use_vllm: true
per_device_train_batch_size: 8
gradient_accumulation_steps: 1
num_generations: 8
max_prompt_length: 512
max_completion_length: 256
num_processes: 8
"""
"""GRPO as somebody writes it, with how many processes there are."""

BAD_TRL = [
    _run("server_a_number", "+server=5", "server: is no mapping", "write its keys below it, as TRL does"),
    _run("no_world", "~num_processes", "num_processes: is missing", "add num_processes=N"),
    _run("world_zero", "num_processes=0", "num_processes: 0 is not a whole number from 1 up", "num_processes=VALUE"),
    _run("no_vllm", "use_vllm=false", "use_vllm: is not true", "add use_vllm=true"),
    _run("mode_unknown", "vllm_mode=colocated", "vllm_mode: 'colocated' is not known", "did you mean 'colocate'?"),
    _run("tp_does_not_divide", "vllm_tensor_parallel_size=3", "3 does not divide the 8 processes", "a divisor"),
    _run("groups_torn", "num_generations=7", "num_generations: 7 does not divide the 64 sequences", "so that it does"),
    _run("batch_torn", "generation_batch_size=100", "100 is no multiple of 64", "set it to 128"),
    _run("batch_twice", "generation_batch_size=64 steps_per_generation=1", "are both written", "keep one"),
    _run(
        "engines_beyond_number",
        "num_processes=4096",
        "rollout.replicas: 4096 should be less than or equal to 1024",
        "docs/reference/config.md",
    ),
    _run(
        "server_of_no_engines",
        "vllm_mode=server +server.data_parallel_size=0",
        "server.data_parallel_size: 0 is not a whole number",
        "correct it",
    ),
    _run("no_prompt_length", "~max_prompt_length", "max_prompt_length: is missing", "add max_prompt_length=N"),
    _run("no_room", "vllm_max_model_length=256", "256 leaves no room for a prompt", "more than 256"),
    _run("checkpoint_gone", "model_name_or_path=/nowhere/m", "/nowhere/m: no model there", "model_name_or_path=FOLDER"),
    _run("checkpoint_missing", "~model_name_or_path", "model_name_or_path: is missing", "model_name_or_path=FOLDER"),
    _run("dtype_unknown", "+vllm_dtype=int4", "dtype 'int4' is not measured here", "known: "),
    _run("override_misspelt", "num_generation=4", "TRL has no key num_generation", "did you mean 'num_generations'?"),
    _file("key_misspelt", TRL.replace("num_generations", "num_generatons"), "num_generatons", "'num_generations'"),
    _file("torn", TRL + "a: [", "no valid YAML", "give the YAML that TRL is started with"),
    _file("interpolation", TRL.replace("256", "${nothing}"), "can't be resolved", "max_completion_length=VALUE"),
    _file(
        "file_of_another_trainer",
        "{model_name_or_path: a/b, learning_rate: 1.0e-5, per_device_train_batch_size: 2, packing: true}",
        "has no key that says how TRL generates",
        "--trainer rloo",
    ),
]
