"""Configs that are wrong in where engines and trainer live: what is laid over, and words that the two lines hold."""

from __future__ import annotations

from bad_comparing import Bad


def _placed(settings: str, more: str = "") -> str:
    """Return a config of mode placement with these keys of its section, and `more`."""
    return f"{{modes: [placement], quants: [bf16], placement: {{{settings}}}, {more}}}"


def _model(shape: str) -> str:
    return f"models: [m], model_settings: {{m: {shape}}}"


BAD_PLACEMENTS = [
    Bad("placement_misspelt_mode", "modes: [placment]", "mode 'placment' is not defined", "did you mean 'placement'?"),
    Bad("placement_misspelt_key", _placed("device: 2"), "placement.device: there is no such key", "'devices'"),
    Bad("placement_key_at_the_top", "micro_batch: 2", "config: micro_batch: there is no such key", "below placement"),
    Bad("placement_null", "{modes: [placement], placement: null}", "placement: null is no mapping", "docs/ref"),
    Bad("placement_train_of_the_issue", _placed("train: {tokens: 4}"), "placement.train: there is no such key", ""),
    Bad("placement_where_misspelt", _placed("where: [colocate]"), "where.0: 'colocate' is not known", "'colocated'"),
    Bad("placement_where_without_brackets", _placed("where: server"), "a list is wanted: write [server]", "docs/ref"),
    Bad("placement_nowhere", _placed("where: []"), "placement.where: is an empty list", "docs/reference"),
    Bad("placement_where_twice", _placed("where: [server, server]"), "names 'server' more than once", "docs/reference"),
    Bad("placement_one_device", _placed("devices: 1"), "placement.devices: 1 should be greater", "docs/reference"),
    Bad("placement_devices_a_word", _placed("devices: all"), "placement.devices: 'all' should be", "docs/reference"),
    Bad(
        "placement_more_than_devices_of_the_machine",
        _placed("devices: 4", "devices: 2"),
        "devices: a launch of qwen3-90m needs 4 devices at once, more than 2",
        "raise devices, or lower placement.devices",
    ),
    Bad(
        "placement_all_generate",
        _placed("devices: 2, generators: 2"),
        "placement.generators: 2 of 2 devices leave none that trains",
        "set it to 1 or less, or raise placement.devices",
    ),
    Bad(
        "placement_generators_swept",
        _placed("", "sweep: {placement.generators: [1, 3]}"),
        "placement.generators: 3 of 2 devices leave none that trains",
        "set it to 1 or less",
    ),
    Bad(
        "placement_generators_of_colocated",
        _placed("where: [colocated], generators: 1"),
        "placement.generators: is 1, and colocated devices all generate and train",
        "leave it out, or add server to placement.where",
    ),
    Bad(
        "placement_overlap_of_colocated",
        _placed("where: [colocated], overlap: 1"),
        "placement.overlap: is 1, and colocated devices all generate and train, in turn",
        "add server to placement.where",
    ),
    Bad("placement_overlap_of_two_steps", _placed("overlap: 2"), "placement.overlap: 2 is not known", "0, 1"),
    Bad("placement_sleep_too_deep", _placed("sleep: 3"), "placement.sleep: '3' is not known", "known: 1, 2, none"),
    Bad(
        "placement_sleep_of_a_list",
        _placed("sleep: [1, 2]"),
        "placement.sleep: [1, 2] is not known",
        "known: 1, 2, none",
    ),
    Bad(
        "placement_sleep_on_cpu",
        _placed("sleep: 1"),
        "placement.sleep: 1: vLLM can't put an engine to sleep on cpu",
        "set it to none: colocated engines keep their memory",
    ),
    Bad(
        "placement_sleep_on_ascend",
        _placed("sleep: 2", "platform: ascend"),
        "modes: placement needs NPUs that send each other weights",
        "leave placement out of modes on ascend",
    ),
    Bad(
        "placement_sleep_of_a_server",
        _placed("where: [server], sleep: 2", "platform: cuda"),
        "placement.sleep: is 2, and a server's devices only generate, so its engines never sleep",
        "leave it out, or add colocated to placement.where",
    ),
    Bad(
        "placement_asleep_on_a_whole_gpu",
        _placed("sleep: 1", "platform: cuda, workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}"),
        "would take 0.92 of its device, beside what its trainer keeps",
        "such as 0.8",
    ),
    Bad("placement_micro_batch_of_none", _placed("micro_batch: 0"), "placement.micro_batch: 0 should be", "docs/ref"),
    Bad("placement_training_negative", _placed("train_s: -1"), "placement.train_s: -1 should be", "docs/reference"),
    Bad("placement_two_repeats", _placed("repeats: 2"), "placement.repeats: 2 should be greater", "docs/reference"),
    Bad(
        "placement_sweep_of_a_list",
        _placed("where: [colocated, server]", "sweep: {placement.where: [server]}"),
        "sweep.placement.where: placement.where lists several values itself",
        "leave one of them out",
    ),
    Bad(
        "placement_setting_with_a_list",
        _placed("", "settings: [both], setting_settings: {both: {placement: {where: [colocated, server]}}}"),
        "setting_settings.both.placement.where: has several values, and a setting has one of them",
        "make a setting of each",
    ),
    Bad(
        "placement_core_apart",
        _placed("", "engine: {multiprocess: true}"),
        "engine.multiprocess: engines of a placement run in their trainer's process",
        "set it to null",
    ),
    Bad(
        "placement_quantized",
        "{modes: [placement], quants: [w8a8]}",
        "engines of a placement take the trainer's weights, which are bf16 and not w8a8",
        "leave w8a8 out of quants",
    ),
    Bad(
        "placement_quantized_online",
        "{modes: [placement], quants: [fp8], platform: cuda}",
        "which are bf16 and not fp8",
        "leave fp8 out of quants",
    ),
    Bad(
        "placement_quantization_argument",
        _placed("", "engine_args: {quantization: fp8}"),
        "engine_args.quantization: the engine takes the trainer's weights as they are",
        "leave it out",
    ),
    Bad(
        "placement_other_dtype",
        _placed("", "engine_args: {dtype: float32}"),
        "engine_args.dtype: the trainer's weights are bf16, and float32 would be others",
        "set it to bfloat16",
    ),
    Bad(
        "placement_experts",
        _placed("", _model("{synthetic: {preset: qwen3-moe-tiny}}")),
        "the trainer's stand-in can't train m, whose architecture is qwen3_moe",
        "set placement.train_s, which trains nothing",
    ),
    Bad(
        "placement_pangu",
        _placed("", _model("{synthetic: {preset: openpangu-tiny}}")),
        "the trainer's stand-in can't train m, whose architecture is openpangu",
        "name a dense Qwen model",
    ),
    Bad(
        "placement_of_the_hub",
        _placed("", _model("{weights: {bf16: 'hub:Qwen/Qwen3-0.6B'}}")),
        "weights of m are hub:Qwen/Qwen3-0.6B, and a placement's trainer reads a folder",
        "download them below model_base",
    ),
    Bad(
        "placement_overlap_without_warmup",
        _placed("overlap: 1", "warmup_iterations: 0, iterations: 4"),
        "placement.overlap: the first step has none before it to train on, and warmup_iterations is 0",
        "set warmup_iterations to 1, or overlap to 0",
    ),
    Bad(
        "placement_colocated_on_a_whole_gpu",
        _placed("", "platform: cuda, workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}"),
        "gpu_memory_utilization: a colocated engine of qwen3-90m would take 0.92 of its device",
        "such as 0.5",
    ),
    Bad(
        "placement_replicas",
        _placed("", "engine_args: {data_parallel_size: 2}"),
        "engine_args.data_parallel_size: placement.devices says how many engines there are",
        "set placement.devices instead",
    ),
    Bad(
        "placement_tensor_parallel",
        _placed(
            "where: [colocated], devices: 4", "model_settings: {qwen3-90m: {engine_args: {tensor_parallel_size: 3}}}"
        ),
        "tensor_parallel_size: 3 does not divide the 4 generating devices of qwen3-90m under default",
        "set it to 2 or 4, or placement.devices to 3 or 6",
    ),
    Bad(
        "placement_tensor_parallel_of_a_server",
        _placed(
            "devices: 8, generators: 4, where: [server]",
            "quant_settings: {bf16: {engine_args: {tensor_parallel_size: 3}}}",
        ),
        "tensor_parallel_size: 3 does not divide the 4 generating devices",
        "set it to 2 or 4, or placement.generators to 3 or 6",
    ),
    Bad(
        "placement_tensor_parallel_larger_than_a_server",
        _placed("where: [server]", "engine_args: {tensor_parallel_size: 2}"),
        "tensor_parallel_size: 2 does not divide the 1 generating device of qwen3-90m under default",
        "set it to 1, or raise placement.devices",
    ),
    Bad(
        "placement_tensor_parallel_of_the_hundred",
        _placed("where: [colocated], devices: 4", "engine_args: {tensor_parallel_size: 100}"),
        "tensor_parallel_size: 100 does not divide the 4 generating devices",
        "set it to 4, or placement.devices to 100",
    ),
    Bad(
        "placement_pipeline",
        _placed("", "sweep: {pipeline_parallel_size: [2]}"),
        "pipeline_parallel_size: each device of a placement has a part of every layer",
        "set tensor_parallel_size instead",
    ),
    Bad(
        "placement_lora",
        _placed("", "engine_args: {enable_lora: true}"),
        "enable_lora: no request of a launch names an adapter",
        "leave it out",
    ),
    Bad(
        "placement_sleep_mode",
        _placed("", "engine_args: {enable_sleep_mode: true}"),
        "enable_sleep_mode: is set by rollout-bench itself in mode placement",
        "leave it out: placement.sleep says whether engines sleep; or leave placement out of modes",
    ),
    Bad(
        "placement_requests_per_prompt",
        _placed("", "workload_settings: {demo: {requests: per_prompt}}"),
        "workload_settings.demo.requests: per_prompt leaves a step no sequences to share out",
        "set it to per_sequence",
    ),
    Bad(
        "placement_more_engines_than_prompts",
        _placed("devices: 16", "workload_settings: {demo: {prompts: 8}}"),
        "placement.devices: 16 engines share 8 prompts of workload demo, so some have nothing to do",
        "lower placement.devices, or raise prompts",
    ),
    Bad(
        "placement_more_sharded_engines_than_prompts",
        _placed(
            "devices: 16, where: [colocated]",
            "engine_args: {tensor_parallel_size: 2}, workload_settings: {demo: {prompts: 4}}",
        ),
        "placement.devices: 8 engines share 4 prompts of workload demo, so some have nothing to do",
        "lower placement.devices, or raise prompts",
    ),
    Bad(
        "placement_more_trainers_than_sequences",
        _placed("devices: 8, generators: 1, where: [server]", "workload_settings: {demo: {prompts: 1}}"),
        "placement.devices: 7 trainers share 4 sequences of workload demo, so some have nothing to do",
        "lower placement.devices, or raise prompts",
    ),
    Bad(
        "placement_metric_of_others",
        "comparison: {metrics: [placed_step_s]}",
        "'placed_step_s' is of placements: name it in placement_metrics",
        "docs/reference",
    ),
]
