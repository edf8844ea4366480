"""Mode placement's fields of the spec, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from rollout_bench.contracts.placed_steps import PlacementSettings, PlacementSpec
from rollout_bench.contracts.spec import ModelSpec, Platform, Quantization, Spec, tensor_parallel_size
from rollout_bench.core.numbers import several
from rollout_bench.plan.checks import engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.refusals import first_of, refuse

Reason = tuple[str, str]
"""Reason why a combination cannot be measured, and the remedy."""

SERVER = "server"

REFUSED_ARGS = {
    "data_parallel_size": ("placement.devices says how many engines there are", "set placement.devices instead"),
    "pipeline_parallel_size": (
        "each device of a placement has a part of every layer, so that it takes part in all of generation",
        "set tensor_parallel_size instead, or leave placement out of modes",
    ),
    "quantization": (
        "the engine takes the trainer's weights as they are, and they are bf16",
        "leave it out, or leave placement out of modes",
    ),
}
"""Engine arguments that a placement only allows at their defaults -> reason and remedy."""

SLEEPS_ON: tuple[Platform, ...] = ("cuda",)
"""Platforms on which a colocated engine can sleep while its device trains."""

TRAINER_DTYPES = (None, "auto", "bfloat16")
"""Values of the engine's dtype with which it loads the trainer's weights unchanged."""

NO_STAND_IN = ("qwen3_moe", "openpangu")
"""Architectures of synthetic models that the trainer's stand-in does not support."""


def placement_spec(settings: PlacementSettings) -> PlacementSpec:
    """Return the placement of engines and trainer, with the first `where` of `settings`.

    Colocated devices alternate between generating and training, so there is no overlap and no device that only
    generates. A server's devices do not train, so their engines do not sleep.
    """
    where = settings.where[0]
    generators = settings.generators or settings.devices // 2
    return PlacementSpec(
        where=where,
        devices=settings.devices,
        generators=generators if where == SERVER else None,
        overlap=1 if where == SERVER and settings.overlap else None,
        sleep=None if where == SERVER or settings.sleep == "none" else settings.sleep,
        train_s=settings.train_s,
    )


def check_placement(configs: Collection[Config]) -> None:
    """Check that the config's placements are possible, for any model.

    `generators` and `overlap` do not apply to colocated devices, and `sleep` does not apply to servers. They are
    errors only if no other placement is measured.

    Args:
        configs: the config under each setting of mode placement; empty unless the mode is selected.

    Raises:
        UserError: a placement is not possible.
    """
    placed = {config.placement.where[0] for config in configs}
    for config in configs:
        settings, devices = config.placement, config.placement.devices
        colocated = [(key, value) for key in ("generators", "overlap") if (value := getattr(settings, key))]
        refuse(
            (
                settings.sleep != "none" and placed == {SERVER},
                f"placement.sleep: is {settings.sleep}, but a server's devices only generate, so its engines "
                "never sleep",
                "leave it out, or add colocated to placement.where",
            ),
            *(
                (
                    SERVER not in placed,
                    f"placement.{key}: is {value}, but colocated devices all generate and train alternately",
                    f"leave it out, or add {SERVER} to placement.where",
                )
                for key, value in colocated
            ),
            (
                (settings.generators or 0) >= devices,
                f"placement.generators: {settings.generators} of {devices} devices leave none for training",
                f"set it to {devices - 1} or less, or raise placement.devices",
            ),
            (
                settings.overlap and not config.warmup_iterations,
                "placement.overlap: the first step has no earlier step to train on, and warmup_iterations is 0",
                "set warmup_iterations to 1, or overlap to 0",
            ),
            *(
                (args.get(name) not in (None, 1, False), f"{place}.{name}: {why}", remedy)
                for place, args in engine_args_in(config)
                for name, (why, remedy) in REFUSED_ARGS.items()
            ),
            *(
                (
                    args.get("dtype") not in TRAINER_DTYPES,
                    f"{place}.dtype: is {args.get('dtype')}, but the trainer's weights are bf16",
                    "set it to bfloat16, or leave placement out of modes",
                )
                for place, args in engine_args_in(config)
            ),
            *(
                (
                    config.workload_settings[name].requests == "per_prompt",
                    f"workload_settings.{name}.requests: per_prompt gives a step no single sequences to share",
                    "set it to per_sequence, or leave placement out of modes",
                )
                for name in config.workloads
            ),
        )


def check_engines(spec: Spec) -> None:
    """Check that a placement's devices form whole engines with enough work, and can sleep if configured.

    Raises:
        UserError: they do not. With several settings, only the affected ones are skipped.
    """
    if spec.placement is None:
        return
    placement, size, load = spec.placement, tensor_parallel_size(spec), spec.workload
    generating, training = len(placement.generating), len(placement.training)
    shared = (
        ("engines", "prompts", generating // size, load.prompts),
        ("trainers", "sequences", training, load.prompts * load.samples_per_prompt),
    )
    refuse(
        (
            spec.platform == "ascend",
            f"modes: {spec.mode} needs weight transfer between NPUs, which is not implemented",
            f"leave {spec.mode} out of modes on ascend",
        ),
        (
            placement.sleep and spec.platform not in SLEEPS_ON,
            f"placement.sleep: {placement.sleep}: vLLM can't put an engine to sleep on {spec.platform}",
            "set it to none: colocated engines keep their memory while the trainer works",
        ),
        (
            generating % size,
            f"tensor_parallel_size: {size} does not divide the {several(generating, 'generating device')} of "
            f"{spec.model.name} under {spec.axes['setting']}",
            f"set it to {_near_sizes(size, generating)}, or {_near_devices(size, placement)}",
        ),
        *(  # an engine has all samples of a prompt, to share its cache
            (
                there < share,
                f"placement.devices: {share} {who} share {there} {what} of workload {load.name}, so some have "
                "nothing to do",
                "lower placement.devices, or raise prompts",
            )
            for who, what, share, there in shared
        ),
    )


def _near_sizes(size: int, generating: int) -> str:
    """Return the divisors of `generating` nearest to `size`."""
    divisors = [number for number in range(1, generating + 1) if generating % number == 0]
    below, above = [n for n in divisors if n < size], [n for n in divisors if n > size]
    return " or ".join(map(str, [*below[-1:], *above[:1]]))


def _near_devices(size: int, placement: PlacementSpec) -> str:
    """Return the remedy with the nearest numbers of generating devices that `size` divides."""
    below = len(placement.generating) // size * size
    found = [number for number in (below, below + size) if number]
    if placement.generators is not None:
        found = [number for number in found if number < placement.devices]
    key = "devices" if placement.generators is None else "generators"
    return f"placement.{key} to {' or '.join(map(str, found))}" if found else "raise placement.devices"


def not_placed(quant: str, scheme: Quantization, model: ModelSpec, path: str, config: Config) -> Reason | None:
    """Return the reason why a model cannot be placed with a quantization; None if no reason is known before a launch.

    Args:
        quant: the quantization's name.
        scheme: the quantization.
        model: the loaded weights.
        path: path of the weights, or of the checkpoint to build.
        config: the config.
    """
    shape, weights = model.synthetic or {}, model.weights or ""
    hub, architecture = weights.startswith("hub:"), shape.get("architecture")
    wrong = "" if hub or shape else _no_bf16(Path(path))
    return first_of(
        (
            scheme.weights_format != "bf16" or "bfloat16" not in scheme.linear_dtypes,
            f"engines of a placement take the trainer's weights, which are bf16 and not {quant}",
            f"leave {quant} out of quants, or placement out of modes",
        ),
        (
            architecture in NO_STAND_IN and config.placement.train_s is None,
            f"the trainer's stand-in can't train {model.name}, whose architecture is {architecture}",
            "name a dense Qwen model, or set placement.train_s, which trains nothing",
        ),
        (
            hub,
            f"weights of {model.name} are {weights}, and a placement's trainer reads a folder",
            "download them below model_base and name the folder",
        ),
        (
            wrong,
            f"engines of a placement take the trainer's weights, which are bf16, and those of {model.name} {wrong}",
            f"name a bf16 checkpoint in model_settings.{model.name}.weights, or leave placement out of modes",
        ),
    )


def _no_bf16(folder: Path) -> str:
    """Return a description of a checkpoint's weights if they are not bf16; empty if they are or if unknown."""
    try:
        said = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return ""  # loading it will report the problem
    if not isinstance(said, dict):
        return ""
    if said.get("quantization_config"):
        return "are quantized"
    dtype = said.get("dtype", said.get("torch_dtype", "bfloat16"))
    return "" if dtype == "bfloat16" else f"are {dtype}"
