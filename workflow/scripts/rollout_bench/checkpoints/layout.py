"""Which tensors an architecture has: names as on the Hugging Face hub, shapes, and the part each one plays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shapes import ResolvedShape


class Role(Enum):
    """What a tensor does, which decides how it is filled and whether a format quantizes it."""

    LINEAR = "linear"
    """Projection that quantized formats store as int8."""
    RESIDUAL_LINEAR = "residual_linear"
    """Projection like LINEAR whose output is added to the residual stream."""
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
        """Whether quantized formats store this tensor as int8."""
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
        if shape.attention_bias:
            yield TensorSpec(f"{prefix}.{name}.bias", size[:1], Role.BIAS)
    if shape.query_key_norm:
        yield TensorSpec(f"{prefix}.q_norm.weight", (shape.head_dim,), Role.NORM)
        yield TensorSpec(f"{prefix}.k_norm.weight", (shape.head_dim,), Role.NORM)


def _mlp_tensors(prefix: str, hidden: int, intermediate: int) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}.gate_proj.weight", (intermediate, hidden), Role.LINEAR)
    yield TensorSpec(f"{prefix}.up_proj.weight", (intermediate, hidden), Role.LINEAR)
    yield TensorSpec(f"{prefix}.down_proj.weight", (hidden, intermediate), Role.RESIDUAL_LINEAR)
