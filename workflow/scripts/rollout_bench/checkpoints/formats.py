"""Weight formats: what config.json says about each, and which tensors each stores for a projection."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

from ..errors import did_you_mean
from .layout import TensorSpec, tensors
from .shapes import ResolvedShape

WeightsFormat = Literal[
    "bf16",
    "compressed-tensors-w8a8",
    "compressed-tensors-w8a16",
    "modelslim-w8a8",
    "modelslim-w8a16",
]
FORMATS: tuple[WeightsFormat, ...] = get_args(WeightsFormat)

MODELSLIM_TYPES = {"modelslim-w8a8": "W8A8_DYNAMIC", "modelslim-w8a16": "W8A16"}
ITEM_BYTES = {"I8": 1, "BF16": 2, "I32": 4, "F32": 4, "I64": 8}
"""Bytes per value of the safetensors dtypes in use."""
VALUES_PER_WORD = 4
"""8-bit values that one int32 word of a pack-quantized weight holds."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as a checkpoint file holds it: name, safetensors dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes in the file."""
        return ITEM_BYTES[self.dtype] * prod(self.shape)


def check_format(shape: ResolvedShape, weights_format: str) -> WeightsFormat:
    """Return the format when it exists and the architecture can be stored in it.

    Raises:
        ValueError: one sentence, when the format is unknown or no engine could load the result.
    """
    for known in FORMATS:
        if known == weights_format:
            break
    else:
        raise ValueError(f"weights format {weights_format!r} is unknown; {did_you_mean(weights_format, FORMATS)}")
    if known == "modelslim-w8a16" and shape.num_experts is not None:
        raise ValueError(
            "weights format modelslim-w8a16 does not exist for MoE: vllm-ascend has it for linear layers only"
        )
    return known


def stored_tensors(spec: TensorSpec, weights_format: WeightsFormat) -> tuple[StoredTensor, ...]:
    """Return what a format stores for one tensor of the model: itself, or an int8 weight with its scales."""
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
            StoredTensor(f"{spec.name}_packed", "I32", (rows, columns // VALUES_PER_WORD)),
            StoredTensor(f"{spec.name}_scale", "BF16", (rows, 1)),
            StoredTensor(f"{spec.name}_shape", "I64", (2,)),
        )
    return (
        StoredTensor(spec.name, "I8", spec.shape),
        StoredTensor(f"{spec.name}_scale", "F32", (rows, 1)),
        StoredTensor(f"{spec.name}_offset", "F32", (rows, 1)),
    )


def quantization_config(shape: ResolvedShape, weights_format: WeightsFormat) -> dict[str, Any] | None:
    """Return config.json's `quantization_config`, or None for the formats that do not use one."""
    if weights_format not in ("compressed-tensors-w8a8", "compressed-tensors-w8a16"):
        return None
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
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
    """Return the content of ModelSlim's quant_model_description.json, or None for other formats.

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
