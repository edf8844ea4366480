"""How differences are judged: a part of the config that the plan file carries to the summary."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rollout_bench.plan.fields import AutoCount, Metrics, Number
from rollout_bench.plan.spec import Strict


class ComparisonSettings(Strict):
    """When a difference from the baseline is called one."""

    confidence: Annotated[Number, Field(ge=0.5, le=0.9999)] = Field(
        0.95,
        description=(
            "Confidence of each interval. 1 - confidence is the chance that a table without any true difference shows "
            "even one ^ or v."
        ),
    )
    relevant_difference: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.01, description="Speed-ups closer to 1 than this fraction are never called ^ or v, however sure they are."
    )
    power: Annotated[Number, Field(ge=0.7, le=0.9999)] = Field(
        0.8, description="Chance to find a difference of the size that a ~ names, were it there."
    )
    metrics: Metrics = Field(
        ["output_tokens_per_s"],
        description=(
            "What is compared, each in a column of its own; the figure shows the first. step_time_s and startup_s are "
            "times, so their speed-up is the inverse ratio: above 1 is always better."
        ),
    )


class Precision(Strict):
    """When `launches: auto` has launched enough."""

    half_width: Annotated[Number, Field(ge=0.0001, le=1)] = Field(
        0.01,
        description=(
            "An experiment is launched until the interval of its speed-up (the first metric's) reaches no further than "
            "this fraction off the speed-up."
        ),
    )
    min_launches: Annotated[AutoCount, Field(ge=2)] = Field(3, description="Launches of each experiment at the least.")
    max_launches: Annotated[AutoCount, Field(ge=2)] = Field(
        12,
        description=(
            "Launches of each experiment at most. Intervals hold at every number of launches between the two at once, "
            "so a larger range makes them wider."
        ),
    )

    @model_validator(mode="after")
    def _in_order(self) -> Precision:
        if self.max_launches < self.min_launches:
            raise ValueError(f"max_launches {self.max_launches} is below min_launches {self.min_launches}")
        return self
