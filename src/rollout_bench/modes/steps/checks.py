"""The plan of steps: engines whose steps a model of their time can describe."""

from typing import Any

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.spec import Platform, WorkloadSpec
from rollout_bench.modes.steps.settings import StepsSettings
from rollout_bench.plan.checks import engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.planning import Planning, with_logprobs
from rollout_bench.plan.refusals import refuse

UNPREDICTED = {
    "speculative_config": "steps with drafts",
    "enable_lora": "adapters",
    "scheduler_cls": "another scheduler",
}
"""Engine arguments -> what steps cannot be predicted with."""


class StepsPlanning(Planning):
    """The plan of steps."""

    def core_apart(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return True, as for a rollout's engine."""
        return True

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return the workload with log probabilities, as rollouts have them."""
        return with_logprobs(workload)

    def own(self, config: Config, args: dict[str, Any], platform: Platform) -> StepsSettings:
        """Return the time and the longest context."""
        return config.of(StepsSettings)

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that nothing is asked that predictions do not know."""
        refuse(
            *(
                (
                    bool(args.get(name)),
                    f"{place}.{name}: the time of {what} is not predicted",
                    "leave it out, or leave steps out of modes",
                )
                for place, args in engine_args_in(config)
                for name, what in UNPREDICTED.items()
            ),
            *(
                (
                    (args.get("pipeline_parallel_size") or 1) != 1,
                    f"{place}.pipeline_parallel_size: the time of steps in stages is not predicted",
                    "set tensor_parallel_size instead, or leave steps out of modes",
                )
                for place, args in engine_args_in(config)
            ),
        )


PLANNING = StepsPlanning()
