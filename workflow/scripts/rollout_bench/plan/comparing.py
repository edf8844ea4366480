"""What is compared, and how differences are judged: the parts of the config that the plan file carries on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from rollout_bench.plan.fields import AutoCount, Folder, Metric, Metrics, Name, Number, OfflineMetrics, VersionText
from rollout_bench.plan.strict import Strict

EARLIER_AXES = ("results", "engine")
"""Axes of a baseline whose launches did not take turns with those that are measured now."""


class Baseline(Strict):
    """One axis and its value. Mappings are merged, so null takes back an axis that a config below names."""

    quant: Name | None = Field(None, description="This quant of the same model under the same workload.")
    model: Name | None = Field(None, description="This model.")
    workload: Name | None = Field(None, description="This workload.")
    platform: Name | None = Field(None, description="This platform.")
    results: Folder | None = Field(
        None,
        description=(
            "The same experiment in an earlier results folder, relative to the one that holds results/. Its launches "
            "did not take turns with these, so whatever changed meanwhile is part of the speed-up."
        ),
    )
    engine: VersionText | None = Field(
        None,
        description=(
            "The same experiment, measured with this version of the engine into the same results folder. Nothing took "
            "turns here either."
        ),
    )

    @property
    def named(self) -> dict[str, str]:
        """The axis with its value."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="before")
    @classmethod
    def _null(cls, values: Any) -> Any:
        # The command line delivers all as text.
        return {axis: None if v == "null" else v for axis, v in values.items()} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _one_axis(self) -> Baseline:
        named = self.named
        if not named:
            raise ValueError("names no axis, but takes exactly one: write {quant: bf16}")
        if len(named) > 1:
            # The quant most likely comes from config.yaml, and the other one is what is wanted.
            kept = next(axis for axis in named if axis != "quant")
            nulls = ", ".join(f"{axis}: null" for axis in named if axis != kept)
            example = f"{{{nulls}, {kept}: {named[kept]}}}"
            raise ValueError(f"names {' and '.join(sorted(named))}, but takes exactly one: write {example}")
        return self


class ComparisonSettings(Strict):
    """When a difference from the baseline is called one."""

    confidence: Annotated[Number, Field(ge=0.5, le=0.9999)] = Field(
        0.95,
        description=(
            "Confidence of each interval. 1 - confidence is the chance that a metric's column without any true "
            "difference shows even one ^ or v."
        ),
    )
    relevant_difference: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.01, description="Speed-ups closer to 1 than this fraction are never called ^ or v, however sure they are."
    )
    power: Annotated[Number, Field(ge=0.7, le=0.9999)] = Field(
        0.8, description="Chance to find a difference of the size that a ~ names, were it there."
    )
    metrics: OfflineMetrics = Field(
        ["output_tokens_per_s"],
        description=(
            "What is compared, each in a column of its own; the figure shows the first. step_time_s and startup_s are "
            "times, so their speed-up is the inverse ratio: above 1 is always better."
        ),
    )
    online_metrics: Metrics = Field(
        ["output_tokens_per_s", "ttft_s", "tpot_s"],
        description=(
            "The same of online experiments, which have itl_s, e2el_s and, where slo has a limit, "
            "goodput_requests_per_s besides. Where requests arrive at a rate that the server keeps up with, "
            "output_tokens_per_s and step_time_s are set by the load and get no verdict."
        ),
    )

    def metrics_of(self, mode: str) -> list[Metric]:
        """What is compared of the experiments of `mode`."""
        return self.online_metrics if mode == "online" else self.metrics


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
