"""llm-d's Benchmark Report 0.2.1, as far as we write it and read it: names, kinds, and the units of each statistic.

Made from reading `llmdbenchmark/analysis/benchmark_report/schema_v0_2*.py` of github.com/llm-d/llm-d-benchmark. What we
neither write nor read, such as time series, may hold anything here. Where their schema forbids a key, so does this one.
In a statistic they drop unknown keys silently; here they are dropped as well, and `dropped` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rollout_bench.core.errors import UserError, did_you_mean

VERSION: Final = "0.2.1"
"""What we write."""

READ_VERSIONS: Final = ("0.2", "0.2.1")
"""What we read: every report of 0.2 is one of 0.2.1, which only adds optional fields."""

QUANTITY = ("count", "pixels")
TIME = ("ms", "s")
TIME_OF_A_TOKEN = ("ms/token", "s/token")
TOKEN_RATE = ("tokens/s",)
REQUEST_RATE = ("queries/s",)
PORTION = ("percent", "fraction")
POWER = ("Watts",)
MEMORY = ("bytes", "MB", "GB", "TB", "MiB", "GiB", "TiB")
MEDIA_RATE = ("images/s", "videos/s", "audios/s")
"""Units that a statistic may have, by what it is of."""

TO_OURS: Final = {
    "count": 1.0, "ms": 1e-3, "s": 1.0, "ms/token": 1e-3, "s/token": 1.0, "tokens/s": 1.0, "queries/s": 1.0,
}  # fmt: skip
"""Unit -> what makes seconds, tokens and requests of it."""

PERCENTILES: Final = {
    "p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99,
    "p99p9": 99.9,
}  # fmt: skip
"""Field of a statistic -> the percentage."""

_Finite = Annotated[float, Field(allow_inf_nan=False, ge=0, lt=1e18)]
_Amount = Annotated[int, Field(ge=0)]


class ReportPart(BaseModel):
    """Base of all parts of a report: a key that 0.2.1 does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Statistics(ReportPart):
    """How a number is distributed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    units: str
    mean: _Finite
    mode: _Finite | None = None
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

    @model_validator(mode="after")
    def _possible(self) -> Statistics:
        # a hundredth is what rounding may do
        if (self.max is not None and self.mean * 0.99 > self.max) or (self.min or 0) * 0.99 > self.mean:
            raise PydanticCustomError("impossible", "has a mean that is not between its min and its max")
        return self


def _in(units: tuple[str, ...]) -> Callable[[Statistics], Statistics]:
    def check(statistics: Statistics) -> Statistics:
        if statistics.units not in units:
            wanted = " or ".join(units)
            raise PydanticCustomError("units", f"is in {statistics.units!r}, and must be in {wanted}")
        return statistics

    return check


Quantities = Annotated[Statistics, AfterValidator(_in(QUANTITY))]
Times = Annotated[Statistics, AfterValidator(_in(TIME))]
TokenTimes = Annotated[Statistics, AfterValidator(_in(TIME_OF_A_TOKEN))]
TokenRates = Annotated[Statistics, AfterValidator(_in(TOKEN_RATE))]
RequestRates = Annotated[Statistics, AfterValidator(_in(REQUEST_RATE))]
Portions = Annotated[Statistics, AfterValidator(_in(PORTION))]
Powers = Annotated[Statistics, AfterValidator(_in(POWER))]
Sizes = Annotated[Statistics, AfterValidator(_in(MEMORY))]
MediaRates = Annotated[Statistics, AfterValidator(_in(MEDIA_RATE))]


class RunTime(ReportPart):
    """When it ran."""

    start: datetime | None = None
    end: datetime | None = None
    duration: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> RunTime:
        if (
            self.start
            and self.end
            and (self.start.tzinfo is None) == (self.end.tzinfo is None)
            and self.end < self.start
        ):
            raise PydanticCustomError("impossible", "ends before it starts")
        return self


class ReportRun(ReportPart):
    """Which run it is."""

    uid: Annotated[str, Field(min_length=1)]
    eid: str | None = None
    cid: str | None = None
    pid: str | None = None
    time: RunTime | None = None
    user: str | None = None
    description: str | None = None
    keywords: list[str] | None = None


class ComponentMetadata(ReportPart):
    """What a component of the stack is called."""

    schema_version: str = "0.0.1"
    label: str
    cfg_id: str
    description: str | None = None


class NativeSettings(ReportPart):
    """Settings in the words of what they are of."""

    args: dict[str, Any] | None = None
    envars: dict[str, Any] | None = None
    config: Any | None = None


class ServedModel(ReportPart):
    """The model."""

    name: str


class Parallelism(ReportPart):
    """How one replica is spread over accelerators."""

    tp: Annotated[int, Field(ge=0)] = 1
    dp: Annotated[int, Field(ge=0)] = 1
    dp_local: Annotated[int, Field(ge=0)] = 1
    workers: Annotated[int, Field(ge=0)] = 1
    ep: Annotated[int, Field(ge=1)] = 1
    pp: Annotated[int, Field(ge=1)] = 1


class Accelerator(ReportPart):
    """What one replica runs on."""

    model: str
    count: _Amount
    parallelism: Parallelism


class InferenceEngine(ReportPart):
    """An engine, or several that are alike."""

    kind: Literal["inference_engine"]
    tool: str
    tool_version: str
    role: Literal["replica", "prefill", "decode"]
    replicas: Annotated[int, Field(ge=1)]
    model: ServedModel
    accelerator: Accelerator


class OtherComponent(ReportPart):
    """Anything else of the stack; it may have any further key."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Literal["generic"]
    tool: str
    tool_version: str


class StackComponent(ReportPart):
    """A part of the stack."""

    metadata: ComponentMetadata
    standardized: Annotated[InferenceEngine | OtherComponent, Field(discriminator="kind")]
    native: NativeSettings


class SequenceLength(ReportPart):
    """How long sequences are, in tokens."""

    distribution: Literal["fixed", "gaussian", "uniform", "other"]
    value: Annotated[int, Field(ge=0)] | _Finite
    std_dev: _Finite | None = None
    min: _Amount | None = None
    max: Annotated[int, Field(ge=1)] | None = None


class PrefixGroups(ReportPart):
    """What prompts begin with together."""

    prefix_len: SequenceLength
    num_groups: Annotated[int, Field(ge=1)]
    num_users_per_group: Annotated[int, Field(ge=1)]
    num_prefixes: Annotated[int, Field(ge=1)]


class ReportTurns(ReportPart):
    """Conversations."""

    enabled: bool = True
    max_turns: SequenceLength | None = None


def _whole_or_endless(value: float) -> float:
    if math.isinf(value) or value.is_integer():
        return value
    raise PydanticCustomError("concurrency", "is neither a whole number nor .inf")


class StandardLoad(ReportPart):
    """What was sent, in the words that all tools share."""

    tool: str
    tool_version: str
    parallelism: Annotated[int, Field(ge=1)] = 1
    source: Literal["random", "sampled", "unknown"]
    stage: _Amount = 0
    input_seq_len: SequenceLength
    output_seq_len: SequenceLength | None = None
    prefix: PrefixGroups | None = None
    multi_turn: ReportTurns | None = None
    rate_qps: Annotated[float, Field(gt=0)] | None = None
    concurrency: (
        Annotated[int, Field(ge=1)] | Annotated[float, AfterValidator(_whole_or_endless), Field(ge=1)] | None
    ) = None


class LoadMetadata(ReportPart):
    """What a load is called."""

    schema_version: str = "0.0.1"
    cfg_id: str | None = None
    description: str | None = None


class ReportLoad(ReportPart):
    """What was sent."""

    metadata: LoadMetadata
    standardized: StandardLoad
    native: NativeSettings


class Scenario(ReportPart):
    """What was measured."""

    stack: list[StackComponent] | None = None
    load: ReportLoad | None = None


class AggregateRequests(ReportPart):
    """How many requests, and how long."""

    total: _Amount
    failures: _Amount | None = None
    incomplete: _Amount | None = None
    input_length: Quantities | None = None
    output_length: Quantities | None = None
    request_size: Sizes | None = None
    multimodal: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _possible(self) -> AggregateRequests:
        if (self.failures or 0) > self.total:
            raise PydanticCustomError("impossible", "has more failures than requests")
        return self


class AggregateLatency(ReportPart):
    """What a client waited for."""

    time_to_first_token: Times | None = None
    normalized_time_per_output_token: TokenTimes | None = None
    time_per_output_token: TokenTimes | None = None
    inter_token_latency: TokenTimes | None = None
    request_latency: Times | None = None


class AggregateThroughput(ReportPart):
    """How much came in a second."""

    input_token_rate: TokenRates | None = None
    output_token_rate: TokenRates | None = None
    total_token_rate: TokenRates | None = None
    request_rate: RequestRates | None = None
    image_rate: MediaRates | None = None
    video_rate: MediaRates | None = None
    audio_rate: MediaRates | None = None


class AggregatePerformance(ReportPart):
    """All requests together."""

    requests: AggregateRequests | None = None
    latency: AggregateLatency | None = None
    throughput: AggregateThroughput | None = None


class RequestPerformance(ReportPart):
    """What requests met."""

    aggregate: AggregatePerformance | None = None
    time_series: dict[str, Any] | None = None


class ReportResults(ReportPart):
    """What came out."""

    request_performance: RequestPerformance | None = None
    session_performance: dict[str, Any] | None = None
    observability: dict[str, Any] | None = None
    profiling: Any | None = None
    component_health: list[Any] | None = None


class BenchmarkReport(ReportPart):
    """A whole report."""

    version: str
    run: ReportRun
    scenario: Scenario | None = None
    results: ReportResults


class UsedResources(ReportPart):
    """What we write of a component's resources, below `observability.components`."""

    kv_cache_usage: Portions | None = None
    cache_hit_rate: Portions | None = None
    running_requests: Quantities | None = None
    waiting_requests: Quantities | None = None
    preemptions: Quantities | None = None
    power_consumption: Powers | None = None


def content_of(report: ReportPart) -> dict[str, Any]:
    """Return a part of a report as a file has it: without what is None, but for what stands in native settings."""
    return report.model_dump(mode="json", exclude_none=True)


def report_of(content: dict[str, Any], name: str) -> BenchmarkReport:
    """Return `content`, which the file `name` holds, as a report.

    Raises:
        UserError: it is of another version, or does not hold what a report holds; naming the field.
    """
    version = content.get("version")
    if version is None:
        raise UserError(f"{name}: version: is missing", f"give a Benchmark Report of llm-d, version {VERSION}")
    if isinstance(version, int | float):
        raise UserError(f"{name}: version: is the number {version}, and a text is wanted", "put it in quotes")
    if version not in READ_VERSIONS:
        raise UserError(
            f"{name}: version: is {str(version)!r}, and {' and '.join(READ_VERSIONS)} can be read",
            f"have llm-d-benchmark convert the results to version {VERSION}",
        )
    try:
        return BenchmarkReport.model_validate(content)
    except ValidationError as error:
        raise _told(error, name) from None


def _told(error: ValidationError, name: str) -> UserError:
    first = error.errors()[0]
    tags = ("inference_engine", "generic", "int", "float")  # of unions, as are names that are no identifiers
    path = [str(p) for p in first["loc"] if isinstance(p, int) or (p.isidentifier() and p not in tags)]
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        model = _model_at(path[:-1])
        known = (
            did_you_mean(path[-1], model.model_fields) if model is not None else f"take it out: {VERSION} forbids it"
        )
        return UserError(f"{name}: {where}: is no key of a Benchmark Report {VERSION}", known)
    if first["type"] == "missing":
        return UserError(f"{name}: {where}: is missing", f"a Benchmark Report {VERSION} has to have it: write it again")
    if first["type"] == "units":
        return UserError(f"{name}: {where}.units: {first['msg']}", "give the values in such units")
    return UserError(f"{name}: {where}: {first['msg']}", f"write what a Benchmark Report {VERSION} has there")


def _model_at(path: list[str]) -> type[BaseModel] | None:
    """Return the model of what stands at `path`; None where it isn't one of ours."""
    model: type[BaseModel] = BenchmarkReport
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return None
        found = next(_models_in(field.annotation), None)
        if found is None:
            return None
        model = found
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def dropped(content: Any, report: BenchmarkReport) -> list[str]:
    """Return the dotted names of what `content` has and `report`, which was made of it, silently lacks."""
    return list(_dropped(content, report.model_dump(exclude_unset=True), ""))


def _dropped(content: Any, kept: Any, where: str) -> Iterator[str]:
    if isinstance(content, dict) and isinstance(kept, dict):
        for name, value in content.items():
            if name in kept:
                yield from _dropped(value, kept[name], f"{where}{name}.")
            else:
                yield f"{where}{name}"
    elif isinstance(content, list) and isinstance(kept, list):
        for number, (value, other) in enumerate(zip(content, kept, strict=True)):
            yield from _dropped(value, other, f"{where}{number}.")
