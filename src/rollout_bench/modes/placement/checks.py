"""The plan of placements: devices for whole engines, and weights that a trainer can train."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rollout_bench.contracts.engine_memory import USUAL_UTILIZATION
from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.spec import Platform, Spec, tensor_parallel_size
from rollout_bench.core.errors import UserError
from rollout_bench.core.model_files import config_in
from rollout_bench.core.numbers import several
from rollout_bench.modes.placement.settings import PlacementSettings, PlacementSpec
from rollout_bench.plan.checks import engine_args_in, memory_is_shared_out
from rollout_bench.plan.config import Config
from rollout_bench.plan.load_checks import facts_of
from rollout_bench.plan.planning import Planning, Reason
from rollout_bench.plan.updates import check_updated

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

TRAINER_DTYPES = (None, "auto", "bfloat16")
"""Values of the engine's dtype with which it loads the trainer's weights unchanged."""

NO_STAND_IN = ("qwen3_moe", "openpangu", "opt")
"""Architectures of synthetic models that the trainer's stand-in does not support."""


class PlacementPlanning(Planning):
    """The plan of placements."""

    several_engines = True

    def separate_core(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return False: engines run in the process of their rank."""
        return False

    def iterations(self, config: Config) -> int:
        """Return the number of steps."""
        return config.of(PlacementSettings).repeats

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> PlacementSpec:
        """Return the placement of engines and trainer.

        Colocated devices alternate between generating and training, so there is no overlap and no device that only
        generates. A server's devices do not train, so their engines do not sleep.
        """
        settings = config.of(PlacementSettings)
        is_server = settings.where == SERVER
        return settings.to(
            PlacementSpec,
            generators=(settings.generators or settings.devices // 2) if is_server else None,
            cores_per_device=settings.cores_per_device if platform == "cpu" else None,
            overlap=1 if is_server and settings.overlap else None,
            through="server" if is_server and settings.through == "server" else None,
            sleep=None if is_server or settings.sleep == "none" else settings.sleep,
            waves=settings.waves if settings.waves > 1 else None,
            strategy="fsdp2" if settings.strategy == "fsdp2" and settings.train_s is None else None,
        )

    def check_all(self, configs: Collection[Config]) -> None:
        """Check that the config's placements are possible, for any model.

        `generators`, `overlap` and `through` do not apply to colocated devices, and `sleep` does not apply to servers.
        They are errors only if no other placement is measured.
        """
        placed = {config.of(PlacementSettings).where for config in configs}
        for config in configs:
            settings = config.of(PlacementSettings)
            _check_used(settings, placed)
            _check_steps(settings, config.warmup_iterations)
            _check_args(config)
            for name in config.workloads:
                if config.workload_settings[name].requests == "per_prompt":
                    raise UserError(
                        f"config: workload_settings.{name}.requests: per_prompt gives a step no single sequences "
                        "to share",
                        "set it to per_sequence, or leave placement out of modes",
                    )

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that the devices form whole engines with enough work and memory, and can sleep if configured."""
        placement, size, load = spec.of(PlacementSpec), tensor_parallel_size(spec), spec.workload
        check_updated(spec, placement.sleep or "none")
        args, sleeps = spec.engine.args, placement.sleep is not None
        left = "in addition to the trainer's share" if sleeps else "and leave none for the trainer"
        unset = args.get("kv_cache_memory_bytes") is None and args.get("gpu_memory_utilization") is None
        generating, training = len(placement.generating), len(placement.training)
        facts = facts_of(config.workload_settings[load.name])
        prompts = load.prompts // max(1, facts.group if facts else 1)  # the lines of a trace's group are of one prompt
        shared = (
            ("engines", "prompts", generating // size, prompts // placement.generations),
            ("trainers", "sequences", training, load.prompts * load.samples_per_prompt // placement.generations),
        )
        if placement.generators is None and spec.platform != "cpu" and unset:
            raise UserError(
                f"config: gpu_memory_utilization: a colocated engine of {spec.model.name} would use "
                f"{USUAL_UTILIZATION} of its device's memory, {left}",
                f"set it in engine_args to the share that the trainer leaves, such as {0.8 if sleeps else 0.5}",
            )
        if spec.platform == "ascend":
            raise UserError(
                f"config: modes: {spec.mode} needs weight transfer between NPUs, which is not implemented",
                f"leave {spec.mode} out of modes on ascend",
            )
        if generating % size:
            raise UserError(
                f"config: tensor_parallel_size: {size} does not divide the "
                f"{several(generating, 'generating device')} of {spec.model.name} under {spec.axes['setting']}",
                f"set it to {_near_sizes(size, generating)}, or {_near_devices(size, placement)}",
            )
        if placement.through and size > 1:
            raise UserError(
                f"config: placement.through: server, but an engine of {spec.model.name} has {size} devices",
                "set tensor_parallel_size to 1, or through to engine",
            )
        for who, what, share, available in shared:
            if available < share:
                raise UserError(
                    f"config: placement.devices: {share} {who} share {available} {what} of workload {load.name} at "
                    "once, so some have nothing to do",
                    "lower placement.devices, or raise prompts",
                )

    def check_here(self, spec: Spec) -> None:
        """Check that the machine has enough cores, and that engines which share its memory say how much each uses."""
        placement, cores = spec.of(PlacementSpec), len(os.sched_getaffinity(0))
        shares = len(placement.generating)
        if placement.devices * (placement.cores_per_device or 0) > cores:
            raise UserError(
                f"config: placement.cores_per_device: {several(placement.devices, 'device')} of "
                f"{several(placement.cores_per_device or 0, 'core')} are wanted, and there are {cores} cores here",
                "lower it, or placement.devices",
            )
        if spec.platform == "cpu" and shares > 1 and not memory_is_shared_out(spec, shares):
            raise UserError(
                f"config: placement.devices: {shares} "
                f"{'engines' if tensor_parallel_size(spec) == 1 else 'shards of engines'} of {spec.model.name} "
                "share the machine's memory on cpu, and each would use "
                f"{spec.engine.args.get('gpu_memory_utilization', USUAL_UTILIZATION)} of it",
                "set kv_cache_memory_bytes in engine_args",
            )

    def skip_reason(self, spec: Spec, path: str, config: Config) -> Reason | None:
        """Return the reason why a model cannot be placed; None if no reason is known before a launch."""
        quant, scheme, model = spec.quant.name, spec.quant, spec.model
        shape, weights = model.synthetic or {}, model.weights or ""
        architecture = shape.get("architecture")
        if scheme.weights_format != "bf16" or "bfloat16" not in scheme.linear_dtypes:
            return (
                f"engines of a placement take the trainer's weights, which are bf16 and not {quant}",
                f"leave {quant} out of quants, or placement out of modes",
            )
        if architecture in NO_STAND_IN and spec.of(PlacementSpec).train_s is None:
            return (
                f"the trainer's stand-in can't train {model.name}, whose architecture is {architecture}",
                "name a dense Qwen model, or set placement.train_s, which trains nothing",
            )
        if weights.startswith("hub:"):
            return (
                f"weights of {model.name} are {weights}, and a placement's trainer reads a folder",
                "download them below model_base and name the folder",
            )
        wrong = "" if shape else _no_bf16(Path(path))
        if wrong:
            return (
                f"engines of a placement take the trainer's weights, which are bf16, and those of {model.name} {wrong}",
                f"name a bf16 checkpoint in model_settings.{model.name}.weights, or leave placement out of modes",
            )
        return None

    def trainer_bytes(self, spec: Spec, weights_bytes: float) -> tuple[float, bool]:
        """Return the memory of a trainer on a device, and whether an awake engine shares the device.

        Each parameter has a bf16 weight. With real training it also has two moments and, unless the engine sleeps
        meanwhile, the gradient (docs/whole-step.md). A sharded trainer divides them by its devices, and begins with the
        whole model's weights on each.
        """
        placement = spec.of(PlacementSpec)
        if spec.platform == "cpu":
            return 0.0, False
        each = 2.0 if placement.train_s is not None else 6.0 if placement.sleep else 8.0
        if placement.strategy:
            each = max(2.0, each / len(placement.training))
        return each * weights_bytes / 2, placement.generators is None


def _check_used(settings: PlacementSettings, placed: Collection[str]) -> None:
    """Check that keys which apply to one of `where` alone are used under one of `placed`."""
    if settings.sleep != "none" and placed == {SERVER}:
        raise UserError(
            f"config: placement.sleep: is {settings.sleep}, but a server's devices only generate, so its "
            "engines never sleep",
            "leave it out, or set placement.where: colocated",
        )
    for key in ("generators", "overlap", "through"):
        value = getattr(settings, key)
        if SERVER not in placed and value not in (None, 0, "engine"):
            raise UserError(
                f"config: placement.{key}: is {value}, but colocated devices all generate and train alternately",
                f"leave it out, or set placement.where: {SERVER}",
            )


def _check_steps(settings: PlacementSettings, warmups: int) -> None:
    """Check that some devices generate and others train, and that a step may overlap an earlier one."""
    devices = settings.devices
    if (settings.generators or 0) >= devices:
        raise UserError(
            f"config: placement.generators: {settings.generators} of {devices} devices leave none for training",
            f"set it to {devices - 1} or less, or raise placement.devices",
        )
    if settings.where == SERVER and devices == 1:
        raise UserError(
            "config: placement.devices: 1, but a server needs a device that generates and one that trains",
            "raise it, or set placement.where: colocated",
        )
    if settings.overlap and not warmups:
        raise UserError(
            "config: placement.overlap: the first step has no earlier step to train on, and warmup_iterations is 0",
            "set warmup_iterations to 1, or overlap to 0",
        )
    if settings.overlap and settings.waves > 1:
        raise UserError(
            f"config: placement.waves: {settings.waves} generations of a step, of which none is a step ahead",
            "set waves to 1, or overlap to 0",
        )


def _check_args(config: Config) -> None:
    """Check that engines can take the trainer's weights as they are."""
    for place, args in engine_args_in(config):
        for name, (why, remedy) in REFUSED_ARGS.items():
            if args.get(name) not in (None, 1, False):
                raise UserError(f"config: {place}.{name}: {why}", remedy)
        if args.get("dtype") not in TRAINER_DTYPES:
            raise UserError(
                f"config: {place}.dtype: is {args.get('dtype')}, but the trainer's weights are bf16",
                "set it to bfloat16, or leave placement out of modes",
            )


def _near_sizes(size: int, generating: int) -> str:
    """Return the divisors of `generating` nearest to `size`."""
    divisors = [number for number in range(1, generating + 1) if generating % number == 0]
    below, above = [n for n in divisors if n < size], [n for n in divisors if n > size]
    return " or ".join(map(str, [*below[-1:], *above[:1]]))


def _near_devices(size: int, placement: PlacementSpec) -> str:
    """Return the remedy with the nearest numbers of generating devices that `size` divides."""
    below = len(placement.generating) // size * size
    counts = [number for number in (below, below + size) if number]
    if placement.generators is not None:
        counts = [number for number in counts if number < placement.devices]
    key = "devices" if placement.generators is None else "generators"
    return f"placement.{key} to {' or '.join(map(str, counts))}" if counts else "raise placement.devices"


def _no_bf16(folder: Path) -> str:
    """Return a description of a checkpoint's weights if they are not bf16; empty if they are or if unknown."""
    model_config = config_in(folder)
    if model_config is None:
        return ""
    if model_config.get("quantization_config"):
        return "are quantized"
    dtype = model_config.get("dtype", model_config.get("torch_dtype", "bfloat16"))
    return "" if dtype == "bfloat16" else f"are {dtype}"


PLANNING = PlacementPlanning()
