"""The config.json of a synthetic checkpoint, readable by transformers 4.56 and later without remote code."""

from __future__ import annotations

from typing import Any

from .formats import WeightsFormat, quantization_config
from .shapes import ResolvedShape

# openPangu's own model_type exists only in its remote code. vLLM picks the model class by `architectures`, and
# Llama's config class carries every attribute which that class reads (attention_bias, rope_parameters, head_dim ...).
MODEL_TYPES = {"qwen3": "qwen3", "qwen3_moe": "qwen3_moe", "openpangu": "llama"}
MODEL_CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "openpangu": "PanguEmbeddedForCausalLM",
}
RMS_NORM_EPS = {"qwen3": 1e-6, "qwen3_moe": 1e-6, "openpangu": 1e-5}


def hf_config(shape: ResolvedShape, weights_format: WeightsFormat) -> dict[str, Any]:
    """Return the content of config.json for a shape in a format."""
    config: dict[str, Any] = {
        "architectures": [MODEL_CLASSES[shape.architecture]],
        "model_type": MODEL_TYPES[shape.architecture],
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": RMS_NORM_EPS[shape.architecture],
        "attention_bias": shape.attention_bias,
        # Some config classes default to real token ids, and random weights do sample them.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if shape.num_experts is not None:
        config.update(
            num_experts=shape.num_experts,
            num_experts_per_tok=shape.num_experts_per_tok,
            moe_intermediate_size=shape.moe_intermediate_size,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        )
    quantization = quantization_config(shape, weights_format)
    if quantization is not None:
        config["quantization_config"] = quantization
    return config
