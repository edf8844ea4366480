"""A config for a step of TRL's GRPO or RLOO, with engines in the training's processes or in a server."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import several
from rollout_bench.core.yaml_files import read_mapping
from rollout_bench.trainers.rollout_dumps import workload_and_trace
from rollout_bench.trainers.settings import NOT_THERE, TrainerFile, account, mapping
from rollout_bench.trainers.step import (
    FOUND,
    FULL_LENGTH,
    QUANT_OF_DTYPE,
    MadeConfig,
    StepPart,
    TrainerStep,
    found_device,
    model_name,
    quant_keys,
    weights,
)
from rollout_bench.trainers.training_log import trl_time
from rollout_bench.trainers.whole_step import OF_WHOLE_STEPS, WHOLE_STEP, cycle, placement, trained_whole

WORKLOAD = "trl-step"

BESIDE = {
    "colocate": "engines whose core is part of the training's process (here it is a process of its own)",
    "server": "the way to the server over HTTP",
}
"""Mode -> the part of its generation that can't be measured."""

REQUESTS = "TRL has LLM.generate() take all of an engine's sequences at once; here each is a request to AsyncLLM."

LONGEST = {"colocate": ("vllm_max_model_length", "vllm_max_model_len"), "server": ("server.max_model_len",)}
"""Mode -> keys that limit prompt and answer together, newest name first."""

COLOCATED_BATCHED_TOKENS = 4096
"""TRL's value of max_num_batched_tokens if its engines share the trainer's devices."""

NPUS = "For NPUs, lay --config platform=ascend over it"
"""The way to another platform, which no key of TRL names."""

OF_A_SERVER = ("vllm_server_base_url", "vllm_server_host", "vllm_server_port")
"""Keys that only a training with a server needs; without vllm_mode, TRL since 1.0 starts colocated engines anyway."""


def trl_config(
    settings: TrainerFile,
    one_engine: bool = False,
    trainer: str = "grpo",
    dumps: Path | None = None,
    file: Path | None = None,
) -> MadeConfig:
    """Return the config that measures a step.

    Args:
        settings: TRL's settings.
        one_engine: whether only one engine's part of the step is measured.
        trainer: one of TRL's `versions` in `TABLES`.
        dumps: folder of logged completions, whose lengths replace the maximum lengths of the settings.
        file: the trace of these lengths, which the config names.

    Raises:
        UserError: if the settings are invalid or incomplete, or need something that can't be measured.
    """
    if not settings.get("use_vllm"):
        raise UserError(
            f"{settings.name}: use_vllm: is not true, but rollout-bench measures only generation with vLLM",
            "add use_vllm=true to the command to measure vLLM under the same load",
        )
    mode = _mode(settings)
    if mode == "server" and settings.get("generation_kwargs.n"):
        problem = f"generation_kwargs.n: 1 overrides the {settings.get('num_generations')} samples that TRL expects of"
        raise UserError(f"{settings.name}: {problem} a server", "add ~generation_kwargs.n to the command")
    settings.require(
        *(() if mode == "server" and settings.get("server.model") else ("model_name_or_path",)),
        *(() if settings.get("accelerate_config") else ("num_processes",)),
        *(() if dumps or any(map(settings.get, LONGEST[mode])) else ("max_prompt_length",)),
    )
    step, step_args = _step(settings, mode)
    key = "server.model" if mode == "server" and not settings.get("model_name_or_path") else "model_name_or_path"
    path = settings.get(key) or settings.get("model_name_or_path", needed=True)
    passed_on = settings.engine_args(_unread(settings, mode))
    quant = QUANT_OF_DTYPE[passed_on.get("dtype", "auto")]
    name, place = model_name(path), weights(path, key)
    model = (place, passed_on.get("trust_remote_code", False))
    lengths, longest, lines = _load(settings, mode, step.part(one_engine), model, dumps, file)
    on_cpu = settings.get("use_cpu")
    platform = "cpu" if on_cpu else found_device()
    config: dict[str, Any] = {
        "platform": platform,
        "models": [name],
        "quants": [quant],
        "workloads": [WORKLOAD],
        **step.rollout(one_engine),
        "model_settings": {name: {"weights": {quant: place}}},
        **quant_keys(quant),
        "workload_settings": {
            WORKLOAD: {
                **lengths,
                **{name: _sampling_parameter(settings, name) for name in ("temperature", "top_p", "top_k")},
                "engine_args": _engine_args(settings, mode, step_args, longest),
            }
        },
    }
    head = (
        f"A step of {trainer.upper()}: {step.description} ({mode}).",
        *(() if on_cpu else (FOUND.format("TRL", platform, NPUS),)),
        *step.measured(one_engine, _dealt(step), "the other engines, and the wait for the slowest one"),
        REQUESTS,
        *(() if lines else (FULL_LENGTH, *_prompts_of_rest(settings, mode, lengths["prompt_tokens"]))),
        f"Not measured here: {BESIDE[mode]} and training.{OF_WHOLE_STEPS}",
    )
    return MadeConfig(head, config, account(settings, _unread(settings, mode)), tuple(lines))


def _prompts_of_rest(settings: TrainerFile, mode: str, prompt: int) -> tuple[str, ...]:
    """Return a line on prompts that fill what answers leave of a sequence; empty if the settings give their length."""
    if settings.get("max_prompt_length"):
        return ()
    name = next(name for name in LONGEST[mode] if settings.get(name))
    return (f"Each prompt has {prompt:,} tokens, what an answer leaves of {name}; max_prompt_length=N sets fewer.",)


def trl_cycle(settings: TrainerFile, made: MadeConfig) -> MadeConfig:
    """Return the config of one engine's whole step; `made` is the config of its generation."""
    sleeps = _mode(settings) == "colocate" and settings.get("vllm_enable_sleep_mode")
    account_lines = account(settings, _unread(settings, _mode(settings), WHOLE_STEP))
    return cycle(made, account_lines, None if sleeps else "none", settings.name)


def trl_placement(settings: TrainerFile, made: MadeConfig, log: Path | None = None) -> MadeConfig:
    """Return the config that compares shared and parted devices.

    A training with a server has the server's devices in addition to one for each process.

    Args:
        settings: TRL's settings, whose keys for both modes are read.
        made: the config that measures the generation of the step.
        log: TRL's log, which has the time of training.

    Raises:
        UserError: if the log or the model can't be used, or the processes can't be divided among engines.
    """
    processes, (served, server) = _processes(settings), _step(settings, "server")
    generators = served.engines * server["tensor_parallel_size"]
    with_server = _mode(settings) == "server"
    devices = processes + (generators if with_server else 0)
    _, colocated = _step(settings, "colocate", devices)
    together = processes * settings.get("per_device_train_batch_size") * settings.get("gradient_accumulation_steps")
    trained = served.sequences * settings.get("num_iterations")  # by each generation, in all
    waves = max(1, together // trained)
    updates = waves * trained / together
    prompts = [line["prompt_tokens"] for line in made.trace] or [
        made.config["workload_settings"][WORKLOAD]["prompt_tokens"]
    ]
    planned = placement(
        made,
        account(settings, _unread(settings, *LONGEST, WHOLE_STEP)),
        settings.name,
        {
            where: _engine_args(settings, mode, step_args, _lengths(settings, mode, max(prompts))[-1])
            for where, mode, step_args in (("colocated", "colocate", colocated), ("server", "server", server))
        },
        trl_time(log, processes, updates, waves) if log else None,
        devices=devices,
        generators=generators,
        sleep="2" if settings.get("vllm_enable_sleep_mode") else None,
        shards=_shards(settings),
        served=server["tensor_parallel_size"] == 1,
        waves=waves,
    )
    place, other = ("colocated", processes) if with_server else ("server", processes + generators)
    unequal = (
        f"For {processes} colocated devices against {processes} + {generators}, as TRL has them where only vllm_mode "
        f"changes: rollout-bench run --config 'setting_settings={{{place}: {{placement: {{devices: {other}}}}}}}'"
    )
    planned = replace(planned, head=(*planned.head, unequal))
    has_adapter = settings.written("use_peft") not in (NOT_THERE, None, False)
    return trained_whole(planned) if has_adapter and not log else planned


def _processes(settings: TrainerFile) -> int:
    """Return the number of processes, which accelerate's file has where the settings lack it.

    Raises:
        UserError: if neither has it, or the file can't be read.
    """
    if settings.has("num_processes") or settings.get("accelerate_config") is None:
        return int(settings.get("num_processes", needed=True))
    written = _accelerate(settings).get("num_processes")
    return int(settings.registry.keys["num_processes"].value(written, settings.get("accelerate_config")))


def _accelerate(settings: TrainerFile) -> dict[str, Any]:
    """Return the content of accelerate's file, empty without one; raise `UserError` if it can't be read."""
    file = settings.get("accelerate_config")
    remedy = "add accelerate_config=FILE to the command: that of accelerate launch --config_file"
    return {} if file is None else read_mapping(Path(file), "settings of accelerate", remedy)


def _shards(settings: TrainerFile) -> bool:
    """Return whether each training device has only a part of the parameters: with FSDP, or DeepSpeed's ZeRO 3.

    Raises:
        UserError: if accelerate's file or DeepSpeed's can't be read.
    """
    accelerate, (fsdp, deepspeed) = _accelerate(settings), map(settings.written, ("fsdp", "deepspeed"))
    if deepspeed is NOT_THERE and accelerate.get("distributed_type") == "DEEPSPEED":
        deepspeed = mapping(accelerate.get("deepspeed_config"))
        deepspeed = deepspeed.get(
            "deepspeed_config_file", {"zero_optimization": {"stage": deepspeed.get("zero_stage")}}
        )
    if isinstance(deepspeed, str):
        deepspeed = read_mapping(Path(deepspeed), "settings of DeepSpeed", "add deepspeed=FILE to the command")
    if fsdp is NOT_THERE and accelerate.get("distributed_type") == "FSDP":
        fsdp = mapping(accelerate.get("fsdp_config")).get("fsdp_sharding_strategy", "FULL_SHARD")
    has_zero_3 = isinstance(deepspeed, dict) and mapping(deepspeed.get("zero_optimization")).get("stage") == 3
    return has_zero_3 or (fsdp is not NOT_THERE and bool(fsdp) and str(fsdp).upper() not in ("NO_SHARD", "3"))


def _unread(settings: TrainerFile, *runs: str) -> set[str]:
    """Return the keys that these kinds of run do not read; accelerate's file, if it is not there."""
    file = settings.get("accelerate_config")
    lacking = set() if file is None or Path(file).is_file() else {"accelerate_config"}
    return {key.path for key in settings.registry.keys.values() if key.run not in ("", *runs)} | lacking


def _engine_args(settings: TrainerFile, mode: str, step_args: Mapping[str, Any], longest: int) -> dict[str, Any]:
    passed_on = settings.engine_args(_unread(settings, mode))
    return {**step_args, "max_model_len": longest, "logprobs_mode": "processed_logprobs", **passed_on}


def _dealt(step: TrainerStep) -> str:
    if step.router == "sticky":
        return "The router, sticky, keeps the samples of a prompt on one engine, as TRL does."
    return (
        f"Engines get as many sequences as in TRL, {step.share.sequences} each. There they are samples of"
        f" {several(step.share.distinct, 'prompt')} or one more; the router, round_robin, spreads them over"
        f" {step.met_in_turn}."
    )


def _sampling_parameter(settings: TrainerFile, name: str, key: str = "") -> Any:
    """Return a sampling parameter: generation_kwargs override `key`, by default the key of the same name."""
    overriding = settings.get(f"generation_kwargs.{name}")
    return settings.get(key or name) if overriding is None else overriding


def _mode(settings: TrainerFile) -> str:
    """Return the mode, from the newest key that is set: vllm_mode, vllm_colocation, vllm_tp or a `server` section.

    Raises:
        UserError: if only the address of a server is set.
    """
    colocated = settings.get("vllm_colocation")
    served = settings.has_section("server") and not settings.get("vllm_tp")
    by_older_keys = served if colocated is None else not colocated
    is_told = served or settings.get("vllm_mode") or colocated is not None or settings.get("vllm_tp")
    address = next((key for key in OF_A_SERVER if settings.has(key)), None)
    if address is not None and not is_told:
        raise UserError(
            f"{settings.name}: {address}: only a server has an address, but vllm_mode does not say server",
            "add vllm_mode=server, as TRL before 1.0 runs this file, or vllm_mode=colocate, as TRL 1.x does",
        )
    return str(settings.get("vllm_mode") or ("server" if by_older_keys else "colocate"))


def _step(settings: TrainerFile, mode: str, devices: int | None = None) -> tuple[TrainerStep, dict[str, Any]]:
    """Return the step, and the engine arguments that depend on the mode.

    Args:
        settings: TRL's settings.
        mode: colocate or server.
        devices: devices of colocated engines, if they are not one for each process.

    Raises:
        UserError: if the batch sizes contradict each other, the sequences form no whole groups, or the processes can't
            be divided by the size of tensor parallelism.
    """
    processes, per_device = _processes(settings), settings.get("per_device_train_batch_size")
    at_once = processes * per_device
    steps, batch = settings.get("steps_per_generation"), settings.get("generation_batch_size")
    if steps is not None and batch is not None:
        raise UserError(
            f"{settings.name}: steps_per_generation and generation_batch_size are both set",
            "TRL accepts only one: add ~generation_batch_size to the command",
        )
    if batch is not None and batch % at_once:
        raise UserError(
            f"{settings.name}: generation_batch_size: {batch} is no multiple of {at_once},"
            f" {processes} processes with {per_device} sequences each",
            f"set it to {math.ceil(batch / at_once) * at_once}",
        )
    steps = batch // at_once if batch is not None else steps or settings.get("gradient_accumulation_steps")
    samples = settings.get("num_generations")
    sequences = at_once * steps
    if sequences % samples:
        raise UserError(
            f"{settings.name}: num_generations: {samples} does not divide the {sequences} sequences of a step,"
            f" {processes} processes x {per_device} x {steps}",
            "set per_device_train_batch_size, gradient_accumulation_steps or num_generations so that it does",
        )
    prompts, at = sequences // samples, "server." if mode == "server" else "vllm_"
    is_one = mode == "colocate" and settings.get("vllm_tp")
    among = devices or processes
    tensor = among if is_one else settings.get(f"{at}tensor_parallel_size")
    step_args = {"tensor_parallel_size": tensor, "gpu_memory_utilization": settings.get(f"{at}gpu_memory_utilization")}
    if mode == "server":
        return TrainerStep(prompts, samples, settings.get("server.data_parallel_size"), "prompts"), step_args
    if among % tensor:
        raise UserError(
            f"{settings.name}: vllm_tensor_parallel_size: {tensor} does not divide the {among} processes",
            "set it to a divisor of num_processes",
        )
    file = settings.get("accelerate_config")  # needed for nothing where the processes are told
    machines = _accelerate(settings).get("num_machines") if file and Path(file).is_file() else 1
    if isinstance(machines, int) and machines > 1 and tensor > (node := max(processes // machines, 1)):
        raise UserError(
            f"{settings.name}: vllm_tensor_parallel_size: an engine has {tensor} devices and a node {node}, and an"
            " engine over several nodes cannot be measured, also not with --one-engine",
            f"set it to {node} or less; on a machine with more devices, correct num_machines in accelerate's file",
        )
    step_args |= {"max_num_seqs": per_device * steps * tensor, "max_num_batched_tokens": COLOCATED_BATCHED_TOKENS}
    return TrainerStep(prompts, samples, among // tensor, "runs"), step_args


def _load(
    settings: TrainerFile, mode: str, part: StepPart, model: tuple[str, bool], dumps: Path | None, file: Path | None
) -> tuple[dict[str, Any], int, list[dict[str, int]]]:
    """Return the workload keys, the maximum tokens of a sequence in an engine, and the lines of a trace."""
    if dumps is None:
        prompt, answer, longest = _lengths(settings, mode, 0)
        return part.workload(prompt) | {"prompt_tokens": prompt, "output_tokens": answer}, longest, []
    keys, lines = workload_and_trace(
        dumps, file, model, _sampling_parameter(settings, "max_tokens", "max_completion_length"), part, spread=False
    )
    return keys, _lengths(settings, mode, max(line["prompt_tokens"] for line in lines))[-1], lines


def _lengths(settings: TrainerFile, mode: str, recorded: int) -> tuple[int, int, int]:
    """Return the tokens of each prompt and each answer, and the maximum tokens of a sequence in an engine.

    `recorded` are the tokens of the longest recorded prompt, 0 without one: TRL cuts no prompts.

    Raises:
        UserError: if the length of prompts is unknown, or the maximum leaves no tokens for them.
    """
    answer = _sampling_parameter(settings, "max_tokens", "max_completion_length")
    most, name = next(((value, name) for name in LONGEST[mode] if (value := settings.get(name))), (None, ""))
    prompt = max(settings.get("max_prompt_length") or 0, recorded)
    if most is not None and most <= answer:
        raise UserError(
            f"{settings.name}: {name}: {most} leaves no room for a prompt beside answers of {answer} tokens",
            f"set it to more than {answer}, or max_completion_length to less",
        )
    if most is not None:
        prompt = min(prompt or most, most - answer)
    prompt = prompt or settings.get("max_prompt_length", needed=True)
    return prompt, answer, most or prompt + answer
