"""Checks of a config that pydantic can't make: names, engine arguments, lengths, devices."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout_bench.contracts.fields import flat
from rollout_bench.contracts.modes import MODES, PLACEMENT, ROLLOUT, STARTUP
from rollout_bench.contracts.spec import (
    ModelSpec,
    Spec,
    WorkloadSpec,
    devices_needed,
    devices_per_replica,
    replicas,
    replicas_key,
    tensor_parallel_size,
)
from rollout_bench.core.errors import UserError, did_you_mean
from rollout_bench.core.files import did_you_mean_folder
from rollout_bench.core.secrets import may_be_secret, without_secrets
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.quants import known_quants

OWN_ARGS = frozenset(
    {"model", "worker_extension_cls", "disable_log_stats", "served_model_name", "host", "port", "api_key"}
)
"""Engine arguments that the measuring command sets itself, those of a server's front end too."""


PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""Engine arguments whose product is how many devices a launch takes."""

MOST = {
    **dict.fromkeys(PARALLEL, 1024),
    **dict.fromkeys(("max_num_seqs", "block_size"), 1_000_000),
    **dict.fromkeys(("max_model_len", "max_num_batched_tokens"), 1_000_000_000),
    "kv_cache_memory_bytes": 1 << 60,
}
"""Engine arguments that are counts, and numbers far beyond what any engine could be started with."""

BLOCK, SMALL_BLOCKS = 16, (1, 8)
"""Tokens of a block of the KV cache that attention kernels take multiples of; some take these (vLLM 0.32, read)."""

MOST_OF_ANY = (1 << 63) - 1
"""No argument is a number of more than 64 bits."""

DEEPEST_ARG = 32
"""Levels of lists and mappings inside one engine argument: a spec nested far deeper can't be written."""

OWN_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "leave it out: mode and platform decide",
    "VLLM_TARGET_DEVICE": "set platform instead",
    "PYTHONPATH": "install what the engine needs into its Python, or set engine.python",
    "VLLM_API_KEY": "leave it out: each server gets a key of its own",
    "VLLM_SERVER_DEV_MODE": "leave it out: the server is asked for its weights through it, and needs a key for that",
    "TMPDIR": "leave it out: the engine gets a temporary folder of its own, below the TMPDIR of the workflow",
    **dict.fromkeys(
        ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "CPU_VISIBLE_MEMORY_NODES"),
        "leave it out: each launch gets devices of its own, of those that are visible where you run snakemake",
    ),
}
"""Environment variables that the measuring command sets itself, and what to do instead."""

INHERITED_VARIABLES = ("PATH", "PYTHONHOME")
"""Environment variables that an engine finds programs (lscpu, a compiler) and its Python's own modules by."""


THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
"""Variables that Snakemake sets for each job to the job's threads; the rules that launch an engine take them out."""


def dropped_variables(config: Config, shell: Mapping[str, str]) -> Iterator[str]:
    """Yield two lines on the variables that the shell sets and no engine is given; none where there are none."""
    names = [name for name in THREAD_VARIABLES if name in shell and name not in config.engine.environment]
    if names:
        yield f"{', '.join(names)} of your shell: given to no engine, since Snakemake sets it anew for each job"
        yield f"  -> engine: {{environment: {{{names[0]}: '{shell[names[0]]}'}}}} gives it to all of them"


def check_model_base(folder: Path) -> None:
    """Raise `UserError` where `folder` can't be a folder."""
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"config: model_base: {folder}: is a file", "set model_base to a folder")
    except OSError as error:
        raise UserError(f"config: model_base: {folder}: {error.strerror}", "set model_base to a folder") from None


def check_model_base_can_be_written(folder: Path) -> None:
    """Raise `UserError` where no synthetic checkpoint can be built below `folder`."""
    there = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK) or there.absolute().is_relative_to("/proc"):
        raise UserError(
            f"config: model_base: {folder}: synthetic models can't be built there: {there} can't be written",
            "set model_base to a folder that you may write",
        )


def absent_model(folder: Path) -> UserError | None:
    """Return what is wrong with the folder that an engine is to load a model from; None where it holds one."""
    if (folder / "config.json").is_file():
        return None
    if folder.is_dir():
        return UserError(f"{folder}: no model there: it has no config.json", "set model_base, or the model's weights")
    return UserError(
        f"{folder}: no model there: no such folder",
        did_you_mean_folder(folder) or "set model_base, or the model's weights",
    )


def check_weights(config: Config, models: Iterable[tuple[ModelSpec, str]]) -> None:
    """Raise `UserError` where weights that were named are not on this machine, which is to measure them.

    Where not even the folder that they are named below is here, nobody can say: the config may be planned for another
    machine. Nor do we say it of pods, which mount their own, and the workflow builds synthetic models itself.

    Args:
        config: what is planned.
        models: each model that is loaded, and where its weights are to be found.
    """
    if config.kubernetes.image is not None:
        return
    for model, path in models:
        if model.weights is None or model.weights.startswith("hub:"):
            continue
        folder = Path(path)
        below = folder.parent if Path(model.weights).expanduser().is_absolute() else Path(config.model_base)
        absent = absent_model(folder) if below.is_dir() else None
        if absent is not None:
            raise UserError(f"config: model_settings.{model.name}.weights: {absent.problem}", absent.remedy)


def check_variables(config: Config) -> None:
    """Raise `UserError` for a variable that the measuring command sets itself, or that each launch has to inherit."""
    for place, variables in _environments(config):
        for name in variables:
            if name in OWN_VARIABLES:
                raise UserError(f"config: {place}.{name}: is set by rollout-bench itself", OWN_VARIABLES[name])
            if name in INHERITED_VARIABLES:
                raise UserError(
                    f"config: {place}.{name}: would replace what each launch needs as it is where snakemake runs",
                    f"leave it out: export {name} where you run snakemake, and the engine inherits it",
                )


def check_no_secrets(config: Config) -> None:
    """Raise `UserError` for a setting that may be a secret: all of them end in specs, records and manifests."""
    for place, settings in (*_environments(config), *engine_args_in(config)):
        check_no_secret(place, settings)


def check_no_secret(
    place: str, settings: Mapping[str, Any], is_secret: Callable[[str, str], bool] = may_be_secret
) -> None:
    """Raise `UserError` where one of the settings that stand at `place`, however deep, may be a secret."""
    for name in without_secrets(settings, is_secret, place)[1]:
        raise UserError(
            f"config: {name}: may be a secret, and would stand in spec.json, records and manifests",
            "take it out and export it as an environment variable where you run snakemake: the engine inherits it"
            " (on Kubernetes: kubernetes.secrets)",
        )


def check_names(config: Config) -> None:
    """Raise `UserError` for a model, quant, mode or workload that is selected and not defined, and the like."""
    for key, names, known in (
        ("modes", config.modes, set(MODES)),
        ("models", config.models, set(config.model_settings)),
        ("quants", config.quants, known_quants(config.quant_settings)),
        ("workloads", config.workloads, set(config.workload_settings)),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"config: {key}: {key[:-1]} '{name}' is not defined", did_you_mean(name, known))
    _check_launches(config)
    quants = known_quants(config.quant_settings)
    for model, settings in config.model_settings.items():
        for quant in settings.weights:
            if quant not in quants:
                raise UserError(
                    f"config: model_settings.{model}.weights: quant '{quant}' is not defined",
                    did_you_mean(quant, quants),
                )
        if settings.weights and settings.synthetic is not None:
            raise UserError(
                f"config: model_settings.{model}: has both weights and synthetic",
                "keep one: weights that exist, or a shape to build",
            )
    values: dict[str, Collection[str]] = {
        "quant": quants,
        "model": {*config.model_settings, *(e.model_name or name for name, e in config.endpoints.items())},
        "workload": config.workload_settings,
    }
    for axis, value in config.baseline.named.items():
        if axis in values and value not in values[axis]:
            raise UserError(
                f"config: baseline.{axis}: {axis} '{value}' is not defined", did_you_mean(value, values[axis])
            )


def _check_launches(config: Config) -> None:
    """Raise `UserError` for launches of a mode that there is not, or of which one launch is all there is to it."""
    for mode, launches in config.launches.items() if isinstance(config.launches, dict) else ():
        if mode not in MODES:
            raise UserError(f"config: launches: mode '{mode}' is not defined", did_you_mean(mode, MODES))
        if MODES[mode].launches == "one" and launches > 1:
            raise UserError(
                f"config: launches.{mode}: is {launches}, and a {mode} is one look, compared step by step",
                "set it to 1, or leave it out",
            )


def check_engine_args(config: Config, engine: InstalledEngine) -> None:
    """Raise `UserError` for an argument that the engine does not know, or whose value no engine could take."""
    for place, args in engine_args_in(config):
        for name, value in args.items():
            check_engine_arg(engine, f"{place}.{name}", name, value)


def engine_args_in(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each place where a config has engine arguments, and what stands there."""
    # first: under a setting they stand among the model's too, where nobody wrote them
    yield from (
        (f"setting_settings.{n}.engine_args", s.get("engine_args", {})) for n, s in config.setting_settings.items()
    )
    yield "engine_args", config.engine_args
    yield from ((f"model_settings.{n}.engine_args", s.engine_args) for n, s in config.model_settings.items())
    yield from ((f"quant_settings.{n}.engine_args", s.engine_args) for n, s in config.quant_settings.items())
    yield from ((f"workload_settings.{n}.engine_args", s.engine_args) for n, s in config.workload_settings.items())


def _environments(config: Config) -> Iterator[tuple[str, dict[str, str]]]:
    yield "engine.environment", config.engine.environment
    for name, setting in config.setting_settings.items():
        yield f"setting_settings.{name}.engine.environment", setting.get("engine", {}).get("environment", {})


def check_engine_arg(engine: InstalledEngine, where: str, name: str, value: Any) -> None:
    """Raise `UserError` where the argument `name`, which stands at `where`, can't have this value."""
    if name in OWN_ARGS:
        raise UserError(f"config: {where}: is set by rollout-bench itself", "leave it out")
    if engine.arguments and name not in engine.arguments:
        raise UserError(
            f"config: {where}: {engine.name} {engine.version} has no such engine argument",
            did_you_mean(name.replace("-", "_"), engine.arguments) if name else "leave it out",
        )
    if value is None:
        return
    if name == "hf_token" and not isinstance(value, bool | str):
        raise UserError(
            f"config: {where}: is a secret", "export HF_TOKEN where you run snakemake: the engine inherits it"
        )
    if name in MOST and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"config: {where}: {value!r} is no count", "give a whole number from 1 up")
    if isinstance(value, int) and abs(value) > MOST.get(name, MOST_OF_ANY):
        most = MOST.get(name, MOST_OF_ANY)
        raise UserError(f"config: {where}: is more than any engine takes", f"give a whole number up to {most:,}")
    if name == "block_size" and value not in SMALL_BLOCKS and value % BLOCK:
        raise UserError(f"config: {where}: no attention has blocks of {value} tokens", f"give a multiple of {BLOCK}")
    if name == "gpu_memory_utilization" and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1
    ):
        raise UserError(f"config: {where}: {value!r} is no share of the memory", "give a number above 0 and up to 1")
    if _deeper_than(DEEPEST_ARG, value):
        raise UserError(f"config: {where}: is nested deeper than {DEEPEST_ARG} levels", "write it flatter")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(
            f"config: {where}: {value!r} can't be written as JSON",
            "put a text in quotes, dates and times too",
        ) from None


def _deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(levels - 1, each) for each in inner)


def check_lengths(model: str, workload: str, longest: tuple[int, int], args: dict[str, Any], source: ModelSpec) -> None:
    """Raise `UserError` where a workload's `longest` sequence is longer than the engine or the model takes."""
    prompt_tokens, output_tokens = longest
    wanted = prompt_tokens + output_tokens
    limit = args["max_model_len"]
    if isinstance(limit, int) and wanted > limit:
        raise UserError(
            f"config: workload_settings.{workload}: {prompt_tokens} prompt + {output_tokens} output tokens"
            f" = {wanted} are more than max_model_len {limit} of {model}",
            f"raise max_model_len to {wanted}, or shorten the workload",
        )
    positions = (source.synthetic or {}).get("max_position_embeddings")
    if positions is not None and wanted > positions:
        raise UserError(
            f"config: model_settings.{model}.synthetic: workload {workload} needs {wanted} positions, the model has"
            f" {positions}",
            f"set max_position_embeddings to {wanted} or more, or shorten the workload",
        )


SIZE = "data_parallel_size"

USUAL_UTILIZATION = 0.92
"""vLLM's gpu_memory_utilization where nothing is said; on cpu it is of the machine's memory (vLLM 0.32, ran)."""


def args_in(mode: str, config: Config, args: dict[str, Any]) -> dict[str, Any]:
    """Return `args` with the number of replicas that a launch in `mode` has: none where it measures one engine.

    What `rollout.replicas` says stands in specs as the engine argument does, so that whatever asks how many engines
    a launch has finds it in one place.

    Raises:
        UserError: the two say different things.
    """
    if MODES[mode].data_parallel == "one":
        return {name: value for name, value in args.items() if name != SIZE}
    wanted = config.rollout.replicas
    if mode != ROLLOUT.name or wanted is None:
        return args
    if args.get(SIZE) not in (None, wanted):
        raise UserError(
            f"config: rollout.replicas: is {wanted}, and {SIZE} in engine_args is {args[SIZE]}",
            "leave one of them out: both are how many engines a launch has",
        )
    return {**args, SIZE: wanted} if wanted > 1 else {name: value for name, value in args.items() if name != SIZE}


def workload_in(mode: str, workload: WorkloadSpec) -> WorkloadSpec:
    """Return `workload` as it is asked for in `mode`: a rollout's with log probabilities, as trainers want them.

    A start ends with the first token of one prompt.
    """
    if mode == STARTUP.name:
        return workload.model_copy(update={"prompts": 1, "samples_per_prompt": 1, "output_tokens": 1})
    if mode != ROLLOUT.name or workload.logprobs is not None:
        return workload
    return workload.model_copy(update={"logprobs": 0})


def check_data_parallel(config: Config, spec: Spec) -> None:
    """Raise `UserError` where the replicas or the devices of an experiment can't be had as the config wants it."""
    count, each, model, key = replicas(spec), devices_per_replica(spec), spec.model.name, replicas_key(spec)
    if config.devices is not None and devices_needed(spec) > config.devices:
        if spec.placement is not None:
            each, key = devices_needed(spec), f"{PLACEMENT.settings}.devices"
        needed = f"{count} replicas x {each} = {devices_needed(spec)}" if count > 1 else str(each)
        raise UserError(
            f"config: devices: a launch of {model} needs {needed} devices at once, more than {config.devices}",
            f"raise devices, or lower {key if count > 1 or spec.placement is not None else 'tensor_parallel_size'}",
        )
    _check_colocated_memory(spec)
    _check_share(config, spec)
    if count == 1:
        return
    if MODES[spec.mode].data_parallel == "refused":
        if not MODES[spec.mode].has_loads:
            raise UserError(
                f"config: {SIZE}: {model} has {count} replicas, and {spec.mode} mode measures one engine",
                f"leave {SIZE} out, or leave {spec.mode} out of modes",
            )
        raise UserError(
            f"config: {SIZE}: {model} has {count} replicas, and {spec.mode} mode measures one engine behind one server",
            f"leave {spec.mode} out of modes, or start the replicas and their router yourself and name that in"
            " endpoints",
        )
    if spec.platform == "cpu" and not _memory_is_shared_out(spec, count):
        raise UserError(
            f"config: {key}: {model} has {count} replicas, which share the machine's memory on cpu; each would take "
            f"{spec.engine.args.get('gpu_memory_utilization', USUAL_UTILIZATION)} of it",
            f"set kv_cache_memory_bytes in engine_args, or gpu_memory_utilization to less than 1/{count}",
        )
    for name, value in spec.engine.args.items():
        if name.startswith("data_parallel_") and name != SIZE and value is not None:
            raise UserError(
                f"config: {name}: is of vLLM's own data parallel; {model} has {count} replicas that are whole engines",
                f"leave it out: {key} is all that replicas need",
            )


_OF_WHOLE_STEPS = (ROLLOUT.name, PLACEMENT.name, STARTUP.name)
"""Modes whose engines share a step out, and the one that asks for a single token."""


def _check_share(config: Config, spec: Spec) -> None:
    """Raise `UserError` where one engine would get the workload that `rollout.replicas` engines share."""
    engines = config.rollout.replicas or 1
    if engines > 1 and spec.endpoint is None and spec.mode not in _OF_WHOLE_STEPS:
        raise UserError(
            f"config: rollout.replicas: workload {spec.workload.name} is a step that {engines} engines share, and in "
            f"{spec.mode} mode one engine would get all of it",
            f"measure one engine's part: from-verl and from-trl make it with --one-engine; or leave {spec.mode} out of "
            "modes; or set rollout.replicas to null where the workload is one engine's already",
        )


WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "cpu": {"VLLM_BATCH_INVARIANT": "vLLM has no batch-invariant linear layers on cpu"},
}
"""Environment variables by the platform on which they do not do what they say (vLLM 0.32, read), and why."""


def check_effects(spec: Spec, model: Path) -> None:
    """Raise `UserError` where a setting could not do anything in a launch of `spec`, whose weights lie at `model`."""
    args, why = spec.engine.args, WITHOUT_EFFECT.get(spec.platform, {})
    leave = "leave it out: what it does would not be measured"
    if args.get("enable_lora"):
        raise UserError("config: enable_lora: no request of a launch names an adapter, so none would be used", leave)
    if args.get("enable_return_routed_experts") and _is_dense(spec, model):
        raise UserError(f"config: enable_return_routed_experts: {spec.model.name} has no experts", leave)
    for name, value in spec.engine.environment.items():
        if name in why and value not in ("", "0"):
            raise UserError(f"config: engine.environment.{name}: {why[name]}", leave)


def _is_dense(spec: Spec, model: Path) -> bool:
    """Return whether the model is known to have no experts."""
    try:
        shape = spec.model.synthetic or json.loads((model / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    said = flat(shape) if isinstance(shape, dict) else ()
    return bool(shape) and not any("expert" in name and value not in ("0", "unknown") for name, value in said)


def _check_colocated_memory(spec: Spec) -> None:
    said = [spec.engine.args.get(name) for name in ("kv_cache_memory_bytes", "gpu_memory_utilization")]
    colocated = spec.placement is not None and spec.placement.generators is None
    if colocated and spec.platform != "cpu" and said == [None, None]:
        sleeps = spec.placement is not None and spec.placement.sleep is not None
        raise UserError(
            f"config: gpu_memory_utilization: a colocated engine of {spec.model.name} would take {USUAL_UTILIZATION} "
            + (
                "of its device, beside what its trainer keeps"
                if sleeps
                else "of its device, and leave the trainer nothing"
            ),
            f"set it in engine_args to what the trainer leaves, such as {0.8 if sleeps else 0.5}",
        )


def _check_placed_here(spec: Spec) -> None:
    shares = 1 if spec.placement is None else len(spec.placement.generating)
    if spec.platform == "cpu" and shares > 1 and not _memory_is_shared_out(spec, shares):
        share = spec.engine.args.get("gpu_memory_utilization", USUAL_UTILIZATION)
        what = "engines" if tensor_parallel_size(spec) == 1 else "shards of engines"
        raise UserError(
            f"config: placement.devices: {shares} {what} of {spec.model.name} share the machine's memory on cpu, and "
            f"each would take {share} of it",
            "set kv_cache_memory_bytes in engine_args",
        )


def check_devices_here(specs: Iterable[Spec], there: int) -> None:
    """Raise `UserError` where a launch needs more devices than the machine has that is to measure it.

    Args:
        specs: what is planned.
        there: devices that are visible; on cpu cores, of which each process of an engine needs one at the least.
    """
    for spec in specs:
        _check_placed_here(spec)
        sizes = {name: int(spec.engine.args.get(name) or 1) for name in PARALLEL}
        if spec.placement is not None:
            sizes = {f"{PLACEMENT.settings}.devices": spec.placement.devices}
        needed = math.prod(sizes.values())
        if spec.endpoint is None and needed > there:
            largest = max(sizes, key=lambda name: sizes[name])
            where, remedy = largest, f"lower {largest}"
            if spec.rollout is not None and replicas(spec) > 1:  # fewer engines would have more to do each
                where = replicas_key(spec)
                remedy = "make one engine's part of the step (from-verl, from-trl: --one-engine)"
            raise UserError(
                f"config: {where}: a launch of {spec.model.name} needs {needed} "
                f"{'cores' if spec.platform == 'cpu' else 'devices'}, and there are {there} here",
                f"{remedy}, or plan for the cluster that has them (--profile profiles/slurm)",
            )


def _memory_is_shared_out(spec: Spec, count: int) -> bool:
    """Return whether `count` engines find as much memory as they will ask for, as far as can be known beforehand."""
    args, variables = spec.engine.args, {*spec.engine.environment, *os.environ}
    if args.get("kv_cache_memory_bytes") is not None or "VLLM_CPU_KVCACHE_SPACE" in variables:
        return True
    return count * float(args.get("gpu_memory_utilization") or USUAL_UTILIZATION) < 1
