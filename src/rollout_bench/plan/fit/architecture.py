"""Inputs of a model's memory: its sizes, from a Hugging Face config, and the storage of its weights."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import PRESETS, ResolvedShape
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError, value_text
from rollout_bench.core.files import read_json
from rollout_bench.core.model_files import cached_config
from rollout_bench.core.yaml_files import packaged

MODEL_TYPES: dict[str, dict[str, Any]] = packaged(Path(__file__).with_name("model_types.yaml"))
"""`model_type` whose size is counted -> values of its class for keys that a config.json leaves out."""

BESIDE_TEXT = {"vision_config": "its part for images", "audio_config": "its part for sound"}
"""Key of a config.json -> a part of the model, whose size is another sum."""

BY_FILES = "name a folder with its weights, whose sizes count then"
"""Remedy for a model whose sizes do not follow from its config."""

BY_CONFIG = "give the model a config.json with its sizes"
"""Remedy for a config.json that lacks sizes, or has wrong ones."""

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
    """The memory of a decoder with grouped-query or latent attention.

    Attributes:
        linear: weights of linear layers, which formats quantize.
        plain: weights that every format keeps in the model's data type: embedding and head.
        key_value_heads: heads of keys and values.
        head_dim: width of a head.
        whole_layers: layers whose attention has no window, so that they cache every token.
        window_layers: layers whose attention has one.
        window: the tokens that these cache.
        latent: values of a token that a layer with latent attention (MLA) caches, on every rank; 0 for other attention.
    """

    linear: int
    plain: int
    key_value_heads: int
    head_dim: int
    whole_layers: int
    window_layers: int
    window: int
    latent: int = 0

    def cached_values(self, tokens: float) -> float:
        """Return how many values of all layers and heads the KV cache holds for a sequence of so many tokens."""
        layers = self.whole_layers * tokens + self.window_layers * min(tokens, self.window)
        return (self.latent or 2 * self.key_value_heads * self.head_dim) * layers

    def of_rank(self, tensor: int) -> "Architecture":
        """Return what one of `tensor` ranks caches: its heads, a copy of one with more ranks than heads."""
        return self._replace(key_value_heads=max(1, self.key_value_heads // tensor)) if not self.latent else self


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """Return the sizes in a config.json's content; norms, biases, routers, learned positions are too small to count.

    Raises:
        MemoryUnknownError: the kind of model is not supported here, or a size is missing.
    """
    others = [part for key, part in BESIDE_TEXT.items() if config.get(key)]
    config = text_config(config)
    kind, types = str(config.get("model_type") or ""), config.get("layer_types") or []
    known = MODEL_TYPES.get(kind)
    if known is None:
        named = f"the size of its model_type {kind!r} is unknown" if kind else "its config.json has no model_type"
        raise MemoryUnknownError(named, BY_FILES)
    config = {**known, **config}
    if not isinstance(types, list) or not all(isinstance(each, str) for each in types):
        raise MemoryUnknownError("its config.json has a layer_types that is no list of names", BY_CONFIG)
    others += [f"layers of the type {other}" for other in sorted({*types} - {FULL, SLIDING})]
    if (config.get("decoder_sparse_step") or 1) != 1 or config.get("mlp_only_layers"):
        others.append("layers without experts")
    if others:
        raise MemoryUnknownError(f"{others[0]} can't be counted here", BY_FILES)
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
    layers, heads, hidden, vocabulary = (size_in(config, name) for name in names)
    key_value_heads = size_in(config, "num_key_value_heads") if config.get("num_key_value_heads") else heads
    head_dim = size_in(config, "head_dim") if config.get("head_dim") else hidden // heads
    if types and len(types) != layers:
        raise MemoryUnknownError(f"its config.json has {layers} layers and {len(types)} layer_types", BY_CONFIG)
    plain = hidden * vocabulary * (1 if config.get("tie_word_embeddings") else 2)
    if config.get("latent_attention"):
        return _latent_attention(config, layers, heads, hidden, plain)
    experts = experts_in(config)
    size = "moe_intermediate_size" if experts > 1 and config.get("moe_intermediate_size") else "intermediate_size"
    size = "ffn_dim" if config.get("ffn_dim") else size
    matrices = 2 if config.get("plain_mlp") else 3
    whole = _whole_layers(config, layers)
    return Architecture(
        linear=layers
        * hidden
        * (2 * head_dim * (heads + key_value_heads) + matrices * size_in(config, size) * experts),
        plain=plain,
        key_value_heads=key_value_heads,
        head_dim=head_dim,
        whole_layers=whole,
        window_layers=layers - whole,
        window=size_in(config, "sliding_window") if whole < layers else 0,
    )


def _latent_attention(config: Mapping[str, Any], layers: int, heads: int, hidden: int, plain: int) -> Architecture:
    """Return the sizes of DeepSeek's architecture: latent attention, and experts after the first dense layers."""
    names = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "intermediate_size")
    latent, rope, key, value, dense = (size_in(config, name) for name in names)
    query, rank = heads * (key + rope), size_in(config, "q_lora_rank") if config.get("q_lora_rank") else 0
    queries = rank * (hidden + query) if rank else hidden * query
    attention = queries + hidden * (latent + rope) + latent * heads * (key + value) + heads * value * hidden
    first = size_in(config, "first_k_dense_replace") if config.get("first_k_dense_replace") else 0
    shared = size_in(config, "n_shared_experts") if config.get("n_shared_experts") else 0
    inner = first * dense + (layers - first) * (experts_in(config) + shared) * size_in(config, "moe_intermediate_size")
    return Architecture(layers * attention + 3 * hidden * inner, plain, heads, value, layers, 0, 0, latent + rope)


def _whole_layers(config: Mapping[str, Any], layers: int) -> int:
    """Return how many layers have no window: by their list, by a pattern of which the last has none, or all alike.

    Raises:
        MemoryUnknownError: the config says it in a way that is not known.
    """
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return layers
    if types := config.get("layer_types"):
        return int(types.count(FULL))
    if config.get("use_sliding_window"):
        raise MemoryUnknownError("which layers have windows can't be counted here", BY_FILES)
    pattern = config.get("sliding_window_pattern")
    return layers // size_in(config, "sliding_window_pattern") if pattern else 0


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config.json that describes the decoder of text: the whole one in most models.

    Raises:
        MemoryUnknownError: it is no mapping.
    """
    found = config.get("text_config") or config
    if not isinstance(found, Mapping):
        raise MemoryUnknownError("its config.json has a text_config that is no mapping", BY_CONFIG)
    return found


def experts_in(config: Mapping[str, Any]) -> int:
    """Return the number of experts in a layer in the content of a config.json; 1 for a dense model.

    Raises:
        MemoryUnknownError: it is no size.
    """
    return next((size_in(config, key) for key in EXPERTS if config.get(key)), 1)


def size_in(config: Mapping[str, Any], key: str) -> int:
    """Return a size in the content of a config.json.

    Raises:
        MemoryUnknownError: it is missing, or no whole number from 1 up.
    """
    value = config.get(key)
    if type(value) is not int or value < 1:
        problem = f"no {key}" if value is None else f"no size as {key}: {value_text(value)}"
        raise MemoryUnknownError(f"its config.json has {problem}", BY_CONFIG)
    return value


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
        return hf_config(ResolvedShape.model_validate(spec.model.synthetic), "bf16")
    file = Path(model_path).expanduser() / "config.json"
    if not file.parent.is_dir() and spec.model.is_on_hub:
        file = cached_config(model_path) or file
        if not file.is_file():
            return known_config(model_path)
    try:
        content = read_json(file, "")
    except UserError as error:
        raise MemoryUnknownError(error.problem) from None
    return content if isinstance(content, dict) else {}


def too_long(spec: Spec, model_path: str) -> UserError | None:
    """Return the error for a max_model_len beyond the positions in a model's own config.json, which vLLM refuses.

    A model that stretches its positions (rope scaling), or whose file is not here, is not judged.
    """
    asked, config_file = spec.engine.args.get("max_model_len"), Path(model_path).expanduser() / "config.json"
    file = config_file if config_file.is_file() else cached_config(model_path) if spec.model.is_on_hub else None
    if not isinstance(asked, int) or file is None or ALLOWED in spec.engine.environment:
        return None
    try:
        config = text_config(model_config(spec, model_path))
    except (UserError, MemoryUnknownError):
        return None
    positions, rope = config.get("max_position_embeddings"), config.get("rope_scaling") or config.get("rope_parameters")
    is_stretched = isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default")) != "default"
    if type(positions) is not int or asked <= positions or is_stretched:
        return None
    return UserError(
        f"config: max_model_len: {asked} of {spec.model.name} is more than the {positions} positions in its"
        " config.json, and vLLM does not start",
        f"shorten prompts and answers to {positions} together, or correct max_position_embeddings in config.json if the"
        " training does",
    )


ALLOWED = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
"""Variable with which vLLM takes a larger max_model_len."""


@lru_cache(maxsize=16)
def known_config(model: str) -> dict[str, Any]:
    """Return the relevant part of the config.json of a well-known model of the hub.

    Raises:
        MemoryUnknownError: the model is not well known.
    """
    known = packaged(HUB_MODELS)
    config = next((one["config"] for one in known if re.fullmatch(one["models"], model)), None)
    if config is None:
        raise MemoryUnknownError("the hub's model is neither in the local cache nor a well-known one")
    return dict(config)


def synthetic_of(model: str) -> dict[str, Any]:
    """Return what `synthetic:` has for a model with the sizes of a well-known one of the hub.

    Its preset is that of the same architecture with the fewest other sizes; small ones are for tests.

    Raises:
        MemoryUnknownError: the model is not well known, or no preset has its architecture.
    """
    sizes = known_config(model)
    sizes = {"head_dim": sizes["hidden_size"] // sizes["num_attention_heads"], **sizes}
    architecture = sizes.pop("model_type")
    alike = {
        name: {size: value for size, value in sizes.items() if preset.get(size) != value}
        for name, preset in PRESETS.items()
        if preset["architecture"] == architecture and not name.endswith("-tiny")
    }
    if not alike:
        raise MemoryUnknownError(f"no preset has the architecture {architecture}")
    preset = min(alike, key=lambda name: len(alike[name]))
    return {"preset": preset, **({"shape": alike[preset]} if alike[preset] else {})}


BYTES = {"float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "uint8": 1.0, "float8": 1.0}
"""Bytes of one value, by torch's name; float8 is any 8-bit float."""

BITS = {
    "compressed-tensors-w8a8": 8,
    "compressed-tensors-w8a16": 8,
    "compressed-tensors-w4a16": 4 + 16 / 128,  # a scale for each 128 inputs
    "modelslim-w8a8": 8,
    "modelslim-w8a8-static": 8,
    "modelslim-w8a8-kv8": 8,
    "modelslim-w8a16": 8,
}
"""Weights format -> bits of a weight of a linear layer."""

CACHE_BYTES = {"fp8": 1.0, "int8": 1.0, "uint8": 1.0, "int4": 0.5, "nvfp4": 0.5}
"""Beginning of vLLM's name for a data type of the KV cache -> bytes of one value, without scales."""


def bits_of(spec: Spec) -> float:
    """Return the bits of a weight of a linear layer, from the format or the data types that prove it.

    Raises:
        MemoryUnknownError: the quantization does not define it.
    """
    if spec.quant.weights_format in BITS:
        return BITS[spec.quant.weights_format]
    names = {"float8" if name.startswith("float8") else name for name in spec.quant.linear_dtypes}
    if len(names) != 1 or not names <= BYTES.keys():
        problem = f"{spec.quant.name} does not say how many bits a weight has"
        raise MemoryUnknownError(problem, BY_FILES)
    return 8 * BYTES[names.pop()]


def check_declared(spec: Spec, config: Mapping[str, Any]) -> None:
    """Check that weights which a config.json declares as quantized count as such.

    Raises:
        MemoryUnknownError: the quantization of the spec has 16 bits.
    """
    declared = config.get("quantization_config")
    method = declared.get("quant_method") if isinstance(declared, Mapping) else declared
    if method and bits_of(spec) >= 16:
        raise MemoryUnknownError(
            f"its config.json says quant_method {method}, and {spec.quant.name} has {bits_of(spec):g} bits",
            BY_FILES,
        )


def value_bytes(spec: Spec) -> float:
    """Return bytes of a value in the engine's data type; `auto` has 16 bits, also for a model of 32, as in vLLM."""
    return BYTES.get(str(spec.engine.args.get("dtype")), 2.0)


def cache_value_bytes(spec: Spec) -> float:
    """Return bytes of one value in the KV cache: `auto` is the model's data type."""
    asked = str(spec.engine.args.get("kv_cache_dtype") or spec.quant.kv_cache_dtype)
    sizes = (size for name, size in CACHE_BYTES.items() if asked.startswith(name))
    return next(sizes, BYTES.get(asked, value_bytes(spec)))
