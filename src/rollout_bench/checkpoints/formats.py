"""Weight formats: the tensors of an architecture, how each format stores a linear layer, and config.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from rollout_bench.checkpoints.shapes import ResolvedShape

BUILDER_VERSION = 3
"""Increased when the same shape and seed give different files; part of the folder's name."""

SMALLEST_VOCABULARY = 256
"""Minimum number of ids that can represent any text; a model with fewer ids has no tokenizer."""


class Role(Enum):
    """Purpose of a tensor, which determines its values and whether a format quantizes it.

    Attributes:
        LINEAR: projection that quantized formats store as integers.
        RESIDUAL_LINEAR: projection like LINEAR, whose output is added to the residual stream.
        BF16: embedding, output head or expert router, which stay in bf16 in every format.
        NORM: weights of a norm.
        BIAS: bias of a projection.
    """

    LINEAR = "linear"
    RESIDUAL_LINEAR = "residual_linear"
    BF16 = "bf16"
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


def outer_tensors(shape: ResolvedShape) -> Iterator[TensorSpec]:
    """Yield the tensors outside of the decoder layers: embedding, last norm, and the output head unless it is tied."""
    if shape.architecture == "opt":
        # transformers keeps two positions before the first
        places = shape.max_position_embeddings + 2
        yield TensorSpec("model.decoder.embed_tokens.weight", (shape.vocab_size, shape.hidden_size), Role.BF16)
        yield TensorSpec("model.decoder.embed_positions.weight", (places, shape.hidden_size), Role.BF16)
        yield from _layer_norm("model.decoder.final_layer_norm", shape.hidden_size)
        return
    yield TensorSpec("model.embed_tokens.weight", (shape.vocab_size, shape.hidden_size), Role.BF16)
    yield TensorSpec("model.norm.weight", (shape.hidden_size,), Role.NORM)
    if not shape.tie_word_embeddings:
        yield TensorSpec("lm_head.weight", (shape.vocab_size, shape.hidden_size), Role.BF16)


def layer_tensors(shape: ResolvedShape, layer: int) -> Iterator[TensorSpec]:
    """Yield the tensors of decoder layer `layer` (from 0)."""
    if shape.architecture == "opt":
        yield from _opt_layer(shape, f"model.decoder.layers.{layer}")
        return
    prefix, hidden = f"model.layers.{layer}", shape.hidden_size
    query, key_value = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
    yield TensorSpec(f"{prefix}.input_layernorm.weight", (hidden,), Role.NORM)
    for name, size, role in (
        ("q_proj", (query, hidden), Role.LINEAR),
        ("k_proj", (key_value, hidden), Role.LINEAR),
        ("v_proj", (key_value, hidden), Role.LINEAR),
        ("o_proj", (hidden, query), Role.RESIDUAL_LINEAR),
    ):
        yield TensorSpec(f"{prefix}.self_attn.{name}.weight", size, role)
        if name in shape.traits["biased_projections"]:
            yield TensorSpec(f"{prefix}.self_attn.{name}.bias", size[:1], Role.BIAS)
    for name in ("q_norm", "k_norm") if shape.traits["query_key_norm"] else ():
        yield TensorSpec(f"{prefix}.self_attn.{name}.weight", (shape.head_dim,), Role.NORM)
    yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", (hidden,), Role.NORM)
    blocks, intermediate = [f"{prefix}.mlp"], shape.intermediate_size
    if shape.num_experts is not None and shape.moe_intermediate_size is not None:
        yield TensorSpec(f"{prefix}.mlp.gate.weight", (shape.num_experts, hidden), Role.BF16)
        blocks = [f"{prefix}.mlp.experts.{expert}" for expert in range(shape.num_experts)]
        intermediate = shape.moe_intermediate_size
    for block in blocks:
        yield TensorSpec(f"{block}.gate_proj.weight", (intermediate, hidden), Role.LINEAR)
        yield TensorSpec(f"{block}.up_proj.weight", (intermediate, hidden), Role.LINEAR)
        yield TensorSpec(f"{block}.down_proj.weight", (hidden, intermediate), Role.RESIDUAL_LINEAR)


def _opt_layer(shape: ResolvedShape, prefix: str) -> Iterator[TensorSpec]:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    for name, size, role in (
        *((f"self_attn.{each}_proj", (hidden, hidden), Role.LINEAR) for each in "qkv"),
        ("self_attn.out_proj", (hidden, hidden), Role.RESIDUAL_LINEAR),
        ("fc1", (inner, hidden), Role.LINEAR),
        ("fc2", (hidden, inner), Role.RESIDUAL_LINEAR),
    ):
        yield TensorSpec(f"{prefix}.{name}.weight", size, role)
        yield TensorSpec(f"{prefix}.{name}.bias", size[:1], Role.BIAS)
    for norm in ("self_attn_layer_norm", "final_layer_norm"):
        yield from _layer_norm(f"{prefix}.{norm}", hidden)


def _layer_norm(prefix: str, hidden: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}.weight", (hidden,), Role.NORM)
    yield TensorSpec(f"{prefix}.bias", (hidden,), Role.BIAS)


@dataclass(frozen=True)
class Storage:
    """How a format stores a linear layer: int8 values with a scale for each output channel.

    Attributes:
        layout: name of the layout in compressed-tensors, or of the quantization in ModelSlim.
        scale_dtype: torch's name of the scales' dtype.
        int8_activations: whether activations are rounded too, with a scale for each token.
        modelslim: whether it is ModelSlim's format, with a tensor of offsets; else it is compressed-tensors'.
    """

    layout: str
    scale_dtype: str = "bfloat16"
    int8_activations: bool = False
    modelslim: bool = False

    @property
    def packed(self) -> bool:
        """Whether the integers are packed into 32-bit words."""
        return self.layout == "pack-quantized"


FORMATS: dict[str, Storage | None] = {
    "bf16": None,
    "compressed-tensors-w8a8": Storage("int-quantized", int8_activations=True),
    "compressed-tensors-w8a16": Storage("pack-quantized"),
    "modelslim-w8a8": Storage("W8A8_DYNAMIC", scale_dtype="float32", modelslim=True),
    "modelslim-w8a16": Storage("W8A16", scale_dtype="float32", modelslim=True),
}


def check_format(shape: ResolvedShape, weights_format: str) -> None:
    """Check that the format exists and supports the architecture.

    Raises:
        ValueError: if the format is unknown or no engine could load the result; one sentence.
    """
    if weights_format not in FORMATS:
        raise ValueError(f"no weights of the format {weights_format} can be built here, only of {', '.join(FORMATS)}")
    if weights_format == "modelslim-w8a16" and shape.num_experts is not None:
        raise ValueError(
            "weights format modelslim-w8a16 does not exist for MoE: vllm-ascend supports it only for linear layers"
        )


def hf_config(shape: ResolvedShape, weights_format: str) -> dict[str, Any]:
    """Return the content of config.json for a shape in a format."""
    config = {
        **shape.traits["config"],
        **shape.model_dump(exclude={"architecture", "seed", "norm"}, exclude_none=True),
        "dtype": "bfloat16",
        "hidden_act": "silu",
        # Some config classes default to real token ids, which random weights would sample.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if shape.architecture == "opt":
        config |= {"ffn_dim": shape.intermediate_size, "word_embed_proj_dim": shape.hidden_size}
    storage = FORMATS[weights_format]
    if storage is None or storage.modelslim:
        return config
    routers = [f"model.layers.{layer}.mlp.gate" for layer in range(shape.num_hidden_layers if shape.num_experts else 0)]
    numbers = {"type": "int", "symmetric": True, "num_bits": 8}
    activations = {**numbers, "strategy": "token", "dynamic": True}
    group = {
        "targets": ["Linear"],
        "weights": {**numbers, "strategy": "channel", "dynamic": False},
        "input_activations": activations if storage.int8_activations else None,
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": storage.layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head", *routers],
        "config_groups": {"group_0": group},
    }
    return config


def modelslim_description(shape: ResolvedShape, weights_format: str) -> dict[str, str] | None:
    """Return the content of ModelSlim's quant_model_description.json; None for other formats.

    vllm-ascend looks up every module by `<module>.weight`, so a tied lm_head is listed although it is not stored.
    """
    storage = FORMATS[weights_format]
    if storage is None or not storage.modelslim:
        return None
    description = {"version": "1.0.0", "model_quant_type": storage.layout, "lm_head.weight": "FLOAT"}
    for spec in tensors(shape):
        if spec.quantizable:
            description |= {f"{spec.name}{suffix}": storage.layout for suffix in ("", "_scale", "_offset")}
        else:
            description[spec.name] = "FLOAT"
    return description
