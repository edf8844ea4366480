"""Requirements and refusals of loads that are sent to a server, and of endpoints."""

import math
from pathlib import Path

from rollout_bench.contracts.axes import DEFAULT_SETTING, UNKNOWN
from rollout_bench.contracts.load import EndpointSpec, LoadSpec
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import EngineSpec, MeasuringSpec, ModelSpec, QuantSpec, is_local
from rollout_bench.core.errors import UserError
from rollout_bench.plan.checks import check_path
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.load_checks import facts_of
from rollout_bench.plan.planning import planning_of
from rollout_bench.plan.serving import Endpoint


def with_loads(config: Config) -> str:
    """Return the selected mode whose requests arrive as the workload sets; empty if there is none."""
    return next((mode for mode in config.modes if MODES[mode].has_loads), "")


def measuring_of(config: Config, mode: str) -> MeasuringSpec:
    """Return the iterations of a launch in `mode`; some modes do not repeat them."""
    passes = MODES[mode].passes
    return MeasuringSpec(
        warmup_iterations=0 if passes == "none" else config.warmup_iterations,
        iterations=planning_of(mode).iterations(config) if passes == "repeated" else 1,
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
    if not with_loads(config):
        if config.endpoints and not config.models:
            problem = "config: modes: endpoints are measured online, but modes lacks online"
            raise UserError(problem, "add online to modes")
        return
    _check_harness(config.harness, engine)
    if config.endpoints and config.lora is not None and not config.models:
        problem = "config: lora: an endpoint's server has the adapters that it was started with"
        where = f"endpoints.{next(iter(config.endpoints))}.model"
        raise UserError(problem, f"start it with the adapter, write its name there as {where}, and leave lora out")
    # loads that cannot be sent under another setting only skip that setting
    if len(config.setting_settings) != 1 or DEFAULT_SETTING in config.setting_settings:
        for name in config.workloads:
            check_can_be_sent(config, name)
            check_time(config, name)
    labels: dict[tuple[str, str], str] = {}
    for name, endpoint in config.endpoints.items():
        _check_endpoint(config, engine, name, endpoint)
        label = endpoint.model_name or name
        first = labels.setdefault((label, endpoint.quant), name)
        if first != name:
            raise UserError(
                f"config: endpoints.{name}: is called {label} {endpoint.quant}, as {first} is",
                "give one of them another model_name or quant, so that tables can distinguish them",
            )


def _check_harness(harness: str, engine: InstalledEngine) -> None:
    if harness == "guidellm" and harness not in engine.harnesses:
        raise UserError(
            f"config: harness: {harness} is not installed in {engine.python}",
            f"install it there (requirements/{harness}.in has the version), or set harness: rollout-bench",
        )
    if harness == "vllm-bench" and not engine.name:
        raise UserError(
            f"config: harness: vllm-bench is a command of vLLM, which {engine.python} lacks",
            "name an interpreter with vLLM as engine.python, or set harness: rollout-bench",
        )
    if harness == "inference-perf" and harness not in engine.harnesses:
        raise UserError(
            "config: harness: there is no command inference-perf on PATH",
            "install it in an environment of its own (uv tool install inference-perf), or set harness: rollout-bench",
        )


def _check_endpoint(config: Config, engine: InstalledEngine, name: str, endpoint: Endpoint) -> None:
    harness, command = config.harness, COMMANDS.get(config.harness)
    named = endpoint.tokenizer or ""
    check_path(f"endpoints.{name}.tokenizer", named)
    folder = Path(named).expanduser()
    # pods have other folders, and another machine may have folders that this one lacks
    is_known = is_local(named) and "/" in named and (folder.parent.is_dir() or not folder.is_absolute())
    if command is not None and endpoint.headers:
        raise UserError(
            f"config: endpoints.{name}.headers: {command} would write them, secrets included, "
            f"{'on its command line' if harness == 'vllm-bench' else 'into its report'}",
            "leave them out (the key of api_key_env is kept out of it), or set harness: rollout-bench",
        )
    if named and not engine.name:
        raise UserError(
            f"config: endpoints.{name}.tokenizer: transformers of vLLM reads it, and {engine.python} has no vLLM",
            "name an interpreter with vLLM as engine.python, or leave it out: prompts are then about that long",
        )
    if harness in COUNTING and endpoint.tokenizer is None:
        raise UserError(
            f"config: endpoints.{name}.tokenizer: is missing: {command} counts tokens with it",
            "name the folder or hub id of the model's tokenizer, or set harness: rollout-bench",
        )
    if harness == "inference-perf" and not endpoint.verify_tls:
        raise UserError(
            f"config: endpoints.{name}.verify_tls: false: inference-perf checks every certificate",
            "leave it out, or set harness: rollout-bench",
        )
    if is_known and config.kubernetes.image is None and not folder.is_dir():
        raise UserError(
            f"config: endpoints.{name}.tokenizer: {endpoint.tokenizer}: there is no such folder",
            "name the folder, or the hub id <owner>/<name>, of the model's tokenizer",
        )


def check_time(config: Config, name: str) -> None:
    """Check that the loads of a workload fit the time limit of a launch.

    Raises:
        UserError: they take longer.
    """
    points, measuring = config.workload_settings[name].online.points, measuring_of(config, with_loads(config))
    passes = measuring.warmup_iterations + measuring.iterations
    label = points[0].asked if len(points) == 1 else f"{len(points)} loads"
    whole_s = sum(point.least_s for point in points) * passes
    if config.timeout_s is not None and whole_s >= config.timeout_s:
        raise UserError(
            f"config: workload_settings.{name}.online: {label} in {passes} passes take {whole_s:g} s, and "
            f"timeout_s allows a launch {config.timeout_s:g} s",
            f"set timeout_s to {limit_for(whole_s)} or more, lower iterations, or reduce the load",
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
    if load.requests == "per_prompt":
        raise UserError(
            f"config: {where}.requests: per_prompt hides the latency of each sequence, so it can't be measured online",
            "set it to per_sequence, or leave online out of modes",
        )
    if command and config.harness != "vllm-bench" and online.api == "chat":
        raise UserError(
            f"config: {where}.online.api: chat: rollout-bench supports {command} with completions only",
            f"{other} api out",
        )
    if command and not online.as_text:
        raise UserError(
            f"config: {where}.online.prompts_as: token_ids: {command} sends prompts as text only",
            "set it to text (prompt lengths are then approximate, and flagged), or set harness: rollout-bench",
        )
    if command and any(point.duration_s is not None for point in online.points):
        raise UserError(
            f"config: {where}.online.duration_s: {command} sends a number of requests, whatever time that takes",
            f"{other} duration_s out",
        )
    facts = None if command is None else facts_of(load)
    if command and (load.turns is not None or (facts is not None and facts.turns is not None)):
        raise UserError(
            f"config: {where}.turns: rollout-bench supports {command} with single requests only",
            f"{other} turns out",
        )
    if command and online.request_timeout_s is not None:
        raise UserError(
            f"config: {where}.online.request_timeout_s: rollout-bench supports {command} without a limit of a request",
            f"{other} request_timeout_s out",
        )
    if config.harness == "vllm-bench" and any(point.request_rate == "trace" for point in online.points):
        raise UserError(
            f"config: {where}.online.request_rate: {command} draws the times of its requests itself, and takes no "
            "trace of ours",
            f"{other} request_rate out",
        )


COMMANDS = {"guidellm": "guidellm", "vllm-bench": "vllm bench serve", "inference-perf": "inference-perf"}
"""Harnesses that are separate commands -> their names in messages."""

COUNTING = ("vllm-bench", "inference-perf")
"""Commands that need the tokenizer of the model."""


def endpoint_parts(name: str, endpoint: Endpoint) -> tuple[ModelSpec, QuantSpec, EngineSpec, EndpointSpec]:
    """Return the parts of a spec for a running server."""
    return (
        ModelSpec(name=endpoint.model_name or name, weights=None, synthetic=None),
        QuantSpec(name=endpoint.quant, weights_format=UNKNOWN, linear_dtypes=(), linear_method=""),
        EngineSpec(name=UNKNOWN, version=UNKNOWN, plugins={}, multiprocess=True, environment={}, args={}),
        endpoint.to(EndpointSpec),
    )


def endpoint_cells(config: Config) -> list[tuple[str, Endpoint, str]]:
    """Return name and settings of each endpoint with each workload, if online is selected."""
    endpoints = config.endpoints.items() if with_loads(config) else ()
    return [(name, endpoint, workload) for name, endpoint in endpoints for workload in config.workloads]
