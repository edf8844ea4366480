"""Configs of a whole training step: quantizations with their weight updates, and devices that are shared or parted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import several
from rollout_bench.plan.fit.architecture import MemoryUnknownError, synthetic_of
from rollout_bench.trainers.step import COMPARED, FULL_LENGTH, MadeConfig

WHOLE_STEP = "whole step"
"""`run` of the keys that only these configs read, in the tables of trainers' keys."""

STAND_IN = (
    "Training: measured with a stand-in trainer, a model of the same shape in torch,{};"
    " --log FILE takes its time from your trainer's log."
)
SHARDED, WHOLE = " sharded by FSDP2", " whole on each device (placement.strategy: fsdp2 shards it)"


def trained_whole(made: MadeConfig) -> MadeConfig:
    """Return the config of a placement whose settings train an adapter, with what the stand-in does instead."""
    note = "The settings train an adapter; the stand-in trains the whole model, which takes more time and memory."
    return replace(made, head=(*made.head, note))


OF_WHOLE_STEPS = " --cycle and --placement measure what lies between steps."
"""What a config of a generation says of the rest of a step."""


def cycle(made: MadeConfig, account: str, sleep: str | None, file: str) -> MadeConfig:
    """Return the config that compares quantizations with their weight updates.

    Args:
        made: the config of one engine's part of the generation.
        account: the treatment of each key.
        sleep: how deep the trainer's engines sleep between generations; None: at their usual level.
        file: name of the settings, for messages.

    Raises:
        UserError: if the trainer's engines are not bf16 before they are quantized.
    """
    _check_bf16(made.config["quants"][0], file)
    config = made.config | {"modes": ["cycle"]} | ({"cycle": {"sleep": sleep}} if sleep else {})
    head = tuple(line.removesuffix(OF_WHOLE_STEPS) for line in made.head)
    return replace(made, head=head, config=config, account=account).compared(COMPARED)


def _s(count: int) -> str:
    return "s" if count == 1 else ""


def placement(  # noqa: PLR0913 (each is a key of a trainer)
    made: MadeConfig,
    account: str,
    file: str,
    engine_args: Mapping[str, Mapping[str, Any]],
    training: tuple[float, str] | None,
    *,
    devices: int,
    generators: int,
    sleep: str | None,
    shards: bool,
    served: bool,
    waves: int = 1,
) -> MadeConfig:
    """Return the config that compares devices that engines and trainer share with parted ones.

    Args:
        made: the config of the step's generation.
        account: the treatment of each key.
        file: name of the settings, for messages.
        engine_args: engine arguments if devices are shared (`colocated`) and if they are parted (`server`).
        training: seconds of training in the trainer's log, summed over its devices, and a line about them.
        devices: all devices.
        generators: devices that generate if they are parted.
        sleep: how deep a colocated engine sleeps while its device trains; None: it stays awake.
        shards: whether the trainer is sharded over its devices.
        served: whether engines that stand apart are reached over HTTP.
        waves: generations of a step.

    Raises:
        UserError: if the engines are not bf16, there is one device, or the model is on the hub and its
            shape is not known.
    """
    (name,), (workload,) = made.config["models"], made.config["workloads"]
    _check_bf16(made.config["quants"][-1], file)
    if devices < 2:
        problem = f"{file}: trains on one device, but a placement compares shared devices with parted ones"
        raise UserError(problem, "give the trainer two devices or more")
    trained: dict[str, Any] = {"waves": waves} if waves > 1 else {}
    trained |= {"train_s": training[0]} if training else {"strategy": "fsdp2"} if shards else {}
    model, explained = _trained_model(made.config["model_settings"][name]["weights"]["bf16"])
    # with the values of colocated engines, because planning checks the config without a setting, too
    both = {key: value for key, value in engine_args["colocated"].items() if key in engine_args["server"]}
    more: dict[str, dict[str, Any]] = {
        "colocated": {"sleep": sleep} if sleep else {},
        "server": {"generators": generators, **({"through": "server"} if served else {})},
    }
    load = made.config["workload_settings"][workload] | {"engine_args": both}
    load |= {"prompts": waves * load["prompts"]}
    config = {key: value for key, value in made.config.items() if key != "rollout"} | {
        "modes": ["placement"],
        "placement": {"devices": devices, **trained},
        "settings": ["colocated", "server"],
        "setting_settings": {
            where: {
                "placement": {"where": where, **more[where]},
                "engine_args": {key: value for key, value in args.items() if key not in both or both[key] != value},
            }
            for where, args in engine_args.items()
        },
        "baseline": {"quant": None, "setting": "colocated"},
        "model_settings": {name: model},
        "workload_settings": {workload: load},
    }
    head = (
        made.head[0],
        f"Measured here: the whole step on {several(devices, 'device')} of one machine. Setting colocated: each"
        f" generates and trains{', its engine asleep meanwhile' if sleep else ''}.",
        f"Setting server: {generators} generate{_s(generators)}{', over HTTP' if served else ''},"
        f" {devices - generators} train{_s(devices - generators)}.",
        *(
            (f"A whole step has {waves} of these generations, each followed by its training, and one update.",)
            if waves > 1
            else ()
        ),
        training[1] if training else STAND_IN.format(SHARDED if shards else WHOLE),
        f"Not measured here: rewards{'' if served else ', and the way to a server over HTTP'}.",
        *explained,
        *(line for line in made.head if line == FULL_LENGTH),
    )
    return replace(made, head=head, config=config, account=account)


def _trained_model(place: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings of a model that a placement can train, and lines that explain them."""
    if not place.startswith("hub:"):
        return {"weights": {"bf16": place}}, ()
    name = place.removeprefix("hub:")
    try:
        synthetic = synthetic_of(name)
    except MemoryUnknownError:
        raise UserError(
            f"{name}: is on the hub, but the trainer of a placement reads a folder",
            "download it, and name its folder as the model; or name one of Qwen2.5, Qwen3 or Llama 3, whose shapes are"
            " known",
        ) from None
    note = f"Weights: random, in the shape of {name}, because the trainer reads a folder: name yours as the model."
    return {"weights": None, "synthetic": synthetic}, (note,)  # None: also over a config.yaml that names the weights


def _check_bf16(quant: str, file: str) -> None:
    if quant != "bf16":
        key = "quantization" if quant.startswith("fp8") else "dtype"
        raise UserError(
            f"{file}: its engines are {quant}, but the weights that a trainer hands over here are bf16",
            f"leave its {key} out (verl: ~actor_rollout_ref.rollout.{key})",
        )
