"""The config's settings for online mode: arrivals, endpoints, data sets, and limits of good service."""

import itertools
import re
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from rollout_bench.contracts.fields import Count, Folder, Name, Number, Strict, absent, brackets, one_or_several
from rollout_bench.contracts.load import (
    OUTPUT_LENGTHS,
    ROTATING,
    DatasetFormat,
    Duration,
    EndpointSpec,
    LoadPoint,
    Rate,
    Traffic,
)
from rollout_bench.core.secrets import looks_secret, may_be_secret

Milliseconds = Annotated[Number, Field(gt=0, le=1e9)]


def _above_v1(address: str) -> str:
    return re.sub(r"(/v1)?(/chat)?(/completions|/models)?/?$", "", address, flags=re.IGNORECASE)


def _url(value: str) -> str:
    if "@" in value:  # first, and without the value: it may hold a secret
        raise ValueError(
            "holds a user or password: put the key into an environment variable and name it in api_key_env"
        )
    if "?" in value or "#" in value:
        raise ValueError("has a query or a fragment: end the address with /v1")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"\s", value):
        is_bare = re.fullmatch(r"([\w.-]+:[1-9]\d*|\[[\da-f:]+\]:[1-9]\d*|localhost)(/[\w./-]*)?", value)
        meant = f"http://{_above_v1(value)}/v1" if is_bare else "http://HOST:PORT/v1 or https://HOST/v1"
        raise ValueError(f"{value!r} is no address: write {meant}")
    if not parts.path.rstrip("/").endswith("/v1"):
        above = _above_v1(value)
        raise ValueError(f"{value!r} does not end in /v1: did you mean {above}/v1?")
    return value.rstrip("/")


_Value = TypeVar("_Value")
OneOrSeveral = Annotated[
    Annotated[_Value, Tag("one")]
    | Annotated[list[_Value], BeforeValidator(brackets), Field(max_length=1000), Tag("several")],
    Discriminator(one_or_several),
]
"""A value for all loads of a launch, or a list with one for each of them."""

PACING = ("concurrency", "request_rate", "duration_s", "requests")


class OnlineLoad(Traffic):
    """Arrival of requests at a server: `concurrency`, `request_rate` or both, under one load or several."""

    concurrency: OneOrSeveral[Count | None] = Field(
        None,
        description=(
            "Maximum number of simultaneous requests: the next is sent when one ends. Null: no limit. A list: "
            "successive loads behind one server launch, in this order; lists of concurrency, request_rate, "
            "duration_s and requests must have the same length and are combined by position. A single value "
            "applies to all loads."
        ),
    )
    request_rate: OneOrSeveral[Rate] = Field(
        "inf",
        description=(
            "Requests sent per second, whether or not earlier ones have ended; inf: all immediately, or as soon "
            "as concurrency permits; trace: at the arrival times of the data set. A list: one for each load."
        ),
    )
    duration_s: OneOrSeveral[Duration | None] = absent(
        "Seconds during which requests are sent, at a request_rate or with a concurrency. Null: until all "
        "requests of the workload are sent. A list: one for each load."
    )
    requests: OneOrSeveral[Count | None] = absent(
        "Number of requests to send, in the order of the workload, which must have as many sequences. "
        "Null: each once, or as many as fit into duration_s. A list: one for each load."
    )
    conversations: Literal["rotating"] | None = absent(ROTATING)
    prompts_as: Literal["token_ids", "text"] = Field(
        "token_ids",
        description="token_ids: lengths are exact. text: decoded first, for servers that accept only text; flagged.",
    )

    @property
    def as_text(self) -> bool:
        """Whether prompts are sent as text; messages of a chat always are."""
        return self.prompts_as == "text" or self.api == "chat"

    @property
    def points(self) -> tuple[LoadPoint, ...]:
        """The loads that are measured one after the other, numbered unless they rise."""
        pacing = {key: getattr(self, key) for key in PACING}
        count = max(self._load_counts.values(), default=1)
        points = [
            LoadPoint(
                **{key: value[place] if key in self._load_counts else value for key, value in pacing.items()},
                conversations=self.conversations,
            )
            for place in range(count)
        ]
        if all(a.weight < b.weight for a, b in itertools.pairwise(points)):
            return tuple(points)
        return tuple(point.model_copy(update={"stage": number}) for number, point in enumerate(points, 1))

    @property
    def _load_counts(self) -> dict[str, int]:
        """Number of loads in each key that is a list."""
        return {key: len(value) for key in PACING if isinstance(value := getattr(self, key), list)}

    @property
    def _one_for_all(self) -> str:
        """A number of requests for all loads, in words; empty if there is no list of them."""
        known = [count for count in self.requests if count] if isinstance(self.requests, list) else []
        return f" (requests: {max(known)})" if known else ""

    @model_validator(mode="after")
    def _check_loads(self) -> "OnlineLoad":
        lengths = " and ".join(f"{length} of {key}" for key, length in self._load_counts.items())
        if len(set(self._load_counts.values())) > 1:  # before the points, which need equal lengths
            remedy = f"write equally many values of each, or one value for all loads{self._one_for_all}"
            raise ValueError(f"has lists of different lengths, {lengths}: {remedy}")
        if [*self._load_counts] == ["requests"] and len({point.requests for point in self.points}) > 1:
            remedy = f"write one number{self._one_for_all}, or as many request_rate"
            raise ValueError(f"requests is a list, and one load is asked for: {remedy}")
        if self.burstiness != 1.0 and not any(isinstance(point.request_rate, float) for point in self.points):
            raise ValueError("burstiness needs a request_rate: set request_rate, or leave burstiness out")
        timed = [point for point in self.points if point.duration_s is not None]
        if any(point.request_rate == "inf" and point.concurrency is None for point in timed):
            raise ValueError(
                "duration_s has no effect if all requests are sent simultaneously: set request_rate or a concurrency"
            )
        if self.conversations is not None and any(point.request_rate == "trace" for point in self.points):
            raise ValueError("conversations: rotating has no trace of turns: write a request_rate, or a concurrency")
        if any(point.requests is not None for point in timed):
            raise ValueError(
                "has duration_s and requests, but each sets when sending ends: keep one, and set the other to null"
            )
        return self


class Dataset(Strict):
    """A file with lengths or prompts. Its content is part of the experiment, its path is not."""

    format: DatasetFormat
    output_lengths: Literal["workload"] | None = absent(OUTPUT_LENGTHS)
    path: Folder = Field(description="The file, relative to the folder that snakemake runs in.")


class Slo(Strict):
    """Limits of a good request, null: none; and which share of the requests must be good."""

    ttft_ms: Milliseconds | None = Field(None, description="Maximum time to the first token, in milliseconds.")
    tpot_ms: Milliseconds | None = Field(
        None, description="Maximum time per output token after the first, in milliseconds."
    )
    e2el_ms: Milliseconds | None = Field(None, description="Maximum end-to-end latency, in milliseconds.")
    attainment: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share of the requests that must meet all limits, so that a server is said to meet them at a "
        "rate (SLO attainment, as in DistServe, OSDI 2024).",
    )

    @property
    def named(self) -> dict[str, float]:
        """The set limits, in milliseconds, by name."""
        return self.model_dump(exclude={"attainment"}, exclude_none=True)


class Endpoint(EndpointSpec):
    """A running server. It is measured as it is, without starting, stopping or proving anything."""

    quant: Name = Field(
        "unknown",
        description="Name of its quantization in tables, without proof. Use the baseline's name to get speed-ups.",
    )
    model_name: Name | None = Field(
        None,
        description="Name of its model in tables; endpoints with the same name are compared. Null: its own name.",
    )

    _address = field_validator("url")(_url)

    @model_validator(mode="after")
    def _no_secrets(self) -> "Endpoint":
        for name, value in self.headers.items():
            filled, variables = re.subn(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", "", value)
            rows = {
                f"{name!r} is not a header name": not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name),
                f"{name} has a ${{ that begins no variable: write ${{VARIABLE}}": "${" in filled,
                f"{name} has a $ before a name, which is sent as it is: write ${{VARIABLE}}": re.search(
                    r"\$\w", filled
                ),
                f"{name} may be a secret: put it into a variable and write ${{VARIABLE}}": not variables
                and may_be_secret(name, value),
            }
            for problem in (problem for problem, holds in rows.items() if holds):
                raise ValueError(f"headers: {problem}")
        if looks_secret(self.model):
            raise ValueError("model: may be a secret: write the model's name there")
        return self
