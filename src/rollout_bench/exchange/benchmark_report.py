"""The part of llm-d's Benchmark Report 0.2.1 that we write: names and types of its fields.

Source: `llmdbenchmark/analysis/benchmark_report/schema_v0_2*.py` of github.com/llm-d/llm-d-benchmark.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION: Final = "0.2.1"
"""Version of the reports that we write."""

PERCENTILES: Final = {
    "p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99,
    "p99p9": 99.9,
}  # fmt: skip
"""Field of `Statistics` -> percentage."""

_Finite = Annotated[float, Field(allow_inf_nan=False, ge=0, lt=1e18)]
_Amount = Annotated[int, Field(ge=0)]


class ReportPart(BaseModel):
    """Base of all parts of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Statistics(ReportPart):
    """Statistics of a distribution."""

    units: str
    mean: _Finite
    stddev: _Finite | None = None
    min: _Finite | None = None
    p0p1: _Finite | None = None
    p1: _Finite | None = None
    p5: _Finite | None = None
    p10: _Finite | None = None
    p25: _Finite | None = None
    p50: _Finite | None = None
    p75: _Finite | None = None
    p90: _Finite | None = None
    p95: _Finite | None = None
    p99: _Finite | None = None
    p99p9: _Finite | None = None
    max: _Finite | None = None


class RunTime(ReportPart):
    """Time of a run."""

    start: datetime | None = None
    end: datetime | None = None
    duration: str | None = None


class ReportRun(ReportPart):
    """Identification of a run."""

    uid: Annotated[str, Field(min_length=1)]
    eid: str | None = None
    time: RunTime | None = None
    description: str | None = None


class ComponentMetadata(ReportPart):
    """Name and id of a stack component."""

    schema_version: str = "0.0.1"
    label: str
    cfg_id: str
    description: str | None = None


class NativeSettings(ReportPart):
    """Settings in the component's own format."""

    args: dict[str, Any] | None = None
    envars: dict[str, Any] | None = None
    config: Any | None = None


class ServedModel(ReportPart):
    """The served model."""

    name: str


class Parallelism(ReportPart):
    """Parallelism of one replica over its accelerators."""

    tp: Annotated[int, Field(ge=0)] = 1
    dp: Annotated[int, Field(ge=0)] = 1
    dp_local: Annotated[int, Field(ge=0)] = 1
    workers: Annotated[int, Field(ge=0)] = 1
    ep: Annotated[int, Field(ge=1)] = 1
    pp: Annotated[int, Field(ge=1)] = 1


class Accelerator(ReportPart):
    """Accelerators of one replica."""

    model: str
    count: _Amount
    parallelism: Parallelism


class InferenceEngine(ReportPart):
    """An engine, or several identical replicas of it."""

    kind: Literal["inference_engine"]
    tool: str
    tool_version: str
    role: Literal["replica", "prefill", "decode"]
    replicas: Annotated[int, Field(ge=1)]
    model: ServedModel
    accelerator: Accelerator


class OtherComponent(ReportPart):
    """Any other component of the stack, with arbitrary further keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["generic"]
    tool: str
    tool_version: str


class StackComponent(ReportPart):
    """One component of the stack."""

    metadata: ComponentMetadata
    standardized: Annotated[InferenceEngine | OtherComponent, Field(discriminator="kind")]
    native: NativeSettings


class SequenceLength(ReportPart):
    """Distribution of sequence lengths, in tokens."""

    distribution: Literal["fixed", "gaussian", "uniform", "other"]
    value: Annotated[int, Field(ge=0)] | _Finite
    std_dev: _Finite | None = None
    min: _Amount | None = None
    max: Annotated[int, Field(ge=1)] | None = None


class PrefixGroups(ReportPart):
    """Shared prefixes of prompts."""

    prefix_len: SequenceLength
    num_groups: Annotated[int, Field(ge=1)]
    num_users_per_group: Annotated[int, Field(ge=1)]
    num_prefixes: Annotated[int, Field(ge=1)]


class StandardLoad(ReportPart):
    """The load in the format that all tools share."""

    tool: str
    tool_version: str
    parallelism: Annotated[int, Field(ge=1)] = 1
    source: Literal["random", "sampled", "unknown"]
    stage: _Amount = 0
    input_seq_len: SequenceLength
    output_seq_len: SequenceLength | None = None
    prefix: PrefixGroups | None = None
    rate_qps: Annotated[float, Field(gt=0)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None


class LoadMetadata(ReportPart):
    """Id and description of a load."""

    schema_version: str = "0.0.1"
    cfg_id: str | None = None
    description: str | None = None


class ReportLoad(ReportPart):
    """The load."""

    metadata: LoadMetadata
    standardized: StandardLoad
    native: NativeSettings


class Scenario(ReportPart):
    """The measured stack and its load."""

    stack: list[StackComponent] | None = None
    load: ReportLoad | None = None


class AggregateRequests(ReportPart):
    """Number and lengths of requests."""

    total: _Amount
    failures: _Amount | None = None
    incomplete: _Amount | None = None
    input_length: Statistics | None = None
    output_length: Statistics | None = None


class AggregateLatency(ReportPart):
    """Latencies of requests at the client."""

    time_to_first_token: Statistics | None = None
    normalized_time_per_output_token: Statistics | None = None
    time_per_output_token: Statistics | None = None
    inter_token_latency: Statistics | None = None
    request_latency: Statistics | None = None


class AggregateThroughput(ReportPart):
    """Tokens and requests per second."""

    input_token_rate: Statistics | None = None
    output_token_rate: Statistics | None = None
    total_token_rate: Statistics | None = None
    request_rate: Statistics | None = None


class AggregatePerformance(ReportPart):
    """Performance over all requests."""

    requests: AggregateRequests | None = None
    latency: AggregateLatency | None = None
    throughput: AggregateThroughput | None = None


class RequestPerformance(ReportPart):
    """Performance of requests."""

    aggregate: AggregatePerformance | None = None


class ReportResults(ReportPart):
    """Results of a run."""

    request_performance: RequestPerformance | None = None
    observability: dict[str, Any] | None = None


class BenchmarkReport(ReportPart):
    """A whole report."""

    version: str
    run: ReportRun
    scenario: Scenario | None = None
    results: ReportResults


class UsedResources(ReportPart):
    """Resources of a component that we write below `observability.components`."""

    cache_hit_rate: Statistics | None = None
    preemptions: Statistics | None = None
    power_consumption: Statistics | None = None


def content_of(report: ReportPart) -> dict[str, Any]:
    """Return a part of a report as plain data for a file. Fields that are None are left out, except native settings."""
    return report.model_dump(mode="json", exclude_none=True)
