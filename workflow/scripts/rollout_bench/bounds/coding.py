"""How a quantization stores the weights of linear layers, and in which data type it multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollout_bench.bounds.architecture import UnknownArchitectureError
from rollout_bench.plan.spec import Spec

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
    """Weights as the model has them."""
    return Coding(8 * BYTES[dtype], 0.0, dtype, dtype)


def coding_of(spec: Spec, config: Mapping[str, Any]) -> Coding:
    """How the experiment's weights are stored.

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
        "modelslim-w8a8": replace(model, bits=8, scale_bytes=8, compute="int8"),
        "modelslim-w8a16": replace(model, bits=8, scale_bytes=8),
    }
    if spec.quant.weights_format in known:
        return known[spec.quant.weights_format]
    written = config.get("quantization_config")
    return (_written(written, model) if isinstance(written, dict) else None) or _by_dtype(spec, model)


def model_dtype(spec: Spec, config: Mapping[str, Any]) -> str:
    """What the engine makes of the config's data type; its `auto` turns 32 bits into 16, as vLLM does."""
    asked = str(spec.engine.args.get("dtype", "auto"))
    asked = {"half": "float16", "float": "float32"}.get(asked, asked)
    if asked in BYTES:
        return asked
    said = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    return {"float32": "float16"}.get(said, said) if said in BYTES else "bfloat16"


def cache_value_bytes(kv_cache_dtype: object, dtype: str) -> float:
    """Bytes of one value in the KV cache, for vLLM's `kv_cache_dtype`: auto is the model's, fp8 one byte."""
    asked = str(kv_cache_dtype or "auto")
    if asked.startswith(("fp8", "int8", "uint8")):
        return 1.0
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
    """Bits of a weight with its part of the scale of its group."""
    return bits + 16 / group_size if isinstance(group_size, int) and group_size > 0 else bits
