"""Settings of rollouts: engines, and the router that distributes sequences among them."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Count, Number, Strict, absent
from rollout_bench.contracts.mode_parts import ModeSpec

RouterPolicy = Literal["least_in_flight", "round_robin", "sticky"]
"""Policy of a router for choosing the engine of a sequence."""


OverSample = Annotated[Number, Field(gt=1, le=10)]


class RolloutSettings(Strict):
    """How a rollout step is generated: the number of engines and the router that distributes its sequences."""

    replicas: Annotated[Count, Field(le=1024)] | None = Field(
        None,
        description=(
            "Engines that share the workload, which is the step's global batch: data_parallel_size of rollout "
            "experiments. Null: as in engine_args."
        ),
    )
    router: RouterPolicy = Field(
        "least_in_flight",
        description=(
            "Policy for choosing the engine of each sequence. least_in_flight: the engine with the fewest "
            "running sequences, as in verl's load balancer; round_robin; sticky: the engine of the first sample "
            "of its prompt."
        ),
    )
    over_sample: OverSample | None = Field(
        None,
        description=(
            "Prompts that a step sends, as a multiple of the prompts that it needs: with 1.25 it ends as soon as four "
            "fifths of the sent prompts have all their samples, and the rest is aborted and thrown away. Null: none."
        ),
    )
    partial: bool = Field(
        False,
        description=(
            "With over_sample: an aborted sequence is not thrown away, but goes on in the next step, which computes "
            "its prompt and its answer so far again; so each step but the first begins only the prompts that it needs."
        ),
    )


class RolloutSpec(ModeSpec):
    """Router of a rollout step. The number of engines is an engine argument."""

    replicas_key: ClassVar[str] = "rollout.replicas"

    router: RouterPolicy | None = absent("Policy for choosing the engine of each sequence. Null for a single engine.")
    over_sample: OverSample | None = absent("Prompts that a step sends / prompts that it needs. Null: the same.")
    partial: Literal[True] | None = absent("Whether aborted sequences go on in the next step. Null: they do not.")

    def sent(self, prompts: int) -> int:
        """Return the number of prompts that a step sends if it needs `prompts`."""
        return math.ceil(round(prompts * (self.over_sample or 1.0), 9))  # 100 * 1.07 is a little more than 107

    @property
    def unpredictable(self) -> str:
        """The key of over-sampling, if steps send more prompts than they need."""
        return "rollout.over_sample" if self.over_sample else ""

    @property
    def router_policy(self) -> str:
        """The router's policy."""
        return self.router or super().router_policy

    def beside_engines(self) -> dict[str, dict[str, Any]]:
        """Return the settings of the router, if there is one."""
        return {"router": {"policy": self.router}} if self.router else {}


SECTION, OWN = RolloutSettings, RolloutSpec
"""Section of the config, and the part of the spec."""
