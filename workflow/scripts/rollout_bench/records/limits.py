"""What a machine can do at most, as measured on it: the engine side may read it, and so may the analysis."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from rollout_bench.plan.strict import Strict, UtcTime
from rollout_bench.records.record import HostUse

LIMITS_SCHEMA_VERSION: Final = 1


class LimitSample(Strict):
    """One timed repeat."""

    test: Literal["copy", "read", "triad", "matmul"] = Field(
        description="copy: b = a; read: sum of a; triad: c = a + s b; matmul: a product of two square matrices."
    )
    dtype: str = Field(description="Data type by torch's name; float8 for its 8-bit floats.")
    work: float = Field(gt=0, description="Bytes read and written; of matmul the operations, 2 n^3.")
    elapsed_s: float = Field(gt=0, description="How long it took, in seconds.")

    @property
    def rate(self) -> float:
        """Work per second."""
        return self.work / self.elapsed_s


class MachineLimits(Strict):
    """The measured limits of one device of a machine, or of all cores that a launch may use."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    device_model: str = Field(description="Name of the device; on cpu the processor's.")
    cpu_model: str = Field(description="Name of the processor.")
    cpu_cores: int = Field(ge=1, description="Cores that the measuring process might run on.")
    device_count: int = Field(1, ge=1, description="Devices that the numbers are of.")
    torch_version: str = Field(description="Version of torch, whose kernels were timed.")
    memory_bandwidth_bytes_per_s: float = Field(gt=0, description="Best of copy, read and triad.")
    flops_per_s: dict[str, float] = Field(
        description="Data type -> operations a second, the best of the products of square matrices in it."
    )
    cache_bytes: int | None = Field(None, description="Last-level cache that the system names. Null where unknown.")
    host: HostUse | None = Field(None, description="What else the machine did meanwhile. Null where it can't be told.")
    samples: list[LimitSample] = Field(min_length=1, description="Every timed repeat, in order.")
    measured_at: UtcTime = Field(description="When, UTC, ISO 8601.")
