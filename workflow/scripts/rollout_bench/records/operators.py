"""What an operators launch leaves: how long the linear layers' own kernels take, alone, over numbers of tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rollout_bench.plan.strict import Strict
from rollout_bench.records.profile import LinearShape, Role
from rollout_bench.records.record import DeviceUse, HostUse, Launched


class OperatorPoint(Strict):
    """The linear layers of one shape, called with so many tokens: a value for each round, those of all points alike."""

    role: Role = Field(description="What the layers do.")
    in_features: int = Field(gt=0, description="K: features that go in.")
    out_features: int = Field(gt=0, description="N: features that come out.")
    tokens: int = Field(gt=0, description="M: tokens in a call.")
    calls: int = Field(gt=0, description="Calls that each value is the mean of: passes over all layers of the shape.")
    through: Literal["calls", "graph"] = Field(
        description="calls: each from Python, as without graphs; graph: a pass captured once and replayed."
    )
    warmup_seconds_per_call: list[float] = Field(description="Of the rounds that are recorded and never counted.")
    seconds_per_call: list[float] = Field(min_length=1, description="Of each round that counts.")


class Operators(Launched):
    """What one operators launch measured."""

    linears: list[LinearShape] = Field(min_length=1, description="The linear layers of one rank by shape.")
    decode_batch: int = Field(gt=0, description="Sequences that decode at once under the workload, if all do.")
    threads: int = Field(gt=0, description="Threads of torch in the worker.")
    evicted_bytes: int = Field(
        ge=0, description="Bytes read and written before each pass at most, so that the weights come from memory."
    )
    host: list[HostUse] = Field([], description="What else the machine did during each round that counts.")
    devices: list[DeviceUse] = Field([], description="What each device said of itself about each such round.")
    points: list[OperatorPoint] = Field(min_length=1, description="By shape, and then by tokens.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Start-up and every call."""
        calls = {
            f"points.{number}.seconds_per_call.{place}": seconds
            for number, point in enumerate(self.points)
            for place, seconds in enumerate(point.seconds_per_call)
        }
        return super().timed_s | calls
