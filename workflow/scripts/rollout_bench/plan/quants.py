"""What each quant means on each platform: the checkpoint it loads, how the engine is told, what proves it.

Established by runs on cpu and cuda (H200); read in vllm-ascend's source for ascend, where no run has been made.
"""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import Field

from rollout_bench.contracts.spec import Platform, Quantization
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import QuantSettings

# what torchao's config_to_dict(Int8WeightOnlyConfig()) gives; spelled out because planning imports no torch
_PER_ROW = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
_INT8_WEIGHT_ONLY = {
    "_type": "Int8WeightOnlyConfig",
    "_version": 2,
    "_data": {"group_size": None, "granularity": _PER_ROW, "set_inductor_config": True},
}
_TORCHAO_W8A16 = {"quantization_config_dict_json": json.dumps(_INT8_WEIGHT_ONLY)}


class Quant(Quantization):
    """One quantization on one platform."""

    engine_args: dict[str, Any] = Field({}, description="What the engine must be told.")
    moe: bool = Field(True, description="False where the engine can't do it for mixture-of-experts models.")


def _quant(weights_format: str, *linear_dtypes: str, method: str = "", moe: bool = True, **engine_args: Any) -> Quant:
    return Quant(
        weights_format=weights_format,
        linear_dtypes=linear_dtypes,
        linear_method=method,
        engine_args=engine_args,
        moe=moe,
    )


_BF16 = _quant("bf16", "bfloat16")
_W8A8 = _quant("compressed-tensors-w8a8", "int8", method="(?i)w8a8")

BUILT_IN: dict[Platform, dict[str, Quant]] = {
    "cpu": {
        "bf16": _BF16,
        # vLLM has no int8 kernel for experts on cpu, and torchao leaves them in bf16
        "w8a8": _W8A8.model_copy(update={"moe": False}),
        "w8a16": _quant(
            "bf16", "int8", method="(?i)torchao", moe=False, quantization="torchao", hf_overrides=_TORCHAO_W8A16
        ),
    },
    "cuda": {
        "bf16": _BF16,
        "w8a8": _W8A8,
        "w8a16": _quant("compressed-tensors-w8a16", "int32", "uint8", "int8", method="(?i)w8a16|wna16"),
        "fp8": _quant("bf16", "float8_e4m3fn", "float8_e4m3fnuz", method="(?i)fp8", quantization="fp8"),
    },
    "ascend": {
        "bf16": _BF16,
        "w8a8": _quant("modelslim-w8a8", "int8", method="(?i)w8a8", quantization="ascend"),
        "w8a16": _quant("modelslim-w8a16", "int8", method="(?i)w8a16", moe=False, quantization="ascend"),
    },
}


def known_quants(settings: dict[str, QuantSettings]) -> set[str]:
    """Return names of all quants, built in on any platform or defined in the config."""
    return {name for table in BUILT_IN.values() for name in table} | set(settings)


def resolve_quant(name: str, platform: Platform, settings: dict[str, QuantSettings]) -> Quant | None:
    """Return the quant of that name on that platform with the config's changes, or None where the platform has none.

    Raises:
        UserError: nothing could ever prove it, so that all of its launches would be invalid.
    """
    built_in = BUILT_IN[platform].get(name)
    changes = settings.get(name)
    if changes is None:
        return built_in
    quant = built_in or _quant("own")
    engine_args = {**quant.engine_args, **changes.engine_args}
    moe = quant.moe or bool(changes.engine_args)
    found = quant.to(Quant, **changes.model_dump(exclude_none=True) | {"engine_args": engine_args, "moe": moe})
    if not found.linear_dtypes:
        raise UserError(
            f"config: quant_settings.{name}: has no linear_dtypes, so nothing can prove that its weights are quantized",
            _instead(name, found),
        )
    return found


def _instead(name: str, quant: Quant) -> str:
    """Return what to do about a quant without a proof: say what proves it, or call it the setting that it is."""
    proof = "set linear_dtypes to the data types of the loaded linear layers: docs/how-to/add-a-quant.md"
    if quant.weights_format not in ("bf16", "own") or "quantization" in quant.engine_args or not quant.engine_args:
        return proof
    arguments = yaml.safe_dump(quant.engine_args, default_flow_style=True, width=10_000).strip()
    setting = f"settings: [default, {name}] and setting_settings: {{{name}: {{engine_args: {arguments}}}}}"
    return f"if it does not quantize weights, make it a setting: {setting}; else {proof}"
