"""Settings of rollouts: engines, and the router that distributes sequences among them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Count, Strict, absent
from rollout_bench.contracts.mode import ModeSpec

RouterPolicy = Literal["least_in_flight", "round_robin", "sticky"]
"""Policy of a router for choosing the engine of a sequence."""


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


class RolloutSpec(ModeSpec):
    """Router of a rollout step. The number of engines is an engine argument."""

    replicas_key: ClassVar[str] = "rollout.replicas"

    router: RouterPolicy | None = absent("Policy for choosing the engine of each sequence. Null for a single engine.")

    def beside_engines(self) -> dict[str, dict[str, Any]]:
        """Return the settings of the router, if there is one."""
        return {"router": {"policy": self.router}} if self.router else {}


SECTION, OWN = RolloutSettings, RolloutSpec
"""Section of the config, and the part of the spec."""
