"""Bytes and operations of one row of the events table, from the shapes and data types that the profiler noted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from rollout_bench.bounds.arithmetic import Cost
from rollout_bench.records.profile import LinearShape

ITEM_BYTES = {
    "float": 4, "float32": 4, "c10::bfloat16": 2, "bfloat16": 2, "dt_bf16": 2, "c10::half": 2, "half": 2, "float16": 2,
    "signed char": 1, "int8": 1, "char": 1, "unsigned char": 1, "uint8": 1, "c10::float8_e4m3fn": 1,
    "float8_e4m3fn": 1, "int": 4, "int32": 4, "long int": 8, "long": 8, "int64": 8, "double": 8, "float64": 8,
}  # fmt: skip
"""Names of data types, in small letters, as torch's profiler and torch_npu's write them -> bytes of a value."""

ELEMENTWISE = ("norm", "activation", "quantize", "rotary")
"""Categories whose operators read and write their tensors once."""


@dataclass(frozen=True)
class OperatorCost:
    """What one call moves and computes.

    Attributes:
        bytes: in and out, weights, activations and cache together.
        flops: operations; 0 where only what it moves is counted.
    """

    bytes: float
    flops: float


def operator_cost(
    category: str,
    role: str,
    shapes: str,
    dtypes: str,
    *,
    linears: Sequence[LinearShape] = (),
    weight_bits: float | None = None,
    step: Sequence[Cost] = (),
    layers: int = 0,
) -> OperatorCost | None:
    """The cost of one call; None where it can't be told.

    Args:
        category: of the events table.
        role: of a linear layer, else empty.
        shapes: JSON text of the dimensions of its inputs.
        dtypes: JSON text of their data types.
        linears: the engine's linear layers: K and N of a role, where shapes alone leave it open.
        weight_bits: of one weight, where weights are hidden behind a handle; None: as the activations.
        step: costs of the whole step (`step_costs`): attention has no shape that says how far it looks back.
        layers: layers that the step's attention is spread over.
    """
    if category == "attention":
        whole = next((cost for cost in step if cost.category == "attention"), None)
        return OperatorCost(whole.bytes / layers, whole.flops / layers) if whole and layers else None
    tensors = _tensors(shapes, dtypes)
    if category == "linear":
        return _linear([t for t in tensors if len(t.shape) == 2], role, linears, weight_bits)
    if category in ELEMENTWISE and tensors:
        return OperatorCost(sum(prod(tensor.shape) * tensor.item_bytes for tensor in tensors), 0.0)
    return None


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    item_bytes: int


def _tensors(shapes: str, dtypes: str) -> list[_Tensor]:
    """The inputs that are tensors with values, of a known data type."""
    dims, names = _listed(shapes), _listed(dtypes)
    return [
        _Tensor(tuple(shape), ITEM_BYTES[str(name).lower()])
        for shape, name in zip(dims, names, strict=False)
        if isinstance(shape, list)
        and shape
        and all(isinstance(size, int) and size > 0 for size in shape)
        and str(name).lower() in ITEM_BYTES
    ]


def _listed(text: str) -> list[Any]:
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _linear(
    matrices: Sequence[_Tensor], role: str, linears: Sequence[LinearShape], weight_bits: float | None
) -> OperatorCost | None:
    """2 M K N operations; bytes of the M x K input, the K x N weights and the M x N output."""
    known = {(shape.in_features, shape.out_features) for shape in linears if shape.role == role}
    sizes = next((found for k, n in sorted(known) if (found := _with_known(matrices, k, n))), None)
    sizes = sizes or _from_shapes(matrices)
    if sizes is None:
        return None
    m, k, n = sizes
    inputs = [t for t in matrices if t.shape == (m, k)] or list(matrices[:1])
    weights = [t for t in matrices if t.shape in ((k, n), (n, k)) and t not in inputs]
    outputs = [t for t in matrices if t.shape == (m, n) and t not in inputs + weights]
    item_bytes = inputs[0].item_bytes
    bits = 8.0 * weights[0].item_bytes if weights else weight_bits if weight_bits is not None else 8.0 * item_bytes
    output_bytes = outputs[0].item_bytes if outputs else max(2, item_bytes)
    moved = m * k * item_bytes + k * n * bits / 8 + m * n * output_bytes
    return OperatorCost(moved, 2.0 * m * k * n)


def _with_known(matrices: Sequence[_Tensor], k: int, n: int) -> tuple[int, int, int] | None:
    """M, K, N where a matrix has K columns and is not the weights themselves."""
    rows = [t.shape[0] for t in matrices if t.shape[1] == k and t.shape != (n, k)]
    rows += [t.shape[0] for t in matrices if t.shape == (n, k)][1:]  # as many tokens as features come out
    return (rows[0], k, n) if rows else None


def _from_shapes(matrices: Sequence[_Tensor]) -> tuple[int, int, int] | None:
    """M, K, N of the first two matrices that fit each other.

    Those of `mm` are M x K and K x N, of `linear` M x K and N x K; operators of vLLM begin with their output, M x N,
    and M x K follows.
    """
    for place, first in enumerate(matrices):
        for second in matrices[place + 1 :]:
            (a, b), (c, d) = first.shape, second.shape
            if b == c:
                return a, b, d
            if b == d:
                return a, b, c
            if a == c:
                return a, d, b
    return None
