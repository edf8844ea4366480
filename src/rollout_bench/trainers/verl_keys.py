"""The effect of each key of verl's settings on generation, for verl 0.8 and 0.9.

Source: verl v0.8.0 and v0.9.0: rollout/vllm_rollout/vllm_async_server.py, rollout/llm_server.py and the agent loop.
Entries mention keys that verl reads but its vLLM rollout does not use.
"""

from __future__ import annotations

from typing import Any

from rollout_bench.core.readers import count, index, maybe, number, share, switch, text
from rollout_bench.trainers.keys import (
    Influence,
    KeyRegistry,
    TrainerKey,
    argument,
    honoured,
    mapping,
    neutral,
    numbers,
    top_k,
    unsupported,
)

ROLLOUT = "actor_rollout_ref.rollout."
MODEL = "actor_rollout_ref.model."

VERSIONS = ("0.9", "0.8")
"""Supported versions of verl, newest first."""

_EARLIER = {
    "0.9": {},
    "0.8": {f"{ROLLOUT}max_num_seqs": 1024, f"{ROLLOUT}calculate_log_probs": False, "trainer.use_v1": False},
}
"""Version -> its defaults that differ from version 0.9."""


def _index(value: Any) -> int:
    return 0 if value is None else index(value)


def _one(value: Any) -> int:
    """Return 1, the only value that verl 0.8 and 0.9 accept for pipeline parallelism; raise `ValueError` otherwise."""
    if count(value) != 1:
        raise ValueError("1: verl's vLLM rollout has no other")
    return 1


_KEYS = (
    # the step
    honoured("trainer.n_gpus_per_node", count, None, "devices of a node: with nnodes what gives rollout.replicas"),
    honoured("trainer.nnodes", count, 1, "nodes: with n_gpus_per_node what gives rollout.replicas"),
    honoured("trainer.device", text, "cuda", "platform"),
    honoured(
        f"{ROLLOUT}nnodes", _index, 0,
        "nodes of engines that stand apart (separate_async); those of the training, which help at times, are left out",
    ),
    honoured(f"{ROLLOUT}n_gpus_per_node", count, None, "devices of each of these nodes"),
    honoured("rollout.nnodes", _index, 1, "nodes of engines that stand apart, in the recipes that have this section"),
    honoured("rollout.n_gpus_per_node", count, 8, "devices of each of these nodes"),
    honoured("data.train_batch_size", count, 1024, "prompts of a step"),
    honoured("data.gen_batch_size", maybe(count), None, "prompts of a step where use_v1 is false; else of a fetch"),
    honoured("trainer.use_v1", switch, True, "whether gen_batch_size says how many prompts a step has"),
    honoured(f"{ROLLOUT}n", count, 1, "samples of each prompt; each is a request of its own"),
    honoured("data.max_prompt_length", count, 512, "prompt_tokens, where rollout.prompt_length says nothing else"),
    honoured("data.max_response_length", count, 512, "output_tokens, where rollout.response_length says nothing else"),
    honoured(f"{ROLLOUT}prompt_length", count, None, "prompt_tokens: each prompt is as long as the longest may be"),
    honoured(f"{ROLLOUT}response_length", count, None, "output_tokens: each answer is as long as the longest may be"),
    honoured(f"{ROLLOUT}temperature", number, 1.0, "temperature"),
    honoured(f"{ROLLOUT}top_p", share, 1.0, "top_p"),
    honoured(f"{ROLLOUT}top_k", top_k, -1, "top_k"),
    # the engine
    honoured(f"{ROLLOUT}mode", text, "async", "which has to be async: requests go to AsyncLLM engines"),
    honoured(f"{MODEL}path", text, None, "weights"),
    honoured(f"{MODEL}trust_remote_code", switch, False, "engine argument trust_remote_code"),
    honoured(f"{ROLLOUT}name", text, "vllm", "the engine, which has to be vllm"),
    honoured(f"{ROLLOUT}dtype", text, "bfloat16", "engine argument dtype, and what the quant is called"),
    honoured(
        f"{ROLLOUT}quantization", maybe(text), None,
        "quants: fp8 is fp8-block there, with a scale for each 128 x 128 weights as verl's has, which vLLM makes itself"
        " where verl patches its loader",
    ),
    argument(f"{ROLLOUT}tensor_model_parallel_size", count, 2, "tensor_parallel_size"),
    argument(f"{ROLLOUT}pipeline_model_parallel_size", _one, 1, "pipeline_parallel_size"),
    argument(f"{ROLLOUT}gpu_memory_utilization", share, 0.5),
    argument(f"{ROLLOUT}max_num_seqs", count, 256),
    argument(f"{ROLLOUT}max_num_batched_tokens", count, 8192),
    argument(f"{ROLLOUT}enforce_eager", switch, False),
    argument(f"{ROLLOUT}enable_chunked_prefill", switch, True),
    argument(f"{ROLLOUT}enable_prefix_caching", switch, True),
    argument(f"{ROLLOUT}logprobs_mode", maybe(text), "processed_logprobs"),
    argument(f"{ROLLOUT}scheduling_policy", maybe(text), "fcfs"),
    honoured(
        f"{ROLLOUT}max_model_len", maybe(count), None,
        "engine argument max_model_len; null: here the longest prompt and answer, in verl what the model allows",
    ),
    honoured(f"{ROLLOUT}cudagraph_capture_sizes", numbers, None, "engine argument compilation_config"),
    honoured(f"{ROLLOUT}engine_kwargs.vllm", mapping, {}, "engine arguments, each by its own name; null is left out"),
    # not measured yet, with the consequence
    unsupported(
        f"{ROLLOUT}ignore_eos", switch, False, (True,),
        "prompts are random tokens, so an answer has the length that the config says, wherever the model would end it",
    ),
    unsupported(
        f"{ROLLOUT}calculate_log_probs", switch, True, (True,),
        "the sampled token's log probability is returned for each token, which takes the engine time",
    ),
    unsupported(
        f"{ROLLOUT}over_sample_rate", number, 0.0, (0.0,),
        "verl's vLLM rollout does not read it, so the step waits for all sequences. It would abort this share of them",
    ),
    unsupported(
        f"{ROLLOUT}data_parallel_size", count, 1, (1,),
        "each rank is an engine of its own behind the router; experts that lie on several ranks are not measured",
    ),
    unsupported(f"{ROLLOUT}expert_parallel_size", count, 1, (1,), "experts are divided as without expert parallelism"),
    unsupported(
        f"{ROLLOUT}multi_turn.enable", switch, False, (False,),
        "one turn is measured, and no tool is called; verl's router keeps the turns of a sample on one engine",
    ),
    unsupported(
        f"{ROLLOUT}agent.num_workers", count, 8, (),
        "sequences reach the router prompt after prompt, and not as so many processes send them at once",
    ),
    unsupported(
        f"{ROLLOUT}agent.default_agent_loop", text, "single_turn_agent", ("single_turn_agent",),
        "one turn is measured: one request for each sample",
    ),
    unsupported(f"{ROLLOUT}agent.agent_loop_config_path", None, None, (None,), "one turn is measured, of no own loop"),
    unsupported(
        f"{ROLLOUT}agent.agent_loop_manager_class", None, None, (None,),
        "sequences reach the router as verl's own class sends them",
    ),
    *(
        unsupported(f"{section}mtp.enable_rollout", switch, False, (False,), "measured without speculative decoding")
        for section in (ROLLOUT, MODEL)
    ),
    unsupported(
        f"{ROLLOUT}disaggregation.enabled", switch, False, (False,), "one engine prefills and decodes, as without it"
    ),
    unsupported(
        f"{ROLLOUT}full_determinism", switch, False, (False,),
        "kernels are not batch-invariant, and faster; the router does not go by a hash of the request",
    ),
    unsupported(
        f"{ROLLOUT}enable_rollout_routing_replay", switch, False, (False,), "routed experts are not recorded"
    ),
    unsupported(f"{ROLLOUT}quantization_config_file", None, None, (None,), "the quantization is vLLM's own"),
    unsupported(f"{ROLLOUT}limit_images", None, None, (None,), "prompts are tokens, without images"),
    unsupported(f"{ROLLOUT}skip.enable", switch, False, (False,), "all is generated, and no dump taken"),
    unsupported("skip.rollout.enable", switch, False, (False,), "all is generated, and no dump taken"),
    unsupported("skip.async_rollout.enable", switch, False, (False,), "all is generated, and no dump taken"),
    unsupported("skip.rollout_tq.enable", switch, False, (False,), "all is generated, and no dump taken"),
    unsupported(f"{MODEL}lora_rank", _index, 0, (0,), "the base model is measured, without an adapter"),
    unsupported(f"{MODEL}lora.rank", _index, 0, (0,), "the base model is measured, without an adapter"),
    *(
        unsupported(f"{section}.qat.enable", switch, False, (False,), "the checkpoint is measured as it is")
        for section in (
            "actor_rollout_ref.rollout", "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.actor.megatron"
        )
    ),
    unsupported(
        f"{ROLLOUT}standalone_gpu_memory_utilization", maybe(share), None, (None,),
        "engines that stand apart in a fully asynchronous training are measured with gpu_memory_utilization",
    ),
    unsupported(
        "algorithm.filter_groups.enable", switch, False, (False,),
        "one batch is measured; verl generates until enough groups pass the filter",
    ),
    unsupported(
        "trainer.v1.trainer_mode", text, "sync", ("sync",), "measured as if no training ran at the same time",
    ),
    # not read by verl's vLLM rollout, or outside generation
    *neutral(
        "verl samples whatever it says, and sets no penalty",
        *(f"{ROLLOUT}{key}" for key in ("do_sample", "repetition_penalty")),
    ),
    *(
        TrainerKey(f"{section}mtp.enable", Influence.NEUTRAL, "whether mtp.enable_rollout is read", switch, False)
        for section in (ROLLOUT, MODEL)
    ),
    TrainerKey(
        f"{MODEL}lora.merge", Influence.NEUTRAL,
        "whether an adapter is merged into the weights before they get to the engine", switch, False,
    ),
    *neutral("the trainer's quantization, which its own key switches on", f"{ROLLOUT}qat.*"),
    *neutral("a place for what others add", f"{ROLLOUT}custom.*"),
    *neutral(
        "another engine's",
        *(
            f"{ROLLOUT}{key}"
            for key in (
                "engine_kwargs.sglang.*", "engine_kwargs.trtllm.*", "sglang_engine_mode", "server.*",
                "multi_stage_wake_up", "moe_tensor_parallel_size", "layered_summon", "layer_name_map.*",
            )
        ),
    ),
    *neutral(
        "how weights get into the engine: here it loads the checkpoint",
        *(f"{ROLLOUT}{key}" for key in ("load_format", "checkpoint_engine.*", "checkpoint_manager_class")),
    ),
    *neutral(
        "between steps, which mode cycle measures",
        *(f"{ROLLOUT}{key}" for key in ("free_cache_engine", "enable_sleep_mode")),
    ),
    *neutral(
        "the trainer's own log probabilities, after generation",
        *(
            f"{ROLLOUT}log_prob_{key}"
            for key in ("micro_batch_size", "micro_batch_size_per_gpu", "use_dynamic_bsz", "max_token_len_per_gpu")
        ),
    ),
    *neutral(
        "read only where what it belongs to is on, or by verl's own processes",
        *(
            f"{ROLLOUT}{key}.*"
            for key in ("multi_turn", "agent", "mtp", "disaggregation", "skip", "trace", "profiler", "prometheus")
        ),
        "skip.*",
    ),
    *neutral("validation, not training", f"{ROLLOUT}val_kwargs.*", "data.val_files", "data.val_batch_size",
             "data.val_max_samples", "data.validation_shuffle"),
    *neutral(
        "logs and seeds",
        *(f"{ROLLOUT}{key}" for key in ("disable_log_stats", "moe_load_balance_metrics_interval", "seed")),
    ),
    *neutral("prompts are sent as token ids", f"{ROLLOUT}skip_tokenizer_init"),
    *neutral("a class of verl's", f"{ROLLOUT}_target_"),
    *neutral(
        "which prompts, and how they are read: theirs are random tokens of the same number",
        *(
            f"data.{key}"
            for key in (
                "tokenizer", "use_shm", "train_files", "train_max_samples", "prompt_key", "reward_fn_key",
                "tool_config_path", "function_tool_path", "return_raw_input_ids", "return_raw_chat",
                "return_full_prompt", "shuffle", "seed", "dataloader_num_workers", "image_patch_size",
                "filter_overlong_prompts", "filter_overlong_prompts_workers", "truncation", "image_key", "video_key",
                "audio_key", "trust_remote_code", "custom_cls.*", "return_multi_modal_inputs", "datagen.*", "sampler.*",
                "apply_chat_template_kwargs.*", "continuous_token.*", "mm_processor_kwargs.*",
            )
        ),
    ),
    *neutral("how the trainer holds the model", f"{MODEL}*"),
    *neutral(
        "training, not generation",
        "actor_rollout_ref.actor.*", "actor_rollout_ref.ref.*", "actor_rollout_ref.hybrid_engine",
        "actor_rollout_ref.nccl_timeout", "critic.*", "algorithm.*", "trainer.*", "model_engine",
    ),
    *neutral("after generation", "reward.*", "reward_model.*", "reward_manager.*", "custom_reward_function.*",
             "sandbox_fusion.*", "distillation.*"),
    *neutral("verl's own processes", "ray_kwargs.*", "ray_init.*", "transfer_queue.*", "global_profiler.*", "hydra.*",
             "async_training.*"),
    *neutral("what hydra laid together: where the file lacks a key, verl's own default is taken", "defaults.*"),
)  # fmt: skip


def verl_registry(version: str) -> KeyRegistry:
    """Return the keys of verl in one of `VERSIONS`."""
    return KeyRegistry.of("verl", _KEYS, _EARLIER[version])
