"""Checks of a config that pydantic can't make: names, engine arguments, and what each mode needs or refuses."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from rollout_bench.contracts import message_places
from rollout_bench.contracts.load import EndpointSpec, LoadPoint, LoadSpec, longest
from rollout_bench.contracts.modes import MESSAGES, MODES, ONLINE, PROFILE, ROLLOUT
from rollout_bench.contracts.secrets import may_be_secret, secrets_in
from rollout_bench.contracts.spec import (
    EngineSpec,
    MeasuringSpec,
    ModelSpec,
    OperatorsSettings,
    Platform,
    QuantSpec,
    RolloutSpec,
    Spec,
    WorkloadSpec,
    decode_batch,
    devices_needed,
    devices_per_replica,
    replicas,
    replicas_key,
)
from rollout_bench.core.errors import UserError, did_you_mean, near_miss
from rollout_bench.core.files import did_you_mean_folder
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import ANYTHING, InstalledEngine, accepted, unknown_key
from rollout_bench.plan.quants import known_quants
from rollout_bench.plan.serving import Endpoint

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

MOST_OF_ANY = (1 << 63) - 1
"""No argument is a number of more than 64 bits."""

DEEPEST_ARG = 32
"""Levels of lists and mappings inside one engine argument: a spec nested far deeper can't be written."""

OWN_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "set engine.multiprocess instead",
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
    for place, settings in (*_environments(config), *_engine_args(config)):
        check_no_secret(place, settings)


def check_no_secret(place: str, settings: Mapping[str, Any]) -> None:
    """Raise `UserError` where one of the settings that stand at `place` may be a secret."""
    name = next(secrets_in(settings), None)
    if name is not None:
        raise UserError(
            f"config: {place}.{name}: may be a secret, and would stand in spec.json, records and manifests",
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
        if settings.synthetic is not None and settings.weights:
            raise UserError(
                f"config: model_settings.{model}: has both weights and synthetic",
                "keep one: weights that exist, or a shape to build",
            )
    values: dict[str, Collection[str]] = {
        "quant": quants,
        "model": {*config.model_settings, *(e.model_name or name for name, e in config.endpoints.items())},
        "workload": config.workload_settings,
        "platform": get_args(Platform),
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


def check_earlier_baseline(config: Config) -> None:
    """Raise `UserError` where the baseline is of earlier results that are not there, or that can take no turns."""
    axis = config.baseline.earlier
    if config.launches == "auto" and axis is not None:
        raise UserError(
            f"config: launches: auto can't know when it is enough against a baseline that takes no turns ({axis})",
            "give launches a number",
        )
    folder = config.baseline.results
    if folder is not None and not Path(folder).is_dir():
        problem = "is not a folder" if Path(folder).exists() else "does not exist"
        raise UserError(
            f"config: baseline.results: {folder}: {problem}",
            did_you_mean_folder(Path(folder)) or "name a results folder, the one that holds offline/",
        )


def check_engine_args(config: Config, engine: InstalledEngine) -> None:
    """Raise `UserError` for an argument that the engine does not know, or whose value it could never take."""
    for place, args in _engine_args(config):
        for name, value in args.items():
            check_engine_arg(engine, f"{place}.{name}", name, value)


def _engine_args(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each place where a config has engine arguments, and what stands there."""
    # first: under a setting they stand among the model's too, where nobody wrote them
    yield from ((f"setting_settings.{n}.engine_args", s.engine_args) for n, s in config.setting_settings.items())
    yield "engine_args", config.engine_args
    yield from ((f"model_settings.{n}.engine_args", s.engine_args) for n, s in config.model_settings.items())
    yield from ((f"quant_settings.{n}.engine_args", s.engine_args) for n, s in config.quant_settings.items())
    yield from ((f"workload_settings.{n}.engine_args", s.engine_args) for n, s in config.workload_settings.items())


def _environments(config: Config) -> Iterator[tuple[str, dict[str, str]]]:
    yield "engine.environment", config.engine.environment
    yield from ((f"setting_settings.{n}.environment", s.environment) for n, s in config.setting_settings.items())


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
    if name in MOST and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"config: {where}: {value!r} is no count", "give a whole number from 1 up")
    if isinstance(value, int) and abs(value) > MOST.get(name, MOST_OF_ANY):
        most = MOST.get(name, MOST_OF_ANY)
        raise UserError(f"config: {where}: is more than any engine takes", f"give a whole number up to {most:,}")
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
    takes = accepted(engine.folder, name) if engine.folder is not None else ANYTHING
    if not takes.takes(value):
        near = near_miss(str(value), [str(choice) for choice in takes.choices])
        shown = "what stands there" if may_be_secret(name, str(value)) else repr(value)
        switch = takes.types == {bool} and not takes.choices
        problem = "neither true nor false" if switch else f"nothing that {engine.name} {engine.version} takes"
        raise UserError(
            f"config: {where}: {shown} is {problem}", f"did you mean '{near}'?" if near else f"write {takes.words}"
        )
    unknown = unknown_key(engine.folder, name, value) if engine.folder is not None else None
    if unknown is not None:
        raise UserError(
            f"config: {where}.{'.'.join(unknown.place)}: {engine.name} {engine.version} has no such key there",
            did_you_mean(unknown.place[-1], unknown.known),
        )


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
            f"config: model_settings.{model}.synthetic: workload {workload} needs {wanted} positions,"
            f" the model has {positions}",
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


def workload_in(mode: str, config: Config, workload: WorkloadSpec) -> WorkloadSpec:
    """Return `workload` as it is asked for in `mode`: a rollout's with log probabilities, as trainers want them."""
    if mode != ROLLOUT.name or not config.rollout.logprobs or workload.logprobs is not None:
        return workload
    return workload.model_copy(update={"logprobs": 0})


def check_data_parallel(config: Config, spec: Spec) -> None:
    """Raise `UserError` where the replicas or the devices of an experiment can't be had as the config wants it."""
    count, each, model, key = replicas(spec), devices_per_replica(spec), spec.model.name, replicas_key(spec)
    if config.devices is not None and devices_needed(spec) > config.devices:
        needed = f"{count} replicas x {each} = {devices_needed(spec)}" if count > 1 else str(each)
        raise UserError(
            f"config: devices: a launch of {model} needs {needed} devices at once, more than {config.devices}",
            f"raise devices, or lower {key if count > 1 else 'tensor_parallel_size'}",
        )
    if count == 1:
        return
    if MODES[spec.mode].data_parallel == "refused":
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


def check_devices_here(specs: Iterable[Spec], there: int) -> None:
    """Raise `UserError` where a launch needs more devices than the machine has that is to measure it.

    Args:
        specs: what is planned.
        there: devices that are visible; on cpu cores, of which each process of an engine needs one at the least.
    """
    for spec in specs:
        sizes = {name: int(spec.engine.args.get(name) or 1) for name in PARALLEL}
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


def multiprocess_by_default(platform: Platform, mode: str, load: LoadSpec | None) -> bool:
    """Return whether the engine core is a process of its own where the config does not say: as in offline mode.

    On CPU a profile then goes step by step; elsewhere the host's work would wait for the core's, and slow each step.
    Where it is not, front end and core send each other nothing.
    """
    return platform != "cpu" or load is not None or mode in (MESSAGES.name, ROLLOUT.name)


def load_in(mode: str, config: Config, workload: str, engine: InstalledEngine) -> LoadSpec | None:
    """Return how requests arrive in `mode` at a server, where it has one.

    A profile's server gets them all at once, as offline.
    """
    if MODES[mode].has_loads:
        return load_spec(config, workload, engine)
    if mode != PROFILE.name or config.profile.through != "server":
        return None
    return LoadSpec(
        points=(LoadPoint(),), cool_down_s=0.0, token_ids=True, harness="vllm", harness_version=engine.version
    )


ITERATIONS_OF_A_LOAD = 5
"""What `iterations: auto` comes to for each load; part of the key of each experiment that leaves it at that."""


def measuring_of(config: Config, mode: str) -> MeasuringSpec:
    """Return what a launch in `mode` does.

    How often passes are repeated is no setting of modes that look into the engine. With several loads behind one start
    there is no start-up for each to be measured against: auto is a number there.
    """
    passes, iterations = MODES[mode].passes, config.iterations
    if iterations == "auto" and MODES[mode].has_loads:
        iterations = ITERATIONS_OF_A_LOAD
    return MeasuringSpec(
        warmup_iterations=0 if passes == "none" else config.warmup_iterations,
        iterations=iterations if passes == "repeated" else 1,
    )


def check_iterations(config: Config) -> None:
    """Raise `UserError` where `iterations: auto` has no warm-up to take its number from."""
    if any(measuring_of(config, mode).iterations == "auto" for mode in config.modes) and not config.warmup_iterations:
        raise UserError(
            "config: iterations: auto takes its number from the warm-up, and warmup_iterations is 0",
            "set warmup_iterations to 1, or iterations to a number",
        )


def settings_of(mode: str, config: Config, workload: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return the field of the spec that only `mode` has, where it has one.

    Linear layers are timed at the batch of `workload` too, with these engine arguments.
    """
    if not MODES[mode].settings:
        return {}
    if mode == ROLLOUT.name:
        rollout, several = config.rollout, (args.get(SIZE) or 1) > 1
        shared = RolloutSpec(
            entry=rollout.entry, router=rollout.router if several else None, over_sample=rollout.over_sample or None
        )
        return {MODES[mode].settings: shared}
    settings, load = getattr(config, MODES[mode].settings), config.workload_settings[workload]
    if isinstance(settings, OperatorsSettings):
        settings = settings.with_batch(decode_batch(load.prompts, load.samples_per_prompt, args))
    return {MODES[mode].settings: settings}


CANT_ABORT = {
    "llm": "LLM.generate() can't be told to leave sequences, so nothing can be aborted",
    "server": "the server does not say what it had generated when a request is aborted, so waste can't be counted",
}
"""Entries of a rollout that can't send more than is needed, and why."""


def check_rollout(config: Config) -> None:
    """Raise `UserError` where rollout mode can't be had as the config wants it."""
    if ROLLOUT.name not in config.modes:
        return
    if config.engine.multiprocess is False:
        raise UserError(
            "config: engine.multiprocess: the engines of a rollout have their core in a process of its own",
            "set it to null, so that each mode has its default, or leave rollout out of modes",
        )
    if config.rollout.entry in CANT_ABORT and config.rollout.over_sample:
        raise UserError(
            f"config: rollout.over_sample: {CANT_ABORT[config.rollout.entry]}", "set rollout.entry to async"
        )
    for name in config.workloads:
        dataset = config.workload_settings[name].dataset
        if config.rollout.over_sample and dataset is not None and dataset.format == "trace":
            raise UserError(
                f"config: rollout.over_sample: further lines of workload {name}, a trace, are the next step's, so "
                "there are no more prompts to send",
                "set it to 0, or draw the lengths: prompt_tokens and output_tokens instead of dataset",
            )
        if config.workload_settings[name].requests == "per_prompt":
            raise UserError(
                f"config: workload_settings.{name}.requests: per_prompt leaves a router no sequences to hand out",
                "set it to per_sequence, or leave rollout out of modes",
            )


WINDOWS_SINCE = (0, 32)
"""vLLM whose server takes a window with /start_profile: read in 0.32, and not there in 0.23."""


def check_profile(config: Config, engine: InstalledEngine) -> None:
    """Raise `UserError` where profile mode can't be had as the config wants it."""
    if PROFILE.name not in config.modes:
        return
    release = tuple(int(part) for part in re.findall(r"\d+", engine.version)[:2])
    if config.profile.through == "server" and release < WINDOWS_SINCE:
        raise UserError(
            f"config: profile.through: the server of vLLM {engine.version} takes no window with /start_profile, so its"
            " trace could not be bounded",
            "set profile.through: engine, or use vLLM 0.32 or later",
        )
    if config.engine.multiprocess is False and config.profile.through == "server":
        raise UserError(
            "config: engine.multiprocess: a server's engine core is always a process of its own",
            "set it to null, so that each mode has its default, or set profile.through: engine",
        )
    if config.profile.phase == "prefill":
        return
    for name in config.workloads:
        if longest(config.workload_settings[name].output_tokens) < 2:
            raise UserError(
                f"config: profile.phase: workload {name} has no decode steps to trace: it generates one token",
                "set profile.phase to prefill, or ask for more output_tokens",
            )


def check_messages(config: Config, engine: InstalledEngine) -> None:
    """Raise `UserError` where messages mode can't be had as the config wants it, or with this engine."""
    if MESSAGES.name not in config.modes:
        return
    if config.engine.multiprocess is False:
        raise UserError(
            "config: engine.multiprocess: without a process of its own the engine core gets no messages",
            "set it to null, so that each mode has its default, or leave messages out of modes",
        )
    missing = message_places.moved(engine.folder) if engine.folder is not None else []
    if missing:
        raise UserError(
            f"config: modes: {engine.name} {engine.version}: {message_places.sentence(missing)}", message_places.REMEDY
        )
    for place, args in _engine_args(config):
        backend = args.get("distributed_executor_backend")
        if backend not in (None, "mp"):
            raise UserError(
                f"config: {place}.distributed_executor_backend: {backend!r} has other messages than those of mp",
                "leave it out, or leave messages out of modes",
            )
        if (args.get("pipeline_parallel_size") or 1) != 1:
            raise UserError(
                f"config: {place}.pipeline_parallel_size: messages between the stages of a pipeline are not looked at",
                "set tensor_parallel_size instead, or leave messages out of modes",
            )
    for name in config.workloads:
        if longest(config.workload_settings[name].output_tokens) < 2:
            raise UserError(
                f"config: modes: workload {name} generates one token, so it has no decode step to look at",
                "ask for more output_tokens, or leave messages out of modes",
            )


def check_batches(spec: Spec) -> None:
    """Raise `UserError` where the engine of `spec` can't run a batch of its messages at once."""
    limit = spec.engine.args.get("max_num_seqs")
    if spec.messages is not None and limit is not None and spec.messages.batches[-1] > limit:
        raise UserError(
            f"config: messages.batches: {spec.messages.batches[-1]} sequences are more than max_num_seqs {limit} of "
            f"{spec.model.name} under {spec.workload.name}",
            "raise max_num_seqs, or set messages.batches to smaller ones, such as [4, 32]",
        )


UNKNOWN = "unknown"
"""What stands where nobody can know: another's server tells neither its engine's settings nor its weights."""


def load_spec(config: Config, workload: str, engine: InstalledEngine) -> LoadSpec:
    """Return how the requests of `workload` arrive at a server."""
    load = config.workload_settings[workload].online
    return load.to(
        LoadSpec,
        points=load.points,
        token_ids=load.prompts_as == "token_ids",
        harness=config.harness,
        harness_version=engine.version if config.harness == "vllm" else engine.harnesses[config.harness],
    )


def check_online(config: Config, engine: InstalledEngine) -> None:
    """Raise `UserError` where online mode can't be had as the config wants it."""
    if ONLINE.name not in config.modes:
        if config.endpoints and not config.models:
            raise UserError("config: modes: endpoints are measured online, and modes has no online", "add it to modes")
        return
    if config.engine.multiprocess is False:
        raise UserError(
            "config: engine.multiprocess: a server's engine core is always a process of its own",
            "set it to null, so that each mode has its default, or leave online out of modes",
        )
    if config.harness != "vllm" and config.harness not in engine.harnesses:
        raise UserError(
            f"config: harness: {config.harness} is not installed in {engine.python}",
            f"install it there (requirements/{config.harness}.in has the version), or set harness: vllm",
        )
    for name in config.workloads:
        check_can_be_sent(config, name)
    labels: dict[tuple[str, str], str] = {}
    for name, endpoint in config.endpoints.items():
        if config.harness == "guidellm" and endpoint.headers:
            raise UserError(
                f"config: endpoints.{name}.headers: guidellm would write them, secrets included, into its report",
                "leave them out (the key of api_key_env is kept out of it), or set harness: vllm",
            )
        first = labels.setdefault((endpoint.model_name or name, endpoint.quant), name)
        if first != name:
            raise UserError(
                f"config: endpoints.{name}: is called {endpoint.model_name or name} {endpoint.quant}, as {first} is",
                "give one of them another model_name or quant: tables could not tell them apart",
            )


def check_can_be_sent(config: Config, name: str) -> None:
    """Raise `UserError` where the load of a workload can't be sent as it is described."""
    load, where = config.workload_settings[name], f"config: workload_settings.{name}"
    if load.requests == "per_prompt":
        raise UserError(
            f"{where}.requests: per_prompt hides the latency of each sequence, so it can't be measured online",
            "set it to per_sequence, or leave online out of modes",
        )
    if config.harness == "guidellm" and load.online.prompts_as == "token_ids":
        raise UserError(
            f"{where}.online.prompts_as: token_ids: guidellm sends prompts as text only",
            "set it to text (prompt lengths are then only about as asked, and flagged), or set harness: vllm",
        )


def endpoint_parts(name: str, endpoint: Endpoint) -> tuple[ModelSpec, QuantSpec, EngineSpec, EndpointSpec]:
    """Return what a spec says of a server that is up already."""
    return (
        ModelSpec(name=endpoint.model_name or name, weights=None, synthetic=None),
        QuantSpec(name=endpoint.quant, weights_format=UNKNOWN, linear_dtypes=(), linear_method=""),
        EngineSpec(name=UNKNOWN, version=UNKNOWN, plugins={}, multiprocess=True, environment={}, args={}),
        endpoint.to(EndpointSpec),
    )


def endpoint_cells(config: Config) -> Iterator[tuple[str, Endpoint, str]]:
    """Name and settings of each endpoint with each workload, where online is selected."""
    if ONLINE.name in config.modes:
        for name, endpoint in config.endpoints.items():
            for workload in config.workloads:
                yield name, endpoint, workload


def check_unknown_endpoint_quants(config: Config, quants: set[str]) -> None:
    """Raise `UserError` where an endpoint is called by a quant that nobody knows, which is most likely a typo."""
    for name, endpoint in config.endpoints.items():
        if endpoint.quant not in quants | {UNKNOWN}:
            raise UserError(
                f"config: endpoints.{name}.quant: quant '{endpoint.quant}' is not defined",
                did_you_mean(endpoint.quant, quants),
            )
