"""What each quant means on each platform: the checkpoint it loads, how the engine is told, what proves it.

Established by runs on cpu and cuda (H200); read in vllm-ascend's source for ascend, where no run has been made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.plan.config import QuantSettings

# what torchao's config_to_dict(Int8WeightOnlyConfig()) gives; spelled out because planning imports no torch
_PER_ROW = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
_INT8_WEIGHT_ONLY = {
    "_type": "Int8WeightOnlyConfig",
    "_version": 2,
    "_data": {"group_size": None, "granularity": _PER_ROW, "set_inductor_config": True},
}
_TORCHAO_W8A16 = {"quantization_config_dict_json": json.dumps(_INT8_WEIGHT_ONLY)}


@dataclass(frozen=True)
class Quant:
    """One quantization on one platform.

    Attributes:
        weights_format: layout of the checkpoint.
        linear_dtypes: any of these proves it, as data type of the linear layers' weights.
        linear_method: regular expression for the engine's name of the linear layers' method.
        engine_args: what the engine must be told.
        moe: False where the engine can't do it for mixture-of-experts models.
    """

    weights_format: str
    linear_dtypes: tuple[str, ...]
    linear_method: str = ""
    engine_args: dict[str, Any] = field(default_factory=dict)
    moe: bool = True


_BF16 = Quant("bf16", ("bfloat16",))
_W8A8 = Quant("compressed-tensors-w8a8", ("int8",), "(?i)w8a8")
_FP8 = Quant("bf16", ("float8_e4m3fn", "float8_e4m3fnuz"), "(?i)fp8", {"quantization": "fp8"})

BUILT_IN: dict[Platform, dict[str, Quant]] = {
    "cpu": {
        "bf16": _BF16,
        # vLLM has no int8 kernel for experts on cpu, and torchao leaves them in bf16
        "w8a8": replace(_W8A8, moe=False),
        "w8a16": Quant(
            "bf16", ("int8",), "(?i)torchao", {"quantization": "torchao", "hf_overrides": _TORCHAO_W8A16}, moe=False
        ),
    },
    "cuda": {
        "bf16": _BF16,
        "w8a8": _W8A8,
        "w8a16": Quant("compressed-tensors-w8a16", ("int32", "uint8", "int8"), "(?i)w8a16|wna16"),
        "fp8": _FP8,
    },
    "ascend": {
        "bf16": _BF16,
        "w8a8": Quant("modelslim-w8a8", ("int8",), "(?i)w8a8", {"quantization": "ascend"}),
        "w8a16": Quant("modelslim-w8a16", ("int8",), "(?i)w8a16", {"quantization": "ascend"}, moe=False),
    },
}


def known_quants(settings: dict[str, QuantSettings]) -> set[str]:
    """Names of all quants, built in on any platform or defined in the config."""
    return {name for table in BUILT_IN.values() for name in table} | set(settings)


def resolve_quant(name: str, platform: Platform, settings: dict[str, QuantSettings]) -> Quant | None:
    """The quant of that name on that platform with the config's changes, or None where the platform has none."""
    built_in = BUILT_IN[platform].get(name)
    changes = settings.get(name)
    if changes is None:
        return built_in
    quant = built_in or Quant("own", ())
    return replace(
        quant,
        weights_format=changes.weights_format or quant.weights_format,
        linear_dtypes=quant.linear_dtypes if changes.linear_dtypes is None else tuple(changes.linear_dtypes),
        linear_method=quant.linear_method if changes.linear_method is None else changes.linear_method,
        engine_args={**quant.engine_args, **changes.engine_args},
        moe=quant.moe or bool(changes.engine_args),
    )
