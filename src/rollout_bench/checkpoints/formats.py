"""Weight formats: the tensors of an architecture, their form in each format, config.json, tokenizer and file sizes.

The tokenizer is byte-level BPE without merges, in the form of tokenizer.json: https://huggingface.co/docs/tokenizers.
Ids 0 to 255 are the bytes. Each further id is a word of a space and letters, and all words have the same length.
`ignore_merges` keeps a word in the vocabulary whole and splits other words into bytes. So the ids of words, decoded to
text, are encoded to the same ids. The ids of bytes may not be: two bytes may form half a character, or begin a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, Literal, get_args

from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.core.errors import did_you_mean

BUILDER_VERSION = 2
"""Increased when the same shape and seed give different files; part of the folder's name. Version 1 had no
tokenizer."""


class Role(Enum):
    """Purpose of a tensor, which determines its values and whether a format quantizes it."""

    LINEAR = "linear"
    """Projection that quantized formats store as integers."""
    RESIDUAL_LINEAR = "residual_linear"
    """Projection like LINEAR, whose output is added to the residual stream."""
    ROUTER = "router"
    """Expert router: a projection that stays in bf16 in every format."""
    EMBEDDING = "embedding"
    HEAD = "head"
    NORM = "norm"
    BIAS = "bias"


@dataclass(frozen=True)
class TensorSpec:
    """One unquantized tensor: its checkpoint name, its shape ([out, in] for projections) and its role."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def elements(self) -> int:
        """Number of values in the tensor."""
        return prod(self.shape)

    @property
    def quantizable(self) -> bool:
        """Whether quantized formats store this tensor as integers."""
        return self.role in (Role.LINEAR, Role.RESIDUAL_LINEAR)


def tensors(shape: ResolvedShape) -> Iterator[TensorSpec]:
    """Yield every tensor of a model, in the order in which a checkpoint stores them."""
    yield from outer_tensors(shape)
    for layer in range(shape.num_hidden_layers):
        yield from layer_tensors(shape, layer)


def parameters(shape: ResolvedShape) -> int:
    """Count the parameters of a model; a tied output head counts once."""
    outer = sum(spec.elements for spec in outer_tensors(shape))
    return outer + shape.num_hidden_layers * sum(spec.elements for spec in layer_tensors(shape, 0))


def layer_tensors(shape: ResolvedShape, layer: int) -> Iterator[TensorSpec]:
    """Yield the tensors of decoder layer `layer` (from 0)."""
    prefix = f"model.layers.{layer}"
    hidden = shape.hidden_size
    yield TensorSpec(f"{prefix}.input_layernorm.weight", (hidden,), Role.NORM)
    yield from _attention_tensors(shape, f"{prefix}.self_attn")
    yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", (hidden,), Role.NORM)
    if shape.num_experts is None or shape.moe_intermediate_size is None:
        yield from _mlp_tensors(f"{prefix}.mlp", hidden, shape.intermediate_size)
        return
    yield TensorSpec(f"{prefix}.mlp.gate.weight", (shape.num_experts, hidden), Role.ROUTER)
    for expert in range(shape.num_experts):
        yield from _mlp_tensors(f"{prefix}.mlp.experts.{expert}", hidden, shape.moe_intermediate_size)


def outer_tensors(shape: ResolvedShape) -> Iterator[TensorSpec]:
    """Yield the tensors outside of the decoder layers: embedding, last norm, and the output head unless it is tied."""
    yield TensorSpec("model.embed_tokens.weight", (shape.vocab_size, shape.hidden_size), Role.EMBEDDING)
    yield TensorSpec("model.norm.weight", (shape.hidden_size,), Role.NORM)
    if not shape.tie_word_embeddings:
        yield TensorSpec("lm_head.weight", (shape.vocab_size, shape.hidden_size), Role.HEAD)


def _attention_tensors(shape: ResolvedShape, prefix: str) -> Iterator[TensorSpec]:
    hidden = shape.hidden_size
    query = shape.num_attention_heads * shape.head_dim
    key_value = shape.num_key_value_heads * shape.head_dim
    projections = (
        ("q_proj", (query, hidden), Role.LINEAR),
        ("k_proj", (key_value, hidden), Role.LINEAR),
        ("v_proj", (key_value, hidden), Role.LINEAR),
        ("o_proj", (hidden, query), Role.RESIDUAL_LINEAR),
    )
    for name, size, role in projections:
        yield TensorSpec(f"{prefix}.{name}.weight", size, role)
        if name in shape.biased_projections:
            yield TensorSpec(f"{prefix}.{name}.bias", size[:1], Role.BIAS)
    if shape.query_key_norm:
        yield TensorSpec(f"{prefix}.q_norm.weight", (shape.head_dim,), Role.NORM)
        yield TensorSpec(f"{prefix}.k_norm.weight", (shape.head_dim,), Role.NORM)


def _mlp_tensors(prefix: str, hidden: int, intermediate: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}.gate_proj.weight", (intermediate, hidden), Role.LINEAR)
    yield TensorSpec(f"{prefix}.up_proj.weight", (intermediate, hidden), Role.LINEAR)
    yield TensorSpec(f"{prefix}.down_proj.weight", (hidden, intermediate), Role.RESIDUAL_LINEAR)


WeightsFormat = Literal[
    "bf16",
    "compressed-tensors-w8a8",
    "compressed-tensors-w8a16",
    "compressed-tensors-w4a16",
    "modelslim-w8a8",
    "modelslim-w8a16",
]
FORMATS: tuple[WeightsFormat, ...] = get_args(WeightsFormat)

MODELSLIM_TYPES = {"modelslim-w8a8": "W8A8_DYNAMIC", "modelslim-w8a16": "W8A16"}
ITEM_BYTES = {"I8": 1, "BF16": 2, "I32": 4, "F32": 4, "I64": 8}
"""Bytes per value of the safetensors dtypes in use."""
WORD_BITS = 32
"""Bits of the int32 words in a pack-quantized weight."""
GROUP = 128
"""Number of successive inputs of an output channel that share a scale in 4-bit formats."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a checkpoint file: name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in the file."""
        return ITEM_BYTES[self.dtype] * prod(self.shape)


def check_format(shape: ResolvedShape, weights_format: str) -> WeightsFormat:
    """Return the format if it exists and supports the architecture.

    Raises:
        ValueError: if the format is unknown or no engine could load the result; one sentence.
    """
    for known in FORMATS:
        if known == weights_format:
            break
    else:
        raise ValueError(f"weights format {weights_format!r} is unknown; {did_you_mean(weights_format, FORMATS)}")
    if known == "modelslim-w8a16" and shape.num_experts is not None:
        raise ValueError(
            "weights format modelslim-w8a16 does not exist for MoE: vllm-ascend supports it only for linear layers"
        )
    if known == "compressed-tensors-w4a16":
        for spec in layer_tensors(shape, 0):
            if spec.quantizable and spec.shape[1] % GROUP:
                raise ValueError(
                    f"weights format {known} has a scale for each {GROUP} inputs, and {spec.name} has {spec.shape[1]},"
                    f" no multiple of {GROUP}"
                )
    return known


def stored_tensors(spec: TensorSpec, weights_format: WeightsFormat) -> tuple[StoredTensor, ...]:
    """Return the stored tensors of a format for one tensor of the model: itself, or integers with their scales."""
    if weights_format == "bf16" or not spec.quantizable:
        return (StoredTensor(spec.name, "BF16", spec.shape),)
    rows, columns = spec.shape
    if weights_format == "compressed-tensors-w8a8":
        return (
            StoredTensor(spec.name, "I8", spec.shape),
            StoredTensor(f"{spec.name}_scale", "BF16", (rows, 1)),
        )
    if weights_format == "compressed-tensors-w8a16":
        return (
            StoredTensor(f"{spec.name}_packed", "I32", (rows, columns * 8 // WORD_BITS)),
            StoredTensor(f"{spec.name}_scale", "BF16", (rows, 1)),
            StoredTensor(f"{spec.name}_shape", "I64", (2,)),
        )
    if weights_format == "compressed-tensors-w4a16":
        return (
            StoredTensor(f"{spec.name}_packed", "I32", (rows, columns * 4 // WORD_BITS)),
            StoredTensor(f"{spec.name}_scale", "BF16", (rows, columns // GROUP)),
            StoredTensor(f"{spec.name}_shape", "I64", (2,)),
        )
    return (
        StoredTensor(spec.name, "I8", spec.shape),
        StoredTensor(f"{spec.name}_scale", "F32", (rows, 1)),
        StoredTensor(f"{spec.name}_offset", "F32", (rows, 1)),
    )


def quantization_config(shape: ResolvedShape, weights_format: WeightsFormat) -> dict[str, Any] | None:
    """Return config.json's `quantization_config`; None for formats without one."""
    if not weights_format.startswith("compressed-tensors"):
        return None
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    if weights_format == "compressed-tensors-w4a16":
        weights |= {"num_bits": 4, "strategy": "group", "group_size": GROUP}
    activations = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    w8a8 = weights_format == "compressed-tensors-w8a8"
    routers = [f"model.layers.{layer}.mlp.gate" for layer in range(shape.num_hidden_layers)]
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if w8a8 else "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head", *(routers if shape.num_experts is not None else [])],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": activations if w8a8 else None,
            }
        },
    }


def modelslim_description(shape: ResolvedShape, weights_format: WeightsFormat) -> dict[str, str] | None:
    """Return the content of ModelSlim's quant_model_description.json; None for other formats.

    vllm-ascend looks up every module by `<module>.weight`, so a tied lm_head is listed although it is not stored.
    """
    quantized_type = MODELSLIM_TYPES.get(weights_format)
    if quantized_type is None:
        return None
    description = {"version": "1.0.0", "model_quant_type": quantized_type, "lm_head.weight": "FLOAT"}
    for spec in tensors(shape):
        kind = quantized_type if spec.quantizable else "FLOAT"
        description.update({stored.name: kind for stored in stored_tensors(spec, weights_format)})
    return description


# openPangu's own model_type exists only in its remote code. vLLM selects the model class by `architectures`, and
# Llama's config class has every attribute that this class reads (attention_bias, rope_parameters, head_dim ...).
MODEL_TYPES = {"qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3_moe", "openpangu": "llama"}
MODEL_CLASSES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "openpangu": "PanguEmbeddedForCausalLM",
}
RMS_NORM_EPS = {"qwen2": 1e-6, "qwen3": 1e-6, "qwen3_moe": 1e-6, "openpangu": 1e-5}


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
        "attention_bias": "o_proj" in shape.biased_projections,
        # Some config classes default to real token ids, which random weights would sample.
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


SHARD_BYTES = 4 << 30
"""Maximum size of a file in bytes, unless a single tensor is larger."""


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its name and its tensors, in order."""

    name: str
    specs: tuple[TensorSpec, ...]


def plan_shards(shape: ResolvedShape, weights_format: WeightsFormat) -> list[Shard]:
    """Divide a model into files of at most SHARD_BYTES, unless a single tensor is larger.

    A weight and its scales stay in the same file. A single file has no number in its name, as in transformers.
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in tensors(shape):
        size = stored_bytes([spec], weights_format)
        if groups[-1] and filled + size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += size
    stem = "quant_model_weights" if weights_format.startswith("modelslim") else "model"
    if len(groups) == 1:
        return [Shard(f"{stem}.safetensors", tuple(groups[0]))]
    count = len(groups)
    return [Shard(f"{stem}-{i:05}-of-{count:05}.safetensors", tuple(group)) for i, group in enumerate(groups, start=1)]


def checkpoint_bytes(shape: ResolvedShape, weights_format: WeightsFormat) -> int:
    """Return the bytes of all weights of a model in a format, without file headers.

    The size of one layer is multiplied by the number of layers.
    """
    layers = shape.num_hidden_layers * stored_bytes(layer_tensors(shape, 0), weights_format)
    return stored_bytes(outer_tensors(shape), weights_format) + layers


def stored_bytes(specs: Iterable[TensorSpec], weights_format: WeightsFormat) -> int:
    """Return the bytes of the tensors in a format, without headers."""
    return sum(stored.size_bytes for spec in specs for stored in stored_tensors(spec, weights_format))


def shard_index(shards: Sequence[Shard], weights_format: WeightsFormat) -> tuple[str, dict[str, object]]:
    """Return the index of a sharded checkpoint: its file name, and its map of tensors to files."""
    name = f"{shards[0].name.rsplit('-', 3)[0]}.safetensors.index.json"
    weight_map = {
        stored.name: shard.name
        for shard in shards
        for spec in shard.specs
        for stored in stored_tensors(spec, weights_format)
    }
    total = sum(stored_bytes(shard.specs, weights_format) for shard in shards)
    return name, {"metadata": {"total_size": total}, "weight_map": weight_map}


def file_header(stored: Sequence[StoredTensor]) -> bytes:
    """Return the JSON header of a safetensors file, padded so that the values are aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for item in stored:
        end = offset + item.size_bytes
        entries[item.name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


BYTES = 256
SMALLEST_VOCABULARY = BYTES
"""Minimum number of ids that can represent any text; a model with fewer ids has no tokenizer."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokenizer_files(vocabulary: int, longest: int) -> dict[str, dict[str, Any]]:
    """Return file name -> content of a tokenizer in transformers' form, with `vocabulary` ids and no special ids.

    Args:
        vocabulary: number of ids; below `SMALLEST_VOCABULARY` the result is empty.
        longest: largest number of tokens in a sequence for the model.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        return {}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokens = [*_byte_letters(), *_words(vocabulary - BYTES)]
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": longest,
        },
    }


def _words(count: int) -> list[str]:
    length = next(length for length in range(1, 10) if len(LETTERS) ** length >= count)
    return ["\u0120" + _word(number, length) for number in range(count)]


def _word(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, len(LETTERS))
        letters.append(LETTERS[letter])
    return "".join(reversed(letters))


def _byte_letters() -> list[str]:
    """Return the character for each byte in byte-level BPE, as in GPT-2.

    Printable bytes are themselves, other bytes are characters from U+0100 on
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py, `bytes_to_unicode`).
    """
    own = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in own else next(others)) for byte in range(BYTES)]
