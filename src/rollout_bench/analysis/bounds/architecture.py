"""The sizes of a model that its work follows from, read from a Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.inside import LinearShape
from rollout_bench.contracts.spec import Role

VOCABULARY_MULTIPLE = 64
"""vLLM pads the vocabulary to a multiple of this (DEFAULT_VOCAB_PADDING_SIZE of its VocabParallelEmbedding)."""

PLAIN_MLP = (
    "bloom",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gptj",
    "mpt",
    "nemotron",
    "opt",
    "phi",
    "starcoder2",
)
"""Model types whose MLP has no gate, which nothing else in their config tells."""

FULL, SLIDING = "full_attention", "sliding_attention"


class UnknownArchitectureError(Exception):
    """Why no numbers can be given, in words that can follow `since`."""


@dataclass(frozen=True)
class Experts:
    """The experts of a mixture.

    Attributes:
        count: experts in a layer.
        per_token: experts that see each token.
        intermediate_size: width of one expert's MLP.
        layers: layers that have experts; the others have a dense MLP.
        shared_intermediate_size: width of the MLP beside them that sees every token; 0 where there is none.
    """

    count: int
    per_token: int
    intermediate_size: int
    layers: int
    shared_intermediate_size: int = 0

    def hit(self, tokens: float) -> float:
        """Distinct experts of one layer that `tokens` tokens are expected to need.

        Each token leaves an expert out with probability 1 - per_token / count if routers choose evenly, so that
        count (1 - (1 - per_token / count)^tokens) remain. Routers that prefer some experts hit fewer.
        """
        left_out: float = (1 - self.per_token / self.count) ** tokens
        return self.count * (1 - left_out)


@dataclass(frozen=True)
class Architecture:
    """A decoder with grouped-query attention and gated MLPs.

    Attributes:
        hidden_size: width of the residual stream.
        layers: decoder layers.
        heads: query heads.
        key_value_heads: heads of keys and values.
        head_dim: width of a head.
        intermediate_size: width of the dense MLP.
        vocabulary: token ids.
        tied_embeddings: whether the output head is the embedding.
        dtype: data type of weights and activations by torch's name, as the config has it.
        experts: the experts, of a mixture.
        window: tokens that a sliding layer looks back at; None where there is no such layer.
        sliding_layers: layers that look back no further than that.
    """

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    tied_embeddings: bool
    dtype: str = "bfloat16"
    experts: Experts | None = None
    window: int | None = None
    sliding_layers: int = 0

    @property
    def dense_layers(self) -> int:
        """Layers with a dense MLP."""
        return self.layers - (self.experts.layers if self.experts else 0)

    def key_value_heads_of_rank(self, ranks: int) -> int:
        """Return heads of keys and values on one of `ranks`; with more ranks than heads each has a copy of one."""
        return max(1, self.key_value_heads // ranks)


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """Return the sizes in the content of a config.json.

    Raises:
        UnknownArchitectureError: it is of a kind whose work is not the sum that is made here, or a size is missing.
    """
    config = config.get("text_config") or config
    _refuse_others(config)
    layers, heads, hidden = (_size(config, key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    window, sliding = _sliding(config, layers)
    experts = _experts(config, layers)
    return Architecture(
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate_size=_size(config, "intermediate_size") if not experts or experts.layers < layers else 0,
        vocabulary=_size(config, "vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch."),
        experts=experts,
        window=window,
        sliding_layers=sliding,
    )


def linear_shapes(architecture: Architecture, tensor_parallel_size: int = 1) -> list[LinearShape]:
    """Return the linear layers of one rank as vLLM holds them: q, k and v in one matrix, gate and up in another.

    Of experts each has two matrices, gate and up together and down; `layers` then counts the matrices of all experts
    in all layers. The output head is there also where it is tied: it is read either way.
    """
    a, ranks = architecture, tensor_parallel_size
    query = a.heads * a.head_dim // ranks
    key_value = a.key_value_heads_of_rank(ranks) * a.head_dim
    found = [_shape("qkv", a.hidden_size, query + 2 * key_value, a.layers), _shape("o", query, a.hidden_size, a.layers)]
    if a.dense_layers:
        found += _mlp(a.hidden_size, a.intermediate_size // ranks, a.dense_layers)
    if a.experts:
        width, matrices = a.experts.intermediate_size // ranks, a.experts.layers * a.experts.count
        if a.experts.shared_intermediate_size:
            found += _mlp(a.hidden_size, a.experts.shared_intermediate_size // ranks, a.experts.layers)
        found.append(_shape("router", a.hidden_size, a.experts.count, a.experts.layers))
        found.append(_shape("experts", a.hidden_size, 2 * width, matrices))
        found.append(_shape("experts", width, a.hidden_size, matrices))
    padded = -(-a.vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    found.append(_shape("lm_head", a.hidden_size, padded // ranks, 1))
    return found


def _mlp(hidden: int, width: int, layers: int) -> list[LinearShape]:
    return [_shape("gate_up", hidden, 2 * width, layers), _shape("down", width, hidden, layers)]


def _shape(role: Role, in_features: int, out_features: int, layers: int) -> LinearShape:
    return LinearShape(role=role, in_features=in_features, out_features=out_features, layers=layers)


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UnknownArchitectureError(f"its config.json has no {key}")
    return value


def _refuse_others(config: Mapping[str, Any]) -> None:
    kind = str(config.get("model_type", ""))
    strange = sorted(set(config.get("layer_types") or ()) - {FULL, SLIDING})
    if config.get("kv_lora_rank"):
        raise UnknownArchitectureError("latent attention is not counted here")
    if strange:
        raise UnknownArchitectureError(f"layers of the type {strange[0]} are not counted here")
    if any(key in config for key in ("mamba_d_state", "ssm_cfg", "state_size", "attn_layer_period")):
        raise UnknownArchitectureError("state-space layers are not counted here")
    if config.get("is_encoder_decoder"):
        raise UnknownArchitectureError("encoders are not counted here")
    if kind in PLAIN_MLP:
        raise UnknownArchitectureError(f"the MLP of {kind} is not counted here")


def _experts(config: Mapping[str, Any], layers: int) -> Experts | None:
    count = next(
        (config[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)), 0
    )
    if count <= 1:
        return None
    dense = set(config.get("mlp_only_layers") or ()) | set(range(int(config.get("first_k_dense_replace") or 0)))
    every = int(config.get("decoder_sparse_step") or config.get("moe_layer_freq") or 1)
    width = int(config.get("moe_intermediate_size") or _size(config, "intermediate_size"))
    shared = config.get("shared_expert_intermediate_size") or width * int(config.get("n_shared_experts") or 0)
    return Experts(
        count=int(count),
        per_token=_size(config, "num_experts_per_tok"),
        intermediate_size=width,
        layers=sum(layer not in dense and (layer + 1) % every == 0 for layer in range(layers)),
        shared_intermediate_size=int(shared),
    )


def _sliding(config: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return None, 0
    if config.get("layer_types"):
        sliding = list(config["layer_types"]).count(SLIDING)
    elif config.get("use_sliding_window"):  # Qwen2's: the layers from this one on
        sliding = layers - min(layers, int(config.get("max_window_layers") or 0))
    else:
        sliding = layers
    return (int(window), sliding) if sliding else (None, 0)
