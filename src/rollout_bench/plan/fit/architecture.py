"""Inputs of a model's memory: its sizes, from a Hugging Face config, and the storage of its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.checkpoints.formats import GROUP, hf_config
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.inside import LinearShape
from rollout_bench.contracts.spec import Role, Spec

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
"""Model types whose MLP has no gate, which their config does not show."""

FULL, SLIDING = "full_attention", "sliding_attention"


class UnknownArchitectureError(Exception):
    """Reason for unknown numbers, in words that can follow `since`."""


@dataclass(frozen=True)
class Experts:
    """The experts of a mixture.

    Attributes:
        count: experts in a layer.
        intermediate_size: width of one expert's MLP.
        layers: layers that have experts; the others have a dense MLP.
        shared_intermediate_size: width of the shared MLP for every token; 0 if there is none.
    """

    count: int
    intermediate_size: int
    layers: int
    shared_intermediate_size: int = 0


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
        experts: the experts of a mixture.
        sliding_layers: layers whose attention is limited to a window.
    """

    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    tied_embeddings: bool
    experts: Experts | None = None
    sliding_layers: int = 0

    @property
    def dense_layers(self) -> int:
        """Layers with a dense MLP."""
        return self.layers - (self.experts.layers if self.experts else 0)

    def key_value_heads_of_rank(self, ranks: int) -> int:
        """Return heads of keys and values on one of `ranks`; with more ranks than heads, each has a copy of one."""
        return max(1, self.key_value_heads // ranks)


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """Return the sizes in the content of a config.json.

    Raises:
        UnknownArchitectureError: the kind of model is not supported here, or a size is missing.
    """
    config = config.get("text_config") or config
    _refuse_others(config)
    layers, heads, hidden = (_size(config, key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
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
        experts=experts,
        sliding_layers=_sliding_layers(config, layers),
    )


def linear_shapes(a: Architecture) -> list[LinearShape]:
    """Return vLLM's linear layers: q, k and v in one matrix, gate and up in another.

    Each expert has two matrices, gate and up together, and down; `layers` then counts the matrices of all experts in
    all layers. The output head is included even if it is tied.
    """
    query, key_value = a.heads * a.head_dim, a.key_value_heads * a.head_dim
    found = [_shape("qkv", a.hidden_size, query + 2 * key_value, a.layers), _shape("o", query, a.hidden_size, a.layers)]
    if a.dense_layers:
        found += _mlp(a.hidden_size, a.intermediate_size, a.dense_layers)
    if a.experts:
        width, matrices = a.experts.intermediate_size, a.experts.layers * a.experts.count
        if a.experts.shared_intermediate_size:
            found += _mlp(a.hidden_size, a.experts.shared_intermediate_size, a.experts.layers)
        found.append(_shape("router", a.hidden_size, a.experts.count, a.experts.layers))
        found.append(_shape("experts", a.hidden_size, 2 * width, matrices))
        found.append(_shape("experts", width, a.hidden_size, matrices))
    padded = -(-a.vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    found.append(_shape("lm_head", a.hidden_size, padded, 1))
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
        intermediate_size=width,
        layers=sum(layer not in dense and (layer + 1) % every == 0 for layer in range(layers)),
        shared_intermediate_size=int(shared),
    )


def _sliding_layers(config: Mapping[str, Any], layers: int) -> int:
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return 0
    if config.get("layer_types"):
        return list(config["layer_types"]).count(SLIDING)
    if config.get("use_sliding_window"):  # Qwen2's: the layers from this one on
        return layers - min(layers, int(config.get("max_window_layers") or 0))
    return layers


HUB_MODELS = Path(__file__).with_name("hub_models.yaml")


def model_config(spec: Spec, model_path: str) -> dict[str, Any]:
    """Return the content of the config.json that an experiment loads, with `hf_overrides` applied.

    It is generated, or read from the weights' folder or a local hub cache, or known for a well-known model.

    Raises:
        UnknownArchitectureError: there is none here.
    """
    overrides = spec.engine.args.get("hf_overrides")
    return {**_model_config(spec, model_path), **(overrides if isinstance(overrides, dict) else {})}


def _model_config(spec: Spec, model_path: str) -> dict[str, Any]:
    if spec.model.synthetic is not None:
        try:
            return hf_config(ResolvedShape.model_validate(spec.model.synthetic), "bf16")
        except ValueError:
            raise UnknownArchitectureError("the shape of its model is not whole") from None
    folder = Path(model_path).expanduser()
    file = folder / "config.json"
    if not folder.is_dir() and (spec.model.weights or "").startswith("hub:"):
        file = _in_hub_cache(model_path) or file
        if not file.is_file():
            return known_config(model_path)
    try:
        content = json.loads(file.read_bytes())
    except OSError:
        raise UnknownArchitectureError(f"there is no {file}") from None
    except (ValueError, RecursionError):
        raise UnknownArchitectureError(f"{file} is no JSON") from None
    if not isinstance(content, dict):
        raise UnknownArchitectureError(f"{file} holds no settings")
    return content


def known_config(model: str) -> dict[str, Any]:
    """Return the relevant part of the config.json of a well-known model of the hub.

    Raises:
        UnknownArchitectureError: the model is not well known.
    """
    for one in _hub_models():
        if re.fullmatch(one["models"], model):
            return dict(one["config"])
    raise UnknownArchitectureError("the hub's model is neither in the local cache nor a well-known one")


@lru_cache(maxsize=1)
def _hub_models() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(HUB_MODELS.read_text(encoding="utf-8"))
    return found


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) else None


BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "uint8": 1.0, "float8": 1.0}
"""Bytes of one value, by torch's name; float8 is any 8-bit float."""


@dataclass(frozen=True)
class Coding:
    """Storage of the weights of linear layers.

    Attributes:
        bits: of one weight.
        scale_bytes: for each output feature, in addition to the weights.
        dtype: data type of activations, of the other weights, and by default of the KV cache.
    """

    bits: float
    scale_bytes: float
    dtype: str

    @property
    def value_bytes(self) -> float:
        """Bytes of an activation."""
        return BYTES[self.dtype]


def plain(dtype: str) -> Coding:
    """Return the storage of unquantized weights."""
    return Coding(8 * BYTES[dtype], 0.0, dtype)


def coding_of(spec: Spec, config: Mapping[str, Any]) -> Coding:
    """Return the storage of the experiment's weights.

    Args:
        spec: its settings.
        config: content of the config.json that it loads, or at least its dtype.

    Raises:
        UnknownArchitectureError: the quantization does not define it.
    """
    model = plain(model_dtype(spec, config))
    known = {
        "compressed-tensors-w8a8": replace(model, bits=8, scale_bytes=2),
        "compressed-tensors-w8a16": replace(model, bits=8, scale_bytes=2),
        "compressed-tensors-w4a16": replace(model, bits=_with_scales(4, GROUP)),
        "modelslim-w8a8": replace(model, bits=8, scale_bytes=8),
        "modelslim-w8a16": replace(model, bits=8, scale_bytes=8),
    }
    if spec.quant.weights_format in known:
        return known[spec.quant.weights_format]
    written = config.get("quantization_config")
    return (_written(written, model) if isinstance(written, dict) else None) or _by_dtype(spec, model)


def model_dtype(spec: Spec, config: Mapping[str, Any]) -> str:
    """Return the engine's data type for the config; `auto` turns 32 bits into 16, as in vLLM."""
    asked = str(spec.engine.args.get("dtype", "auto"))
    asked = {"half": "float16", "float": "float32"}.get(asked, asked)
    if asked in BYTES:
        return asked
    said = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    return {"float32": "float16"}.get(said, said) if said in BYTES else "bfloat16"


def cache_value_bytes(kv_cache_dtype: object, dtype: str) -> float:
    """Return bytes of one value in the KV cache, for vLLM's `kv_cache_dtype`: auto is the model's, fp8 one byte.

    Scales are not counted.
    """
    asked = str(kv_cache_dtype or "auto")
    if asked.startswith(("fp8", "int8", "uint8")):
        return 1.0
    if asked.startswith(("int4", "nvfp4")):
        return 0.5
    return BYTES.get(asked, BYTES[dtype])


def _by_dtype(spec: Spec, model: Coding) -> Coding:
    """Return the storage from the data types that prove the quantization."""
    names = {"float8" if name.startswith("float8") else name for name in spec.quant.linear_dtypes}
    name = names.pop() if len(names) == 1 else ""
    if name not in BYTES:
        raise UnknownArchitectureError(f"{spec.quant.name} does not say how many bits a weight has")
    if name in ("int8", "uint8"):  # only weights: formats that also quantize activations are handled above
        return replace(model, bits=8, scale_bytes=2)
    return replace(model, bits=8 * BYTES[name])


def _written(config: Mapping[str, Any], model: Coding) -> Coding | None:
    """Return the storage from a checkpoint's `quantization_config`; None if it is not defined there."""
    method = config.get("quant_method")
    if method == "fp8":
        return replace(model, bits=8)
    if method in ("gptq", "awq") and isinstance(config.get("bits"), int):
        return replace(model, bits=_with_scales(config["bits"], config.get("group_size")))
    groups = config.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = (group or {}).get("weights") or {}
    if not isinstance(weights.get("num_bits"), int):
        return None
    bits = _with_scales(weights["num_bits"], weights.get("group_size"))
    return replace(model, bits=bits, scale_bytes=2)


def _with_scales(bits: int, group_size: object) -> float:
    return bits + 16 / group_size if isinstance(group_size, int) and group_size > 0 else bits


NOT_QUANTIZED = ("router", "lm_head")
"""Roles that every format here keeps in the model's data type."""
