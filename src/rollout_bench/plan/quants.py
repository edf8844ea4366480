"""Quantizations on each platform: the loaded checkpoint, the engine arguments, the proof.

Also the other differences between two engines, which are part of every comparison of quantizations.
Established by runs on cpu and cuda (H200), except as noted in comments; for ascend from vllm-ascend's source, without
any run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from pydantic import Field

from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.record import RUNNER, one_cache_name
from rollout_bench.contracts.spec import FOLLOWS_LENGTHS, Platform, Quantization, Spec
from rollout_bench.core.errors import UnmeasurableError, UserError
from rollout_bench.plan.config import QuantSettings

# result of torchao's config_to_dict(Int8WeightOnlyConfig()), written out because planning does not import torch
_PER_ROW = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
_INT8_WEIGHT_ONLY = {
    "_type": "Int8WeightOnlyConfig",
    "_version": 2,
    "_data": {"group_size": None, "granularity": _PER_ROW, "set_inductor_config": True},
}
_TORCHAO_W8A16 = {"quantization_config_dict_json": json.dumps(_INT8_WEIGHT_ONLY)}
_INT4_WEIGHT_ONLY = {
    "_type": "Int4WeightOnlyConfig",
    "_version": 2,
    "_data": {
        "group_size": 128,
        "set_inductor_config": True,
        "int4_packing_format": {"_type": "Int4PackingFormat", "_data": "PLAIN"},
        "int4_choose_qparams_algorithm": {"_type": "Int4ChooseQParamsAlgorithm", "_data": "TINYGEMM"},
        "int4_tile_packed_ntile": 8,
    },
}
_TORCHAO_W4A16 = {"quantization_config_dict_json": json.dumps(_INT4_WEIGHT_ONLY)}


class Quant(Quantization):
    """One quantization on one platform."""

    engine_args: dict[str, Any] = Field({}, description="Engine arguments that select it.")
    moe: bool = Field(True, description="False if the engine does not support it for mixture-of-experts models.")
    weights_of: str | None = Field(
        None, description="Another quantization, whose weights it loads if it has none of its own."
    )


CACHE_ARGUMENT = "kv_cache_dtype"
"""vLLM's argument for the data type of the KV cache."""


def _quant(weights_format: str, *linear_dtypes: str, method: str = "", moe: bool = True, **engine_args: Any) -> Quant:
    return Quant(
        weights_format=weights_format,
        linear_dtypes=linear_dtypes,
        linear_method=method,
        engine_args=engine_args,
        moe=moe,
    )


def _with_fp8_cache(quant: Quant, name: str) -> Quant:
    args = {**quant.engine_args, CACHE_ARGUMENT: "fp8"}
    return quant.model_copy(update={"engine_args": args, "kv_cache_dtype": "fp8", "weights_of": name})


_BF16 = _quant("bf16", "bfloat16")
_FP16 = _quant("bf16", "float16", dtype="float16")  # the same weights with three bits more of mantissa, as some train
_W8A8 = _quant("compressed-tensors-w8a8", "int8", method="(?i)w8a8")
# vLLM has no int8 kernel for experts on cpu, and torchao leaves them in bf16
_CPU_W8A8 = _W8A8.model_copy(update={"moe": False})
_CUDA_FP8 = _quant("bf16", "float8_e4m3fn", "float8_e4m3fnuz", method="(?i)fp8", quantization="fp8")

BUILT_IN: dict[Platform, dict[str, Quant]] = {
    "cpu": {
        "bf16": _BF16,
        "fp16": _FP16,
        "w8a8": _CPU_W8A8,
        "w8a16": _quant(
            "bf16", "int8", method="(?i)torchao", moe=False, quantization="torchao", hf_overrides=_TORCHAO_W8A16
        ),
        "bf16-kv8": _with_fp8_cache(_BF16, "bf16"),
        "w8a8-kv8": _with_fp8_cache(_CPU_W8A8, "w8a8"),
        # vLLM's kernel of fp8-channel for experts exists only for accelerators
        "fp8-channel": _quant("bf16", "float8_e4m3fn", method="(?i)fp8", moe=False, quantization="fp8_per_channel"),
        # no kernel for experts on cpu; with AMX, vLLM uses int8 activations and uint8 weights, another quantization
        "w4a16": _quant("compressed-tensors-w4a16", "int32", method="(?i)wna16", moe=False),
    },
    "cuda": {
        "bf16": _BF16,
        "fp16": _FP16,
        "w8a8": _W8A8,
        "w8a16": _quant("compressed-tensors-w8a16", "int32", "uint8", "int8", method="(?i)w8a16|wna16"),
        "fp8": _CUDA_FP8,
        # a scale for each 128 x 128 weights, as in verl and DeepSeek
        "fp8-block": _quant(
            "bf16", "float8_e4m3fn", "float8_e4m3fnuz", method="(?i)fp8.*block", quantization="fp8_per_block"
        ),
        "bf16-kv8": _with_fp8_cache(_BF16, "bf16"),
        "w8a8-kv8": _with_fp8_cache(_W8A8, "w8a8"),
        "fp8-kv8": _with_fp8_cache(_CUDA_FP8, "fp8"),
    },
    "ascend": {
        "bf16": _BF16,
        "fp16": _FP16,
        # mixtures of experts may have layers with static activations beside the dynamic ones
        "w8a8": _quant("modelslim-w8a8", "int8", method="(?i)w8a8", quantization="ascend"),
        "w8a8-static": _quant(
            "modelslim-w8a8-static", "int8", method="(?i)w8a8(?!.*dynamic)", moe=False, quantization="ascend"
        ),
        "w8a16": _quant("modelslim-w8a16", "int8", method="(?i)w8a16", moe=False, quantization="ascend"),
        # eight values in an int32; ModelSlim keeps attention, less than a tenth of the bytes, in W8A8
        "w4a8": _quant("modelslim-w4a8", "int32", method="(?i)w4a8|w8a8", quantization="ascend"),
        "w8a8-kv8": _quant("modelslim-w8a8-kv8", "int8", method="(?i)w8a8", quantization="ascend").model_copy(
            update={"kv_cache_dtype": "int8"}  # without an argument: the checkpoint has the scales of its cache
        ),
    },
}


class Refusal(NamedTuple):
    """A quantization that the engine refuses on a platform.

    Attributes:
        engine_args: arguments that select it.
        message: the engine's words.
    """

    engine_args: dict[str, Any]
    message: str


REFUSED: dict[Platform, dict[str, Refusal]] = {
    "cpu": {
        "fp8-block": Refusal({"quantization": "fp8_per_block"}, "requires AMX tile support (Sapphire Rapids or newer)"),
        "w4a16-torchao": Refusal({"quantization": "torchao", "hf_overrides": _TORCHAO_W4A16}, "Requires mslk >= 1.0.0"),
    }
}
"""Quantizations that users may want but that could not be launched, tried with vLLM 0.32 on a CPU without AMX."""


def known_quants(settings: dict[str, QuantSettings]) -> set[str]:
    """Return the names of all quantizations: built in or refused on any platform, or defined in the config."""
    return {name for tables in (BUILT_IN, REFUSED) for table in tables.values() for name in table} | set(settings)


def unknown_quant(name: str, platform: Platform) -> tuple[str, str]:
    """Return the reason why a platform has no quantization of that name, and the remedy."""
    alike = [known for known in BUILT_IN[platform] if known.startswith(f"{name}-")]
    take = f"take {' or '.join(alike)}, " if alike else ""
    define = f"{take}define it in quant_settings.{name}, or leave it out of quants"
    refusal = REFUSED.get(platform, {}).get(name)
    if refusal is None:
        return f"{name} is not known on {platform}", define
    return f"vLLM refused {name} on {platform}: {refusal.message}", f"where it runs {define}"


def resolve_quant(name: str, platform: Platform, settings: dict[str, QuantSettings]) -> Quant | None:
    """Return the quantization of that name on that platform with the config's changes; None if the platform has none.

    Raises:
        UserError: it has no proof, so all of its launches would be invalid.
    """
    built_in = BUILT_IN[platform].get(name)
    changes = settings.get(name)
    if changes is None:
        return built_in
    quant = built_in or _quant("own")
    engine_args = {**quant.engine_args, **changes.engine_args}
    replaced = {"engine_args": engine_args, "moe": quant.moe or bool(changes.engine_args)}
    changed = changes.model_dump(exclude_none=True) | replaced
    if quant.kv_cache_dtype is not None:
        changed = {"kv_cache_dtype": engine_args.get(CACHE_ARGUMENT)} | changed
    if changes.weights_format is not None:
        changed["weights_of"] = None  # those have another layout
    found = quant.to(Quant, **changed)
    if not found.linear_dtypes:
        raise UserError(
            f"config: quant_settings.{name}: has no linear_dtypes, so quantized weights cannot be verified",
            _instead(name, found),
        )
    return found


def check_cache(name: str, quant: Quant, args: dict[str, Any]) -> None:
    """Skip an engine with `args` that would not have the quantization's KV cache."""
    wanted, asked = quant.kv_cache_dtype, args.get(CACHE_ARGUMENT)
    is_other = asked is not None or CACHE_ARGUMENT in quant.engine_args
    if wanted is not None and is_other and one_cache_name(str(asked)) != one_cache_name(wanted):
        raise UnmeasurableError(
            f"config: {name} promises a KV cache of {wanted}, and {CACHE_ARGUMENT} is {asked or 'auto'} there",
            f"leave {CACHE_ARGUMENT} out of the engine_args that win over those of quants, or leave {name} out of "
            "quants",
        )


def check_dtype(name: str, quant: Quant, args: dict[str, Any]) -> None:
    """Refuse an engine with `args` whose weights would not have the data type of an unquantized `quant`.

    Raises:
        UserError: they would not, so all of its launches would be invalid.
    """
    asked = str(args.get("dtype", "auto"))
    canonical = {"half": "float16", "float": "float32"}.get(asked, asked)
    keeps_type = quant.weights_format == "bf16" and "quantization" not in quant.engine_args
    if asked == "auto" or not keeps_type or canonical in quant.linear_dtypes:
        return
    fitting = "quants: [bf16, fp16] compares float16" if canonical == "float16" else f"leave dtype out: {name} sets it"
    raise UserError(
        f"config: engine_args.dtype: {asked} is not {name}, which promises {' or '.join(quant.linear_dtypes)}", fitting
    )


def _instead(name: str, quant: Quant) -> str:
    """Return the remedy for a quantization without a proof: add the proof, or make it a setting."""
    proof = "set linear_dtypes to the data types of the loaded linear layers: docs/models-and-quantizations.md"
    if quant.weights_format not in ("bf16", "own") or "quantization" in quant.engine_args or not quant.engine_args:
        return proof
    arguments = yaml.safe_dump(quant.engine_args, default_flow_style=True, width=10_000).strip()
    setting = f"settings: [default, {name}] and setting_settings: {{{name}: {{engine_args: {arguments}}}}}"
    return f"if it does not quantize weights, make it a setting: {setting}; else {proof}"


NOT_SET = "not set"

CHOOSES_RUNNER = "variables.VLLM_USE_V2_MODEL_RUNNER"
"""The fact with which a setting chooses vLLM's model runner itself."""

SIZES = frozenset(
    {
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "num_experts_per_tok",
        "vocab_size",
    }
)
"""Keys of a model's config.json whose change makes it another model."""


def confounders(
    own: Spec,
    other: Spec,
    setting: Spec | None = None,
    resolved: Sequence[Mapping[str, Any]] = ({}, {}),
) -> dict[str, tuple[str, str]]:
    """Return the differing arguments of the engines of two experiments besides the compared ones.

    If quantizations are compared, their arguments are not confounders; neither are a setting's if settings are
    compared.

    Args:
        own: an experiment.
        other: its baseline.
        setting: the experiment like `own` under the setting of `other`; None if there is none.
        resolved: both engines' resolved settings, for the values of unset arguments.

    Returns:
        `args.<argument>`, `variables.<name>` or `multiprocess` -> its value on both sides. `args.use_v2_model_runner`
        is no argument: a quantization may make vLLM choose its older model runner, which costs time of its own.
    """
    mine, theirs = _engine_facts(own), _engine_facts(other)
    compared = {f"args.{FOLLOWS_LENGTHS}"} if own.workload.name != other.workload.name else set()
    if own.quant.name != other.quant.name:
        compared |= {fact for spec in (own, other) for fact in _engine_facts(spec) if _follows_from_quant(fact, spec)}
    if own.setting != other.setting and setting is not None:
        as_set = _engine_facts(setting)
        compared |= {fact for fact in {**mine, **as_set} if mine.get(fact) != as_set.get(fact)}
    found = {}
    for fact in {**mine, **theirs}.keys() - compared:
        values = [
            side.get(fact) or str(usual.get(fact.removeprefix("args."), NOT_SET))
            for side, usual in zip((mine, theirs), resolved, strict=True)
        ]
        if values[0] != values[1]:
            found[fact] = values[0], values[1]
    runners = [str(usual.get(RUNNER, NOT_SET)) for usual in resolved]
    if NOT_SET not in runners and runners[0] != runners[1] and CHOOSES_RUNNER not in {*compared, *found}:
        found[f"args.{RUNNER}"] = runners[0], runners[1]
    return dict(sorted(found.items()))


def _engine_facts(spec: Spec) -> dict[str, str]:
    engine = spec.engine
    facts = {"multiprocess": engine.multiprocess, "variables": engine.environment, "args": engine.args}
    return dict(flat(facts))


def _follows_from_quant(fact: str, spec: Spec) -> bool:
    """Return whether an engine fact is as it is because of the spec's quantization."""
    argument, quant = fact.removeprefix("args."), spec.quant
    return (
        argument == "quantization"
        or argument.startswith("hf_overrides.quantization_config")
        or (argument == CACHE_ARGUMENT and quant.kv_cache_dtype is not None)
        or (argument == "dtype" and spec.engine.args["dtype"] in quant.linear_dtypes)
    )


def confounders_text(found: Mapping[str, tuple[str, str]]) -> str:
    """Return confounders for a sentence: `load_format dummy / auto, max_num_seqs 1 / 64`."""
    return ", ".join(f"{fact.partition('.')[2] or fact} {value} / {other}" for fact, (value, other) in found.items())


def sizes_set(spec: Spec) -> dict[str, str]:
    """Return the model sizes in the engine arguments of `spec`: `hf_overrides.<key>` -> value."""
    changed = flat({"hf_overrides": spec.engine.args.get("hf_overrides") or {}})
    return {name: value for name, value in changed if name.rpartition(".")[2] in SIZES}
