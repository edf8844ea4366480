"""The plan of rollouts: the number of engines, and requests that a router can distribute."""

from typing import Any

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.spec import Platform, Spec, WorkloadSpec
from rollout_bench.core.errors import UserError
from rollout_bench.modes.rollout.settings import RolloutSettings, RolloutSpec
from rollout_bench.plan.checks import SIZE
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.load_checks import facts_of
from rollout_bench.plan.planning import Planning, planning_of, with_logprobs

TURNING = ("rollout", "online")
"""Modes whose sequences may have turns: those of agents, and the conversations of a server's users."""


class RolloutPlanning(Planning):
    """The plan of rollouts."""

    several_engines = True

    def separate_core(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return True: each engine is asked without waiting for the others."""
        return True

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> RolloutSpec:
        """Return the router, if there are several engines, and what is sent beyond what a step needs."""
        several, asked = (args.get(SIZE) or 1) > 1, config.of(RolloutSettings)
        return RolloutSpec(
            router=asked.router if several else None, over_sample=asked.over_sample, partial=asked.partial or None
        )

    def args(self, config: Config, args: dict[str, Any]) -> dict[str, Any]:
        """Return `args` with `rollout.replicas`, so that the number of engines is always in one place."""
        wanted = config.of(RolloutSettings).replicas
        if wanted is None:
            return args
        if args.get(SIZE) not in (None, wanted):
            raise UserError(
                f"config: rollout.replicas: is {wanted}, and {SIZE} in engine_args is {args.get(SIZE)}",
                "leave one of them out: both set the number of engines in a launch",
            )
        rest = {name: value for name, value in args.items() if name != SIZE}
        return {**args, SIZE: wanted} if wanted > 1 else rest

    def workload(self, workload: WorkloadSpec) -> WorkloadSpec:
        """Return the workload with log probabilities, as trainers need them."""
        return with_logprobs(workload)

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that a router gets single sequences, and partial ones only where some are aborted."""
        asked = config.of(RolloutSettings)
        if asked.partial and asked.over_sample is None:
            raise UserError(
                "config: rollout.partial: without over_sample, no sequence is aborted that could go on",
                "set rollout.over_sample to more than 1, or leave partial out",
            )
        if asked.partial and not config.warmup_iterations:
            raise UserError(
                "config: rollout.partial: the first step has no earlier step whose sequences go on, and "
                "warmup_iterations is 0",
                "set warmup_iterations to 1 or more",
            )
        for name in config.workloads:
            if config.workload_settings[name].requests == "per_prompt":
                raise UserError(
                    f"config: workload_settings.{name}.requests: per_prompt gives the router no single sequences",
                    "set it to per_sequence, or leave rollout out of modes",
                )

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that a step which sends more than it needs has other prompts for it, in whole groups."""
        rollout, needed, name = spec.of(RolloutSpec), spec.workload.prompts, spec.workload.name
        if rollout.over_sample is None:
            return
        sent, facts = rollout.sent(needed), facts_of(config.workload_settings[name])
        prompts, group = (facts.prompts, facts.group) if facts else (sent, 1)
        if rollout.partial and sent >= 2 * needed:
            raise UserError(
                f"config: rollout.over_sample: {rollout.over_sample} sends two steps' prompts of workload {name} at "
                "once, so that with partial a next step may need none",
                "send less than twice the prompts, or leave partial out",
            )
        if sent > prompts:
            raise UserError(
                f"config: rollout.over_sample: {rollout.over_sample} sends {sent} prompts of workload {name} in a "
                f"step, and its data set has {prompts}",
                "name a longer file, or lower prompts",
            )
        if group == 0 or needed % group or sent % group:
            raise UserError(
                f"config: rollout.over_sample: {rollout.over_sample} sends {sent} lines of workload {name} where a "
                f"step needs {needed}, which are not both whole groups of its data set",
                f"make both multiples of {group}" if group else "give all groups as many lines, one after the other",
            )

    def check_other(self, config: Config, spec: Spec) -> None:
        """Check that no single engine gets the load of all, and that only rollouts get turns."""
        asked = config.of(RolloutSettings)
        engines = asked.replicas or 1
        if spec.workload.turns is not None and asked.partial:
            raise UserError(
                f"config: rollout.partial: sequences with turns, as of workload {spec.workload.name}, do not go "
                "on in a next step",
                "leave partial out, or give it a workload without turns",
            )
        if spec.workload.turns is not None and spec.mode not in TURNING:
            raise UserError(
                f"config: workload_settings.{spec.workload.name}.turns: mode {spec.mode} has no turns, only "
                f"{' and '.join(TURNING)} have",
                f"leave {spec.mode} out of modes, or give it a workload without turns",
            )
        if engines > 1 and spec.endpoint is None and not planning_of(spec.mode).several_engines:
            raise UserError(
                f"config: rollout.replicas: {engines} engines share workload {spec.workload.name}, but in "
                f"{spec.mode} mode one engine would get all its requests",
                f"measure one engine's share (from-verl and from-trl: --one-engine), or leave {spec.mode} out of "
                "modes, or set rollout.replicas to null if the workload is already one engine's share",
            )


PLANNING = RolloutPlanning()
