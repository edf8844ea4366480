"""Named shapes for synthetic checkpoints, with the public model that each real one repeats."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Field = str | int | float | bool

PRESETS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        # About 88 M parameters: the smallest size at which int8 kernels pay off on two CPU cores.
        "qwen3-90m": {
            "architecture": "qwen3",
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "vocab_size": 16384,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        # About 3 M parameters: starts fast, measures nothing.
        "qwen3-tiny": {
            "architecture": "qwen3",
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        "qwen3-moe-tiny": {
            "architecture": "qwen3_moe",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 128,
        },
        "openpangu-tiny": {
            "architecture": "openpangu",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "rope_theta": 16_000_000.0,
        },
        # config.json of Qwen/Qwen3-1.7B on the Hugging Face hub; the same sizes in slime's
        # scripts/models/qwen3-1.7B.sh.
        "qwen3-1.7b": {
            "architecture": "qwen3",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        # config.json of Qwen/Qwen3-30B-A3B on the Hugging Face hub; the same sizes in slime's
        # scripts/models/qwen3-30B-A3B.sh.
        "qwen3-30b-a3b": {
            "architecture": "qwen3_moe",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        # config.json of openPangu-Embedded-7B-V1.1 (GitHub: wujing215/OpenPangu7B-on-NVIDIA).
        # Its model card gives 12800 as "hidden dimension"; config.json says that is intermediate_size.
        "pangu-7b": {
            "architecture": "openpangu",
            "hidden_size": 4096,
            "intermediate_size": 12800,
            "num_hidden_layers": 34,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 153376,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
            "rope_theta": 16_000_000.0,
        },
    }
)
