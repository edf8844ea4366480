"""The plan of steps: engines whose steps a model of their time can describe."""

from typing import Any

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.spec import Platform, Spec, WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.modes.steps.settings import StepsSettings
from rollout_bench.plan.checks import engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.fit.architecture import MemoryUnknownError, experts_in, model_config
from rollout_bench.plan.planning import Planning, Reason, with_logprobs

UNPREDICTED = {
    "speculative_config": "steps with drafts",
    "scheduler_cls": "another scheduler",
}
"""Engine arguments -> what steps cannot be predicted with."""


class StepsPlanning(Planning):
    """The plan of steps."""

    def separate_core(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return True, as for a rollout's engine."""
        return True

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return the workload with log probabilities, as rollouts have them."""
        return with_logprobs(workload)

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> StepsSettings:
        """Return the time and the longest context."""
        return config.of(StepsSettings)

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that nothing is asked that predictions do not know."""
        for place, args in engine_args_in(config):
            for name, what in UNPREDICTED.items():
                if args.get(name):
                    raise UserError(
                        f"config: {place}.{name}: the time of {what} is not predicted",
                        "leave it out, or leave steps out of modes",
                    )
            if (args.get("pipeline_parallel_size") or 1) != 1:
                raise UserError(
                    f"config: {place}.pipeline_parallel_size: the time of steps in stages is not predicted",
                    "set tensor_parallel_size instead, or leave steps out of modes",
                )

    def skip_reason(self, spec: Spec, path: str, config: Config) -> Reason | None:
        """Return the reason why a model's steps cannot be predicted; None if no reason is known before a launch."""
        try:
            experts = experts_in(model_config(spec, path))
        except MemoryUnknownError:
            return None
        if experts <= 1:
            return None
        mixture = f"the time of a step of {spec.model.name}, a mixture of {experts} experts, is not predicted"
        return mixture, f"leave {spec.model.name} out of models, or steps out of modes"


PLANNING = StepsPlanning()
