"""A config for a step of verl: R AsyncLLM engines behind a router that spreads the samples of a prompt."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import several
from rollout_bench.plan.checks import check_no_secret
from rollout_bench.trainers.rollout_dumps import workload_and_trace
from rollout_bench.trainers.settings import Influence, TrainerFile, account
from rollout_bench.trainers.step import (
    FOUND,
    FULL_LENGTH,
    QUANT_OF_DTYPE,
    MadeConfig,
    TrainerStep,
    distinct_prompts,
    found_device,
    model_name,
    quant_keys,
    weights,
)
from rollout_bench.trainers.training_log import verl_time
from rollout_bench.trainers.whole_step import OF_WHOLE_STEPS, cycle, placement, trained_whole

WORKLOAD = "verl-step"
ROLLOUT = "actor_rollout_ref.rollout."
MODEL = "actor_rollout_ref.model."

PLATFORMS = {"cuda": "cuda", "npu": "ascend", "cpu": "cpu"}
"""verl's device -> platform."""

NPUS = "For NPUs, trainer.device=npu gives the platform ascend, with verl's environment for them"
"""The way to another platform, where no key names one."""

SIZES = {
    "tensor_model_parallel_size": "tensor_parallel_size",
    "data_parallel_size": "data_parallel_size",
    "pipeline_model_parallel_size": "pipeline_parallel_size",
}
"""Key of verl's rollout for the number of devices of an engine -> engine argument."""

EXPERTS = f"{ROLLOUT}expert_parallel_size"
"""Key that decides, in verl after engine_kwargs, whether an engine's devices divide the experts."""

SLEEP = (f"{ROLLOUT}free_cache_engine", f"{ROLLOUT}enable_sleep_mode")
"""Keys that together let engines sleep between generations."""

ENVIRONMENT = {"ascend": {"VLLM_ASCEND_ENABLE_NZ": "0"}}
"""Platform -> environment variables that verl sets for its engines, unlike vLLM's defaults.

On NPUs verl also sets VLLM_ALL2ALL_BACKEND, which vLLM no longer reads; vllm-ascend sets the argument of that name.
"""

WHOLE_GRAPHS = "FULL_AND_PIECEWISE"
"""verl's default of cudagraph_mode, and vLLM's."""

OLDER = (
    "data.gen_batch_size is above train_batch_size, so this is a recipe of the older trainer (DAPO), which generates"
    " gen_batch_size prompts whatever trainer.use_v1 is; verl.trainer.main_ppo sets it to 1 or refuses it:"
    " ~data.gen_batch_size."
)
"""Line about a step whose trainer follows from its sizes."""

ADAPTER = "the base model is measured, without the LoRA adapter (rank {}) that verl's engines apply: it is overstated"
"""Caveat of a placement whose engines apply an adapter in verl."""

ADAPTERS = ("lora.rank", "lora.alpha", "lora.target_modules"), ("lora_rank", "lora_alpha", "target_modules")
"""Keys below the model for an adapter's rank, alpha and layers: Megatron's, which come first, and FSDP's."""

SET_FOR_ADAPTERS = ("enable_lora", "max_loras", "max_lora_rank")
"""Arguments that verl sets for an adapter, whatever engine_kwargs has."""

ONLY_OF_ADAPTERS = (
    "lora.fully_sharded_loras", "lora.exclude_modules", "exclude_modules", "target_parameters", "lora_adapter_path",
    "lora.adapter_path",
)  # fmt: skip
"""Further keys below the model that no run without an adapter in its engines reads."""

KEPT_SAMPLING = ("temperature", "top_p", "top_k")
"""Keys of verl's rollout that have the same name in a workload."""


def verl_config(
    settings: TrainerFile, dumps: Path | None = None, file: Path | None = None, one_engine: bool = False
) -> MadeConfig:
    """Return the config that measures a step.

    Args:
        settings: verl's settings.
        dumps: folder of saved rollouts, whose lengths replace the maximum lengths of the settings.
        file: the trace of these lengths, which the config names.
        one_engine: whether only one engine's part of the step is measured.

    Raises:
        UserError: if the settings are invalid or incomplete, or need something that can't be measured.
    """
    _check_batches(settings)
    step, devices = _step(settings, saved=dumps is not None)
    prompt_tokens, output_tokens, longest = _lengths(settings)
    path = settings.get(f"{MODEL}path", needed=True)
    quant = QUANT_OF_DTYPE[settings.get(f"{ROLLOUT}dtype")]
    quants = [quant, *(["fp8-block"] if settings.get(f"{ROLLOUT}quantization") else [])]
    part = step.part(one_engine)
    place = weights(path, f"{MODEL}path")
    engine_args = _engine_args(settings)
    if dumps is None:
        lengths = part.workload(prompt_tokens) | {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
        engine_args.setdefault("max_model_len", prompt_tokens + output_tokens)
        lines: list[dict[str, int]] = []
    else:
        model, room = (place, settings.get(f"{MODEL}trust_remote_code")), settings.get(f"{ROLLOUT}max_model_len")
        lengths, lines = workload_and_trace(dumps, file, model, longest, part, one_engine and step.engines > 1, room)
    workload: dict[str, Any] = lengths | {name: settings.get(f"{ROLLOUT}{name}") for name in KEPT_SAMPLING}
    workload["engine_args"] = engine_args
    name, device = model_name(path), settings.get("trainer.device")
    platform = PLATFORMS[device] if device else found_device()
    config = {
        "platform": platform,
        "models": [name],
        "quants": quants,
        "workloads": [WORKLOAD],
        **step.rollout(one_engine),
        **({"engine": {"environment": ENVIRONMENT[platform]}} if platform in ENVIRONMENT else {}),
        **({"lora": adapter} if (adapter := _adapter(settings)) else {}),
        "model_settings": {name: {"weights": {quant: place}}},
        **quant_keys(quant),
        "workload_settings": {WORKLOAD: workload},
    }
    head = (
        f"A step: {step.description} on {several(devices, 'device')}.",
        *(() if device else (FOUND.format("verl", platform, NPUS),)),
        *((OLDER,) if settings.get("trainer.use_v1") and _is_older(settings) else ()),
        *step.measured(
            one_engine, _dealt(step), "the other engines, verl's router, and the wait for the slowest engine"
        ),
        *(() if lines else (FULL_LENGTH,)),
        f"Not measured here: verl's own processes and training.{OF_WHOLE_STEPS}",
    )
    return MadeConfig(head, config, _account(settings, *SLEEP), tuple(lines))


def verl_cycle(settings: TrainerFile, made: MadeConfig) -> MadeConfig:
    """Return the config of one engine's whole step; `made` is the config of its generation."""
    sleep = ("1" if _adapter(settings) else None) if _sleeps(settings) else "none"
    return cycle(made, _account(settings), sleep, settings.name)


def verl_placement(settings: TrainerFile, made: MadeConfig, log: Path | None = None) -> MadeConfig:
    """Return the config that compares shared and parted devices.

    Engines that stand apart in verl keep their devices if devices are parted; others get half of all.

    Args:
        settings: verl's settings.
        made: the config that measures the generation of the step.
        log: verl's metrics, which have the time of training.

    Raises:
        UserError: if the log or the model can't be used.
    """
    load = made.config["workload_settings"][WORKLOAD]
    if adapter := _adapter(settings):
        load = load | {"caveat": ADAPTER.format(adapter["rank"])}
        kept = {key: value for key, value in made.config.items() if key != "lora"}
        made = replace(made, config=kept | {"workload_settings": {WORKLOAD: load}})
    engine_args = load["engine_args"]
    training = settings.get("trainer.nnodes") * settings.get("trainer.n_gpus_per_node", needed=True)
    nodes, per_node = _device_keys(settings)
    apart = 0 if nodes == "trainer.nnodes" else settings.get(nodes) * settings.get(per_node)
    tensor = engine_args["tensor_parallel_size"]
    planned = placement(
        made,
        _account(settings),
        settings.name,
        {"colocated": engine_args, "server": engine_args},
        verl_time(log, training) if log else None,
        devices=training + apart,
        generators=apart or max(training // 2 // tensor, 1) * tensor,
        sleep=("1" if adapter else "2") if _sleeps(settings) and made.config["platform"] == "cuda" else None,
        shards=True,
        served=False,
    )
    rank = settings.get(f"{MODEL}lora.rank") or settings.get(f"{MODEL}lora_rank")
    return trained_whole(planned) if rank and not log else planned


def _adapter_keys(settings: TrainerFile) -> tuple[str, str, str] | None:
    """Return those of `ADAPTERS` that hold for the engines; None without an adapter, or if it is merged."""
    merged = settings.get(f"{MODEL}lora.merge")
    return None if merged else next((keys for keys in ADAPTERS if settings.get(f"{MODEL}{keys[0]}")), None)


def _adapter(settings: TrainerFile) -> dict[str, Any]:
    """Return the config's `lora` for the adapter that engines apply; empty without one."""
    if (keys := _adapter_keys(settings)) is None:
        return {}
    if keys == ADAPTERS[0] and settings.get(f"{MODEL}lora.type") == "dora":
        raise UserError(
            f"{settings.name}: {MODEL}lora.type: vLLM keeps no DoRA adapter apart, so its speed cannot be measured",
            f"add {MODEL}lora.merge=true to measure merged weights",
        )
    rank, alpha, targets = (settings.get(f"{MODEL}{name}") for name in keys)
    sharded = {"fully_sharded": True} if settings.get(f"{MODEL}lora.fully_sharded_loras") else {}
    return {"rank": rank, "alpha": alpha, "targets": targets, **sharded}


def _sleeps(settings: TrainerFile) -> bool:
    return all(settings.get(key) for key in SLEEP)


def _dealt(step: TrainerStep) -> str:
    expected = round(distinct_prompts(step.prompts, step.samples, step.engines))
    return (
        f"Samples reach the router prompt after prompt, so an engine sees {step.met_in_turn} prompts; in verl several"
        f" processes send at once, and if samples come in any order, an engine sees about {expected}."
    )


def _device_keys(settings: TrainerFile) -> tuple[str, str]:
    """Return the keys for the number of nodes with engines, and the number of devices of a node."""
    apart = "rollout." if settings.has_section("rollout") else ""  # recipes copy it over the rollout's keys
    if not apart or not settings.get(f"{apart}nnodes"):
        return "trainer.nnodes", "trainer.n_gpus_per_node"
    followed = settings.get(f"{apart}n_gpus_per_node") is None
    return f"{apart}nnodes", f"{'trainer.' if followed else apart}n_gpus_per_node"


def _is_older(settings: TrainerFile) -> bool:
    """Return whether the older trainer runs: recipes' entry points run it whatever use_v1 is, but sizes tell."""
    by_size = _fetches_more(settings) and settings.get(MODE) == "sync" and not settings.starts_main
    return not settings.get("trainer.use_v1") or by_size


def _fetches_more(settings: TrainerFile) -> bool:
    return bool((settings.get("data.gen_batch_size") or 0) > settings.get("data.train_batch_size"))


MODE = "trainer.v1.trainer_mode"
"""Key of verl's v1 trainer that lets batches overlap."""

BATCH = "data.train_batch_size"
"""Key for the prompts of a step; fully_async_policy's rollouter asserts that it is 0."""

IN_FLIGHT = "; config/in-flight.yaml measures what an update in the middle of generation costs"
"""Remedy for trainers that generate while they train."""


def _check_batches(settings: TrainerFile) -> None:
    """Raise `UserError` if verl generates without waiting for the end of a batch."""
    samples = settings.get(f"{ROLLOUT}n")
    is_own = BATCH not in settings.added
    if settings.written(BATCH) == 0 or (settings.has_section("async_training") and is_own):
        _check_stream(settings, samples)
    mode, filters = settings.get(MODE), settings.get("algorithm.filter_groups.enable")
    if not _is_older(settings) and mode == "sync" and _fetches_more(settings) and not filters:
        raise UserError(
            f"{settings.name}: data.gen_batch_size: is above train_batch_size, which main_ppo refuses with use_v1",
            "add ++trainer.use_v1=false if your verl is older than 0.9, or ~data.gen_batch_size",
        )
    if _is_older(settings) or mode == "sync":
        return
    batch, warm = settings.get(BATCH), settings.get(f"trainer.v1.{mode}.num_warmup_batches")
    prompts = batch + math.floor(warm * batch)
    nodes = f" +rollout.nnodes={settings.get(f'{ROLLOUT}nnodes')}" if mode == "separate_async" else ""
    if nodes and (per_node := settings.get(f"{ROLLOUT}n_gpus_per_node")):
        nodes += f" +rollout.n_gpus_per_node={per_node}"
    raise UserError(
        f"{settings.name}: {MODE}: {mode} has {several(prompts, 'prompt')} under way ({prompts * samples:,} sequences),"
        f" and a step ends when any {batch} of them are complete, which cannot be measured",
        f"add {MODE}=sync{nodes} to measure one batch until its last sequence, with {BATCH}={prompts}"
        f" as many as are under way{IN_FLIGHT}",
    )


def _check_stream(settings: TrainerFile, samples: int) -> None:
    nodes, per_node = _device_keys(settings)
    size = math.prod(settings.get(f"{ROLLOUT}{name}") for name in SIZES)
    engines = settings.get(nodes) * settings.get(per_node, needed=True) // size
    each = settings.get("async_training.concurrent_samples_per_replica")
    prompts = max(engines, 1) * each
    why = "0 is a fully asynchronous training, which has no step"
    if settings.written(BATCH) != 0:
        why = f"{settings.get(BATCH)}: verl's fully_async_policy refuses all but 0, because it has no step"
    raise UserError(
        f"{settings.name}: {BATCH}: {why}:"
        f" {several(engines, 'engine')} x {each} prompts of {samples} samples are under way",
        f"add {BATCH}={prompts} to measure as many until the last sequence{IN_FLIGHT}",
    )


def _unread(settings: TrainerFile) -> set[str]:
    """Return the keys that this run does not read, though other runs do."""
    places = (ROLLOUT, "rollout.", "trainer.")
    unread = {f"{place}{name}" for place in places for name in ("nnodes", "n_gpus_per_node")}
    unread -= {*_device_keys(settings)}
    sections = [ROLLOUT, MODEL]
    section = sections[0 if settings.has(f"{ROLLOUT}mtp") else 1]  # the rollout's key defaults to the model's
    unread |= {f"{one}mtp.enable_rollout" for one in sections if one != section or not settings.get(f"{one}mtp.enable")}
    used = _adapter_keys(settings)
    unread |= {f"{MODEL}{name}" for keys in ADAPTERS if keys != used for name in keys}
    return unread | ({f"{MODEL}{name}" for name in ONLY_OF_ADAPTERS} if used is None else set())


def _account(settings: TrainerFile, *unread: str) -> str:
    """Return the treatment of each key; `unread` are further keys that this run does not read."""
    registry = settings.registry
    if settings.get(f"{ROLLOUT}data_parallel_size") > 1:  # each rank is an engine of its own here
        experts = replace(registry.keys[EXPERTS], influence=Influence.UNSUPPORTED, unless=(1,))
        registry = replace(registry, keys={**registry.keys, EXPERTS: experts})
    return account(replace(settings, registry=registry), _unread(settings) | {*unread})


def _step(settings: TrainerFile, saved: bool) -> tuple[TrainerStep, int]:
    """Return the step, as verl generates or as it is `saved`, and the number of devices of all its engines."""
    nodes, per_node = _device_keys(settings)
    devices = settings.get(nodes) * settings.get(per_node, needed=True)
    sizes = {name: settings.get(f"{ROLLOUT}{name}") for name in SIZES}
    tensor, data, pipeline = sizes.values()
    if devices % (tensor * data * pipeline):
        sizes_text = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        raise UserError(
            f"{settings.name}: {ROLLOUT}{sizes_text} does not divide the {devices} devices",
            f"set {ROLLOUT}tensor_model_parallel_size to a divisor of them, or correct the devices in trainer",
        )
    node = settings.get(per_node, needed=True)
    if tensor * pipeline > node:
        raise UserError(
            f"{settings.name}: {ROLLOUT}tensor_model_parallel_size: an engine has {tensor * pipeline} devices and a"
            f" node {node}, and an engine over several nodes cannot be measured, also not with --one-engine",
            f"set sizes whose product is {node} or less; on a machine with more devices, set {per_node} to that number",
        )
    prompts, samples = settings.get("data.train_batch_size"), settings.get(f"{ROLLOUT}n")
    if _is_older(settings) and not settings.has_section("async_training"):  # which has no batch, so gen_batch_size is 1
        prompts = settings.get("data.gen_batch_size") or prompts
        samples += settings.get("algorithm.adv_estimator") == "remax" and not saved  # a baseline, which is not saved
    # Each rank of data parallelism has its own scheduler, so it counts as an engine here.
    return TrainerStep(prompts, samples, devices // (tensor * pipeline), "samples"), devices


def _lengths(settings: TrainerFile) -> tuple[int, int, int]:
    """Return the tokens of the longest prompt, of the longest answer to it, and of the longest answer to any prompt.

    Raises:
        UserError: if max_model_len leaves no tokens for an answer.
    """
    keys = {f"{ROLLOUT}{name}_length": f"data.max_{name}_length" for name in ("prompt", "response")}
    prompt, answer = (settings.get(key if settings.has(key) else followed) for key, followed in keys.items())
    most = settings.get(f"{ROLLOUT}max_model_len")
    if most is not None and most <= prompt:
        raise UserError(
            f"{settings.name}: {ROLLOUT}max_model_len: {most} leaves no room for answers to prompts of {prompt}",
            f"set it to {prompt + answer} or more, or data.max_prompt_length to less",
        )
    return prompt, answer if most is None else min(answer, most - prompt), answer  # as verl does


def _own_argument(name: str, value: Any, where: str) -> Any:
    """Return a value of engine_kwargs as vLLM gets it: a text may hold a mapping as JSON."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        problem = f"{where}: {ROLLOUT}engine_kwargs.vllm.{name}: begins like a mapping, but is no JSON"
        raise UserError(problem, "write it as a mapping, or put its words into double quotes") from None


def _engine_args(settings: TrainerFile) -> dict[str, Any]:
    written = settings.get(f"{ROLLOUT}engine_kwargs.vllm")
    lost = settings.registry.keys[f"{ROLLOUT}engine_kwargs.vllm"].left_out
    from_keys = {
        name: _own_argument(name, value, settings.name)
        for name, value in written.items()
        if not any(value is one for one in lost)
    }
    check_no_secret(f"{ROLLOUT}engine_kwargs.vllm", from_keys)
    for key, name in {**SIZES, "dtype": "dtype", "quantization": "quantization"}.items():
        if from_keys.get(name) is not None:
            decided = "how many engines share a step" if key in SIZES else "which quants are measured"
            raise UserError(
                f"{settings.name}: {ROLLOUT}engine_kwargs.vllm.{name}: decides {decided}",
                f"take it out, and set {ROLLOUT}{key}",
            )
    arguments = settings.engine_args() | {name: value for name, value in from_keys.items() if value is not None}
    arguments.pop("enable_expert_parallel", None)
    if _adapter_keys(settings):  # verl sets these after engine_kwargs
        arguments = {name: value for name, value in arguments.items() if name not in SET_FOR_ADAPTERS}
    if settings.get(EXPERTS) > 1 and settings.get(f"{ROLLOUT}data_parallel_size") == 1:
        arguments["enable_expert_parallel"] = True
    sizes = settings.get(f"{ROLLOUT}cudagraph_capture_sizes")
    in_parts = (arguments.get("decode_context_parallel_size") or 1) != 1  # verl has no whole graphs then
    if sizes or in_parts:
        compilation = arguments.get("compilation_config", {})
        if not isinstance(compilation, dict):
            raise UserError(
                f"{settings.name}: {ROLLOUT}engine_kwargs.vllm.compilation_config: is no mapping, and"
                f" {'cudagraph_capture_sizes are' if sizes else 'cudagraph_mode is'} put into it",
                "write it as a mapping",
            )
        more = {"cudagraph_capture_sizes": sizes} if sizes else {}
        if in_parts and compilation.get("cudagraph_mode", WHOLE_GRAPHS) == WHOLE_GRAPHS:
            more["cudagraph_mode"] = "PIECEWISE"
        arguments["compilation_config"] = {**compilation, **more}
    return arguments
