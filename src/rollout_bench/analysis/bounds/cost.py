"""Bytes and operations of one step of a model, for each way in which weights are stored.

A multiplication of an M x K by a K x N matrix is 2 M K N operations, and attention 4 times (heads x head_dim) for each
pair of a token and one that it looks at: J. Kaplan et al., "Scaling laws for neural language models", table 1 (2020),
counts a forward pass like this. Bytes are those of S. Williams et al., "Roofline: an insightful visual performance
model", CACM 52 (2009) 65-76: what has to come from memory at least once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollout_bench.analysis.bounds.architecture import Architecture, UnknownArchitectureError, linear_shapes
from rollout_bench.checkpoints.formats import GROUP
from rollout_bench.contracts.inside import LinearShape
from rollout_bench.contracts.spec import Spec

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "uint8": 1.0, "float8": 1.0}
"""Bytes of one value, by torch's name; float8 stands for each of the 8-bit floats."""


@dataclass(frozen=True)
class Coding:
    """How the weights of linear layers are stored and multiplied.

    Attributes:
        bits: of one weight.
        scale_bytes: for each output feature, beside the weights.
        compute: data type of both factors of the multiplication, which decides its rate.
        dtype: data type of activations, of the other weights, and of the KV cache where nothing else is said.
    """

    bits: float
    scale_bytes: float
    compute: str
    dtype: str

    @property
    def value_bytes(self) -> float:
        """Bytes of an activation."""
        return BYTES[self.dtype]


def plain(dtype: str) -> Coding:
    """Return weights as the model has them."""
    return Coding(8 * BYTES[dtype], 0.0, dtype, dtype)


def coding_of(spec: Spec, config: Mapping[str, Any]) -> Coding:
    """Return how the experiment's weights are stored.

    Args:
        spec: its settings.
        config: content of the config.json that it loads, or at least its dtype.

    Raises:
        UnknownArchitectureError: the quantization does not say.
    """
    model = plain(model_dtype(spec, config))
    known = {
        "compressed-tensors-w8a8": replace(model, bits=8, scale_bytes=2, compute="int8"),
        "compressed-tensors-w8a16": replace(model, bits=8, scale_bytes=2),
        "compressed-tensors-w4a16": replace(model, bits=_with_scales(4, GROUP)),
        "modelslim-w8a8": replace(model, bits=8, scale_bytes=8, compute="int8"),
        "modelslim-w8a16": replace(model, bits=8, scale_bytes=8),
    }
    if spec.quant.weights_format in known:
        return known[spec.quant.weights_format]
    written = config.get("quantization_config")
    return (_written(written, model) if isinstance(written, dict) else None) or _by_dtype(spec, model)


def model_dtype(spec: Spec, config: Mapping[str, Any]) -> str:
    """Return what the engine makes of the config's data type; its `auto` turns 32 bits into 16, as vLLM does."""
    asked = str(spec.engine.args.get("dtype", "auto"))
    asked = {"half": "float16", "float": "float32"}.get(asked, asked)
    if asked in BYTES:
        return asked
    said = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    return {"float32": "float16"}.get(said, said) if said in BYTES else "bfloat16"


def cache_value_bytes(kv_cache_dtype: object, dtype: str) -> float:
    """Return bytes of one value in the KV cache, for vLLM's `kv_cache_dtype`: auto is the model's, fp8 one byte.

    Scales beside them are not counted.
    """
    asked = str(kv_cache_dtype or "auto")
    if asked.startswith(("fp8", "int8", "uint8")):
        return 1.0
    if asked.startswith(("int4", "nvfp4")):
        return 0.5
    return BYTES.get(asked, BYTES[dtype])


def _by_dtype(spec: Spec, model: Coding) -> Coding:
    """From the data types that prove the quantization."""
    names = {"float8" if name.startswith("float8") else name for name in spec.quant.linear_dtypes}
    name = names.pop() if len(names) == 1 else ""
    if name not in BYTES:
        raise UnknownArchitectureError(f"{spec.quant.name} does not say how many bits a weight has")
    if name in ("int8", "uint8"):  # weights alone: those that quantize activations too have a format of their own
        return replace(model, bits=8, scale_bytes=2)
    return replace(model, bits=8 * BYTES[name], compute=name)


def _written(config: Mapping[str, Any], model: Coding) -> Coding | None:
    """From the `quantization_config` of a checkpoint; None where it does not say."""
    method = config.get("quant_method")
    if method == "fp8":
        return replace(model, bits=8, compute="float8")
    if method in ("gptq", "awq") and isinstance(config.get("bits"), int):
        return replace(model, bits=_with_scales(config["bits"], config.get("group_size")))
    groups = config.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = (group or {}).get("weights") or {}
    if not isinstance(weights.get("num_bits"), int):
        return None
    inputs = (group or {}).get("input_activations") or {}
    compute = {"int": "int8", "float": "float8"}[inputs.get("type", "int")] if inputs.get("num_bits") == 8 else None
    bits = _with_scales(weights["num_bits"], weights.get("group_size"))
    return replace(model, bits=bits, scale_bytes=2, compute=compute or model.compute)


def _with_scales(bits: int, group_size: object) -> float:
    return bits + 16 / group_size if isinstance(group_size, int) and group_size > 0 else bits


NOT_QUANTIZED = ("router", "lm_head")
"""Roles that every format here leaves in the model's own data type."""


@dataclass(frozen=True)
class Batch:
    """What one step computes, over all of its sequences. Means over several steps need not be whole.

    Attributes:
        sequences: sequences in it.
        tokens: tokens that are computed.
        cached: tokens whose keys and values are read from the KV cache.
        pairs: pairs of a computed token and a token that it looks at, itself among them.
        sampled: tokens that the output head is applied to.
    """

    sequences: float
    tokens: float
    cached: float
    pairs: float
    sampled: float


def decode_batch(sequences: float, context: float) -> Batch:
    """One token of each of `sequences`, with `context` tokens of each in the KV cache before."""
    return Batch(sequences, sequences, sequences * context, sequences * (context + 1), sequences)


def prefill_batch(sequences: float, tokens: float, cached: float = 0.0) -> Batch:
    """Return `tokens` tokens of the prompt of each of `sequences`, with `cached` of each in the KV cache before."""
    pairs = sequences * (tokens * cached + tokens * (tokens + 1) / 2)
    return Batch(sequences, sequences * tokens, sequences * cached, pairs, sequences)


@dataclass(frozen=True)
class Cost:
    """What an operator class costs one device in a step.

    Attributes:
        category: linear, attention, kv_cache, embedding, norm.
        role: of linear layers.
        weight_bytes: weights read.
        cache_bytes: KV cache read or written.
        activation_bytes: activations read and written. They may stay in a cache of the device, so they are part of an
            operator's intensity and not of the bound.
        flops: floating-point (or integer) operations.
        dtype: data type that they are done in.
    """

    category: str
    role: str
    weight_bytes: float
    cache_bytes: float
    activation_bytes: float
    flops: float
    dtype: str

    @property
    def least_bytes(self) -> float:
        """Bytes that must come from memory or go there."""
        return self.weight_bytes + self.cache_bytes

    @property
    def bytes(self) -> float:
        """All bytes that go in and out of the operators."""
        return self.least_bytes + self.activation_bytes

    def times(self, number: float) -> Cost:
        """Return the cost of so many of it."""
        return replace(
            self,
            weight_bytes=self.weight_bytes * number,
            cache_bytes=self.cache_bytes * number,
            activation_bytes=self.activation_bytes * number,
            flops=self.flops * number,
        )


def step_costs(
    architecture: Architecture,
    coding: Coding,
    batch: Batch,
    *,
    ranks: int = 1,
    cache_value_bytes: float | None = None,
    linears: Sequence[LinearShape] | None = None,
) -> list[Cost]:
    """Return the costs of a step for one of `ranks` that the model is cut into by tensor parallelism.

    Args:
        architecture: the model's sizes.
        coding: how its linear layers are stored.
        batch: what the step computes.
        ranks: tensor_parallel_size.
        cache_value_bytes: of one value in the KV cache; None: as activations.
        linears: the rank's linear layers where the engine has told; None: as the architecture says.

    Left out are operations of norms, activations, rotary embedding and sampling, which are a few for each value, and
    what goes between devices.
    """
    shapes = linear_shapes(architecture, ranks) if linears is None else linears
    return [
        *(linear_cost(shape, coding, batch, architecture) for shape in shapes),
        *_attention(architecture, coding, batch, ranks, cache_value_bytes or coding.value_bytes),
        *_small(architecture, coding, batch),
    ]


def linear_cost(shape: LinearShape, coding: Coding, batch: Batch, architecture: Architecture | None = None) -> Cost:
    """Return the cost of all linear layers of `shape`.

    Each reads its weights once, K N bits / 8 and a scale for each of N.

    Of experts only those that the batch is expected to hit are read (`Experts.hit`), and each token goes through
    `per_token` of them.
    """
    bits, scale, dtype = coding.bits, coding.scale_bytes, coding.compute
    if shape.role in NOT_QUANTIZED:
        bits, scale, dtype = 8 * coding.value_bytes, 0.0, coding.dtype
    read, rows = float(shape.layers), batch.tokens * shape.layers
    if shape.role == "lm_head":
        rows = batch.sampled * shape.layers
    experts = architecture.experts if architecture else None
    if shape.role == "experts" and experts:
        layers = shape.layers / experts.count
        read, rows = layers * experts.hit(batch.tokens), layers * batch.tokens * experts.per_token
    weights = read * shape.out_features * (shape.in_features * bits / 8 + scale)
    moved = shape.in_features * BYTES[dtype] + shape.out_features * coding.value_bytes
    flops = 2.0 * rows * shape.in_features * shape.out_features
    return Cost("linear", shape.role, weights, 0.0, rows * moved, flops, dtype)


def _attention(a: Architecture, coding: Coding, batch: Batch, ranks: int, value_bytes: float) -> list[Cost]:
    """Return the cost of attention: each sequence reads all its keys and values, also where prompts are shared."""
    width = a.key_value_heads_of_rank(ranks) * a.head_dim
    token_bytes = 2 * width * value_bytes
    query = a.heads * a.head_dim / ranks
    cached, pairs = batch.cached, batch.pairs
    if a.window is not None:
        cached = min(cached, batch.sequences * a.window)
        pairs = min(pairs, batch.tokens * a.window)
    full = a.layers - a.sliding_layers
    read = token_bytes * (full * batch.cached + a.sliding_layers * cached)
    flops = 4 * query * (full * batch.pairs + a.sliding_layers * pairs)
    moved = (2 * query + 2 * width) * coding.value_bytes * a.layers * batch.tokens
    return [
        Cost("attention", "", 0.0, read, moved, flops, coding.dtype),
        Cost("kv_cache", "", 0.0, token_bytes * a.layers * batch.tokens, 0.0, 0.0, coding.dtype),
    ]


def _small(a: Architecture, coding: Coding, batch: Batch) -> list[Cost]:
    row = a.hidden_size * coding.value_bytes
    return [
        Cost("embedding", "", min(batch.tokens, a.vocabulary) * row, 0.0, batch.tokens * row, 0.0, coding.dtype),
        Cost("norm", "", (2 * a.layers + 1) * row, 0.0, 0.0, 0.0, coding.dtype),
    ]


def weight_bytes(costs: Iterable[Cost]) -> float:
    """Return weights that a step reads."""
    return sum(cost.weight_bytes for cost in costs)


def cache_bytes(costs: Iterable[Cost]) -> float:
    """Return bytes of KV cache that a step reads and writes."""
    return sum(cost.cache_bytes for cost in costs)
