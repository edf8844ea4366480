"""Inputs of a model's memory: its sizes, from a Hugging Face config, and the storage of its weights."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.contracts.spec import Spec

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


class MemoryUnknownError(Exception):
    """Reason for an unknown memory of an engine.

    Args:
        reason: in words that can follow `since`.
        remedy: how to make it known.
    """

    def __init__(self, reason: str, remedy: str = "download the model first") -> None:
        self.remedy = remedy
        super().__init__(reason)


class Architecture(NamedTuple):
    """The memory of a decoder with grouped-query attention and gated MLPs.

    Attributes:
        matrices: input features, output features and number of each kind of linear layer that formats quantize.
        plain: weights that every format keeps in the model's data type: router, head, embedding and norms.
        key_value_heads: heads of keys and values.
        head_dim: width of a head.
        whole_layers: layers whose attention has no window, so that they cache every token.
    """

    matrices: list[tuple[int, int, int]]
    plain: int
    key_value_heads: int
    head_dim: int
    whole_layers: int


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """Return the sizes in the content of a config.json, with vLLM's linear layers.

    q, k and v are one matrix, gate and up another; an expert has gate and up together, and down. The head is in memory
    even if the embedding is tied to it.

    Raises:
        MemoryUnknownError: the kind of model is not supported here, or a size is missing.
    """
    config = config.get("text_config") or config
    kind, strange = str(config.get("model_type", "")), sorted(set(config.get("layer_types") or ()) - {FULL, SLIDING})
    state_space = any(key in config for key in ("mamba_d_state", "ssm_cfg", "state_size", "attn_layer_period"))
    others = {
        "latent attention is": config.get("kv_lora_rank"),
        f"layers of the type {''.join(strange[:1])} are": strange,
        "state-space layers are": state_space,
        "encoders are": config.get("is_encoder_decoder"),
        f"the MLP of {kind} is": kind in PLAIN_MLP,
    }
    for other in (what for what, is_so in others.items() if is_so):
        raise MemoryUnknownError(f"{other} not counted here")
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
    layers, heads, hidden, vocabulary = (size_in(config, name) for name in names)
    key_value_heads, head_dim = int(config.get("num_key_value_heads") or heads), config.get("head_dim")
    query, key_value = heads * (head_dim or hidden // heads), key_value_heads * (head_dim or hidden // heads)
    experts, width, sparse, shared = _experts(config, layers)
    dense = size_in(config, "intermediate_size") if sparse < layers else 0
    padded = -(-vocabulary // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    embedding = 0 if config.get("tie_word_embeddings") else vocabulary
    return Architecture(
        matrices=[
            (hidden, query + 2 * key_value, layers),
            (query, hidden, layers),
            *_mlp(hidden, dense, layers - sparse),
            *_mlp(hidden, shared, sparse),
            *_mlp(hidden, width, sparse * experts),
        ],
        plain=hidden * (sparse * experts + padded + embedding + 2 * layers + 1),
        key_value_heads=key_value_heads,
        head_dim=int(head_dim or hidden // heads),
        whole_layers=layers - _sliding_layers(config, layers),
    )


def _mlp(hidden: int, width: int, number: int) -> list[tuple[int, int, int]]:
    return [(hidden, 2 * width, number), (width, hidden, number)]


def size_in(config: Mapping[str, Any], key: str) -> int:
    """Return a size in the content of a config.json.

    Raises:
        MemoryUnknownError: it is missing.
    """
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise MemoryUnknownError(f"its config.json has no {key}", "give the model a config.json with its sizes")
    return value


def _experts(config: Mapping[str, Any], layers: int) -> tuple[int, int, int, int]:
    """Return the experts of a layer, the width of each, the layers with experts, and the width of a shared MLP."""
    count = next((config[k] for k in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(k)), 0)
    if count <= 1:
        return 0, 0, 0, 0
    dense = set(config.get("mlp_only_layers") or ()) | set(range(int(config.get("first_k_dense_replace") or 0)))
    every = int(config.get("decoder_sparse_step") or config.get("moe_layer_freq") or 1)
    width = int(config.get("moe_intermediate_size") or size_in(config, "intermediate_size"))
    shared = config.get("shared_expert_intermediate_size") or width * int(config.get("n_shared_experts") or 0)
    sparse = sum(layer not in dense and (layer + 1) % every == 0 for layer in range(layers))
    return int(count), width, sparse, int(shared)


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
        MemoryUnknownError: there is none here.
    """
    overrides = spec.engine.args.get("hf_overrides")
    return {**_model_config(spec, model_path), **(overrides if isinstance(overrides, dict) else {})}


def _model_config(spec: Spec, model_path: str) -> dict[str, Any]:
    if spec.model.synthetic is not None:
        try:
            return hf_config(ResolvedShape.model_validate(spec.model.synthetic), "bf16")
        except ValueError:
            raise MemoryUnknownError("the shape of its model is not whole") from None
    folder = Path(model_path).expanduser()
    file = folder / "config.json"
    if not folder.is_dir() and (spec.model.weights or "").startswith("hub:"):
        file = _in_hub_cache(model_path) or file
        if not file.is_file():
            return known_config(model_path)
    try:
        content = json.loads(file.read_bytes())
    except OSError:
        raise MemoryUnknownError(f"there is no {file}") from None
    except (ValueError, RecursionError):
        raise MemoryUnknownError(f"{file} is no JSON") from None
    if not isinstance(content, dict):
        raise MemoryUnknownError(f"{file} holds no settings")
    return content


@lru_cache(maxsize=16)
def known_config(model: str) -> dict[str, Any]:
    """Return the relevant part of the config.json of a well-known model of the hub.

    Raises:
        MemoryUnknownError: the model is not well known.
    """
    known = yaml.safe_load(HUB_MODELS.read_text(encoding="utf-8"))
    config = next((one["config"] for one in known if re.fullmatch(one["models"], model)), None)
    if config is None:
        raise MemoryUnknownError("the hub's model is neither in the local cache nor a well-known one")
    return dict(config)


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, "config.json")
    return Path(found) if isinstance(found, str) else None


BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "uint8": 1.0, "float8": 1.0}
"""Bytes of one value, by torch's name; float8 is any 8-bit float."""


class Coding(NamedTuple):
    """Storage of the weights of linear layers.

    Attributes:
        bits: of one weight.
        scale_bytes: for each output feature, in addition to the weights.
        value_bytes: of one of the other weights.
    """

    bits: float
    scale_bytes: float
    value_bytes: float


FORMATS = {
    "compressed-tensors-w8a8": (8, 2),
    "compressed-tensors-w8a16": (8, 2),
    "compressed-tensors-w4a16": (4 + 16 / 128, 0),  # a scale for each 128 inputs
    "modelslim-w8a8": (8, 8),
    "modelslim-w8a16": (8, 8),
}
"""Weights format -> bits of a weight, and bytes of scales for each output feature."""


def coding_of(spec: Spec, config: Mapping[str, Any]) -> Coding:
    """Return the storage of the experiment's weights, from their format or the data types that prove them.

    Args:
        spec: its settings.
        config: content of the config.json that it loads, or at least its dtype.

    Raises:
        MemoryUnknownError: the quantization does not define it.
    """
    value_bytes = BYTES[model_dtype(spec, config)]
    if spec.quant.weights_format in FORMATS:
        return Coding(*FORMATS[spec.quant.weights_format], value_bytes)
    names = {"float8" if name.startswith("float8") else name for name in spec.quant.linear_dtypes}
    name = names.pop() if len(names) == 1 else ""
    if name not in BYTES:
        said = f"{spec.quant.name} does not say how many bits a weight has"
        raise MemoryUnknownError(said, "name a folder with its weights, whose sizes count then")
    # formats that also quantize activations are handled above
    return Coding(8 * BYTES[name], 2 if name in ("int8", "uint8") else 0, value_bytes)


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
