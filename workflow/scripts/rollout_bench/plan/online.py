"""What online mode adds to a spec: how requests arrive, and servers that are up already."""

from __future__ import annotations

from collections.abc import Iterator

from rollout_bench.errors import UserError, did_you_mean
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine_probe import Engine
from rollout_bench.plan.loads import EndpointSpec, LoadSpec
from rollout_bench.plan.serving import Endpoint
from rollout_bench.plan.spec import EngineSpec, ModelSpec, QuantSpec

UNKNOWN = "unknown"
"""What stands where nobody can know: another's server tells neither its engine's settings nor its weights."""


def load_spec(config: Config, workload: str, engine: Engine) -> LoadSpec:
    """How the requests of `workload` arrive at a server."""
    load = config.workload_settings[workload].online
    return LoadSpec(
        points=load.points,
        saturation=load.saturation,
        burstiness=load.burstiness,
        cool_down_s=load.cool_down_s,
        stream=load.stream,
        token_ids=load.prompts_as == "token_ids",
        harness=config.harness,
        harness_version=engine.version if config.harness == "vllm" else engine.harnesses[config.harness],
    )


def check_online(config: Config, engine: Engine) -> None:
    """Raises `UserError` where online mode can't be had as the config wants it."""
    if "online" not in config.modes:
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
        first = labels.setdefault((endpoint.model_name or name, endpoint.quant), name)
        if first != name:
            raise UserError(
                f"config: endpoints.{name}: is called {endpoint.model_name or name} {endpoint.quant}, as {first} is",
                "give one of them another model_name or quant: tables could not tell them apart",
            )


def check_can_be_sent(config: Config, name: str) -> None:
    """Raises `UserError` where the load of a workload can't be sent as it is described."""
    load, where = config.workload_settings[name], f"config: workload_settings.{name}"
    if load.requests == "per_prompt":
        raise UserError(
            f"{where}.requests: per_prompt hides the latency of each sequence, so it can't be measured online",
            "set it to per_sequence, or leave online out of modes",
        )


def endpoint_parts(name: str, endpoint: Endpoint) -> tuple[ModelSpec, QuantSpec, EngineSpec, EndpointSpec]:
    """What a spec says of a server that is up already."""
    return (
        ModelSpec(name=endpoint.model_name or name, weights=None, synthetic=None),
        QuantSpec(name=endpoint.quant, weights_format=UNKNOWN, linear_dtypes=(), linear_method=""),
        EngineSpec(name=UNKNOWN, version=UNKNOWN, plugins={}, multiprocess=True, environment={}, args={}),
        EndpointSpec(
            url=endpoint.url,
            model=endpoint.model,
            api_key_env=endpoint.api_key_env,
            verify_tls=endpoint.verify_tls,
            headers=endpoint.headers,
            vocabulary=endpoint.vocabulary,
        ),
    )


def endpoint_cells(config: Config) -> Iterator[tuple[str, Endpoint, str]]:
    """Name and settings of each endpoint with each workload, where online is selected."""
    if "online" in config.modes:
        for name, endpoint in config.endpoints.items():
            for workload in config.workloads:
                yield name, endpoint, workload


def check_unknown_endpoint_quants(config: Config, quants: set[str]) -> None:
    """Raises `UserError` where an endpoint is called by a quant that nobody knows, which is most likely a typo."""
    for name, endpoint in config.endpoints.items():
        if endpoint.quant not in quants | {UNKNOWN}:
            raise UserError(
                f"config: endpoints.{name}.quant: quant '{endpoint.quant}' is not defined",
                did_you_mean(endpoint.quant, quants),
            )
