"""Configs that a user can get wrong: what is laid over config.yaml, and words that the two lines must hold."""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """One wrong config: YAML laid over the default, and what the message must name and advise."""

    name: str
    overlay: str
    problem: str
    remedy: str


BAD_OVERLAYS = [
    Bad("misspelt_top_key", "qants: [bf16]", "qants: there is no such key", "did you mean 'quants'?"),
    Bad("key_in_capitals", "Models: [qwen3-90m]", "Models: there is no such key", "'models'"),
    Bad(
        "misspelt_workload_key", "workload_settings: {demo: {prompt: 4}}", "workload_settings.demo.prompt:", "'prompts'"
    ),
    Bad(
        "misspelt_model_key",
        "model_settings: {qwen3-90m: {wights: {}}}",
        "model_settings.qwen3-90m.wights",
        "'weights'",
    ),
    Bad("misspelt_engine_key", "engine: {pyhton: x}", "engine.pyhton", "'python'"),
    Bad(
        "misspelt_quant_key",
        "quant_settings: {w8a8: {dtypes: [int8]}}",
        "quant_settings.w8a8.dtypes",
        "'linear_dtypes'",
    ),
    Bad("engine_key_of_vllm_cli", "engine: {gpu_memory_utilization: 0.5}", "engine.gpu_memory_utilization", "known:"),
    Bad("unknown_quant", "quants: [w8a9]", "quant 'w8a9' is not defined", "did you mean 'w8a8'?"),
    Bad("unknown_model", "models: [qwen3-9m]", "model 'qwen3-9m' is not defined", "did you mean 'qwen3-90m'?"),
    Bad("unknown_mode", "modes: [ofline]", "mode 'ofline' is not defined", "did you mean 'offline'?"),
    Bad("unknown_workload", "workloads: [verl-defualt]", "workload 'verl-defualt'", "did you mean 'verl-default'?"),
    Bad("unknown_platform", "platform: gpu", "platform: 'gpu' is not known", "did you mean 'cuda'?"),
    Bad("unknown_platform_close", "platform: ascent", "platform: 'ascent'", "did you mean 'ascend'?"),
    Bad("unknown_baseline", "baseline: {quant: bf6}", "baseline.quant: quant 'bf6'", "did you mean 'bf16'?"),
    Bad("unknown_baseline_axis", "baseline: {qaunt: bf16}", "baseline.qaunt", "'quant'"),
    Bad("unknown_baseline_mode", "baseline: {mode: offline}", "baseline.mode", "'model'"),
    Bad(
        "unknown_baseline_model",
        "baseline: {quant: null, model: qwen3-9m}",
        "baseline.model: model 'qwen3-9m'",
        "did you mean 'qwen3-90m'?",
    ),
    Bad(
        "unknown_baseline_workload",
        "baseline: {quant: null, workload: dmeo}",
        "baseline.workload: workload 'dmeo'",
        "did you mean 'demo'?",
    ),
    Bad(
        "unknown_baseline_platform",
        "baseline: {quant: null, platform: cdua}",
        "baseline.platform: platform 'cdua'",
        "did you mean 'cuda'?",
    ),
    Bad(
        "two_baseline_axes",
        "baseline: {model: qwen3-90m}",
        "baseline: names model and quant, but takes exactly one: write {quant: null, model: qwen3-90m}",
        "docs/reference",
    ),
    Bad("no_baseline_axis", "baseline: {quant: null}", "baseline: names no axis", "docs/reference"),
    Bad("misspelt_comparison_key", "comparison: {confidense: 0.9}", "comparison.confidense", "'confidence'"),
    Bad("confidence_of_one", "comparison: {confidence: 1}", "comparison.confidence: 1", "docs/reference"),
    Bad("confidence_in_percent", "comparison: {confidence: 95}", "comparison.confidence: 95", "docs/reference"),
    Bad("confidence_of_a_coin", "comparison: {confidence: 0.05}", "comparison.confidence: 0.05", "docs/reference"),
    Bad("confidence_true", "comparison: {confidence: true}", "confidence: is true or false", "docs/reference"),
    Bad("relevance_negative", "comparison: {relevant_difference: -0.01}", "relevant_difference: -0.01", "docs/ref"),
    Bad("relevance_in_percent", "comparison: {relevant_difference: 5}", "relevant_difference: 5", "docs/reference"),
    Bad("relevance_nan", "comparison: {relevant_difference: .nan}", "relevant_difference: nan", "docs/reference"),
    Bad("power_too_small", "comparison: {power: 0.5}", "comparison.power: 0.5", "docs/reference"),
    Bad("power_of_one", "comparison: {power: 1.0}", "comparison.power: 1.0", "docs/reference"),
    Bad(
        "unknown_metric",
        "comparison: {metrics: [output_token_per_s]}",
        "comparison.metrics.0: 'output_token_per_s' is not known",
        "did you mean 'output_tokens_per_s'?",
    ),
    Bad(
        "metric_by_another_name",
        "comparison: {metrics: [throughput]}",
        "comparison.metrics.0: 'throughput'",
        "did you mean 'output_tokens_per_s'?",
    ),
    Bad("metrics_empty", "comparison: {metrics: []}", "comparison.metrics: is an empty list", "docs/reference"),
    Bad("metrics_without_brackets", "comparison: {metrics: startup_s}", "write [startup_s]", "docs/reference"),
    Bad("metric_twice", "comparison: {metrics: [startup_s, startup_s]}", "'startup_s' more than once", "docs/ref"),
    Bad("comparison_a_word", "comparison: strict", "comparison", "docs/reference"),
    Bad(
        "unknown_weights_quant", "model_settings: {other: {weights: {w8a9: x}}}", "quant 'w8a9'", "did you mean 'w8a8'?"
    ),
    Bad(
        "unknown_requests", "workload_settings: {demo: {requests: per_seq}}", "demo.requests: 'per_seq'", "per_sequence"
    ),
    Bad("unknown_format", "quant_settings: {w8a8: {weights_format: gptq}}", "weights_format: 'gptq'", "known:"),
    Bad("unknown_preset", "model_settings: {qwen3-90m: {synthetic: {preset: qwen3-9m}}}", "preset", "docs/reference"),
    Bad(
        "unknown_architecture",
        "model_settings: {qwen3-90m: {synthetic: {architecture: llama}}}",
        "architecture: 'llama'",
        "known:",
    ),
    Bad(
        "unknown_engine_arg", "engine_args: {max_num_seq: 4}", "engine_args.max_num_seq", "did you mean 'max_num_seqs'?"
    ),
    Bad(
        "engine_arg_of_cli", "engine_args: {tensor-parallel-size: 2}", "tensor-parallel-size", "'tensor_parallel_size'"
    ),
    Bad(
        "engine_arg_in_model",
        "model_settings: {qwen3-90m: {engine_args: {dtyp: x}}}",
        "qwen3-90m.engine_args.dtyp",
        "'dtype'",
    ),
    Bad(
        "engine_arg_in_quant",
        "quant_settings: {w8a8: {engine_args: {quantisation: x}}}",
        "quantisation",
        "'quantization'",
    ),
    Bad(
        "engine_arg_in_workload",
        "workload_settings: {demo: {engine_args: {max_len: 1}}}",
        "demo.engine_args.max_len",
        "'max_",
    ),
    Bad("engine_arg_of_ours", "engine_args: {model: x}", "engine_args.model: is set by rollout-bench", "leave it out"),
    Bad("engine_arg_empty_name", "engine_args: {'': 1}", "engine_args", "->"),
    Bad("models_empty", "models: []", "models: is an empty list", "docs/reference"),
    Bad("quants_empty", "quants: []", "quants: is an empty list", "docs/reference"),
    Bad("modes_empty", "modes: []", "modes: is an empty list", "docs/reference"),
    Bad("workloads_empty", "workloads: []", "workloads: is an empty list", "docs/reference"),
    Bad("quants_without_brackets", "quants: bf16", "a list is wanted: write [bf16]", "docs/reference"),
    Bad("quants_half_in_brackets", "quants: '[bf16'", "a list is wanted: write [bf16]", "docs/reference"),
    Bad("quants_a_mapping", "quants: {bf16: 1}", "quants:", "docs/reference"),
    Bad("quants_null", "quants: null", "quants:", "docs/reference"),
    Bad("models_a_number", "models: 7", "a list is wanted: write [7]", "docs/reference"),
    Bad("models_of_numbers", "models: [7]", "models.0: 7 should be a valid string", "docs/reference"),
    Bad("quant_twice", "quants: [bf16, bf16]", "names 'bf16' more than once", "docs/reference"),
    Bad("model_twice", "models: [qwen3-90m, qwen3-90m]", "'qwen3-90m' more than once", "docs/reference"),
    Bad("model_escapes_results", "models: [../../etc]", "models.0: '../../etc' can't be a name", "letters, digits"),
    Bad("model_with_slash", "models: [Qwen/Qwen3]", "'Qwen/Qwen3' can't be a name", "letters, digits"),
    Bad("model_hidden", "models: [.hidden]", "'.hidden' can't be a name", "letters, digits"),
    Bad("model_empty_name", "models: ['']", "'' can't be a name", "letters, digits"),
    Bad("model_with_space", "models: ['a b']", "'a b' can't be a name", "letters, digits"),
    Bad("model_with_newline", 'models: ["a\\nb"]', "can't be a name", "letters, digits"),
    Bad("model_with_underscore", "models: [a_b]", "'a_b' can't be a name", "letters, digits"),
    Bad("model_name_too_long", f"models: [{'x' * 300}]", "can't be a name", "up to 60"),
    Bad("defined_name_escapes", "model_settings: {../up: {}}", "'../up' can't be a name", "letters, digits"),
    Bad("workload_name_escapes", "workload_settings: {a/b: {}}", "'a/b' can't be a name", "letters, digits"),
    Bad("launches_zero", "launches: 0", "launches: 0 should be greater than or equal to 1", "docs/reference"),
    Bad("launches_negative", "launches: -1", "launches: -1", "docs/reference"),
    Bad("launches_huge", "launches: 100000000000", "launches: 100000000000", "docs/reference"),
    Bad("launches_a_fraction", "launches: 1.5", "launches: 1.5", "docs/reference"),
    Bad("launches_a_word", "launches: many", "launches: 'many'", "docs/reference"),
    Bad("launches_true", "launches: true", "launches: is true or false", "docs/reference"),
    Bad("launches_null", "launches: null", "launches: None", "docs/reference"),
    Bad("iterations_zero", "iterations: 0", "iterations: 0", "docs/reference"),
    Bad("warmup_negative", "warmup_iterations: -1", "warmup_iterations: -1", "docs/reference"),
    Bad("timeout_zero", "timeout_s: 0", "timeout_s: 0", "docs/reference"),
    Bad("timeout_infinite", "timeout_s: .inf", "timeout_s: inf", "docs/reference"),
    Bad("timeout_nan", "timeout_s: .nan", "timeout_s: nan", "docs/reference"),
    Bad("prompts_zero", "workload_settings: {demo: {prompts: 0}}", "demo.prompts: 0", "docs/reference"),
    Bad(
        "samples_negative",
        "workload_settings: {demo: {samples_per_prompt: -8}}",
        "samples_per_prompt: -8",
        "docs/reference",
    ),
    Bad("prompt_tokens_zero", "workload_settings: {demo: {prompt_tokens: 0}}", "prompt_tokens: 0", "docs/reference"),
    Bad(
        "output_tokens_huge",
        "workload_settings: {demo: {output_tokens: 1000000000}}",
        "output_tokens",
        "docs/reference",
    ),
    Bad("temperature_negative", "workload_settings: {demo: {temperature: -1}}", "temperature: -1", "docs/reference"),
    Bad("top_p_above_one", "workload_settings: {demo: {top_p: 1.5}}", "top_p: 1.5", "docs/reference"),
    Bad("top_k_too_small", "workload_settings: {demo: {top_k: -2}}", "top_k: -2", "docs/reference"),
    Bad("workload_null", "workload_settings: {demo: null}", "workload_settings.demo", "docs/reference"),
    Bad("workload_a_list", "workload_settings: [demo]", "workload_settings", "docs/reference"),
    Bad("settings_a_word", "model_settings: qwen", "model_settings", "docs/reference"),
    Bad("engine_a_word", "engine: vllm", "engine", "docs/reference"),
    Bad("engine_args_a_list", "engine_args: [enforce_eager]", "engine_args", "docs/reference"),
    Bad(
        "environment_a_number",
        "engine: {environment: {OMP_NUM_THREADS: 2}}",
        "environment.OMP_NUM_THREADS: 2",
        "docs/reference",
    ),
    Bad("multiprocess_a_word", "engine: {multiprocess: perhaps}", "engine.multiprocess: 'perhaps'", "docs/reference"),
    Bad(
        "utilization_above_one", "engine_args: {gpu_memory_utilization: 1.4}", "gpu_memory_utilization: 1.4", "up to 1"
    ),
    Bad("utilization_zero", "engine_args: {gpu_memory_utilization: 0}", "gpu_memory_utilization: 0", "above 0"),
    Bad("tensor_parallel_zero", "engine_args: {tensor_parallel_size: 0}", "tensor_parallel_size: 0", "from 1 up"),
    Bad("tensor_parallel_a_word", "engine_args: {tensor_parallel_size: two}", "'two' is no count", "from 1 up"),
    Bad(
        "enforce_eager_a_word",
        "engine_args: {enforce_eager: 'on please'}",
        "neither true nor false",
        "write true or false",
    ),
    Bad("engine_arg_a_date", "engine_args: {revision: 2026-01-01}", "engine_args.revision", "quotes"),
    Bad(
        "too_long_for_max_model_len",
        "engine_args: {max_model_len: 80}",
        "64 prompt + 32 output tokens = 96",
        "raise max_model_len to 96",
    ),
    Bad(
        "too_long_for_the_model",
        "workload_settings: {demo: {prompt_tokens: 1000000}}",
        "1000032",
        "shorten the workload",
    ),
    Bad(
        "weights_and_synthetic",
        "model_settings: {qwen3-90m: {weights: {bf16: x}}}",
        "has both weights and synthetic",
        "keep one",
    ),
    Bad("weights_a_number", "model_settings: {other: {weights: {bf16: 7}}}", "other.weights.bf16: 7", "docs/reference"),
    Bad("weights_empty", "model_settings: {other: {weights: {bf16: ''}}}", "other.weights.bf16", "docs/reference"),
    Bad(
        "no_weights_at_all",
        "{models: [other], model_settings: {other: {}}}",
        "nothing to measure",
        "model_settings.other.weights.bf16",
    ),
    Bad("quant_of_other_platform", "{platform: cpu, quants: [fp8]}", "fp8 is not known on cpu", "quant_settings.fp8"),
    Bad(
        "head_dim_odd",
        "model_settings: {qwen3-90m: {synthetic: {preset: qwen3-90m, num_key_value_heads: 5}}}",
        "num_key_value_heads",
        "docs/reference",
    ),
    Bad(
        "experts_without_moe",
        "model_settings: {qwen3-90m: {synthetic: {num_experts: 4}}}",
        "num_experts",
        "docs/reference",
    ),
    Bad(
        "layers_negative",
        "model_settings: {qwen3-90m: {synthetic: {num_hidden_layers: -1}}}",
        "num_hidden_layers: -1",
        "docs/reference",
    ),
    Bad("python_missing", "engine: {python: /nowhere/python}", "/nowhere/python does not run", "engine.python"),
    Bad("python_is_no_python", "engine: {python: /bin/true}", "/bin/true is no Python that works", "engine.python"),
    Bad("python_without_vllm", "engine: {python: /usr/bin/python3}", "/usr/bin/python3", "engine.python"),
    Bad("python_is_a_folder", "engine: {python: /tmp}", "/tmp does not run", "engine.python"),
    Bad("model_base_empty", "model_base: ''", "model_base", "docs/reference"),
    Bad("model_base_a_list", "model_base: [models]", "model_base", "docs/reference"),
    Bad(
        "weights_are_a_file",
        "{models: [o], model_settings: {o: {weights: {bf16: ../config.yaml}}}, quants: [bf16]}",
        "config.yaml: is a file",
        "folder that holds config.json",
    ),
    Bad("model_base_is_a_file", "model_base: config.yaml", "config.yaml: is a file", "model_base"),
    Bad("regular_expression_broken", "quant_settings: {w8a8: {linear_method: '('}}", "linear_method", "docs/reference"),
]
