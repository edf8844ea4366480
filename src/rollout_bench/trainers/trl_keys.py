"""The effect of each key of TRL's GRPO and RLOO settings on generation, for TRL 1.x and older names of its keys.

Source: TRL 1.10: trainer/grpo_config.py, trainer/rloo_config.py, generation/vllm_generation.py,
scripts/vllm_serve.py.
"""

from __future__ import annotations

from rollout_bench.core.readers import count, maybe, number, share, switch, text
from rollout_bench.trainers.keys import (
    KeyRegistry,
    honoured,
    mapping,
    neutral,
    top_k,
    unsupported,
)


def _words(names: str) -> list[str]:
    return names.split()


TRAINERS: dict[str, dict[str, int]] = {"grpo": {}, "rloo": {"num_generations": 2}}
"""Supported trainer of TRL -> its defaults that differ from GRPO's."""

_SHARED = _words(
    "model_name_or_path trust_remote_code model_revision load_in_4bit num_processes per_device_train_batch_size "
    "gradient_accumulation_steps max_prompt_length max_completion_length use_cpu temperature top_p top_k min_p "
    "repetition_penalty generation_kwargs"
)

_NO_LONGEST = "null: here the longest prompt and answer together, in TRL what the model allows"

_KEYS = (
    # the step
    honoured("num_processes", count, None, "processes of the training: accelerate's num_processes"),
    honoured("per_device_train_batch_size", count, 8, "sequences of a process in a step of training"),
    honoured("gradient_accumulation_steps", count, 1, "steps whose sequences are generated together"),
    honoured("steps_per_generation", maybe(count), None, "the same, where it is written"),
    honoured("generation_batch_size", maybe(count), None, "sequences that are generated together, where it is written"),
    honoured("num_generations", count, 8, "samples of each prompt"),
    honoured("max_prompt_length", maybe(count), None, "prompt_tokens: each prompt is as long as the longest may be"),
    honoured(
        "max_completion_length", count, 512,
        "output_tokens: each answer is as long as the longest may be (256 by default up to TRL 1.9)",
    ),
    honoured("temperature", number, 1.0, "temperature"),
    honoured("top_p", share, 1.0, "top_p"),
    honoured("top_k", top_k, -1, "top_k"),
    # the engine
    honoured("model_name_or_path", maybe(text), None, "weights"),
    honoured("trust_remote_code", switch, False, "engine argument trust_remote_code"),
    honoured("use_cpu", switch, False, "platform"),
    honoured("use_vllm", switch, False, "has to be true: nothing else is measured here"),
    honoured("vllm_mode", maybe(text), None, "whose the engines are: each process's (colocate), or a server's"),
    honoured("vllm_colocation", maybe(switch), None, "vllm_mode, as it was called before"),
    honoured("vllm_tp", maybe(switch), None, "one engine of all processes, as it was called before"),
    honoured("vllm_tensor_parallel_size", count, 1, "engine argument tensor_parallel_size, of colocated engines"),
    honoured("vllm_gpu_memory_utilization", share, 0.3, "engine argument gpu_memory_utilization, of colocated engines"),
    honoured("vllm_max_model_length", maybe(count), None, f"engine argument max_model_len; {_NO_LONGEST}"),
    honoured("vllm_max_model_len", maybe(count), None, "the same, as it was called before"),
    honoured("vllm_enable_prefix_caching", maybe(switch), None, "engine argument enable_prefix_caching"),
    honoured("vllm_dtype", maybe(text), None, "engine argument dtype"),
    honoured("vllm_model_impl", text, "vllm", "engine argument model_impl"),
    honoured("server.model", maybe(text), None, "weights, where model_name_or_path names none"),
    honoured("server.tensor_parallel_size", count, 1, "engine argument tensor_parallel_size, of a server's engines"),
    honoured("server.data_parallel_size", count, 1, "engines of the server, which share the prompts: rollout.replicas"),
    honoured("server.gpu_memory_utilization", share, 0.9, "engine argument gpu_memory_utilization, of a server's"),
    honoured("server.max_model_len", maybe(count), None, f"engine argument max_model_len; {_NO_LONGEST}"),
    honoured("server.enable_prefix_caching", maybe(switch), None, "engine argument enable_prefix_caching"),
    honoured("server.dtype", maybe(text), None, "engine argument dtype"),
    honoured("server.enforce_eager", maybe(switch), None, "engine argument enforce_eager"),
    honoured("server.kv_cache_dtype", maybe(text), None, "engine argument kv_cache_dtype"),
    honoured("server.vllm_model_impl", text, "vllm", "engine argument model_impl"),
    honoured("server.trust_remote_code", switch, False, "engine argument trust_remote_code"),
    # not measured yet, with the consequence
    unsupported("min_p", None, None, (None, 0, 0.0), "no token is left out for being unlikely"),
    unsupported("repetition_penalty", number, 1.0, (1.0,), "no token is penalised"),
    unsupported("generation_kwargs", mapping, {}, ({},), "sampled without them"),
    unsupported("vllm_structured_outputs_regex", None, None, (None,), "answers are not held to a grammar, and faster"),
    unsupported("vllm_guided_decoding_regex", None, None, (None,), "answers are not held to a grammar, and faster"),
    unsupported("model_revision", maybe(text), "main", ("main", None), "the newest revision is measured"),
    unsupported("load_in_4bit", switch, False, (False,), "measured without bitsandbytes"),
    unsupported("max_tool_calling_iterations", None, None, (None,), "one turn is measured, and no tool is called"),
    unsupported("use_transformers_paged", switch, False, (False,), "vLLM is measured"),
    unsupported("use_transformers_continuous_batching", switch, False, (False,), "vLLM is measured"),
    unsupported("server.speculative_config", None, None, (None,), "measured without speculative decoding"),
    unsupported("server.revision", maybe(text), None, (None, "main"), "the newest revision is measured"),
    # outside generation
    *neutral(
        "where the server is: its engine is started here",
        *(
            f"vllm_{key}"
            for key in ("server_base_url", "server_host", "server_port", "server_timeout", "group_port", "device")
        ),
        *(f"server.{key}" for key in ("host", "port", "log_level", "distributed_executor_backend")),
    ),
    *neutral("between steps: modes cycle and placement", "vllm_enable_sleep_mode", "ds3_gather_for_generation"),
    *neutral("the trainer's own data type: the engine takes the checkpoint's", "dtype", "torch_dtype", "bf16", "fp16"),
    *neutral(
        "what corrects for the engine, after generation",
        *(
            f"vllm_importance_sampling_{key}"
            for key in ("correction", "mode", "cap", "clip_max", "clip_min")
        ),
        "use_bias_correction_kl", "off_policy_mask_threshold",
    ),
    *neutral(
        "which prompts, and how they are read: theirs are random tokens of the same number",
        *_words(
            "dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming datasets streaming "
            "test_split_size shuffle_dataset chat_template chat_template_kwargs chat_template_path system_prompt "
            "dataset_prompt_column pad_to_multiple_of remove_unused_columns dataset_num_proc"
        ),
    ),
    *neutral("an adapter is merged into the weights before they get to the engine",
             *_words("use_peft lora_r lora_alpha lora_dropout lora_target_modules lora_target_parameters "
              "lora_modules_to_save lora_task_type use_rslora use_dora")),
    *neutral("evaluation, not training", "num_generations_eval", "per_device_eval_batch_size"),
    *neutral("rewards, after generation",
             *_words("reward_funcs reward_weights reward_model_name_or_path multi_objective_aggregation scale_rewards "
              "cosine_min_value_wrong")),
    *neutral("read where transformers generates", "cache_implementation", "transformers_continuous_batching_config.*"),
    *neutral("environment variables of the training", "env.*"),
    *neutral("accelerate's own file, which is not read", "accelerate_config"),
    *neutral(
        "training, not generation",
        *_words(
            "accelerator_config.* adam_beta1 adam_beta2 adam_epsilon attn_implementation auto_find_batch_size "
            "average_tokens_across_devices beta bf16_full_eval bnb_4bit_quant_type cast_lm_head_to_fp32 data_seed "
            "dataloader_drop_last dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory "
            "dataloader_prefetch_factor dataloader_in_order dataloader_multiprocessing_context ddp_backend "
            "ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph ddp_timeout debug "
            "bnb_4bit_quant_storage disable_tqdm enable_jit_checkpoint eval_do_concat_batches eval_use_gather_object "
            "batch_eval_metrics greater_is_better hub_always_push ignore_bias_buffers ignore_data_skip "
            "include_for_metrics include_num_input_tokens_seen length_column_name local_rank log_level_replica "
            "log_on_each_node logging_nan_inf_filter neftune_noise_alpha prediction_loss_only "
            "restore_callback_states_from_checkpoint save_on_each_node skip_memory_metrics trackio_bucket_id "
            "trackio_static_space_id train_sampling_strategy use_cache "
            "deepspeed.* delta disable_dropout do_eval do_predict do_train entropy_coef entropy_coef_delta "
            "entropy_coef_max entropy_coef_min entropy_target epsilon epsilon_high eval_accumulation_steps eval_delay "
            "eval_on_start eval_steps eval_strategy fp16_full_eval fsdp.* fsdp_config.* full_determinism "
            "gradient_checkpointing gradient_checkpointing_kwargs.* hub_model_id hub_private_repo hub_revision "
            "hub_strategy hub_token importance_sampling_level label_names label_smoothing_factor learning_rate "
            "liger_kernel_config.* load_best_model_at_end load_in_8bit log_completions log_completions_hub_repo "
            "log_level log_multimodal log_unique_prompts logging_dir logging_first_step logging_steps "
            "logging_strategy loss_type lr_scheduler_kwargs.* lr_scheduler_type mask_truncated_completions "
            "max_grad_norm max_steps metric_for_best_model model_init_kwargs.* multi_objective "
            "num_completions_to_print num_iterations num_train_epochs optim optim_args optim_target_modules output_dir "
            "overwrite_output_dir parallelism_config.* project push_to_hub ref_model_mixup_alpha ref_model_sync_steps "
            "report_to resume_from_checkpoint router_aux_loss_coef run_name sapo_temperature_neg sapo_temperature_pos "
            "save_only_model save_steps save_strategy save_total_limit seed sync_ref_model tf32 top_entropy_quantile "
            "torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_space_id "
            "normalize_advantages reward_clip_range "
            "use_adaptive_entropy use_bnb_nested_quant use_liger_kernel use_liger_loss vespo_k_neg "
            "vespo_k_pos vespo_lambda_neg vespo_lambda_pos warmup_ratio warmup_steps weight_decay "
            "wandb_project"
        ),
    ),
)  # fmt: skip


def trl_registry(trainer: str = "grpo") -> KeyRegistry:
    """Return the keys of one of `TRAINERS`; the keys of `trl vllm-serve` are below `server`."""
    return KeyRegistry.of("TRL", _KEYS, TRAINERS[trainer], _SHARED)
