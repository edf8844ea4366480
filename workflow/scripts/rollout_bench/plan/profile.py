"""What profile and operators mode add to a spec, and what they can't have."""

from __future__ import annotations

import re
from typing import Any

from rollout_bench.errors import UserError
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine_probe import Engine
from rollout_bench.plan.loads import LoadPoint, LoadSpec, longest
from rollout_bench.plan.profiling import OperatorsSettings, decode_batch
from rollout_bench.plan.spec import MeasuringSpec, Platform


def multiprocess_by_default(config: Config, platform: Platform, mode: str) -> bool:
    """Whether the engine core is a process of its own where the config does not say: as in offline mode.

    On CPU a profile then goes step by step; elsewhere the host's work would wait for the core's, and slow each step.
    """
    return platform != "cpu" or mode == "online" or (mode == "profile" and config.profile.through == "server")


def profile_load(config: Config, mode: str, engine: Engine) -> LoadSpec | None:
    """How requests arrive at the server that is profiled: all at once, as offline; None where there is none."""
    if mode != "profile" or config.profile.through != "server":
        return None
    return LoadSpec(
        points=(LoadPoint(concurrency=None, request_rate="inf"),),
        saturation=None,
        burstiness=1.0,
        cool_down_s=0.0,
        stream=True,
        token_ids=True,
        harness="vllm",
        harness_version=engine.version,
    )


def measuring_of(config: Config, mode: str) -> MeasuringSpec:
    """What a launch in `mode` does; how often passes are repeated is no setting of modes that look into the engine."""
    if mode == "operators":
        return MeasuringSpec(warmup_iterations=0, iterations=1)
    return MeasuringSpec(
        warmup_iterations=config.warmup_iterations, iterations=1 if mode == "profile" else config.iterations
    )


def operators_settings(config: Config, mode: str, workload: str, args: dict[str, Any]) -> OperatorsSettings | None:
    """How linear layers are timed, at the batch of `workload` too, with these engine arguments; None in other modes."""
    if mode != "operators":
        return None
    load = config.workload_settings[workload]
    return config.operators.with_batch(decode_batch(load.prompts, load.samples_per_prompt, args))


WINDOWS_SINCE = (0, 32)
"""vLLM whose server takes a window with /start_profile: read in 0.32, and not there in 0.23."""


def check_profile(config: Config, engine: Engine) -> None:
    """Raises `UserError` where profile mode can't be had as the config wants it."""
    if "profile" not in config.modes:
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
